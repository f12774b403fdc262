package topo

import (
	"math/bits"
	"slices"

	"weave/internal/peer"
)

// Routes says where frames and messages go next. It is immutable. Every peer with
// the same records computes routes that fit the others'.
//
// A route is found by breadth-first search over peers in order of name: a peer is
// reached from the first of the previous level that is connected to it. The search
// from the local peer gives the unicast routes; the search from another peer gives
// the tree on which that peer's broadcasts travel, and the local peer forwards
// them to its children there. On a stable topology that is exactly once to each.
type Routes struct {
	// Unicast maps a destination to the neighbour that is next on the way.
	Unicast map[peer.Name]peer.Name
	// Broadcast maps an origin, the local peer included, to the neighbours its
	// broadcasts go on to; an origin that is missing goes nowhere.
	Broadcast map[peer.Name][]peer.Name
}

// Routes computes routes over established connections that both ends announce
// (for data), or over all connections that either end announces (for messages).
func (t *Topology) Routes(all bool) Routes {
	g := t.graph(all)
	rt := Routes{Unicast: map[peer.Name]peer.Name{}, Broadcast: map[peer.Name][]peer.Name{}}
	g.unicast(rt.Unicast)
	for origin := range g.names {
		if hops := g.broadcast(origin); len(hops) > 0 {
			rt.Broadcast[g.names[origin]] = hops
		}
	}
	return rt
}

// graph is the adjacency matrix of the peers in order of name, a row of bits each.
type graph struct {
	names []peer.Name
	local int
	words int // of a row
	adj   []uint64

	visited, frontier, next []uint64 // scratch rows
}

func (t *Topology) graph(all bool) *graph {
	g := &graph{names: t.Names()}
	n := len(g.names)
	g.words = (n + 63) / 64
	g.adj = make([]uint64, n*g.words)
	scratch := make([]uint64, 3*g.words)
	g.visited, g.frontier, g.next = scratch[:g.words], scratch[g.words:2*g.words], scratch[2*g.words:]
	index := make(map[peer.Name]int, n)
	for i, name := range g.names {
		index[name] = i
	}
	g.local = index[t.local.Name]
	for i, name := range g.names {
		for _, c := range t.records[name].Conns {
			if j, ok := index[c.Peer]; ok && (all || c.Established) {
				g.row(i)[j/64] |= 1 << (j % 64)
			}
		}
	}
	g.symmetric(all)
	return g
}

func (g *graph) row(i int) []uint64 { return g.adj[i*g.words : (i+1)*g.words] }

// symmetric makes an edge count if either end has it, or only if both have.
func (g *graph) symmetric(either bool) {
	for i := range g.names {
		for j := range i {
			ij, ji := g.row(i)[j/64]>>(j%64)&1, g.row(j)[i/64]>>(i%64)&1
			e := ij & ji
			if either {
				e = ij | ji
			}
			g.row(i)[j/64] = g.row(i)[j/64]&^(1<<(j%64)) | e<<(j%64)
			g.row(j)[i/64] = g.row(j)[i/64]&^(1<<(i%64)) | e<<(i%64)
		}
	}
}

// search walks the graph from start, breadth first and in order of name, and calls
// found with each peer and the peers that are reached from it; it ends early when
// found says so. The row is valid during the call only.
func (g *graph) search(start int, found func(from int, reached []uint64) bool) {
	clear(g.visited)
	clear(g.frontier)
	set(g.visited, start)
	set(g.frontier, start)
	reached := make([]uint64, g.words)
	for nonZero(g.frontier) {
		clear(g.next)
		for w, word := range g.frontier {
			for ; word != 0; word &= word - 1 {
				u := w*64 + bits.TrailingZeros64(word)
				row := g.row(u)
				for k := range reached {
					reached[k] = row[k] &^ g.visited[k]
					g.visited[k] |= reached[k]
					g.next[k] |= reached[k]
				}
				if !found(u, reached) {
					return
				}
			}
		}
		g.frontier, g.next = g.next, g.frontier
	}
}

func (g *graph) unicast(out map[peer.Name]peer.Name) {
	via := make([]int, len(g.names))
	g.search(g.local, func(from int, reached []uint64) bool {
		each(reached, func(v int) {
			via[v] = via[from]
			if from == g.local {
				via[v] = v
			}
			out[g.names[v]] = g.names[via[v]]
		})
		return true
	})
}

func (g *graph) broadcast(origin int) (hops []peer.Name) {
	g.search(origin, func(from int, reached []uint64) bool {
		if from != g.local {
			return true
		}
		each(reached, func(v int) { hops = append(hops, g.names[v]) })
		return false
	})
	return slices.Clip(hops)
}

func set(row []uint64, i int) { row[i/64] |= 1 << (i % 64) }

func nonZero(row []uint64) bool {
	return slices.ContainsFunc(row, func(w uint64) bool { return w != 0 })
}

func each(row []uint64, f func(i int)) {
	for w, word := range row {
		for ; word != 0; word &= word - 1 {
			f(w*64 + bits.TrailingZeros64(word))
		}
	}
}
