package forward

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/mesh/topo"
)

// TestTreesTable: whose floods are taken when, step by step.
func TestTreesTable(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	none := peer.Name{}
	tests := []struct {
		name  string
		steps []struct {
			at     int // ms
			parent peer.Name
			want   peer.Name // whose floods are taken
			due    int
		}
	}{
		{"the first is taken at once", steps{{0, p2, p2, 0}, {10, p2, p2, 0}}},
		{"the next has to wait", steps{{0, p2, p2, 0}, {100, p3, none, 350}, {349, p3, none, 350}, {350, p3, p3, 0}}},
		{"back before it was taken", steps{{0, p2, p2, 0}, {100, p3, none, 350}, {200, p2, p2, 0}}},
		{"back after it was taken", steps{{0, p2, p2, 0}, {100, p3, none, 350}, {400, p2, none, 650}, {650, p2, p2, 0}}},
		{"another meanwhile waits no longer", steps{{0, p2, p2, 0}, {100, p3, none, 350}, {200, p4, none, 350}, {350, p4, p4, 0}}},
		{"lost, another soon", steps{{0, p2, p2, 0}, {100, none, none, 350}, {200, p3, none, 350}, {350, p3, p3, 0}}},
		{"lost, the same again", steps{{0, p2, p2, 0}, {100, none, none, 350}, {200, p2, p2, 0}}},
		{"lost, another long after", steps{{0, p2, p2, 0}, {100, none, none, 350}, {350, none, none, 0}, {360, p3, p3, 0}}},
	}
	for _, tt := range tests {
		var tr trees
		for i, s := range tt.steps {
			parents := map[peer.Name]peer.Name{p4: p4}
			if !s.parent.IsZero() {
				parents[self] = s.parent
			}
			got := tr.follow(parents, ms(s.at))
			if got[self] != s.want || got[p4] != p4 || tr.due != ms(s.due) {
				t.Errorf("%s, step %d: floods of %v taken, due %v; want %v, %d ms", tt.name, i, got[self], tr.due, s.want, s.due)
			}
			if parents[self] != s.parent {
				t.Fatalf("%s, step %d: the caller's map was changed", tt.name, i)
			}
		}
		if len(tr.all) > 2 {
			t.Errorf("%s: %d origins kept", tt.name, len(tr.all))
		}
	}
}

type steps = []struct {
	at     int
	parent peer.Name
	want   peer.Name
	due    int
}

// TestFloodsDuringChanges: switches with the routes of the production topology, each
// of which learns of changes at its own time, while links come and go at random and
// everybody floods. No flood is ever delivered twice. As soon as all know the same
// and trees have settled each is delivered everywhere.
func TestFloodsDuringChanges(t *testing.T) {
	runs := 12
	if n, err := strconv.Atoi(os.Getenv("WEAVE_FLOODS")); err == nil {
		runs = n
	}
	first := uint64(time.Now().UnixNano())
	total := floodCounts{}
	for i := range runs {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			f := newFloods(t, seed)
			f.run()
			total.add(f.counts)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%+v", total)
	if total.offTree == 0 || total.changes == 0 || total.lost == 0 {
		t.Errorf("the test proves nothing: %+v", total)
	}
}

type floodCounts struct{ floods, delivered, lost, offTree, changes int }

func (c *floodCounts) add(o floodCounts) {
	c.floods += o.floods
	c.delivered += o.delivered
	c.lost += o.lost
	c.offTree += o.offTree
	c.changes += o.changes
}

// floods is a network of switches and what is under way in it, on one goroutine.
type floods struct {
	t      *testing.T
	rng    *rand.Rand
	start  time.Time
	events floodQueue
	nodes  []*floodNode
	links  map[[2]int]time.Duration // latency
	ids    uint64
	got    map[uint64]map[int]int // deliveries by flood and node
	counts floodCounts
}

// floodNode is a switch, its topology and its port on the bridge.
type floodNode struct {
	f     *floods
	i     int
	name  peer.Name
	sw    *Switch
	topo  *topo.Topology
	conns map[int]bool
	said  map[int]time.Duration // by receiver: what was sent later may not come earlier
	timer bool
}

func (n *floodNode) FD() int                      { return -1 }
func (n *floodNode) Read(*ether.Superframe) error { return nil }
func (n *floodNode) Write(_ ether.Offload, b [][]byte) error {
	n.f.delivered(n.i, binary.BigEndian.Uint64(b[0][14:]))
	return nil
}

type floodEvent struct {
	at  time.Duration
	seq uint64
	do  func()
}

type floodQueue []floodEvent

func (q floodQueue) Len() int { return len(q) }
func (q floodQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q floodQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *floodQueue) Push(e any)   { *q = append(*q, e.(floodEvent)) }
func (q *floodQueue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

func newFloods(t *testing.T, seed uint64) *floods {
	f := &floods{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), start: time.Now(),
		links: map[[2]int]time.Duration{}, got: map[uint64]map[int]int{},
	}
	for i := range 4 + f.rng.IntN(7) {
		n := &floodNode{f: f, i: i, name: peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, byte(i + 1)}), conns: map[int]bool{}, said: map[int]time.Duration{}}
		key := ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i)))
		n.topo = topo.New(topo.Config{
			Name: n.name, UID: peer.UID(i + 1), Key: key,
			Verify: func(topo.Key, []byte, []byte) bool { return true },
		})
		var err error
		n.sw, err = New(Config{
			Local: n.name, Ports: []Port{n}, Back: []Writer{n}, Flush: func(int) {},
			Log: slog.New(slog.DiscardHandler), Start: f.start,
		})
		if err != nil {
			t.Fatal(err)
		}
		f.nodes = append(f.nodes, n)
	}
	return f
}

