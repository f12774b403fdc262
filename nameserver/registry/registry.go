package registry

import (
	"maps"
	"net/netip"
	"slices"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// Registry is one peer's replica of all names.
type Registry struct {
	name   peer.Name
	life   Life
	seq    uint64 // of the last own change
	logs   map[peer.Name]*log
	buried map[peer.Name]Life // lives of peers that went; bounded by MaxPeers
	index  *Index
}

// New makes a Registry that knows of no names.
func New(name peer.Name, uid peer.UID) *Registry {
	r := &Registry{name: name, life: Life{Epoch: 1, UID: uid}, logs: map[peer.Name]*log{}, buried: map[peer.Name]Life{}, index: newIndex()}
	r.logs[name] = &log{life: r.life}
	return r
}

// Index is for readers; it is the same for the life of the Registry.
func (r *Registry) Index() *Index { return r.index }

// Peers returns the names of the peers whose logs are held, the local one left out.
func (r *Registry) Peers() (out []peer.Name) {
	for n := range r.logs {
		if n != r.name {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, peer.Name.Compare)
	return out
}

// own is the local peer's log.
func (r *Registry) own() *log { return r.logs[r.name] }

// Add registers a name of a local container. It returns what to tell the other peers,
// or nil if the very same entry is there already.
func (r *Registry) Add(container, name string, addr netip.Addr) (gossip.Data, error) {
	if err := checkEntry(container, name, addr); err != nil {
		return nil, err
	}
	l := r.own()
	for _, e := range r.index.ByAddr(addr) {
		if e.origin == r.name && e.Name() == name && e.Container() == container {
			return nil, nil
		}
	}
	if len(l.live) >= MaxEntries {
		return nil, ErrFull
	}
	again := r.seq >= maxSeq
	if again {
		r.relive(r.life.Epoch+1, r.life.UID+1)
		l = r.own()
	}
	r.seq++
	e := newEntry(r.name, r.seq, name, container, addr)
	s := &segment{origin: r.name, life: r.life, from: r.seq - 1, to: r.seq, adds: []*Entry{e}}
	l.apply(s, r.index)
	if again {
		s = l.since(r.name, 0)
	}
	return newDelta(s), nil
}

// Remove takes local entries out; an empty container, an empty name and the zero Addr
// match any, names match in any case. It returns what to tell the other peers, or nil,
// and how many entries matched.
func (r *Registry) Remove(container, name string, addr netip.Addr) (gossip.Data, int) {
	l := r.own()
	s := &segment{origin: r.name, life: r.life, from: r.seq}
	for _, e := range l.live {
		if (container == "" || e.Container() == container) &&
			(name == "" || compareFold(e.Name(), name) == 0) && (!addr.IsValid() || e.addr == addr) {
			r.seq++
			s.dels = append(s.dels, del{r.seq, e.seq})
		}
	}
	if len(s.dels) == 0 {
		return nil, 0
	}
	s.to = r.seq
	l.apply(s, r.index)
	return newDelta(s), len(s.dels)
}

// Gone forgets a peer that is not reachable any more, with its names.
func (r *Registry) Gone(p peer.Name) {
	l := r.logs[p]
	if l == nil || p == r.name {
		return
	}
	l.clear(r.index)
	delete(r.logs, p)
	if len(r.buried) >= MaxPeers {
		for n := range r.buried { // any one: it only makes its ghost possible for a moment
			delete(r.buried, n)
			break
		}
	}
	r.buried[p] = l.life
}

// relive begins a life above that of which others may know.
func (r *Registry) relive(epoch uint64, uid peer.UID) {
	l := r.own()
	if uid == r.life.UID {
		r.life.Epoch = epoch
		l.life = r.life
		return
	}
	r.life = Life{Epoch: epoch, UID: max(uid, 1)}
	next := &log{life: r.life}
	r.seq = 0
	for _, e := range l.live {
		r.seq++ // <= e.seq
		if e.seq != r.seq {
			n := newEntry(r.name, r.seq, e.Name(), e.Container(), e.addr)
			r.index.add(n) // first: readers are to find the name at any moment
			r.index.remove(e)
			e = n
		}
		next.live = append(next.live, e)
	}
	next.known = r.seq
	r.logs[r.name] = next
}

// stamps returns how much is known of each log, sorted by name, in wire form.
func (r *Registry) stamps(kind ...byte) []byte {
	b := kind
	for _, n := range slices.SortedFunc(maps.Keys(r.logs), peer.Name.Compare) {
		b = appendStamp(b, stamp{n, r.logs[n].life, r.logs[n].known})
	}
	return b
}

// Digest sums up all that is known: a few bytes, equal for equal registries.
func (r *Registry) Digest() []byte { return sum(r.stamps()) }
