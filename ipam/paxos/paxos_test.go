package paxos_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"weave/internal/peer"
	"weave/ipam/paxos"
)

var scopeStates = flag.Int("paxos.states", 500_000, "states of the exhaustive search to visit at most")

func name(n int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, byte(n)}) }

func nodes(n, quorum int) []*paxos.Node {
	out := make([]*paxos.Node, n)
	for i := range out {
		out[i] = paxos.New(name(i+1), peer.UID(i+1), true, quorum)
	}
	return out
}

// settle lets everybody hear everybody until nothing changes.
func settle(ns ...*paxos.Node) {
	for changed := true; changed; {
		changed = false
		for _, a := range ns {
			for _, b := range ns {
				if len(a.Merge(b.Votes())) > 0 {
					changed = true
				}
			}
			if a.Think() {
				changed = true
			}
		}
	}
}

func TestAlone(t *testing.T) {
	n := nodes(1, 1)[0]
	if n.Think() || len(n.Votes()) != 0 {
		t.Error("voted before anything was proposed")
	}
	n.Propose()
	n.Think()
	v, ok := n.Decided()
	if !ok || !slices.Equal(v.Seeds, []peer.Name{name(1)}) {
		t.Errorf("decided %v, %v", v, ok)
	}
}

func TestQuorum(t *testing.T) {
	ns := nodes(3, 2)
	ns[0].Propose()
	ns[0].Think()
	if _, ok := ns[0].Decided(); ok {
		t.Fatal("decided alone")
	}
	settle(ns[0], ns[2])
	v, ok := ns[2].Decided()
	if !ok || !slices.Equal(v.Seeds, []peer.Name{name(1), name(3)}) {
		t.Errorf("decided %v, %v", v, ok)
	}
	ns[1].Propose() // late, with a ballot of its own: nothing else can be decided
	ns[1].Propose()
	settle(ns...)
	for _, n := range ns {
		if got, ok := n.Decided(); !ok || !slices.Equal(got.Seeds, v.Seeds) || got.Nonce != v.Nonce {
			t.Errorf("decided %v, %v, want %v", got, ok, v)
		}
	}
}

func TestObserverNeverVotes(t *testing.T) {
	ns := nodes(2, 2)
	o := paxos.New(name(9), 9, false, 2)
	o.Propose()
	if o.Enter() || o.Think() || len(o.Votes()) != 0 {
		t.Error("the observer votes")
	}
	ns[0].Propose()
	settle(ns[0], o)
	if _, ok := o.Decided(); ok {
		t.Fatal("decided with one elector of two")
	}
	settle(ns[0], ns[1], o)
	if v, ok := o.Decided(); !ok || len(v.Seeds) != 2 {
		t.Errorf("the observer learnt %v, %v", v, ok)
	}
}

// One that restarts, with or without its vote, is still one elector.
func TestRestartCountsOnce(t *testing.T) {
	ns := nodes(3, 2)
	ns[0].Propose()
	ns[0].Think()
	again := paxos.New(name(1), 77, true, 2)
	settle(ns[0], again)
	again.Propose()
	settle(ns[0], again)
	for _, n := range []*paxos.Node{ns[0], again} {
		if v, ok := n.Decided(); ok || len(n.Known()) != 1 {
			t.Errorf("one elector in two runs decided %v; knows %v", v, n.Known())
		}
	}
}

// A lost disk: the others remember the vote, and the elector takes it back.
func TestLostVote(t *testing.T) {
	ns := nodes(3, 2)
	ns[0].Propose()
	settle(ns[0], ns[1])
	want, ok := ns[1].Decided()
	if !ok {
		t.Fatal("not decided")
	}
	again := paxos.New(name(1), 77, true, 2)
	again.Merge(ns[1].Votes())
	again.Propose()
	settle(again, ns[2])
	if got, ok := again.Decided(); !ok || got.Nonce != want.Nonce {
		t.Errorf("decided %v, %v after %v", got, ok, want)
	}
}

func TestInvalidVotes(t *testing.T) {
	good := paxos.Ballot{Round: 1, Name: name(1), Run: 1}
	v := paxos.Value{Seeds: []peer.Name{name(1)}}
	for what, vote := range map[string]paxos.Vote{
		"no name":                  {Promised: good},
		"round beyond all":         {Elector: name(1), Promised: paxos.Ballot{Round: paxos.MaxRound + 1}},
		"accepted, never promised": {Elector: name(1), Accepted: good, Value: v},
		"accepted nothing":         {Elector: name(1), Promised: good, Accepted: good},
	} {
		n := nodes(1, 1)[0]
		if news := n.Merge([]paxos.Vote{vote}); len(news) != 0 || len(n.Votes()) != 0 {
			t.Errorf("%s: taken over", what)
		}
	}
}

