package forward

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
	"weave/internal/rawio"
)

var (
	self = name("::1")
	p2   = name("::2")
	p3   = name("::3")
	p4   = name("::4")
	macA = ether.MAC{2, 0, 0, 0, 0, 0xa}
	macB = ether.MAC{2, 0, 0, 0, 0, 0xb}
	macC = ether.MAC{2, 0, 0, 0, 0, 0xc}
)

func name(s string) peer.Name {
	n, err := peer.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

// sink is a Path that records what it was given.
type sink struct {
	mu  sync.Mutex
	got []string
}

func (k *sink) record(f string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, fmt.Sprintf(f, args...))
}

func (k *sink) Send(lane int, rt peer.Route, sf *ether.Superframe) {
	k.record("send %d %v>%v %x", lane, rt.Origin, rt.Dest, sf.Frame())
	clear(sf.Buf) // the contract lets a path overwrite the buffer
}

func (k *sink) Relay(lane int, rt peer.Route, _ ether.Offload, bufs [][]byte) {
	k.record("relay %d %v>%v %x", lane, rt.Origin, rt.Dest, slices.Concat(bufs...))
}

func (k *sink) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.got
	k.got = nil
	return g
}

// bridge is a Port over a pipe that only wakes the poller.
type bridge struct {
	mu      sync.Mutex
	in      [][]byte
	out     [][]byte
	r, w    int
	blocked chan struct{} // one token each time Read found nothing
}

func newBridge(t *testing.T) *bridge {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return &bridge{r: p[0], w: p[1], blocked: make(chan struct{}, 1024)}
}

func (b *bridge) FD() int { return b.r }

func (b *bridge) inject(frames ...[]byte) {
	b.mu.Lock()
	b.in = append(b.in, frames...)
	b.mu.Unlock()
	unix.Write(b.w, []byte{0})
}

func (b *bridge) Read(sf *ether.Superframe) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.in) == 0 {
		var x [64]byte
		unix.Read(b.r, x[:])
		select {
		case b.blocked <- struct{}{}:
		default:
		}
		return rawio.ErrWouldBlock
	}
	sf.Head = ether.Headroom
	n := copy(sf.Buf[:cap(sf.Buf)][sf.Head:], b.in[0])
	sf.Buf = sf.Buf[:sf.Head+n]
	b.in = b.in[1:]
	return nil
}

