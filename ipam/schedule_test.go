package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/paxos"
)

// The ancestor's own bugs as schedules. Each test keeps the story of one.

// scene is a simulation that a test leads by hand; the weather is good.
type scene struct {
	*script
	t *testing.T
}

func newScene(t *testing.T, n int, prefix string, init Init) *scene {
	t.Helper()
	s := stage(t, n, prefix, init, noBug)
	t.Cleanup(func() {
		if s.failed != "" {
			t.Error(s.failed)
		}
		if t.Failed() {
			t.Log(strings.Join(s.trace, "\n"))
		}
	})
	return s
}

// stage is newScene for a scene that may fail.
func stage(t *testing.T, n int, prefix string, init Init, b bug) *scene {
	s := &scene{&script{sim: newSim(1, n, prefix, init)}, t}
	s.bug = b
	s.tracing = true
	if init.Mode == Seed && len(init.Seeds) == 0 {
		for _, h := range s.hosts {
			s.init.Seeds = append(s.init.Seeds, h.name)
		}
	}
	for _, h := range s.hosts {
		s.start(h)
	}
	s.runFor(4 * time.Second)
	return s
}

func consensus(n int) Init { return Init{Electors: n} }

// get allocates for a new container and waits for the answer.
func (s *scene) get(h *simHost, ident string) (*container, error) {
	s.t.Helper()
	c := &container{host: h, ident: ident}
	h.containers[ident] = c
	var err error
	answered := false
	s.request(h, &op{kind: opAllocate, ident: ident, prefix: s.prefix, container: true}, func(r result) {
		answered = true
		if err = r.err; err == nil {
			a, _ := addr.FromNetip(r.prefixes[0].Addr())
			s.begin(c, a)
		}
	})
	for range 60 {
		if answered {
			return c, err
		}
		s.runFor(100 * time.Millisecond)
	}
	s.t.Fatalf("%s: no answer after 6 s", ident)
	return nil, nil
}

func (s *scene) mustGet(h *simHost, ident string) *container {
	s.t.Helper()
	c, err := s.get(h, ident)
	if err != nil {
		s.t.Fatalf("%s on %s: %v", ident, h.nick, err)
	}
	return c
}

// ask makes any request and waits for the answer.
func (s *scene) ask(h *simHost, o *op) (r result) {
	s.t.Helper()
	answered := false
	s.request(h, o, func(got result) { r, answered = got, true })
	for range 100 {
		if answered {
			return r
		}
		s.runFor(100 * time.Millisecond)
	}
	s.t.Fatalf("no answer after 10 s")
	return r
}

func (s *scene) rmpeer(h *simHost, victim string) result {
	s.t.Helper()
	return s.ask(h, &op{kind: opRemove, target: victim})
}

// apart cuts all messages between two sides.
func (s *scene) apart(side ...*simHost) {
	for i, a := range s.hosts {
		for j, b := range s.hosts {
			s.cut[[2]int{i, j}] = slices.Contains(side, a) != slices.Contains(side, b)
		}
	}
	s.runFor(3 * time.Second)
}

func (s *scene) together() {
	s.heal()
	s.runFor(30 * time.Second)
}

// settled: all is as after a random schedule.
func (s *scene) settled() {
	s.t.Helper()
	s.together()
	s.checkEqual()
	s.runFor(32 * time.Second)
	s.checkLeaks()
}

func (s *scene) noted(h *simHost, k NoteKind) (out []Note) {
	for _, n := range h.notes {
		if n.Kind == k {
			out = append(out, n)
		}
	}
	return out
}

// R01 Two peers take over the same dead peer at once. The ancestor ended with one
// version, two owners, and peers that refused each other's connections for good.
func TestR01TwoReclaim(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/26", Init{Mode: Seed})
	if got := s.twoReclaim(); got == 0 {
		t.Error("nobody took anything")
	}
	if n := len(s.live); n < 14 { // all but the ends of what was taken
		t.Errorf("%d addresses in use", n)
	}
	s.settled()
}

