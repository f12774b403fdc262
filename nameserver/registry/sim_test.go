package registry

import (
	"container/heap"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// sim runs many registries in virtual time over a graph of neighbours, with the rules
// of the gossip contract: an update goes to 2·log2(n) neighbours, news are forwarded to
// as many, digests are compared every few seconds, what waits for a neighbour merges.
type sim struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Duration
	events events
	count  int
	nodes  []*node
	loss   float64 // of messages, both gossip and unicast
	delay  func() time.Duration
	bytes  int
	msgs   int
}

type node struct {
	*Registry
	id    int
	up    bool
	links map[int]*link
	heard map[string]time.Duration // when a name was first seen here
}

// link is one direction between neighbours: a queue of one Data.
type link struct {
	wait gossip.Data
	busy bool
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	o := *e
	x := o[len(o)-1]
	*e = o[:len(o)-1]
	return x
}

func simName(i int) peer.Name {
	return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i + 1)})
}

const digestEvery = 2 * time.Second

// newSim joins n nodes: each with degree random others, or all with all if degree is 0.
func newSim(t testing.TB, seed uint64, n, degree int) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	s.delay = func() time.Duration { return time.Millisecond + time.Duration(s.rng.Int64N(int64(4*time.Millisecond))) }
	for i := range n {
		s.nodes = append(s.nodes, &node{id: i, links: map[int]*link{}})
		s.start(i)
		s.tick(i)
	}
	for i := range n {
		if degree == 0 {
			for j := range i {
				s.join(i, j)
			}
			continue
		}
		if i > 0 {
			s.join(i, s.rng.IntN(i)) // connected
		}
		for range degree / 2 {
			if j := s.rng.IntN(n); j != i {
				s.join(i, j)
			}
		}
	}
	return s
}

// start makes a node alive with an empty registry.
func (s *sim) start(i int) {
	s.nodes[i].Registry = New(simName(i), peer.UID(s.rng.Uint64()|1))
	s.nodes[i].up = true
	s.nodes[i].heard = map[string]time.Duration{}
}

func (s *sim) at(d time.Duration, do func()) {
	s.count++
	heap.Push(&s.events, event{s.now + d, s.count, do})
}

func (s *sim) tick(i int) {
	s.at(time.Duration(s.rng.Int64N(int64(digestEvery))), func() {
		var loop func()
		loop = func() {
			if n := s.nodes[i]; n.up && len(n.links) > 0 {
				s.send(i, s.pick(i, -1, 1)[0], message(n.Digest()))
			}
			s.at(digestEvery, loop)
		}
		loop()
	})
}

// message is a digest as Data, so that it waits its turn.
type message []byte

func (m message) Encode() [][]byte                { return [][]byte{m} }
func (m message) Merge(o gossip.Data) gossip.Data { return pair{o, m} }

type pair struct{ a, b gossip.Data }

func (p pair) Encode() [][]byte { return append(p.a.Encode(), p.b.Encode()...) }
func (p pair) Merge(o gossip.Data) gossip.Data {
	if _, ok := o.(message); ok {
		return pair{p.a, o}
	}
	return pair{p.a.Merge(o), p.b}
}

func (s *sim) join(i, j int) {
	s.nodes[i].links[j], s.nodes[j].links[i] = &link{}, &link{}
	s.send(i, j, message(s.nodes[i].Digest()))
	s.send(j, i, message(s.nodes[j].Digest()))
}

func (s *sim) part(i, j int) {
	delete(s.nodes[i].links, j)
	delete(s.nodes[j].links, i)
}

// pick draws up to n neighbours of i, one of them left out.
func (s *sim) pick(i, not, n int) []int {
	var all []int
	for j := range s.nodes[i].links {
		if j != not {
			all = append(all, j)
		}
	}
	slices.Sort(all)
	s.rng.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return all[:min(n, len(all))]
}

func (s *sim) spread(i, not int, d gossip.Data) {
	for _, j := range s.pick(i, not, max(2*bits.Len(uint(len(s.nodes))), 2)) {
		s.send(i, j, d)
	}
}

// send queues d on the link, behind what is under way.
func (s *sim) send(i, j int, d gossip.Data) {
	l := s.nodes[i].links[j]
	if l == nil {
		return
	}
	if m, ok := d.(message); ok && l.wait != nil {
		l.wait = pair{l.wait, m}
	} else if l.wait == nil {
		l.wait = d
	} else if m, ok := l.wait.(message); ok {
		l.wait = pair{d, m}
	} else {
		l.wait = l.wait.Merge(d)
	}
	if !l.busy {
		l.busy = true
		s.at(0, func() { s.flush(i, j, l) })
	}
}

