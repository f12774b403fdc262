package registry

import (
	"cmp"
	"hash/maphash"
	"iter"
	"net/netip"
	"sort"
	"strings"
	"sync/atomic"
)

// shardBits: 100,000 names make 24 of them a shard, so that a change copies about
// 300 bytes and no reader ever waits.
const (
	shardBits = 12
	shards    = 1 << shardBits
)

// Index finds entries by name and by address. Readers take no lock: each of its
// shards is immutable and replaced as a whole. A reader that looks at two shards may
// see a change in one and not yet in the other.
type Index struct {
	seed    maphash.Seed
	byName  [shards]atomic.Pointer[shard]
	byAddr  [shards]atomic.Pointer[shard]
	len     atomic.Int64
	parents map[string]*parent // writer only: names that have names below them
}

// shard holds the entries of some keys, sorted by hash, then by key, then by the rest.
type shard struct {
	hashes  []uint32
	entries []*Entry
}

// parent makes a name exist that has no entry of its own (an empty non-terminal):
// RFC 8020 lets resolvers take NXDOMAIN for everything below.
type parent struct {
	mark  *Entry
	below int
}

func newIndex() *Index {
	return &Index{seed: maphash.MakeSeed(), parents: map[string]*parent{}}
}

// Len is the number of entries.
func (x *Index) Len() int { return int(x.len.Load()) }

// Lookup returns the entries of a name, which is in lower case and has its final dot,
// sorted by address, IPv4 first. An Entry without an address comes before all others;
// it says that there are names below this one. The slice is shared: do not change it.
func (x *Index) Lookup(name []byte) []*Entry {
	h := maphash.Bytes(x.seed, name)
	s := x.byName[h%shards].Load()
	if s == nil {
		return nil
	}
	i := s.find(uint32(h >> 32))
	for i < len(s.hashes) && s.hashes[i] == uint32(h>>32) && compareFold(s.entries[i].Name(), name) != 0 {
		i++
	}
	j := i
	for j < len(s.hashes) && s.hashes[j] == uint32(h>>32) && compareFold(s.entries[j].Name(), name) == 0 {
		j++
	}
	return s.entries[i:j]
}

// ByAddr returns the entries of an address, sorted by name. The slice is shared.
func (x *Index) ByAddr(a netip.Addr) []*Entry {
	h := maphash.Comparable(x.seed, a)
	s := x.byAddr[h%shards].Load()
	if s == nil {
		return nil
	}
	i := s.find(uint32(h >> 32))
	for i < len(s.hashes) && s.hashes[i] == uint32(h>>32) && s.entries[i].addr != a {
		i++
	}
	j := i
	for j < len(s.hashes) && s.hashes[j] == uint32(h>>32) && s.entries[j].addr == a {
		j++
	}
	return s.entries[i:j]
}

// All yields every entry once, in no order.
func (x *Index) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range x.byName {
			s := x.byName[i].Load()
			if s == nil {
				continue
			}
			for _, e := range s.entries {
				if e.addr.IsValid() && !yield(e) {
					return
				}
			}
		}
	}
}

// find returns the first place with this hash or a higher one.
func (s *shard) find(h uint32) int {
	lo, hi := 0, len(s.hashes)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); s.hashes[mid] < h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func nameOrder(a, b *Entry) int {
	return cmp.Or(compareFold(a.Name(), b.Name()), a.addr.Compare(b.addr), sameKeyOrder(a, b))
}

func addrOrder(a, b *Entry) int {
	return cmp.Or(a.addr.Compare(b.addr), compareFold(a.Name(), b.Name()), sameKeyOrder(a, b))
}

func sameKeyOrder(a, b *Entry) int {
	return cmp.Or(a.origin.Compare(b.origin), cmp.Compare(a.seq, b.seq))
}

// place returns where e is or belongs.
func (s *shard) place(h uint32, e *Entry, order func(a, b *Entry) int) int {
	return sort.Search(len(s.hashes), func(i int) bool {
		return s.hashes[i] > h || s.hashes[i] == h && order(s.entries[i], e) >= 0
	})
}

func put(p *atomic.Pointer[shard], h uint32, e *Entry, order func(a, b *Entry) int) {
	old := p.Load()
	if old == nil {
		old = &shard{}
	}
	i, n := old.place(h, e, order), len(old.hashes)
	next := &shard{hashes: make([]uint32, n+1), entries: make([]*Entry, n+1)}
	copy(next.hashes, old.hashes[:i])
	copy(next.entries, old.entries[:i])
	next.hashes[i], next.entries[i] = h, e
	copy(next.hashes[i+1:], old.hashes[i:])
	copy(next.entries[i+1:], old.entries[i:])
	p.Store(next)
}

func cut(p *atomic.Pointer[shard], h uint32, e *Entry, order func(a, b *Entry) int) {
	old := p.Load()
	if old == nil {
		return
	}
	i, n := old.place(h, e, order), len(old.hashes)
	if i == n || old.entries[i] != e {
		return
	}
	if n == 1 {
		p.Store(nil)
		return
	}
	next := &shard{hashes: make([]uint32, n-1), entries: make([]*Entry, n-1)}
	copy(next.hashes, old.hashes[:i])
	copy(next.entries, old.entries[:i])
	copy(next.hashes[i:], old.hashes[i+1:])
	copy(next.entries[i:], old.entries[i+1:])
	p.Store(next)
}

func (x *Index) nameHash(name string) uint64 {
	var buf [MaxName]byte
	b := buf[:copy(buf[:], name)]
	for i, c := range b {
		b[i] = lower(c)
	}
	return maphash.Bytes(x.seed, b)
}

func (x *Index) add(e *Entry) {
	h, a := x.nameHash(e.Name()), maphash.Comparable(x.seed, e.addr)
	put(&x.byName[h%shards], uint32(h>>32), e, nameOrder)
	put(&x.byAddr[a%shards], uint32(a>>32), e, addrOrder)
	x.len.Add(1)
	for up := range above(e.Name()) {
		x.raise(up)
	}
}

func (x *Index) remove(e *Entry) {
	h, a := x.nameHash(e.Name()), maphash.Comparable(x.seed, e.addr)
	cut(&x.byName[h%shards], uint32(h>>32), e, nameOrder)
	cut(&x.byAddr[a%shards], uint32(a>>32), e, addrOrder)
	x.len.Add(-1)
	for up := range above(e.Name()) {
		x.lower(up)
	}
}

// above yields the names above one, the root left out.
func above(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			_, up, _ := strings.Cut(name, ".")
			if up == "" || !yield(up) {
				return
			}
			name = up
		}
	}
}

func (x *Index) raise(name string) {
	p := x.parents[name]
	if p == nil {
		p = x.parents[strings.ToLower(name)]
	}
	if p == nil {
		key := strings.ToLower(name)
		p = &parent{mark: &Entry{text: key, nameLen: uint16(len(key))}}
		x.parents[key] = p
		h := x.nameHash(key)
		put(&x.byName[h%shards], uint32(h>>32), p.mark, nameOrder)
	}
	p.below++
}

func (x *Index) lower(name string) {
	key := strings.ToLower(name)
	p := x.parents[key]
	if p == nil {
		return
	}
	if p.below--; p.below > 0 {
		return
	}
	delete(x.parents, key)
	h := x.nameHash(key)
	cut(&x.byName[h%shards], uint32(h>>32), p.mark, nameOrder)
}