func (s *scene) twoReclaim() (got uint64) {
	s.lose3(2)
	// So that both need what they take, they have nothing else left.
	for i, h := range s.hosts[:2] {
		h.core.space.Hold(h.core.universe)
		s.request(h, &op{kind: opRemove, target: "host3"}, func(r result) { got += r.count })
		for j := range 12 { // they use it as soon as they may
			c := &container{host: h, ident: fmt.Sprint("c", i, "-", j)}
			h.containers[c.ident] = c
			s.after(time.Duration(j)*20*time.Millisecond, func() { s.allocate(c) })
		}
	}
	s.runFor(8 * time.Second)
	for _, h := range s.hosts[:2] {
		h.core.space.Release(h.core.universe)
	}
	return got
}

func (s *scene) lose3(i int) {
	s.reboot(s.hosts[i])
	s.hosts[i].gone = true
	s.runFor(time.Second)
}

// R02 A peer gives space away, the news is lost, the receiver dies, and rmpeer runs
// on a third that has never heard of the gift.
func TestR02LostDonation(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/28", Init{Mode: Seed})
	giver, taker, third := s.hosts[0], s.hosts[1], s.hosts[2]
	s.cut[[2]int{0, 2}], s.cut[[2]int{1, 2}] = true, true // the third hears nothing
	for i := range 6 {
		s.mustGet(taker, fmt.Sprint("c", i))
	}
	s.lose3(1)
	s.cut[[2]int{0, 2}] = true
	if r := s.rmpeer(third, "host2"); r.err != nil {
		t.Fatalf("rmpeer: %v", r.err)
	}
	s.settled()
	for n := range third.core.ring.Owners(third.core.universe) {
		if n == taker.name {
			t.Errorf("the dead peer owns %v still", third.core.ring.OwnedBy(n).Ranges())
		}
	}
	_ = giver
}

// R03 A range at the end of all addresses.
func TestR03EndOfAddresses(t *testing.T) {
	s := newScene(t, 3, "255.255.255.0/26", Init{Mode: Seed})
	s.prefix = netip.MustParsePrefix("255.255.255.0/26")
	for i := range 30 {
		s.mustGet(s.hosts[i%3], fmt.Sprint("c", i))
	}
	s.settled()

	s = newScene(t, 2, "255.255.255.240/28", Init{Mode: Seed})
	for i := range 14 {
		s.mustGet(s.hosts[i%2], fmt.Sprint("c", i))
	}
	if _, err := s.get(s.hosts[0], "more"); !errors.Is(err, ErrExhausted) {
		t.Errorf("15th of 14: %v", err)
	}
	s.settled()
}

// R04 A peer restarts with an empty disk while its containers live: the ancestor
// handed their addresses out again.
func TestR04EmptyDisk(t *testing.T) {
	for _, init := range []Init{consensus(3), {Mode: Seed}} {
		s := newScene(t, 3, "10.0.0.0/26", init)
		for i := range 9 {
			s.mustGet(s.hosts[i%3], fmt.Sprint("c", i))
		}
		h := s.hosts[0]
		s.runFor(5 * time.Second)
		s.stop(h)
		h.disk = map[string][]byte{}
		s.runFor(time.Second)
		s.start(h)
		for i := range 20 {
			s.mustGet(h, fmt.Sprint("again", i))
		}
		if len(s.noted(h, NoteStale)) == 0 {
			t.Errorf("%v: the loss of the disk was not noted", init.Mode)
		}
		s.settled()
	}
}

