package topo

import (
	"cmp"
	"crypto/ed25519"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weave/internal/peer"
)

// Config of a Topology.
type Config struct {
	Name     peer.Name
	UID      peer.UID
	NickName string // text over MaxText is cut
	Program  string
	Port     uint16
	Key      ed25519.PrivateKey
	// Verify checks a signature; nil: ed25519.Verify.
	Verify func(key Key, msg, sig []byte) bool
}

// Topology is the set of records known here.
type Topology struct {
	cfg        Config
	local      *Record
	records    map[peer.Name]*entry // the local one included
	bytes      int                  // of connections in records; <= 2*MaxBytes, and the local and the neighbours' ones
	neighbours map[peer.Name]Neighbour
	graph      graph
	routes     *Routes // last computed

	steps    []step // the latest changes of the local record, oldest first
	lives    lives
	rivals   map[life]*Conflict // at most maxRivals
	wanted   map[peer.Name]time.Time
	newNames bucket
	sum      []byte // digest of the records; nil: unknown
	scratch  []byte
	counters Counters
}

// entry is what is kept of a peer.
type entry struct {
	rec     *Record
	mark    Mark
	updates bucket
}

// Neighbour is what the handshake proved of the peer at the other end of a
// connection.
type Neighbour struct {
	Key Key
	UID peer.UID
}

// step is one change of the local record.
type step struct {
	base    uint64 // the version before
	touched []peer.Name
}

// keepSteps is how many changes an announcement tells of: if one overtakes another
// nobody has to ask.
const keepSteps = 2

// Counters of what was left out.
type Counters struct {
	Forged  uint64 `json:"forged"`  // bad signature
	Rivals  uint64 `json:"rivals"`  // of another holder of a known name
	Limited uint64 `json:"limited"` // too many records, bytes or new names
	Hurried uint64 `json:"hurried"` // too many updates of one author
	Asked   uint64 `json:"asked"`   // changes to a version that was not known: the record was asked for
}

// New makes a Topology that knows the local peer only.
func New(cfg Config) *Topology {
	if cfg.Verify == nil {
		cfg.Verify = func(key Key, msg, sig []byte) bool { return ed25519.Verify(key[:], msg, sig) }
	}
	r := &Record{
		Name: cfg.Name, UID: cfg.UID, Version: 1, Port: cfg.Port, Key: Key(cfg.Key.Public().(ed25519.PublicKey)),
		NickName: clip(cfg.NickName), Program: clip(cfg.Program),
	}
	t := &Topology{
		cfg: cfg, records: map[peer.Name]*entry{}, neighbours: map[peer.Name]Neighbour{},
		rivals: map[life]*Conflict{}, wanted: map[peer.Name]time.Time{},
		newNames: bucket{rate: newNamesRate, burst: MaxPeers},
	}
	t.setLocal(r)
	return t
}

// clip cuts text to MaxText bytes at a character's end.
func clip(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText]
	}
	return strings.ToValidUTF8(s, "")
}

// setLocal signs and stores the local record.
func (t *Topology) setLocal(r *Record) {
	t.scratch = signed(t.scratch[:0], r)
	r.sig = [sigLen]byte(ed25519.Sign(t.cfg.Key, t.scratch))
	t.local = r
	t.store(r)
}

// store puts a record in its place; the graph is told by the caller if it had one.
func (t *Topology) store(r *Record) {
	t.sum = nil
	e := t.records[r.Name]
	if e == nil || e.rec.Key != r.Key {
		if e != nil {
			t.bytes -= len(e.rec.conns)
		}
		e = &entry{rec: r, mark: r.Key.Mark(), updates: bucket{rate: updateRate, burst: updateBurst}}
		t.records[r.Name] = e
		t.graph.stale = true
	} else {
		t.bytes -= len(e.rec.conns)
	}
	e.rec = r
	t.bytes += len(r.conns)
}

// Local returns the local peer's record.
func (t *Topology) Local() *Record { return t.local }

// Record returns a peer's record, or nil.
func (t *Topology) Record(n peer.Name) *Record {
	if e := t.records[n]; e != nil {
		return e.rec
	}
	return nil
}

// Names returns all peers that have a record, sorted.
func (t *Topology) Names() []peer.Name {
	return slices.SortedFunc(maps.Keys(t.records), peer.Name.Compare)
}

// Len is the number of records.
func (t *Topology) Len() int { return len(t.records) }

// Counters returns a copy.
func (t *Topology) Counters() Counters { return t.counters }