func (b *bridge) Write(_ ether.Offload, bufs [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = append(b.out, slices.Concat(bufs...))
	return nil
}

func frame(dst, src ether.MAC, body string) []byte {
	f := append(append(slices.Clone(dst[:]), src[:]...), 0x08, 0x00)
	return append(f, body...)
}

func newSwitch(t *testing.T, b *bridge, onMAC func(MACEvent)) *Switch {
	t.Helper()
	s, err := New(Config{
		Local: self, Ports: []Port{b}, Back: []Writer{b}, Flush: func(int) {}, OnMAC: onMAC,
		Log: slog.New(slog.DiscardHandler), Start: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// routes: p2 and p3 are neighbours, p4 is behind p3; p3 floods p4's and our
// broadcasts on nothing, p2's broadcasts go on to p3.
func routes(k2, k3 Path) *Snapshot {
	h2, h3 := Hop{p2, k2}, Hop{p3, k3}
	return &Snapshot{
		Local:     self,
		Unicast:   map[peer.Name][]Hop{p2: {h2}, p3: {h3}, p4: {h3}},
		Broadcast: map[peer.Name][]Hop{self: {h2, h3}, p2: {h3}},
		Parent:    map[peer.Name]peer.Name{p2: p2, p3: p3, p4: p3},
	}
}

func TestDecide(t *testing.T) {
	k2, k3 := &sink{}, &sink{}
	h2, h3 := Hop{p2, k2}, Hop{p3, k3}
	stp := ether.MAC{0x01, 0x80, 0xc2, 0, 0, 0}
	from := func(n, origin, dest peer.Name) Source { return Source{n, peer.Route{Origin: origin, Dest: dest}} }
	tests := []struct {
		name     string
		src      Source
		smac     ether.MAC
		dmac     ether.MAC
		want     Verdict
		noRoutes bool
	}{
		{name: "spanning tree stays", smac: macA, dmac: stp, want: Verdict{Drop: DropLinkLocal}},
		{name: "group source", smac: ether.Broadcast, dmac: macB, want: Verdict{Drop: DropBadSource}},
		{name: "zero source", dmac: macB, want: Verdict{Drop: DropBadSource}},
		{name: "broadcast from bridge", smac: macA, dmac: ether.Broadcast, want: Verdict{Flood: true, Hops: []Hop{h2, h3}}},
		{name: "unknown unicast from bridge", smac: macA, dmac: macC, want: Verdict{Flood: true, Hops: []Hop{h2, h3}}},
		{name: "nobody to flood to", smac: macA, dmac: macC, noRoutes: true, want: Verdict{Drop: DropNoPeers}},
		{name: "learns at origin, delivers, floods on", src: from(p2, p2, self), smac: macB, dmac: ether.Broadcast, want: Verdict{Deliver: true, Flood: true, Hops: []Hop{h3}}},
		{name: "known unicast goes to its peer", smac: macA, dmac: macB, want: Verdict{Dest: p2, Hops: []Hop{h2}}},
		{name: "route gone", smac: macA, dmac: macB, noRoutes: true, want: Verdict{Drop: DropNoRoute}},
		{name: "local to local", smac: macA, dmac: macA, want: Verdict{Drop: DropLocal}},
		{name: "unicast for a local MAC is delivered only", src: from(p2, p2, self), smac: macB, dmac: macA, want: Verdict{Deliver: true}},
		{name: "relayed unicast", src: from(p2, p2, p4), smac: macB, dmac: macC, want: Verdict{Dest: p4, Hops: []Hop{h3}}},
		{name: "relayed back", src: from(p3, p3, p4), smac: macB, dmac: macC, want: Verdict{Drop: DropReturned}},
		{name: "relay to nowhere", src: from(p2, p2, name("::9")), smac: macB, dmac: macC, want: Verdict{Drop: DropNoRoute}},
		{name: "our own frame came back", src: from(p2, self, self), smac: macA, dmac: macC, want: Verdict{Drop: DropLoop}},
		{name: "flood on its tree", src: from(p3, p4, peer.Name{}), smac: macC, dmac: ether.Broadcast, want: Verdict{Deliver: true, Flood: true}},
		{name: "flood off its tree", src: from(p2, p4, peer.Name{}), smac: macB, dmac: ether.Broadcast, want: Verdict{Drop: DropOffTree}},
		{name: "flood of an unknown origin", src: from(p2, name("::9"), peer.Name{}), smac: macB, dmac: ether.Broadcast, want: Verdict{Drop: DropOffTree}},
		{name: "what floods off their tree say is not learned", smac: macA, dmac: macB, want: Verdict{Dest: p2, Hops: []Hop{h2}}},
		{name: "flood for a MAC that others don't know to be elsewhere", src: from(p2, p2, peer.Name{}), smac: macB, dmac: macC, want: Verdict{Deliver: true, Flood: true, Hops: []Hop{h3}}},
		{name: "our own flood came back", src: from(p2, self, peer.Name{}), smac: macA, dmac: macC, want: Verdict{Drop: DropLoop}},
		{name: "remote spanning tree", src: from(p2, p2, self), smac: macB, dmac: stp, want: Verdict{Drop: DropLinkLocal}},
		{name: "remote group source", src: from(p2, p2, self), smac: ether.Broadcast, dmac: macA, want: Verdict{Drop: DropBadSource}},
	}
	s := newSwitch(t, newBridge(t), nil)
	for _, tt := range tests {
		s.SetRoutes(routes(k2, k3))
		if tt.noRoutes {
			s.SetRoutes(&Snapshot{Local: self})
		}
		got := s.Decide(tt.src, tt.smac, tt.dmac, 1)
		if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(Hop{}, peer.Name{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestMoves(t *testing.T) {
	tab := newMACTable()
	steps := []struct {
		owner peer.Name
		now   int64
		want  learnResult
	}{
		{p2, 0, learnNew}, {p2, 1, learnKnown},
		{self, 1, learnMoved}, {p2, 2, learnMoved}, {self, 2, learnMoved}, {p2, 3, learnMoved}, {self, 3, learnMoved},
		{p2, 4, learnHeld}, {self, 4, learnKnown}, {p2, 9, learnHeld},
		{p2, 10, learnMoved}, {p2, 10, learnKnown},
	}
	for i, st := range steps {
		if got := tab.learn(macA, st.owner, st.now); got != st.want {
			t.Errorf("step %d: learn(%v, %d) = %d, want %d", i, st.owner, st.now, got, st.want)
		}
	}
}

// TestMACTableOracle compares the table with a map under random operations.
func TestMACTableOracle(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	tab, want := newMACTable(), map[ether.MAC]peer.Name{}
	owners := []peer.Name{self, p2, p3, p4}
	for i := range 50_000 {
		m := ether.MAC{2, 0, 0, 0, byte(rng.IntN(16)), byte(rng.IntN(256))}
		o := owners[rng.IntN(len(owners))]
		switch rng.IntN(500) {
		case 0:
			tab.remove(func(e *macEntry) bool { return e.owner == o })
			for k, v := range want {
				if v == o {
					delete(want, k)
				}
			}
		default:
			if tab.learn(m, o, int64(i)*moveWindow) != learnHeld {
				want[m] = o
			}
		}
		got, ok := tab.lookup(m)
		if w, wok := want[m]; got != w || ok != wok {
			t.Fatalf("op %d: lookup(%v) = %v, %v, want %v, %v", i, m, got, ok, w, wok)
		}
	}
	n := 0
	tab.each(func(m ether.MAC, o peer.Name, _ int64) {
		n++
		if want[m] != o {
			t.Errorf("each: %v at %v, want %v", m, o, want[m])
		}
	})
	if n != len(want) || n != tab.count {
		t.Errorf("%d entries, count %d, want %d", n, tab.count, len(want))
	}
}

func TestMACTableIsBounded(t *testing.T) {
	tab := newMACTable()
	for i := range macMaxCount {
		tab.learn(macFromKey(uint64(i+1)), p2, 0)
	}
	if got := tab.learn(macFromKey(1<<40), p2, 0); got != learnFull {
		t.Errorf("learn in a full table = %d, want learnFull", got)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	s := newSwitch(t, newBridge(t), nil)
	s.SetRoutes(routes(&sink{}, &sink{}))
	s.Decide(Source{p2, peer.Route{Origin: p2, Dest: self}}, macB, macA, 0)
	s.Decide(Source{}, macA, macB, 0)
	if n := testing.AllocsPerRun(100, func() { s.Decide(Source{}, macA, macB, 1) }); n != 0 {
		t.Errorf("Decide allocates %v times", n)
	}
}

// TestSwitch moves frames through running workers: a flood reaches each neighbour
// whole although paths overwrite what they are given, an answer comes back.
func TestSwitch(t *testing.T) {
	b := newBridge(t)
	events := make(chan MACEvent, 10)
	s := newSwitch(t, b, func(e MACEvent) { events <- e })
	k2, k3 := &sink{}, &sink{}
	s.SetRoutes(routes(k2, k3))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	arp := frame(ether.Broadcast, macA, "who has B")
	b.inject(arp)
	if e := <-events; e != (MACEvent{macA, self}) {
		t.Errorf("event %v, want A local", e)
	}
	waitFor(t, func() bool { return len(k3.got) > 0 }, &k3.mu)
	for _, c := range []struct {
		k *sink
		p peer.Name
	}{{k2, p2}, {k3, p3}} {
		want := []string{fmt.Sprintf("send 0 %v>%v %x", self, peer.Name{}, arp)}
		if d := cmp.Diff(want, c.k.take()); d != "" {
			t.Errorf("flood to %v (-want +got):\n%s", c.p, d)
		}
	}

	reply := frame(macA, macB, "here")
	s.Receive(0, p3, peer.Route{Origin: p4, Dest: self}, ether.Offload{}, [][]byte{reply[:14], reply[14:]})
	if e := <-events; e != (MACEvent{macB, p4}) {
		t.Errorf("event %v, want B at p4", e)
	}
	if d := cmp.Diff([][]byte{reply}, b.out); d != "" {
		t.Errorf("delivered (-want +got):\n%s", d)
	}
	s.ForgetPeer(p4)
	if e := <-events; e != (MACEvent{MAC: macB}) {
		t.Errorf("event %v, want B forgotten", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// waitFor polls cond, bounded; the worker runs on its own thread.
func waitFor(t *testing.T, cond func() bool, mu sync.Locker) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		mu.Lock()
		ok := cond()
		mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("condition not reached")
		}
		time.Sleep(time.Millisecond)
	}
}

// tight is a Path that carries nothing: each frame is too big for it.
type tight struct{ s *Switch }

func (k *tight) Send(lane int, rt peer.Route, sf *ether.Superframe) {
	k.s.TooBig(lane, rt, sf.Frame(), 1280)
	clear(sf.Frame())
}

func (k *tight) Relay(lane int, rt peer.Route, off ether.Offload, bufs [][]byte) {
	k.s.TooBig(lane, rt, slices.Concat(bufs...), 1280)
}

// ipFrame is an IPv4 UDP packet with DF of 1400 bytes.
func ipFrame(dst, src ether.MAC) []byte {
	return ethertest.Packet{Dst: dst, Src: src, DF: true, Payload: make([]byte, 1372)}.Frame()
}

func TestTooBigIsAnswered(t *testing.T) {
	b := newBridge(t)
	s := newSwitch(t, b, nil)
	k2, k3 := &tight{s: s}, &sink{}
	s.SetRoutes(routes(k2, k3))
	s.Receive(0, p2, peer.Route{Origin: p2, Dest: self}, ether.Offload{}, [][]byte{frame(macA, macB, "here is B")})
	b.out = nil
	k3.take()

	sf := ether.NewSuperframe()
	f := ipFrame(macB, macA)
	sf.Head = ether.Headroom
	sf.Buf = sf.Buf[:sf.Head+copy(sf.Buf[sf.Head:cap(sf.Buf)], f)]
	s.fromBridge(0, sf, ether.NewSuperframe(), 0)
	if len(b.out) != 1 || ether.MAC(b.out[0][0:6]) != macA || ether.MAC(b.out[0][6:12]) != macB {
		t.Fatalf("answers on the bridge: %x, want one from B to A", b.out)
	}

	// A frame from p3 that p2 cannot take: the answer goes back to p3, as if p2's.
	s.Receive(0, p3, peer.Route{Origin: p4, Dest: p2}, ether.Offload{}, [][]byte{ipFrame(macB, macC)})
	got := k3.take()
	if want := fmt.Sprintf("relay 0 %v>%v %x%x", p2, p4, macC[:], macB[:]); len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("relayed answers %q, want one that starts %q", got, want)
	}
	if n := s.Stats().TooBig; n != 2 {
		t.Errorf("%d answers counted, want 2", n)
	}
}