func (s *sim) flush(i, j int, l *link) {
	d := l.wait
	l.wait = nil
	if d == nil {
		l.busy = false
		return
	}
	later := s.delay()
	for _, m := range d.Encode() {
		if len(m) > gossip.MaxMessage {
			s.t.Fatalf("message of %d bytes", len(m))
		}
		s.msgs++
		s.bytes += len(m)
		if s.rng.Float64() < s.loss {
			continue
		}
		s.at(later, func() {
			if s.nodes[i].links[j] == l && s.nodes[j].up {
				s.deliver(i, j, m, false)
			}
		})
	}
	s.at(later, func() { s.flush(i, j, l) })
}

func (s *sim) deliver(i, j int, m []byte, unicast bool) {
	n := s.nodes[j]
	out, err := n.Step(m)
	if err != nil {
		s.t.Fatalf("node %d: %x: %v", j, m[0], err)
	}
	n.checkInvariants(s.t)
	if out.News != nil {
		s.spread(j, i, out.News)
	}
	if out.Announce != nil {
		s.spread(j, -1, out.Announce)
	}
	for _, m := range out.Messages {
		s.unicast(j, m.To, m.Body)
	}
	if out.Reply == nil {
		return
	}
	if !unicast {
		s.send(j, i, out.Reply)
		return
	}
	for _, m := range out.Reply.Encode() {
		s.unicast(j, simName(i), m)
	}
}

func (s *sim) unicast(i int, to peer.Name, m []byte) {
	for k := range s.nodes {
		if simName(k) == to && s.reaches(i)[k] && s.rng.Float64() >= s.loss {
			s.at(3*s.delay(), func() {
				if s.nodes[k].up {
					s.deliver(i, k, m, true)
				}
			})
		}
	}
}

func (s *sim) reaches(i int) map[int]bool {
	seen := map[int]bool{i: true}
	for todo := []int{i}; len(todo) > 0; todo = todo[1:] {
		for j := range s.nodes[todo[0]].links {
			if !seen[j] {
				seen[j] = true
				todo = append(todo, j)
			}
		}
	}
	return seen
}

// collect does what topology does a while after a link went: tells who is gone.
func (s *sim) collect() {
	for i, n := range s.nodes {
		if !n.up {
			continue
		}
		s.at(time.Duration(s.rng.Int64N(int64(time.Second))), func() {
			reach := s.reaches(i)
			for j := range s.nodes {
				if !reach[j] && n.up {
					n.Gone(simName(j))
				}
			}
		})
	}
}

func (s *sim) kill(i int) {
	s.nodes[i].up = false
	for j := range s.nodes[i].links {
		s.part(i, j)
	}
	s.collect()
}

func (s *sim) run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

func (s *sim) add(i int, container, name string, addr netip.Addr) {
	d, err := s.nodes[i].Add(container, name, addr)
	if err != nil {
		s.t.Fatal(err)
	}
	if d != nil {
		s.spread(i, -1, d)
	}
}

func (s *sim) remove(i int, container string) {
	if d, _ := s.nodes[i].Remove(container, "", netip.Addr{}); d != nil {
		s.spread(i, -1, d)
	}
}

func dump(r *Registry) (out []string) {
	for e := range r.index.All() {
		out = append(out, fmt.Sprintf("%s %s %s %s", e.Name(), e.Addr(), e.Container(), e.Origin()))
	}
	slices.Sort(out)
	return out
}