// SetNeighbour says who was proved to be at the other end of a new connection. A
// record with another key that was known by hearsay goes.
func (t *Topology) SetNeighbour(name peer.Name, n Neighbour) {
	t.neighbours[name] = n
	if e := t.records[name]; e != nil && e.rec.Key != n.Key {
		t.drop(name)
	}
}

// ClearNeighbour says that the connection is over.
func (t *Topology) ClearNeighbour(name peer.Name) { delete(t.neighbours, name) }

func (t *Topology) drop(name peer.Name) {
	if e := t.records[name]; e != nil {
		t.bytes -= len(e.rec.conns)
		delete(t.records, name)
		t.graph.stale, t.graph.lost, t.sum = true, true, nil
	}
}

// SetConns replaces the local peer's connections. If that changes anything the
// record has a new Version, and the Delta is to be announced.
func (t *Topology) SetConns(conns []Conn, full bool) (announce Delta) {
	conns = slices.Clone(conns)
	slices.SortFunc(conns, func(a, b Conn) int { return a.Peer.Compare(b.Peer) })
	conns = conns[:min(len(conns), MaxConns)]
	r := *t.local
	r.Full, r.count, r.conns = full, len(conns), make([]byte, 0, len(conns)*(entryFix+6))
	for _, c := range conns {
		r.conns = appendEntry(r.conns, c)
	}
	touched := diff(t.local.conns, r.conns)
	if len(touched) == 0 && r.Full == t.local.Full {
		return Delta{}
	}
	u := update{rec: &r}
	if r.Version > 1 { // else nobody was told yet
		t.steps = append(t.steps, step{r.Version, touched})
		t.steps = t.steps[max(0, len(t.steps)-keepSteps):]
		u.base = t.steps[0].base
		for _, s := range t.steps {
			u.touched = union(u.touched, s.touched)
		}
	}
	r.Version++
	t.setLocal(&r)
	t.graph.update(&r, touched)
	announce.add(u)
	return announce
}

// diff returns the peers whose entries differ, sorted.
func diff(a, b []byte) (out []peer.Name) {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = cmp.Compare(string(a[:peer.NameLen]), string(b[:peer.NameLen]))
		}
		e := a
		if order > 0 {
			e = b
		}
		name := peer.NameFromBytes([peer.NameLen]byte(e))
		if order != 0 || string(a[:entryLen(a)]) != string(b[:entryLen(b)]) {
			out = append(out, name)
		}
		if order <= 0 {
			a = a[entryLen(a):]
		}
		if order >= 0 {
			b = b[entryLen(b):]
		}
	}
	return out
}

// Unreachable returns the peers that no chain of connections joins to the local
// peer, sorted.
func (t *Topology) Unreachable() (out []peer.Name) {
	g := t.upToDate()
	reached := make([]uint64, g.words)
	search := func(start peer.Name) {
		if i, ok := g.index[start]; ok && !has(reached, i) {
			g.search(g.out, i, func(int, []uint64) bool { return true })
			for k, w := range g.visited {
				reached[k] |= w
			}
		}
	}
	search(t.local.Name)
	for n := range t.neighbours {
		search(n)
	}
	for i, n := range g.names {
		if !has(reached, i) {
			out = append(out, n)
		}
	}
	return out
}

// Collect forgets the unreachable peers and returns their names.
func (t *Topology) Collect() []peer.Name {
	gone := t.Unreachable()
	for _, n := range gone {
		t.drop(n)
	}
	return gone
}

// maxAddrs bounds the answer of Addrs.
const maxAddrs = 8

// Addrs returns where a peer may be reached, as those say that are connected to it:
// first what most of them say. The address that it dials from is taken with the
// port that it listens on.
func (t *Topology) Addrs(of peer.Name) []netip.AddrPort {
	e := t.records[of]
	if e == nil {
		return nil
	}
	witnesses := map[netip.AddrPort]int{}
	for c := range e.rec.Conns() {
		w := t.records[c.Peer]
		if w == nil || c.Peer == t.local.Name {
			continue
		}
		seen, ok := w.rec.Conn(of)
		if !ok || seen.Mark != e.mark {
			continue
		}
		at := seen.Addr
		if !seen.Outbound {
			at = netip.AddrPortFrom(at.Addr(), e.rec.Port)
		}
		if Usable(at) {
			witnesses[at]++
		}
	}
	out := slices.SortedFunc(maps.Keys(witnesses), func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(witnesses[b], witnesses[a]), a.Compare(b))
	})
	return out[:min(len(out), maxAddrs)]
}

// Usable leaves out what can't be another host's address.
func Usable(at netip.AddrPort) bool {
	a := at.Addr()
	return at.Port() != 0 && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}