func (f *floods) now() time.Duration { return time.Since(f.start) }

func (f *floods) in(d time.Duration, do func()) {
	f.ids++
	heap.Push(&f.events, floodEvent{f.now() + d, f.ids, do})
}

// upTo executes all that happens until then.
func (f *floods) upTo(end time.Duration) {
	for len(f.events) > 0 && f.events[0].at <= end {
		e := heap.Pop(&f.events).(floodEvent)
		time.Sleep(e.at - f.now())
		e.do()
	}
	time.Sleep(end - f.now())
}

// ms draws a time.
func (f *floods) ms(least, most int) time.Duration {
	return time.Duration(least)*time.Millisecond + time.Duration(f.rng.Int64N(int64(most-least)*int64(time.Millisecond)))
}

func (f *floods) run() {
	for i := range f.nodes {
		f.toggle(i, (i+1)%len(f.nodes))
	}
	end := f.now()
	for range 4 {
		for range 300 { // everybody floods, links come and go
			end += f.ms(0, 12)
			if f.rng.IntN(8) == 0 {
				i, j := f.rng.IntN(len(f.nodes)), f.rng.IntN(len(f.nodes))
				f.in(end-f.now(), func() { f.toggle(i, j) })
			}
			i := f.rng.IntN(len(f.nodes))
			f.in(end-f.now(), func() { f.flood(i) })
		}
		end += 2 * time.Second // all know all, trees settle
		f.upTo(end)
		f.wantAll()
		end = f.now()
	}
	for _, n := range f.nodes {
		f.counts.offTree += int(n.sw.Stats().Drops["off_tree"])
	}
}

// toggle makes or breaks a link; its ends notice a little later.
func (f *floods) toggle(i, j int) {
	if i == j {
		return
	}
	f.counts.changes++
	k := [2]int{min(i, j), max(i, j)}
	_, up := f.links[k]
	if up {
		delete(f.links, k)
	} else {
		f.links[k] = f.ms(0, 20)
	}
	for _, e := range [][2]int{{i, j}, {j, i}} {
		f.in(f.ms(0, 30), func() {
			n := f.nodes[e[0]]
			if _, now := f.links[k]; now != up {
				n.conns[e[1]] = !up
				n.connsChanged()
			}
		})
	}
}

func (n *floodNode) connsChanged() {
	var conns []topo.Conn
	for j, up := range n.conns {
		if !up {
			n.topo.ClearNeighbour(n.f.nodes[j].name)
			continue
		}
		o := n.f.nodes[j]
		n.topo.SetNeighbour(o.name, topo.Neighbour{Key: o.topo.Local().Key, UID: o.topo.Local().UID})
		conns = append(conns, topo.Conn{
			Peer: o.name, Mark: o.topo.Local().Key.Mark(), Established: true,
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(j)}), 6783),
		})
	}
	d := n.topo.SetConns(conns, false)
	if d.IsEmpty() {
		n.routes()
		return
	}
	n.routes()
	for _, o := range n.f.nodes {
		if o != n {
			n.tell(o, d)
		}
	}
}