// want is what all nodes that are up and joined should hold: the own entries of each.
func (s *sim) want() (out []string) {
	for _, n := range s.nodes {
		if n.up {
			for _, e := range n.own().live {
				out = append(out, fmt.Sprintf("%s %s %s %s", e.Name(), e.Addr(), e.Container(), e.Origin()))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (s *sim) checkEqual() {
	s.t.Helper()
	want := s.want()
	for i, n := range s.nodes {
		if !n.up {
			continue
		}
		if diff := cmp.Diff(want, dump(n.Registry)); diff != "" {
			s.t.Fatalf("node %d (-want +got):\n%.2000s", i, diff)
		}
	}
}

func (r *Registry) checkInvariants(t testing.TB) {
	total := 0
	for n, l := range r.logs {
		total += len(l.live)
		if l.floor > l.known {
			t.Fatalf("%v: floor %d above known %d", n, l.floor, l.known)
		}
		at := l.known
		for _, s := range l.ahead {
			if s.from <= at || s.to <= s.from {
				t.Fatalf("%v: known %d, ahead %v", n, l.known, l.ahead)
			}
			at = s.to
		}
	}
	if total != r.index.Len() {
		t.Fatalf("logs hold %d entries, the index %d", total, r.index.Len())
	}
	own := r.own()
	if own.known != r.seq || own.life != r.life || len(own.ahead) > 0 {
		t.Fatalf("own log: known %d of %d, life %v of %v", own.known, r.seq, own.life, r.life)
	}
}

func testAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// A name of a container that starts and stops quickly ends up the same everywhere, and
// what is gone stays gone: 10,000 changes on three peers, equal two seconds later.
func TestChurnConverges(t *testing.T) {
	s := newSim(t, 1, 3, 0)
	running := [3][]string{}
	for i := range 10000 {
		at := time.Duration(i) * 2 * time.Millisecond
		s.at(at, func() {
			n := s.rng.IntN(3)
			if len(running[n]) > 0 && s.rng.IntN(2) == 0 {
				k := s.rng.IntN(len(running[n]))
				s.remove(n, running[n][k])
				running[n] = slices.Delete(running[n], k, k+1)
				return
			}
			c := fmt.Sprintf("c%d", i)
			running[n] = append(running[n], c)
			s.add(n, c, fmt.Sprintf("web%d.weave.local.", s.rng.IntN(50)), testAddr(i))
		})
	}
	s.run(20*time.Second + 2*time.Second)
	s.checkEqual()
	if got := len(s.want()); got == 0 || got != len(running[0])+len(running[1])+len(running[2]) {
		t.Errorf("%d names are left", got)
	}
	t.Logf("%d messages, %d kB", s.msgs, s.bytes>>10)
}

// The same with messages lost: anti-entropy finds what is missing.
func TestChurnConvergesWithLoss(t *testing.T) {
	for seed := range uint64(10) {
		s := newSim(t, seed, 7, 4)
		s.loss = 0.3
		for i := range 3000 {
			s.at(time.Duration(i)*2*time.Millisecond, func() {
				n := s.rng.IntN(7)
				if s.rng.IntN(5) < 2 {
					s.remove(n, fmt.Sprintf("c%d", s.rng.IntN(40)))
				} else {
					s.add(n, fmt.Sprintf("c%d", s.rng.IntN(40)), fmt.Sprintf("n%d.weave.local.", s.rng.IntN(30)), testAddr(s.rng.IntN(2000)))
				}
			})
		}
		s.run(6 * time.Second)
		s.loss = 0
		s.run(20 * time.Second)
		s.checkEqual()
	}
}

// Peers die, return with a new UID, and the mesh parts and heals, at random, while
// names change: 30 peers.
func TestPeersLost(t *testing.T) {
	for seed := range uint64(3) {
		s := newSim(t, 100+seed, 30, 6)
		for i := range 3000 {
			s.at(time.Duration(i)*10*time.Millisecond, func() { s.misfortune(i) })
		}
		s.run(30 * time.Second)
		for i, n := range s.nodes {
			if !n.up {
				s.revive(i)
			}
			for range 2 {
				if j := s.rng.IntN(len(s.nodes)); j != i && s.nodes[j].up && s.nodes[i].links[j] == nil {
					s.join(i, j)
				}
			}
		}
		for i := 1; i < len(s.nodes); i++ { // one mesh again
			if !s.reaches(0)[i] {
				s.join(0, i)
			}
		}
		s.run(20 * time.Second)
		s.checkEqual()
	}
}

func (s *sim) revive(i int) {
	s.start(i)
	for range 3 {
		if j := s.rng.IntN(len(s.nodes)); j != i && s.nodes[j].up {
			s.join(i, j)
		}
	}
	for c := range 5 {
		s.add(i, fmt.Sprintf("r%d", c), fmt.Sprintf("back%d.weave.local.", i), testAddr(i*10+c))
	}
}

func (s *sim) misfortune(k int) {
	i := s.rng.IntN(len(s.nodes))
	n := s.nodes[i]
	switch p := s.rng.IntN(100); {
	case p < 1 && n.up:
		s.kill(i)
	case p < 4 && !n.up:
		s.revive(i)
	case p < 6 && n.up && len(n.links) > 0:
		s.part(i, s.pick(i, -1, 1)[0])
		s.collect()
	case p < 8 && n.up:
		if j := s.rng.IntN(len(s.nodes)); j != i && s.nodes[j].up && n.links[j] == nil {
			s.join(i, j)
		}
	case p < 40 && n.up:
		s.remove(i, fmt.Sprintf("c%d", s.rng.IntN(20)))
	case n.up:
		s.add(i, fmt.Sprintf("c%d", s.rng.IntN(20)), fmt.Sprintf("n%d.weave.local.", s.rng.IntN(50)), testAddr(k))
	}
}

// A mesh that parts: each side forgets the other's names within the second that the
// topology takes, and has them back after it healed.
func TestPartitionHeals(t *testing.T) {
	s := newSim(t, 5, 20, 0)
	for i := range 20 {
		for c := range 50 {
			s.add(i, fmt.Sprintf("c%d", c), fmt.Sprintf("n%d-%d.weave.local.", i, c), testAddr(i*50+c))
		}
	}
	s.run(3 * time.Second)
	s.checkEqual()
	for i := range 10 {
		for j := 10; j < 20; j++ {
			s.part(i, j)
		}
	}
	s.collect()
	s.run(2 * time.Second)
	for i, n := range s.nodes {
		for _, e := range dump(n.Registry) {
			var o int
			fmt.Sscanf(e, "n%d-", &o)
			if (o < 10) != (i < 10) {
				t.Fatalf("node %d still has %s", i, e)
			}
		}
	}
	s.remove(0, "c0") // while apart
	s.join(3, 13)
	s.run(5 * time.Second)
	s.checkEqual()
	if strings.Contains(strings.Join(dump(s.nodes[19].Registry), "\n"), "n0-0.") {
		t.Error("a name removed while apart came back")
	}
}

// A node whose life ends as another's begins: the earlier life's names go although
// nobody noticed that the peer was away.
func TestQuickRestart(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(t, seed, 5, 0)
		for c := range 20 {
			s.add(0, fmt.Sprintf("c%d", c), fmt.Sprintf("n%d.weave.local.", c), testAddr(c))
		}
		s.run(3 * time.Second)
		for j := 1; j < 5; j++ {
			s.part(0, j)
		}
		s.start(0)
		for c := range 3 {
			s.add(0, fmt.Sprintf("d%d", c), fmt.Sprintf("m%d.weave.local.", c), testAddr(c))
		}
		for j := 1; j < 5; j++ {
			s.join(0, j)
		}
		s.run(time.Second)
		s.checkEqual()
		if got := len(s.want()); got != 3 {
			t.Fatalf("seed %d: %d names, want 3", seed, got)
		}
	}
}

// 100,000 names on 50 peers: a change is seen everywhere within a second.
func TestUpdateIsSeenWithinASecond(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 50 replicas of 100,000 names")
	}
	const peers, names = 50, 2000
	s := newSim(t, 9, peers, 10)
	s.run(time.Second)
	for i, n := range s.nodes {
		for c := range names {
			k := i*names + c
			if _, err := n.Add(fmt.Sprintf("%012x", k), fmt.Sprintf("name%d.weave.local.", k), testAddr(k)); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range newDelta(n.own().since(n.name, 0)).Encode() {
			for j := range s.nodes {
				if j != i {
					s.nodes[j].Step(m)
				}
			}
		}
	}
	for i, n := range s.nodes {
		if n.index.Len() != peers*names {
			t.Fatalf("node %d has %d names", i, n.index.Len())
		}
	}
	worst := time.Duration(0)
	for k := range 20 {
		name := fmt.Sprintf("new%d.weave.local.", k)
		began := s.now
		s.add(s.rng.IntN(peers), "new", name, testAddr(1<<20+k))
		for seen := 0; seen < peers; {
			s.run(time.Millisecond)
			seen = 0
			for _, n := range s.nodes {
				seen += len(n.index.Lookup([]byte(name)))
			}
			if s.now-began > time.Second {
				t.Fatalf("%s is on %d of %d peers after a second", name, seen, peers)
			}
		}
		worst = max(worst, s.now-began)
	}
	t.Logf("slowest of 20 updates: %v of virtual time; %d messages", worst, s.msgs)
}