// A host with an empty disk hands out nothing that it owned while an owner is away
// that might have been given some of it.
func TestR04Quarantine(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/28", Init{Mode: Seed})
	for i := range 3 {
		s.mustGet(s.hosts[i], fmt.Sprint("c", i))
	}
	s.runFor(5 * time.Second)
	h := s.hosts[0]
	s.stop(h)
	s.stop(s.hosts[2])
	h.disk = map[string][]byte{}
	s.start(h)
	s.runFor(6 * time.Second)
	if c := h.core; c.confirm == nil || !c.stale {
		t.Fatalf("rests: %v, stale: %v", c.confirm != nil, c.stale)
	}
	s.mustGet(h, "given") // by host2, just now: that is safe
	_, err := s.claimAt(h, "claim", addr.MustParse("10.0.0.5"))
	if !errors.Is(err, ErrWaiting) || !strings.Contains(err.Error(), "host3") {
		t.Errorf("claim of an own address: %v", err)
	}
	s.settled()
}

func (s *scene) claimAt(h *simHost, ident string, a addr.Addr) (*container, error) {
	c := &container{host: h, ident: ident}
	r := s.ask(h, &op{kind: opClaim, ident: ident, prefix: netip.PrefixFrom(a.Netip(), s.prefix.Bits()), container: true})
	if r.err == nil {
		h.containers[ident] = c
		s.begin(c, a)
	}
	return c, r.err
}

// R05 An address is freed and given out again around a crash.
func TestR05FreeAndCrash(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	h := s.hosts[0]
	for i := range 20 {
		c := s.mustGet(h, fmt.Sprint("c", i))
		s.end(c)
		delete(h.containers, c.ident)
		s.request(h, &op{kind: opFreeAll, ident: c.ident}, func(result) {})
		s.runFor(time.Duration(i) * 50 * time.Millisecond)
		s.stop(h)
		s.start(h)
	}
	s.settled()
	if len(h.core.leases) != 0 {
		t.Errorf("%d leases left", len(h.core.leases))
	}
}

// R06 Two networks that were set up apart meet. Refused on both sides, loudly, by
// name; nobody panics, loses an address or a connection; a third party without a
// ring of its own takes one of the two.
func TestR06TwoBootstraps(t *testing.T) {
	s := newScene(t, 4, "10.0.0.0/26", consensus(2))
	s.apart(s.hosts[0], s.hosts[1]) // too late: all four are one by now
	s = newScene(t, 4, "10.0.0.0/26", consensus(2))
	for _, h := range s.hosts {
		s.stop(h)
		h.disk = map[string][]byte{}
	}
	s.apart(s.hosts[0], s.hosts[1])
	for _, h := range s.hosts {
		s.start(h)
	}
	s.misuse = true // one range, two networks
	s.runFor(3 * time.Second)
	for i, h := range s.hosts {
		s.mustGet(h, fmt.Sprint("c", i))
	}
	third := s.addHost(true)
	s.heal()
	s.runFor(2 * time.Second)
	s.start(third)
	s.runFor(30 * time.Second)
	for i, h := range s.hosts[:4] {
		if len(s.noted(h, NoteConflict)) == 0 || len(h.core.conflicts) == 0 {
			t.Errorf("%s did not say that two networks met", h.nick)
		}
		for _, n := range s.noted(h, NoteConflict) {
			if !strings.Contains(n.Text, "another division") || n.Peer.IsZero() {
				t.Errorf("note %+v", n)
			}
		}
		s.mustGet(h, fmt.Sprint("d", i)) // all go on
	}
	if c, err := s.get(third, "third"); err != nil {
		t.Errorf("third party: %v, %v", c, err)
	}
}

// The same with different ranges.
func TestR06DifferentRange(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(1))
	odd := s.hosts[1]
	s.stop(odd)
	odd.disk = map[string][]byte{}
	s.prefix = netip.MustParsePrefix("10.9.0.0/26")
	s.start(odd)
	s.runFor(time.Second)
	s.mustGet(odd, "odd")
	s.prefix = netip.MustParsePrefix("10.0.0.0/26")
	s.mustGet(s.hosts[0], "even")
	s.runFor(10 * time.Second)
	for _, h := range s.hosts {
		ns := s.noted(h, NoteConflict)
		if len(ns) != 1 || !strings.Contains(ns[0].Text, "--ipalloc-range") {
			t.Errorf("%s: %+v", h.nick, ns)
		}
	}
}