// tell sends news of the topology, which never overtake each other.
func (n *floodNode) tell(to *floodNode, d gossip.Data) {
	at := max(n.said[to.i], n.f.now()+n.f.ms(1, 300))
	n.said[to.i] = at
	for _, msg := range d.Encode() {
		n.f.in(at-n.f.now(), func() {
			res, err := to.topo.Step(n.name, msg, time.Now())
			if err != nil {
				n.f.t.Fatal(err)
			}
			if res.Reply != nil {
				to.tell(n, res.Reply)
			}
			for who, d := range res.Tell {
				for _, o := range n.f.nodes {
					if o.name == who {
						to.tell(o, d)
					}
				}
			}
			to.routes()
		})
	}
}

// routes gives the switch what the topology says, as package daemon does.
func (n *floodNode) routes() {
	rt := n.topo.Routes()
	snap := &Snapshot{Local: n.name, Unicast: map[peer.Name][]Hop{}, Broadcast: map[peer.Name][]Hop{}, Parent: rt.Parent}
	hops := map[peer.Name][]Hop{}
	for j, up := range n.conns {
		if up {
			to := n.f.nodes[j]
			hops[to.name] = []Hop{{to.name, floodLink{n, to}}}
		}
	}
	for dest, via := range rt.Unicast {
		if h := hops[via]; h != nil {
			snap.Unicast[dest] = h
		}
	}
	for origin, vias := range rt.Broadcast {
		for _, via := range vias {
			snap.Broadcast[origin] = append(snap.Broadcast[origin], hops[via]...)
		}
	}
	n.sw.SetRoutes(snap)
	n.settleLater()
}

// settleLater does what the switch's house goroutine does.
func (n *floodNode) settleLater() {
	if wait := n.sw.follow(); wait > 0 && !n.timer {
		n.timer = true
		n.f.in(wait, func() { n.timer = false; n.settleLater() })
	}
}

// floodLink carries frames; what is under way when a link breaks arrives.
type floodLink struct{ from, to *floodNode }

func (l floodLink) Send(_ int, rt peer.Route, sf *ether.Superframe) {
	l.carry(rt, append([]byte(nil), sf.Frame()...))
}

func (l floodLink) Relay(_ int, rt peer.Route, _ ether.Offload, bufs [][]byte) {
	l.carry(rt, append([]byte(nil), bufs[0]...))
}

func (l floodLink) carry(rt peer.Route, frame []byte) {
	f := l.from.f
	latency, ok := f.links[[2]int{min(l.from.i, l.to.i), max(l.from.i, l.to.i)}]
	if ok {
		f.in(latency+f.ms(0, 10), func() {
			l.to.sw.Receive(0, l.from.name, rt, ether.Offload{}, [][]byte{frame})
		})
	}
}

func (f *floods) flood(i int) {
	f.ids++
	f.counts.floods++
	f.got[f.ids] = map[int]int{i: 1}
	sf := ether.NewSuperframe()
	frame := binary.BigEndian.AppendUint64(frame(ether.Broadcast, ether.MAC{2, 1, 0, 0, 0, byte(i)}, ""), f.ids)
	sf.Head = ether.Headroom
	sf.Buf = append(sf.Buf[:sf.Head], frame...)
	f.nodes[i].sw.fromBridge(0, sf, ether.NewSuperframe(), int64(f.now()/time.Second))
}

func (f *floods) delivered(i int, id uint64) {
	f.counts.delivered++
	if f.got[id][i]++; f.got[id][i] > 1 {
		f.t.Fatalf("flood %d delivered %d times at node %d", id, f.got[id][i], i)
	}
}

// wantAll floods from each node of a network at rest: each of its part gets it.
func (f *floods) wantAll() {
	for id, got := range f.got {
		if len(got) < len(f.nodes) {
			f.counts.lost++
		}
		delete(f.got, id)
	}
	part := f.parts()
	first := f.ids
	for i := range f.nodes {
		f.flood(i)
	}
	f.upTo(f.now() + time.Second)
	seen := 0
	for id, got := range f.got {
		if id <= first {
			continue
		}
		seen++
		for from := range got {
			for to := range f.nodes {
				if part[from] == part[to] != (got[to] == 1) {
					f.t.Fatalf("flood %d of a network at rest: delivered at %v, links %v", id, got, f.links)
				}
			}
			break
		}
	}
	if seen != len(f.nodes) {
		f.t.Fatalf("%d floods checked", seen)
	}
}

// parts numbers the connected parts of the network.
func (f *floods) parts() []int {
	part := make([]int, len(f.nodes))
	for i := range part {
		part[i] = i
	}
	for range f.nodes {
		for k := range f.links {
			m := min(part[k[0]], part[k[1]])
			part[k[0]], part[k[1]] = m, m
		}
	}
	return part
}
