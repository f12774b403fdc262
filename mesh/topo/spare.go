package topo

import (
	"cmp"
	"hash/fnv"
	"slices"

	"weave/internal/peer"
)

// Spare is which connections the network can do without, all at once: those outside a
// tree that holds it together. Peers with the same records find the same tree, so they
// may let go of connections without asking one another; a connection that joins two
// networks leaves the trees of both as they are. It is immutable.
type Spare struct {
	local []peer.Name
	has   map[peer.Name]bool
}

// Local returns the peers at the other ends of the local peer's spare connections,
// sorted.
func (s *Spare) Local() []peer.Name { return s.local }

// Has reports whether a peer has spare connections.
func (s *Spare) Has(n peer.Name) bool { return s.has[n] }

// edge is a connection of which both ends say that it is established.
type edge struct {
	hash uint64
	a, b int32
}

// Spare finds the minimum spanning tree by the hash of the names at both ends, which is
// O(n log n) for n connections.
func (t *Topology) Spare() *Spare {
	g := t.upToDate()
	var edges []edge
	for i := range g.names {
		each(g.row(g.data, i), func(j int) {
			if i < j {
				edges = append(edges, edge{PairHash(g.names[i], g.names[j]), int32(i), int32(j)})
			}
		})
	}
	slices.SortFunc(edges, func(x, y edge) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b))
	})
	part := make([]int32, len(g.names)) // of a tree: a peer of the same part, in the end one for all
	for i := range part {
		part[i] = int32(i)
	}
	root := func(i int32) int32 {
		for part[i] != i {
			part[i] = part[part[i]]
			i = part[i]
		}
		return i
	}
	out := &Spare{has: map[peer.Name]bool{}}
	local := int32(g.index[t.local.Name])
	for _, e := range edges {
		if a, b := root(e.a), root(e.b); a != b {
			part[a] = b
			continue
		}
		out.has[g.names[e.a]], out.has[g.names[e.b]] = true, true
		switch local {
		case e.a:
			out.local = append(out.local, g.names[e.b])
		case e.b:
			out.local = append(out.local, g.names[e.a])
		}
	}
	slices.SortFunc(out.local, peer.Name.Compare)
	return out
}

// ReachesWithout reports whether frames for a neighbour would find another way if the
// connection to it were not there. Other peers may count on the same ways: it is safe
// for one connection at a time.
func (t *Topology) ReachesWithout(n peer.Name) bool {
	g := t.upToDate()
	local := g.index[t.local.Name]
	to, ok := g.index[n]
	if !ok || !has(g.row(g.data, local), to) {
		return false
	}
	set(g.row(g.data, local), to, false)
	defer set(g.row(g.data, local), to, true)
	g.search(g.data, local, func(_ int, reached []uint64) bool { return !has(reached, to) })
	return has(g.visited, to)
}

// PairHash is the same for both orders of a pair, and as good as random.
func PairHash(a, b peer.Name) uint64 {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	f := fnv.New64a()
	f.Write(b.AppendBytes(a.AppendBytes(nil)))
	h := f.Sum64()
	h ^= h >> 29 // FNV's high bits change little with the last bytes
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}
