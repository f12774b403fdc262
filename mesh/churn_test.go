package mesh_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"weave/mesh"
	"weave/mesh/overlay"
)

// Whatever was cut, one way or both, killed, restarted, and lost on dialing: when it
// is over all have equal views of one network again, in which broadcasts arrive
// once, and the replicated states are equal.
func TestChurn(t *testing.T) {
	rounds, first := uint64(4), uint64(0)
	if testing.Short() {
		rounds = 1
	}
	if n, err := strconv.ParseUint(os.Getenv("WEAVE_CHURN"), 10, 64); err == nil {
		rounds, first = n, rand.Uint64N(1<<32)
	}
	for seed := first; seed < first+rounds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) { churn(w, seed) })
		})
	}
}

func churn(w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	const n = 9
	ls := make([]*ledger, n+1)
	nodes := make([]*node, n+1)
	start := func(i int) {
		nodes[i] = w.start(i, discovery, psk(pskRight), targets(addrOf(1), addrOf(2)), limit(6), openLedger("ledger", &ls[i]))
	}
	for i := 1; i <= n; i++ {
		start(i)
	}
	w.run(time.Duration(rng.IntN(5000)) * time.Millisecond)
	one := func() int { return 1 + rng.IntN(n) }
	for step := range 60 {
		a, b := one(), one()
		switch rng.IntN(8) {
		case 0, 1:
			if a != b {
				w.net.Cut(addrOf(a), addrOf(b))
			}
		case 2:
			if a != b {
				w.net.CutOneWay(addrOf(a), addrOf(b))
			}
		case 3, 4:
			if a != b {
				w.net.Mend(addrOf(a), addrOf(b))
			}
		case 5:
			nodes[a].kill()
			start(a)
		case 6:
			for _, l := range nodes[a].ov.Links(nodes[b].name) {
				if !l.Closed() {
					l.Fire(overlay.Event{Up: rng.IntN(2) == 0, Reason: "test"})
				}
			}
		case 7:
			ls[a].set(fmt.Sprint("k", rng.IntN(5)), step+1) // a ledger takes 0 for nothing
		}
		w.run(time.Duration(rng.IntN(4000)) * time.Millisecond)
	}
	for i := 1; i <= n; i++ {
		for j := i + 1; j <= n; j++ {
			w.net.Mend(addrOf(i), addrOf(j))
			for _, p := range [][2]*node{{nodes[i], nodes[j]}, {nodes[j], nodes[i]}} {
				for _, l := range p[0].ov.Links(p[1].name) {
					l.Fire(overlay.Event{Up: true})
				}
			}
		}
	}
	w.settled(3*time.Minute, nodes[1:], ls[1:])
}

// settled waits until all know the same and reach each other.
func (w *world) settled(limit time.Duration, nodes []*node, ls []*ledger) {
	w.t.Helper()
	begin := time.Now()
	for {
		w.run(time.Second)
		err := reach(nodes...)
		for i, n := range nodes {
			if err == nil && mesh.TopologyDigest(n.Router) != mesh.TopologyDigest(nodes[0].Router) {
				err = fmt.Errorf("%s knows something else", n.name)
			}
			if err == nil && string(ls[i].Digest()) != string(ls[0].Digest()) {
				err = fmt.Errorf("the ledger of %s is %v, that of the first %v", n.name, ls[i].snapshot(), ls[0].snapshot())
			}
		}
		if err == nil {
			w.t.Logf("settled after %v", time.Since(begin))
			return
		}
		if time.Since(begin) > limit {
			w.t.Fatal(err)
		}
	}
}
