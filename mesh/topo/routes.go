package topo

import (
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
	// Unicast maps a destination to the neighbour that is next on the way, over
	// connections of which both ends say that they are established.
	Unicast map[peer.Name]peer.Name
	// Broadcast maps an origin, the local peer included, to the neighbours its
	// broadcasts go on to, over the same connections; an origin that is missing goes
	// nowhere.
	Broadcast map[peer.Name][]peer.Name
	// Parent maps another origin to the neighbour that its broadcasts come from, on the
	// same tree. Who takes them from no other gets none twice while the topology changes.
	Parent map[peer.Name]peer.Name
	// Messages maps a destination to the neighbour that is next on the way: as Unicast,
	// and for those that no data reaches over all connections of which the nearer end
	// says that it has it.
	Messages map[peer.Name]peer.Name

	// The same as indices into names, to compare with.
	names         []peer.Name
	data, control []int32
	parents       []int32
	ends, hops    []int32 // origin i's broadcasts go to hops[ends[i-1]:ends[i]]
}

// Routes computes the routes of now. While they stay the same it returns the same
// pointer.
func (t *Topology) Routes() *Routes {
	g := t.upToDate()
	rt := &Routes{names: g.names}
	local := g.index[t.local.Name]
	rt.control = g.firstHops(g.out, local)
	rt.data = g.firstHops(g.data, local)
	all := slices.Clone(g.visited) // of the search for rt.data
	for v, hop := range rt.data {
		if hop >= 0 {
			rt.control[v] = hop
		}
	}
	rt.ends, rt.parents = make([]int32, len(g.names)), make([]int32, len(g.names))
	for origin := range g.names {
		rt.parents[origin] = -1
		if has(all, origin) {
			rt.hops, rt.parents[origin] = g.children(origin, local, all, rt.hops)
		}
		rt.ends[origin] = int32(len(rt.hops))
	}
	if old := t.routes; old != nil && slices.Equal(old.names, rt.names) && slices.Equal(old.data, rt.data) &&
		slices.Equal(old.control, rt.control) && slices.Equal(old.parents, rt.parents) && slices.Equal(old.ends, rt.ends) && slices.Equal(old.hops, rt.hops) {
		return old
	}
	rt.fill()
	t.routes = rt
	return rt
}

// fill makes the maps.
func (rt *Routes) fill() {
	hops := make([]peer.Name, len(rt.hops))
	for i, v := range rt.hops {
		hops[i] = rt.names[v]
	}
	rt.Unicast, rt.Messages, rt.Parent = rt.byName(rt.data), rt.byName(rt.control), rt.byName(rt.parents)
	rt.Broadcast = map[peer.Name][]peer.Name{}
	start := int32(0)
	for i, end := range rt.ends {
		if end > start {
			rt.Broadcast[rt.names[i]] = hops[start:end:end]
		}
		start = end
	}
}

func (rt *Routes) byName(via []int32) map[peer.Name]peer.Name {
	out := make(map[peer.Name]peer.Name, len(via))
	for v, hop := range via {
		if hop >= 0 {
			out[rt.names[v]] = rt.names[hop]
		}
	}
	return out
}

func (t *Topology) upToDate() *graph {
	if t.graph.stale {
		t.graph.build(t.records)
	}
	return &t.graph
}

// TakeLost reports whether a connection for data was lost anywhere since it was
// called last: that is urgent, while a new connection is not.
func (t *Topology) TakeLost() bool {
	lost := t.graph.lost
	t.graph.lost = false
	return lost
}
