package topo

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// All agree on what can be spared, and what nobody spares is a tree that joins them.
func TestSpare(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 2 + rng.IntN(12)
		links := map[[2]int]bool{}
		for i := 1; i < n; i++ {
			links[[2]int{rng.IntN(i), i}] = true
			for range rng.IntN(4) {
				if j := rng.IntN(n); j < i {
					links[[2]int{j, i}] = true
				}
			}
		}
		var all []*Topology
		for i := range n {
			all = append(all, sees(t, i, n, links))
		}
		kept, tree := 0, map[int][]int{}
		for l := range links {
			a, b := all[l[0]].Spare(), all[l[1]].Spare()
			of := func(s *Spare, i int) bool { return slices.Contains(s.Local(), name(i+1)) }
			if of(a, l[1]) != of(b, l[0]) {
				t.Fatalf("seed %d: the ends of %v disagree", seed, l)
			}
			if !of(a, l[1]) {
				kept++
				tree[l[0]] = append(tree[l[0]], l[1])
				tree[l[1]] = append(tree[l[1]], l[0])
			} else if !all[l[0]].ReachesWithout(name(l[1]+1)) || !all[0].Spare().Has(name(l[0]+1)) {
				t.Fatalf("seed %d: %v is spare and needed", seed, l)
			}
		}
		joined := map[int]bool{0: true}
		for queue := []int{0}; len(queue) > 0; queue = queue[1:] {
			for _, j := range tree[queue[0]] {
				if !joined[j] {
					joined[j] = true
					queue = append(queue, j)
				}
			}
		}
		if kept != n-1 || len(joined) != n {
			t.Fatalf("seed %d: %d of %d links are kept and join %d of %d peers", seed, kept, len(links), len(joined), n)
		}
	}
}

// sees makes what peer i knows of a network.
func sees(t *testing.T, i, n int, links map[[2]int]bool) *Topology {
	t.Helper()
	mine := newPeer(i+1, trusting)
	for k := range n {
		var to []int
		for l := range links {
			switch k {
			case l[0]:
				to = append(to, l[1]+1)
			case l[1]:
				to = append(to, l[0]+1)
			}
		}
		top := newPeer(k + 1)
		if k == i {
			top = mine
		}
		for _, m := range top.SetConns(conns(to...), false).Encode() {
			if k != i {
				mustStep(t, mine, k+1, m)
			}
		}
	}
	return mine
}
