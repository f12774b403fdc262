package topo

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
)

func TestRoutes(t *testing.T) {
	// 1-2-4-5, 1-3-4: 4 is reached by 2, the first in order of name.
	edges := [][2]int{{1, 2}, {1, 3}, {2, 4}, {3, 4}, {4, 5}}
	top := world(t, 1, edges)
	got := top.Routes()
	want := map[peer.Name]peer.Name{name(2): name(2), name(3): name(3), name(4): name(2), name(5): name(2)}
	if d := cmp.Diff(want, got.Unicast, sameAs); d != "" {
		t.Errorf("unicast (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, got.Messages, sameAs); d != "" {
		t.Errorf("messages (-want +got):\n%s", d)
	}
	wantB := map[peer.Name][]peer.Name{name(1): names(2, 3), name(2): names(3), name(3): names(2)}
	if d := cmp.Diff(wantB, got.Broadcast, sameAs); d != "" {
		t.Errorf("broadcast (-want +got):\n%s", d)
	}
	if top.Routes() != got {
		t.Error("the same routes are made anew")
	}
	mustStep(t, top, 5, whole(record(5, 3, 4, 3)))
	if top.Routes() != got {
		t.Error("a connection of one end changes routes")
	}
	if top.TakeLost() {
		t.Error("something was lost")
	}
	mustStep(t, top, 2, whole(record(2, 3, 1)))
	if !top.TakeLost() || top.TakeLost() {
		t.Error("a loss isn't told of, or twice")
	}
	if r := top.Routes(); r == got || r.Unicast[name(4)] != name(3) {
		t.Errorf("routes after the loss %+v", r)
	}
}

func TestRoutesNeedBothEnds(t *testing.T) {
	top := newPeer(1, trusting)
	top.SetConns(conns(2, 3), false)
	notYet := newPeer(2, trusting)
	c := conn(1)
	c.Established = false
	notYet.SetConns([]Conn{c}, false)
	mustStep(t, top, 2, whole(notYet.local, record(3, 1)))
	if u := top.Routes().Unicast; len(u) != 0 {
		t.Errorf("data routes %v over links that one end denies", u)
	}
	if u := top.Routes().Messages; len(u) != 2 {
		t.Errorf("message routes %v, want 2", u)
	}
}

// A broadcast reaches each peer exactly once and unicasts arrive, on random
// connected graphs, from every peer's own view; also while the graph changes.
func TestBroadcastOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 30 {
		n := 2 + rng.IntN(70)
		tops := make([]*Topology, n)
		for i := range tops {
			tops[i] = newPeer(i+1, trusting)
		}
		for change := range 3 {
			adj := randomGraph(rng, n)
			for i, top := range tops {
				news := top.SetConns(conns(adj[i]...), false)
				for j, other := range tops {
					for _, m := range news.Encode() {
						if j == i {
							continue
						}
						if res := mustStep(t, other, i+1, m); res.Reply != nil {
							mustStep(t, other, i+1, whole(top.local))
						}
					}
				}
			}
			checkRoutes(t, tops, fmt.Sprintf("seed %d round %d.%d", seed, round, change))
			checkInvariants(t, tops[0])
		}
	}
}

// randomGraph returns the neighbours of peers 1 to n of a connected graph.
func randomGraph(rng *rand.Rand, n int) [][]int {
	adj := make([][]int, n)
	seen := map[[2]int]bool{}
	add := func(a, b int) {
		if a > b {
			a, b = b, a
		}
		if a != b && !seen[[2]int{a, b}] {
			seen[[2]int{a, b}] = true
			adj[a] = append(adj[a], b+1)
			adj[b] = append(adj[b], a+1)
		}
	}
	order := rng.Perm(n)
	for i := 1; i < n; i++ {
		add(order[i], order[rng.IntN(i)])
	}
	for range rng.IntN(3 * n) {
		add(rng.IntN(n), rng.IntN(n))
	}
	return adj
}

// checkRoutes walks the routes of peers 1 to len(tops).
func checkRoutes(t *testing.T, tops []*Topology, what string) {
	t.Helper()
	index := map[peer.Name]int{}
	routes := make([]*Routes, len(tops))
	for i, top := range tops {
		index[name(i+1)] = i
		routes[i] = top.Routes()
	}
	for origin := range tops {
		got := make([]int, len(tops))
		for queue := []int{origin}; len(queue) > 0; queue = queue[1:] {
			p := queue[0]
			if got[p]++; got[p] > 1 {
				break
			}
			for _, h := range routes[p].Broadcast[name(origin+1)] {
				queue = append(queue, index[h])
				if from := routes[index[h]].Parent[name(origin+1)]; from != name(p+1) {
					t.Fatalf("%s: peer %v expects %d's broadcast from %v, not %d", what, h, origin, from, p)
				}
			}
		}
		for p, times := range got {
			if times != 1 {
				t.Fatalf("%s: peer %d gets %d's broadcast %d times", what, p, origin, times)
			}
		}
		for dest := range tops {
			for at, hops := origin, 0; at != dest; hops++ {
				next, ok := index[routes[at].Unicast[name(dest+1)]]
				if !ok || hops > len(tops) || routes[at].Messages[name(dest+1)].IsZero() {
					t.Fatalf("%s: unicast %d to %d does not arrive", what, origin, dest)
				}
				at = next
			}
		}
	}
}

func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{50, 200, 500, 1000} {
		rng := rand.New(rand.NewPCG(1, 1))
		top := newPeer(1, trusting)
		proto := map[int][]int{}
		for i := 1; i <= n; i++ {
			for len(proto[i]) < min(n/2, 175) {
				j := 1 + rng.IntN(n)
				if j == i {
					continue
				}
				proto[i], proto[j] = append(proto[i], j), append(proto[j], i)
			}
		}
		for i, to := range proto {
			seen := map[int]bool{}
			var cs []Conn
			for _, j := range to {
				if !seen[j] {
					seen[j] = true
					cs = append(cs, conn(j))
				}
			}
			if i == 1 {
				top.SetConns(cs, false)
				continue
			}
			p := newPeer(i, trusting)
			p.SetConns(cs, false)
			mustStep(b, top, i, whole(p.local))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				top.Routes()
			}
		})
		b.Run(fmt.Sprint(n, "-rebuild"), func(b *testing.B) {
			for b.Loop() {
				top.graph.stale = true
				top.Routes()
			}
		})
	}
}