// R07 Every peer is replaced, one after the other, by leaving or by dying: the space
// comes back.
func TestR07RollingReplacement(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/26", consensus(3))
	s.mustGet(s.hosts[0], "first")
	s.runFor(3 * time.Second)
	for i := range 3 {
		n := s.addHost(true)
		s.start(n)
		s.runFor(3 * time.Second)
		s.mustGet(n, fmt.Sprint("n", i))
		old := s.hosts[i]
		s.evict(old)
		if i%2 == 0 {
			r := s.ask(old, &op{kind: opShutdown})
			if r.err != nil {
				t.Fatalf("leaving: %v", r.err)
			}
			s.stop(old)
			old.gone, old.left = true, true
		} else {
			s.lose3(i)
			if r := s.rmpeer(n, old.nick); r.err != nil {
				t.Fatalf("rmpeer: %v", r.err)
			}
		}
		s.runFor(5 * time.Second)
	}
	for i := range 59 {
		s.mustGet(s.hosts[3+i%3], fmt.Sprint("x", i))
	}
	s.settled()
}

// R08 Given and automatic addresses in one range.
func TestR08StaticAndAutomatic(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/27", Init{Mode: Seed})
	for i := range 15 {
		if _, err := s.claimAt(s.hosts[i%2], fmt.Sprint("k", i), addr.MustParse("10.0.0.1").Plus(uint64(i*2))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 15 {
		s.mustGet(s.hosts[i%2], fmt.Sprint("c", i))
	}
	if _, err := s.get(s.hosts[0], "more"); !errors.Is(err, ErrExhausted) {
		t.Errorf("%v", err)
	}
	s.settled()
}

// R09 All peers see a death and all take over.
func TestR09AllReclaim(t *testing.T) {
	s := newScene(t, 6, "10.0.0.0/26", Init{Mode: Seed})
	s.lose3(5)
	for i := range 5 {
		s.request(s.hosts[i], &op{kind: opRemove, target: "host6"}, func(result) {})
	}
	for i := range 50 {
		c := &container{host: s.hosts[i%5], ident: fmt.Sprint("c", i)}
		c.host.containers[c.ident] = c
		s.allocate(c)
	}
	s.runFor(10 * time.Second)
	s.settled()
	if got := s.hosts[0].core.ring.OwnedBy(s.hosts[5].name).Size(); got != 0 {
		t.Errorf("the dead peer owns %d", got)
	}
}

// R10 A container restarts at once with its old address; R11 one that dies at once
// leaves nothing behind.
func TestR10QuickRestart(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	h := s.hosts[0]
	c := s.mustGet(h, "c")
	was := c.addr
	for range 5 {
		s.end(c)
		s.step(h, evDied{"c"})
		s.runFor(10 * time.Second)
		if c = s.mustGet(h, "c"); c.addr != was {
			t.Fatalf("%v, before %v", c.addr, was)
		}
	}
	s.settled()
}

func TestR11DiesAtOnce(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	h := s.hosts[0]
	for i := range 20 {
		c := &container{host: h, ident: fmt.Sprint("c", i)}
		h.containers[c.ident] = c
		s.allocate(c)
		s.end(c)
		delete(h.containers, c.ident)
		s.step(h, evDestroyed{c.ident})
		s.runFor(50 * time.Millisecond)
	}
	s.settled()
}

// R12 A container ends while the daemon is down.
func TestR12EndsWhileDown(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	h := s.hosts[0]
	for i := range 10 {
		s.mustGet(h, fmt.Sprint("c", i))
	}
	s.stop(h)
	s.evict(h)
	s.start(h)
	s.runFor(35 * time.Second)
	if n := len(h.core.leases); n != 0 {
		t.Errorf("%d leases of containers that are gone", n)
	}
	s.settled()
}

// R13 Clocks are ten years apart, and jump.
func TestR13Clocks(t *testing.T) {
	const year = 365 * 24 * time.Hour
	s := newScene(t, 3, "10.0.0.0/26", consensus(3))
	for i := range 20 {
		h := s.hosts[i%3]
		h.clock = []time.Duration{10 * year, -10 * year, 0, time.Hour}[i%4]
		c := s.mustGet(h, fmt.Sprint("c", i))
		if i%3 == 0 {
			s.end(c)
			s.step(h, evDied{c.ident})
		}
	}
	s.settled()
}

// R14 Two hosts with one identity, copied with its state. The mesh refuses the second
// and says so; where it cannot, because they were apart, both stop on meeting.
func TestR14Clones(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/26", consensus(3))
	for i := range 6 {
		s.mustGet(s.hosts[i%3], fmt.Sprint("c", i))
	}
	s.clone()
	s.runFor(2 * time.Second)
	twin := s.hosts[3]
	if _, err := s.get(twin, "t"); !errors.Is(err, ErrIdentity) {
		t.Errorf("on the copy: %v", err)
	}
	if len(s.noted(twin, NoteIdentity)) != 1 {
		t.Errorf("notes %v", twin.notes)
	}
	s.settled()
}

func TestR14ClonesMeet(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/26", consensus(3))
	for i := range 3 {
		s.mustGet(s.hosts[i], fmt.Sprint("c", i))
	}
	s.misuse = true
	s.apart(s.hosts[0])
	twin := s.addHost(true)
	twin.name, twin.disk = s.hosts[0].name, maps.Clone(s.hosts[0].disk)
	s.cut[[2]int{0, 3}], s.cut[[2]int{3, 0}] = true, true
	s.start(twin) // beside the others, while the original is away
	s.runFor(6 * time.Second)
	s.mustGet(twin, "t")
	clear(s.cut)
	s.cut[[2]int{0, 3}], s.cut[[2]int{3, 0}] = true, true
	s.runFor(20 * time.Second)
	if s.hosts[0].core.fenced == "" {
		t.Error("the original did not notice")
	}
	if twin.core.fenced == "" {
		t.Error("the copy did not notice")
	}
	if _, err := s.get(s.hosts[0], "x"); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "--name") {
		t.Errorf("%v", err)
	}
}

// rmpeer for a living peer that is only cut off, and it comes back: what it has in
// use is given back to it; what was handed out meanwhile is named on both sides; the
// containers, the daemons and the network go on.
func TestZombie(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/28", Init{Mode: Seed})
	zombie, taker := s.hosts[0], s.hosts[1]
	used := []*container{s.mustGet(zombie, "z1"), s.mustGet(zombie, "z2"), s.mustGet(zombie, "z3")}
	s.runFor(3 * time.Second)
	s.apart(zombie)
	s.misuse = true
	if r := s.rmpeer(taker, "host1"); r.count != 8 {
		t.Fatalf("took %d, %v", r.count, r.err)
	}
	s.runFor(5 * time.Second)
	// Of what it took, the taker uses the lowest two addresses, which the zombie has too.
	for i := range 6 {
		s.mustGet(taker, fmt.Sprint("t", i))
	}
	s.heal()
	s.runFor(30 * time.Second)
	if len(s.noted(zombie, NoteLost)) == 0 || len(s.noted(zombie, NoteRemoved)) == 0 {
		t.Errorf("the zombie noted %v", zombie.notes)
	}
	doubles, regained := 0, 0
	for _, c := range used {
		switch l := zombie.core.leases[c.addr]; {
		case l == nil:
			t.Errorf("%v was taken from a running container", c.addr)
		case l.foreign:
			doubles++
			if _, ok := zombie.core.doubles[c.addr]; !ok {
				t.Errorf("%v is in use twice and the zombie does not say so", c.addr)
			}
			if d, ok := taker.core.doubles[c.addr]; !ok || d.note.Peer != zombie.name {
				t.Errorf("%v is in use twice and the taker does not say so", c.addr)
			}
		default:
			regained++
		}
	}
	t.Logf("%d in use twice and named, %d given back", doubles, regained)
	if doubles == 0 || regained+doubles != 3 {
		t.Errorf("%d doubles, %d regained", doubles, regained)
	}
	// The end of one of the two containers ends the quarrel.
	for ident, c := range zombie.containers {
		s.end(c)
		delete(zombie.containers, ident)
		s.step(zombie, evDestroyed{ident})
	}
	s.misuse = false
	s.runFor(30 * time.Second)
	if n := len(taker.core.doubles) + len(zombie.core.doubles); n != 0 {
		t.Errorf("%d duplicates still told", n)
	}
	s.mustGet(zombie, "z4")
	s.settled()
}

// An observer brings about the election, and does not count in it.
func TestObserver(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	o := s.addHost(true)
	s.stop(s.hosts[1])
	s.start(o)
	s.runFor(time.Second)
	if got := o.core.stateText(); got != "idle" {
		t.Errorf("state %q", got)
	}
	if _, err := s.get(o, "c"); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("one elector of two: %v", err)
	}
	s.start(s.hosts[1])
	s.runFor(time.Second)
	s.mustGet(o, "c")
	if slices.Contains(o.core.ring.ID().Seeds, o.name) {
		t.Error("the observer got a share")
	}
	s.settled()
}

