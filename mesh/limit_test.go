package mesh_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"weave/mesh"
)

// limitsEnv sets how many networks TestLimits tries.
//
//	WEAVE_LIMITS=1000 go test -run TestLimits -v -timeout 60m ./mesh
const limitsEnv = "WEAVE_LIMITS"

// network is what TestLimits tries: who has which targets.
type network struct {
	seed  uint64
	limit int
	lists [][]string
}

// randomNetwork gives every host some addresses, such that there is some way between any
// two hosts by addresses that somebody has.
func randomNetwork(seed uint64) network {
	rng := rand.New(rand.NewPCG(seed, 0))
	n := 3 + rng.IntN(14)
	w := network{seed: seed, limit: 2 + rng.IntN(4), lists: make([][]string, n)}
	more := rng.IntN(3)
	for i := range n {
		switch more {
		case 0: // all have all
			for j := range n {
				w.lists[i] = append(w.lists[i], addrOf(j+1))
			}
			continue
		case 1: // some
			for range rng.IntN(2 * w.limit) {
				w.lists[i] = append(w.lists[i], addrOf(1+rng.IntN(n)))
			}
		}
		if i > 0 { // one
			a, b := i, rng.IntN(i)
			if rng.IntN(2) == 0 {
				a, b = b, a
			}
			w.lists[a] = append(w.lists[a], addrOf(1+b))
		}
	}
	return w
}

func (n network) String() string {
	return fmt.Sprintf("seed %d: %d hosts, limit %d, %v", n.seed, len(n.lists), n.limit, n.lists)
}

// try reports how long it takes until all are one network. From then on it stays as it is.
func (n network) try(w *world) (took time.Duration, err error) {
	var nodes []*node
	for i, list := range n.lists {
		nodes = append(nodes, w.start(i+1, discovery, limit(n.limit), targets(list...)))
	}
	begin := time.Now()
	for {
		if err = reach(nodes...); err == nil {
			break
		}
		if time.Since(begin) > 3*time.Minute {
			return 0, err
		}
		w.run(100 * time.Millisecond)
	}
	took = time.Since(begin)
	w.run(time.Minute)
	before := terminated(nodes)
	for range 100 {
		w.run(5 * time.Second)
		if err := reach(nodes...); err != nil {
			return took, fmt.Errorf("when all had been connected: %w", err)
		}
		for _, nd := range nodes {
			if c := len(nd.Status().Peers[0].Conns); c > n.limit {
				return took, fmt.Errorf("%s has %d connections", nd.name, c)
			}
		}
	}
	for _, nd := range nodes {
		for _, c := range nd.Status().Conns {
			if c.State != mesh.StateEstablished && c.Reason != mesh.ReasonSelf && !c.Found && !c.Reached {
				return took, fmt.Errorf("fault in the status of %s: %+v", nd.name, c)
			}
		}
	}
	if after := terminated(nodes); after != before {
		return took, fmt.Errorf("at rest %d connections ended", after-before)
	}
	return took, nil
}

func terminated(nodes []*node) (sum uint64) {
	for _, n := range nodes {
		sum += n.Status().Counters.Terminated
	}
	return sum
}

// Whatever the limit and the lists of addresses, hosts that could be one network become
// one, and rest then.
func TestLimits(t *testing.T) {
	rounds, first := 10, uint64(1)
	if n, err := strconv.Atoi(os.Getenv(limitsEnv)); err == nil {
		rounds, first = n, rand.Uint64N(1<<32)
	}
	if n, err := strconv.ParseUint(os.Getenv("WEAVE_LIMITS_SEED"), 10, 64); err == nil {
		first = n
	}
	var longest time.Duration
	for i := range uint64(rounds) {
		n := randomNetwork(first + i)
		t.Run(fmt.Sprint(n.seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.quiet = os.Getenv(limitsEnv) != ""
				took, err := n.try(w)
				if err != nil {
					t.Errorf("%v: %v", n, err)
				}
				longest = max(longest, took)
			})
		})
	}
	t.Logf("%d networks, the last is one after %v", rounds, longest)
}

// Two rings, in which everybody has two connections and may have no more, become one
// network even when pressing got all that it may have on every host.
func TestPressedRings(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []string
		for i := 1; i <= 6; i++ {
			all = append(all, addrOf(i))
		}
		across := func(change func(a, b string)) {
			for i := 1; i <= 3; i++ {
				for j := 4; j <= 6; j++ {
					change(addrOf(i), addrOf(j))
				}
			}
		}
		across(w.net.Cut)
		var nodes []*node
		for i := range all {
			nodes = append(nodes, w.start(i+1, discovery, limit(2), targets(all...)))
		}
		w.run(30 * time.Second)
		for _, half := range [][]*node{nodes[:3], nodes[3:]} {
			if err := reach(half...); err != nil {
				t.Fatal(err)
			}
			for _, n := range half {
				mesh.Press(n.Router)
			}
		}
		across(w.net.Mend)
		w.run(2 * time.Minute)
		if err := reach(nodes...); err != nil {
			t.Error(err)
		}
	})
}
