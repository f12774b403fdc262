package forward

import (
	"sync"
	"sync/atomic"

	"weave/internal/ether"
	"weave/internal/peer"
)

const (
	macMaxAge   = 600   // seconds until an address nobody was heard from is forgotten
	macMaxCount = 65536 // addresses; beyond it new ones are flooded, not learned
	moveWindow  = 10    // seconds over which moves of one MAC are counted
	maxMoves    = 5     // moves within moveWindow before a MAC is held where it is
)

// macEntry says where one MAC lives. Only seen changes after it was published.
type macEntry struct {
	mac         uint64
	owner       peer.Name    // the local peer's own name: on our bridge
	seen        atomic.Int64 // seconds of the switch's clock
	windowStart int64        // first move counted
	moves       int
}

// macSlots is an open-addressed hash table with linear probing, at most half
// full. Readers need no lock: a slot only ever goes from nil to an entry or from
// an entry to another of the same MAC. Deleting means publishing a new macSlots.
type macSlots struct {
	mask  uint64
	slots []atomic.Pointer[macEntry]
}

// macTable maps MAC addresses to peers. Lookups are lock-free and allocate
// nothing; changes take mu.
type macTable struct {
	cur  atomic.Pointer[macSlots]
	free atomic.Int64 // until when addresses are not held, see repeats

	mu    sync.Mutex // serialises writers; guards count
	count int
}

func newMACTable() *macTable {
	t := &macTable{}
	t.cur.Store(newMACSlots(256))
	return t
}

func newMACSlots(n int) *macSlots {
	return &macSlots{mask: uint64(n - 1), slots: make([]atomic.Pointer[macEntry], n)}
}

func macKey(m ether.MAC) uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

func macFromKey(k uint64) ether.MAC {
	return ether.MAC{byte(k >> 40), byte(k >> 32), byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
}

// macHash mixes the key (the finaliser of splitmix64): addresses often differ in
// the last octet only.
func macHash(k uint64) uint64 {
	k ^= k >> 30
	k *= 0xbf58476d1ce4e5b9
	k ^= k >> 27
	k *= 0x94d049bb133111eb
	return k ^ k>>31
}

// find returns the entry of key, or nil and the free slot where it would go.
func (s *macSlots) find(key uint64) (*macEntry, *atomic.Pointer[macEntry]) {
	for i := macHash(key); ; i++ {
		slot := &s.slots[i&s.mask]
		e := slot.Load()
		if e == nil || e.mac == key {
			return e, slot
		}
	}
}

// lookup returns where a MAC lives; ok is false if nobody knows.
func (t *macTable) lookup(m ether.MAC) (owner peer.Name, ok bool) {
	e, _ := t.cur.Load().find(macKey(m))
	if e == nil {
		return peer.Name{}, false
	}
	return e.owner, true
}

type learnResult uint8

const (
	learnKnown learnResult = iota // already there
	learnNew                      // first sighting
	learnMoved                    // taken over from another peer
	learnHeld                     // refused: the MAC moves too often, a loop
	learnFull                     // refused: the table is full
)

// learn records that m was heard from owner at now (seconds). The common case, an
// address that stays, costs one lookup and one compare.
func (t *macTable) learn(m ether.MAC, owner peer.Name, now int64) learnResult {
	e, _ := t.cur.Load().find(macKey(m))
	if e != nil && e.owner == owner {
		if e.seen.Load() != now {
			e.seen.Store(now)
		}
		return learnKnown
	}
	return t.learnSlow(macKey(m), owner, now)
}

func (t *macTable) learnSlow(key uint64, owner peer.Name, now int64) learnResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.cur.Load()
	old, slot := s.find(key)
	if old != nil && old.owner == owner {
		return learnKnown
	}
	e := &macEntry{mac: key, owner: owner, windowStart: now}
	e.seen.Store(now)
	if old != nil {
		if now-old.windowStart < moveWindow && now >= t.free.Load() {
			if old.moves >= maxMoves {
				return learnHeld
			}
			e.windowStart, e.moves = old.windowStart, old.moves+1
		}
		slot.Store(e)
		return learnMoved
	}
	if t.count >= macMaxCount {
		return learnFull
	}
	if 2*(t.count+1) > len(s.slots) {
		s = t.rebuild(s, 2*len(s.slots), func(*macEntry) bool { return true })
		_, slot = s.find(key)
	}
	slot.Store(e)
	t.count++
	return learnNew
}

// rebuild publishes a table of n slots with the entries that keep says stay. mu is
// held.
func (t *macTable) rebuild(old *macSlots, n int, keep func(*macEntry) bool) *macSlots {
	s := newMACSlots(n)
	t.count = 0
	for i := range old.slots {
		if e := old.slots[i].Load(); e != nil && keep(e) {
			_, slot := s.find(e.mac)
			slot.Store(e)
			t.count++
		}
	}
	t.cur.Store(s)
	return s
}

// remove forgets the entries for which gone says so and returns their addresses.
func (t *macTable) remove(gone func(*macEntry) bool) []ether.MAC {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.cur.Load()
	var out []ether.MAC
	for i := range s.slots {
		if e := s.slots[i].Load(); e != nil && gone(e) {
			out = append(out, macFromKey(e.mac))
		}
	}
	if len(out) > 0 {
		t.rebuild(s, len(s.slots), func(e *macEntry) bool { return !gone(e) })
	}
	return out
}

// each calls f for every entry.
func (t *macTable) each(f func(m ether.MAC, owner peer.Name, seen int64)) {
	s := t.cur.Load()
	for i := range s.slots {
		if e := s.slots[i].Load(); e != nil {
			f(macFromKey(e.mac), e.owner, e.seen.Load())
		}
	}
}