// Seeds allocate while they are apart, and agree when they meet; a start with
// another name leaves the old ring behind.
func TestSeedsApart(t *testing.T) {
	s := newSim(1, 3, "10.0.0.0/26", Init{Mode: Seed, Seeds: []peer.Name{simName(0), simName(1), simName(2)}})
	sc := &scene{&script{sim: s}, t}
	for _, h := range s.hosts {
		sc.apart(h)
	}
	for i := range s.hosts {
		for j := range s.hosts {
			s.cut[[2]int{i, j}] = true
		}
	}
	for _, h := range s.hosts {
		s.start(h)
	}
	for i, h := range s.hosts {
		for j := range 5 {
			sc.mustGet(h, fmt.Sprint("c", i, j))
		}
	}
	sc.settled()
	if s.failed != "" {
		t.Error(s.failed)
	}
}

// An elector that may have lost its vote with its disk asks for a ring before it
// votes again.
func TestAsksBeforeVoting(t *testing.T) {
	s := newScene(t, 3, "10.0.0.0/26", consensus(3))
	h := s.hosts[0]
	s.stop(h)
	h.disk = map[string][]byte{}
	s.start(h)
	s.step(h, evMesh{Mesh{Peers: []Peer{{Name: s.hosts[1].name, Reachable: true}}}})
	s.request(h, &op{kind: opAllocate, ident: "c", prefix: s.prefix}, func(result) {})
	stale := []paxos.Vote{{Elector: s.hosts[1].name, Promised: paxos.Ballot{Round: 1, Name: s.hosts[1].name}}}
	s.step(h, evMessage{s.hosts[2].name, &message{kind: kindState, votes: stale, rng: h.core.universe}})
	for _, v := range h.core.paxos.Votes() {
		if v.Elector == h.name {
			t.Errorf("voted %+v before the other peer answered", v)
		}
	}
	s.step(h, evMessage{s.hosts[1].name, &message{kind: kindAck, id: h.core.hello.id, run: h.core.run, parts: 1}})
	if len(h.core.paxos.Votes()) != 2 {
		t.Errorf("votes %+v after all have answered", h.core.paxos.Votes())
	}
}
