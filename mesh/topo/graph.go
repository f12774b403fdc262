package topo

import (
	"maps"
	"math/bits"
	"slices"

	"weave/internal/peer"
)

// graph is who is connected to whom, as matrices with a row of bits for each peer
// in order of name. It is kept up to date entry by entry, and built anew only when
// peers come or go.
type graph struct {
	names []peer.Name
	marks []Mark
	index map[peer.Name]int
	words int      // of a row
	out   []uint64 // i says that it is connected to j, with j's mark
	est   []uint64 // and that data may go there
	data  []uint64 // both ends say so: symmetric

	stale bool // names or keys changed
	lost  bool // an edge for data is gone since lost was cleared

	visited, frontier, next, reached []uint64 // scratch rows
}

// build starts over from the records.
func (g *graph) build(records map[peer.Name]*entry) {
	g.names = slices.SortedFunc(maps.Keys(records), peer.Name.Compare)
	n := len(g.names)
	g.words = (n + 63) / 64
	g.index = make(map[peer.Name]int, n)
	g.marks = make([]Mark, n)
	for i, name := range g.names {
		g.index[name] = i
		g.marks[i] = records[name].mark
	}
	bitsets := make([]uint64, 3*n*g.words+4*g.words)
	cut := func(k int) []uint64 {
		row := bitsets[:k]
		bitsets = bitsets[k:]
		return row
	}
	g.out, g.est, g.data = cut(n*g.words), cut(n*g.words), cut(n*g.words)
	g.visited, g.frontier, g.next, g.reached = cut(g.words), cut(g.words), cut(g.words), cut(g.words)
	for i, name := range g.names {
		for c := range records[name].rec.Conns() {
			g.set(i, c)
		}
	}
	g.stale = false
}

// update notes that record r has other connections to the touched peers.
func (g *graph) update(r *Record, touched []peer.Name) {
	if g.stale {
		return
	}
	i, ok := g.index[r.Name]
	if !ok {
		g.stale = true
		return
	}
	entries := r.conns
	for _, n := range touched {
		want := n.Bytes()
		for len(entries) > 0 && string(entries[:peer.NameLen]) < string(want[:]) {
			entries = entries[entryLen(entries):]
		}
		if len(entries) > 0 && string(entries[:peer.NameLen]) == string(want[:]) {
			g.set(i, parseEntry(entries))
		} else {
			g.put(i, n, false, false)
		}
	}
}

func (g *graph) set(i int, c Conn) {
	j, ok := g.index[c.Peer]
	if !ok {
		return
	}
	right := c.Mark == g.marks[j]
	g.put(i, c.Peer, right, right && c.Established)
}

func (g *graph) put(i int, to peer.Name, out, est bool) {
	j, ok := g.index[to]
	if !ok {
		return
	}
	set(g.row(g.out, i), j, out)
	set(g.row(g.est, i), j, est)
	both := est && has(g.row(g.est, j), i)
	if !both && has(g.row(g.data, i), j) {
		g.lost = true
	}
	set(g.row(g.data, i), j, both)
	set(g.row(g.data, j), i, both)
}

func (g *graph) row(m []uint64, i int) []uint64 { return m[i*g.words : (i+1)*g.words] }

// search walks matrix m from start, breadth first and in order of name. It calls
// found with each peer and the peers that are reached from it; it ends early when
// found says so. The row is valid during the call only.
func (g *graph) search(m []uint64, start int, found func(from int, reached []uint64) bool) {
	clear(g.visited)
	clear(g.frontier)
	set(g.visited, start, true)
	set(g.frontier, start, true)
	for nonZero(g.frontier) {
		clear(g.next)
		for w, word := range g.frontier {
			for ; word != 0; word &= word - 1 {
				u := w*64 + bits.TrailingZeros64(word)
				row := g.row(m, u)
				for k := range g.reached {
					fresh := row[k] &^ g.visited[k]
					g.reached[k] = fresh
					g.visited[k] |= fresh
					g.next[k] |= fresh
				}
				if !found(u, g.reached) {
					return
				}
			}
		}
		g.frontier, g.next = g.next, g.frontier
	}
}

// firstHops returns for each peer the neighbour of local through which a search
// finds it; -1: not at all, or local itself.
func (g *graph) firstHops(m []uint64, local int) []int32 {
	via := make([]int32, len(g.names))
	for i := range via {
		via[i] = -1
	}
	g.search(m, local, func(from int, reached []uint64) bool {
		each(reached, func(v int) {
			via[v] = via[from]
			if from == local {
				via[v] = int32(v)
			}
		})
		return true
	})
	return via
}

// children returns the peers that local forwards a broadcast of origin to, and the
// one that it comes from; -1 for the origin itself. All is what can be reached at
// all, local and origin among it.
func (g *graph) children(origin, local int, all []uint64, out []int32) (hops []int32, parent int32) {
	parent = -1
	g.search(g.data, origin, func(from int, reached []uint64) bool {
		if from == local {
			each(reached, func(v int) { out = append(out, int32(v)) })
			return false
		}
		if has(reached, local) {
			parent = int32(from)
		}
		return !slices.Equal(g.visited, all)
	})
	return out, parent
}

func set(row []uint64, i int, on bool) {
	if on {
		row[i/64] |= 1 << (i % 64)
	} else {
		row[i/64] &^= 1 << (i % 64)
	}
}

func has(row []uint64, i int) bool { return row[i/64]>>(i%64)&1 != 0 }

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
