// Package topo is what a peer knows of the shape of the network: which peers there
// are and who is connected to whom; and the routes that follow from it.
//
// Its one idea: each peer is the only author of its own [Record]. Records are
// versioned by their author, so merging is taking the newer one, and all peers
// that have the same records compute the same routes.
//
// # Restarts
//
// A record is newer if its Version is higher, or, at the same Version, its UID.
// A restarted peer has a new UID and starts again at a low Version; when it hears
// of its earlier self it raises its Version above it and announces itself again
// ([Topology.Merge]). So the newest life of a peer wins everywhere.
//
// # Reachability
//
// A peer that no chain of connections joins to the local peer is forgotten with
// its record ([Topology.Collect]); it comes back with its first connection.
//
// # Concurrency
//
// The package is pure; a Topology belongs to one goroutine. [Routes] are immutable.
package topo

import (
	"cmp"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"

	"weave/internal/peer"
)

// Limits of what is accepted from the network.
const (
	MaxPeers    = 4096 // records; further ones are ignored
	MaxConns    = 4096 // connections in one record
	MaxNickname = 256  // bytes
	MaxVersion  = 1 << 62
)

// Conn is one connection as the peer at one end of it sees it.
type Conn struct {
	Peer        peer.Name      // at the other end
	Addr        netip.AddrPort // the other end's TCP address
	Outbound    bool           // the author of the record dialed
	Established bool           // data may go over it
}

// Record is what a peer says of itself. It is not changed once it was made.
type Record struct {
	Name     peer.Name
	UID      peer.UID
	Version  uint64
	NickName string
	Conns    []Conn // sorted by Peer, each once
}

// newer reports whether r replaces o.
func (r *Record) newer(o *Record) bool {
	if r.Version != o.Version {
		return r.Version > o.Version
	}
	return r.UID > o.UID
}

// Topology is the set of records known here.
type Topology struct {
	local   *Record
	records map[peer.Name]*Record // the local one included
}

// New makes a Topology that knows the local peer only.
func New(name peer.Name, uid peer.UID, nick string) *Topology {
	r := &Record{Name: name, UID: uid, Version: 1, NickName: nick}
	return &Topology{local: r, records: map[peer.Name]*Record{name: r}}
}

// Local returns the local peer's record.
func (t *Topology) Local() *Record { return t.local }

// Record returns a peer's record, or nil.
func (t *Topology) Record(n peer.Name) *Record { return t.records[n] }

// Names returns all peers that have a record, sorted.
func (t *Topology) Names() []peer.Name {
	return slices.SortedFunc(maps.Keys(t.records), peer.Name.Compare)
}

// Len is the number of records.
func (t *Topology) Len() int { return len(t.records) }

// SetConns replaces the local peer's connections; it reports whether that changed
// anything, in which case the record has a new Version to be announced.
func (t *Topology) SetConns(conns []Conn) bool {
	conns = slices.Clone(conns)
	slices.SortFunc(conns, func(a, b Conn) int { return a.Peer.Compare(b.Peer) })
	if slices.Equal(conns, t.local.Conns) {
		return false
	}
	t.setLocal(t.local.Version+1, conns)
	return true
}

func (t *Topology) setLocal(version uint64, conns []Conn) {
	r := *t.local
	r.Version, r.Conns = version, conns
	t.local = &r
	t.records[r.Name] = &r
}

// Merge takes records from another peer and returns those that changed something
// here, to be forwarded. If one of them was about the local peer's earlier self,
// the local record's Version goes above it and the local record is among them.
// Records that break the limits are left out.
func (t *Topology) Merge(in []*Record) (news []*Record) {
	for _, r := range in {
		switch old := t.records[r.Name]; {
		case !r.valid():
		case r.Name == t.local.Name:
			if r.UID != t.local.UID && r.newer(t.local) || r.Version > t.local.Version {
				t.setLocal(r.Version+1, t.local.Conns)
				news = append(news, t.local)
			}
		case old == nil && len(t.records) >= MaxPeers:
		case old == nil || r.newer(old):
			t.records[r.Name] = r
			news = append(news, r)
		}
	}
	return news
}

// valid checks what the decoder cannot.
func (r *Record) valid() bool {
	if r.Name.IsZero() || r.UID == 0 || r.Version == 0 || r.Version > MaxVersion ||
		len(r.Conns) > MaxConns || len(r.NickName) > MaxNickname {
		return false
	}
	for i, c := range r.Conns {
		if c.Peer.IsZero() || c.Peer == r.Name || i > 0 && c.Peer.Compare(r.Conns[i-1].Peer) <= 0 {
			return false
		}
	}
	return true
}

// Collect forgets the peers that no chain of connections joins to the local peer
// and returns their names, sorted.
func (t *Topology) Collect() (gone []peer.Name) {
	reached := map[peer.Name]bool{t.local.Name: true}
	for queue := []*Record{t.local}; len(queue) > 0; {
		r := queue[0]
		queue = queue[1:]
		for _, c := range r.Conns {
			if !reached[c.Peer] {
				reached[c.Peer] = true
				if next := t.records[c.Peer]; next != nil {
					queue = append(queue, next)
				}
			}
		}
	}
	for n := range t.records {
		if !reached[n] {
			gone = append(gone, n)
			delete(t.records, n)
		}
	}
	slices.SortFunc(gone, peer.Name.Compare)
	return gone
}

// Stamp is the age of one record: what a digest holds of it.
type Stamp struct {
	Name    peer.Name
	UID     peer.UID
	Version uint64
}

// Stamps returns the ages of all records, sorted by name.
func (t *Topology) Stamps() []Stamp {
	out := make([]Stamp, 0, len(t.records))
	for _, r := range t.records {
		out = append(out, Stamp{r.Name, r.UID, r.Version})
	}
	slices.SortFunc(out, func(a, b Stamp) int { return a.Name.Compare(b.Name) })
	return out
}

// Compare returns the records that a peer with these stamps lacks, and whether it
// has records that are missing here. Stamps of unknown origin are harmless.
func (t *Topology) Compare(theirs []Stamp) (missing []*Record, behind bool) {
	seen := make(map[peer.Name]Stamp, len(theirs))
	for _, s := range theirs {
		seen[s.Name] = s
		r := t.records[s.Name]
		if r == nil || cmp.Or(cmp.Compare(s.Version, r.Version), cmp.Compare(s.UID, r.UID)) > 0 {
			behind = true
		}
	}
	for _, n := range t.Names() {
		r := t.records[n]
		s, ok := seen[n]
		if !ok || cmp.Or(cmp.Compare(r.Version, s.Version), cmp.Compare(r.UID, s.UID)) > 0 {
			missing = append(missing, r)
		}
	}
	return missing, behind
}

// hashSeed makes Sum useless to an attacker; it is never sent.
var hashSeed = maphash.MakeSeed()

// Sum changes when any record does; for "did anything change" within one process.
func (t *Topology) Sum() uint64 {
	var sum uint64
	for _, r := range t.records {
		sum ^= maphash.Comparable(hashSeed, Stamp{r.Name, r.UID, r.Version})
	}
	return sum
}