// Random histories with loss, duplication and late delivery decide one value, and
// decide once everybody is heard.
func TestRandomHistories(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		ns := nodes(3+rnd.IntN(3), 0)
		for _, n := range ns {
			n.SetQuorum(len(ns)/2 + 1)
		}
		var sent [][]paxos.Vote
		for range 60 {
			n := ns[rnd.IntN(len(ns))]
			switch {
			case rnd.IntN(8) == 0:
				n.Propose()
			case len(sent) > 0 && rnd.IntN(2) == 0:
				n.Merge(sent[rnd.IntN(len(sent))])
			default:
				n.Think()
			}
			sent = append(sent, n.Votes())
		}
		var decided []uint64
		for _, n := range ns {
			if v, ok := n.Decided(); ok {
				decided = append(decided, v.Nonce)
			}
		}
		ns[0].Propose()
		settle(ns...)
		for _, n := range ns {
			v, ok := n.Decided()
			if !ok {
				t.Fatalf("round %d: undecided after all is heard", round)
			}
			decided = append(decided, v.Nonce)
		}
		if slices.Sort(decided); decided[0] != decided[len(decided)-1] {
			t.Fatalf("round %d: decided %v", round, decided)
		}
	}
}

// scope is the knowledge of three electors and one message that may arrive late,
// twice or never. A crash changes nothing: votes are stored before they are sent.
type scope struct {
	nodes [3]*paxos.Node
	slot  *paxos.Node
}

func ballotBits(b paxos.Ballot) uint64 {
	n := b.Name.Bytes()
	return b.Round<<2 | uint64(n[5]) // round 0..3, name 0..3
}

func (s *scope) key() (k [4]uint64) {
	for i, n := range append(s.nodes[:], s.slot) {
		if n == nil {
			continue
		}
		for _, v := range n.Votes() {
			e := v.Elector.Bytes()
			bits := ballotBits(v.Promised) | ballotBits(v.Accepted)<<4 | v.Value.Nonce<<8
			for _, seed := range v.Value.Seeds {
				b := seed.Bytes()
				bits |= 1 << (10 + b[5])
			}
			k[i] |= (bits | 1<<15) << (16 * (uint(e[5]) - 1))
		}
	}
	return k
}

func (s *scope) check(t *testing.T) {
	t.Helper()
	var nonce uint64
	for _, n := range s.nodes {
		if v, ok := n.Decided(); ok {
			if nonce != 0 && nonce != v.Nonce {
				t.Fatalf("two decisions: %v", s.nodes)
			}
			nonce = v.Nonce
		}
	}
	// Whatever is hidden in a message is a decision too, if its votes make a quorum
	// together with what the electors themselves have stored.
	all := paxos.New(name(9), 9, false, 2)
	for i, n := range s.nodes {
		for _, v := range n.Votes() {
			if v.Elector == name(i+1) {
				all.Merge([]paxos.Vote{v})
			}
		}
	}
	if v, ok := all.Decided(); ok && nonce != 0 && v.Nonce != nonce {
		t.Fatalf("decided %d, and hidden %d", nonce, v.Nonce)
	}
}

func (s *scope) next(visit func(scope)) {
	for i := range s.nodes {
		with := func(f func(*paxos.Node)) {
			n := *s
			n.nodes[i] = s.nodes[i].Clone()
			f(n.nodes[i])
			visit(n)
		}
		top := uint64(0)
		for _, v := range s.nodes[i].Votes() {
			top = max(top, v.Promised.Round)
		}
		if top < 2 {
			with(func(n *paxos.Node) { n.Propose() })
		}
		with(func(n *paxos.Node) { n.Think() })
		if s.slot != nil {
			with(func(n *paxos.Node) { n.Merge(s.slot.Votes()) })
		}
		n := *s
		n.slot = s.nodes[i]
		visit(n)
	}
}

// TestSmallScope visits the states of three electors who all may propose.
func TestSmallScope(t *testing.T) {
	limit := *scopeStates
	if testing.Short() {
		limit = 50_000
	}
	var start scope
	copy(start.nodes[:], nodes(3, 2))
	seen := map[[4]uint64]bool{start.key(): true}
	queue := []scope{start}
	for len(queue) > 0 && len(seen) < limit {
		s := queue[0]
		queue = queue[1:]
		s.check(t)
		s.next(func(n scope) {
			if k := n.key(); !seen[k] {
				seen[k] = true
				queue = append(queue, n)
			}
		})
	}
	for i := range queue {
		queue[i].check(t)
	}
	t.Logf("%d states, %d of them not followed further", len(seen), len(queue))
}
