package forward

import (
	"slices"

	"weave/internal/ether"
	"weave/internal/peer"
)

// Path carries superframes to one neighbour from user space.
type Path interface {
	// Send takes a frame read from the bridge; called by TX worker lane only. It
	// may overwrite sf, and may queue until Flush of that lane.
	Send(lane int, rt peer.Route, sf *ether.Superframe)
	// Relay takes a frame received from another neighbour in the pieces it
	// arrived in; called by RX worker lane only, and does not change bufs.
	Relay(lane int, rt peer.Route, off ether.Offload, bufs [][]byte)
}

// Hop is a neighbour and the path to it.
type Hop struct {
	Peer peer.Name
	Path Path
}

// Snapshot is what the mesh tells the switch: through which neighbour each peer
// is reached, and to which neighbours a broadcast of each origin goes on. It is
// never changed once handed to [Switch.SetRoutes].
type Snapshot struct {
	Generation uint64
	Local      peer.Name
	Unicast    map[peer.Name][]Hop // destination → exactly one hop
	Broadcast  map[peer.Name][]Hop // origin (Local included) → hops, maybe none
	// Parent maps the other origins to the neighbour that their floods come from, on
	// the tree that Broadcast is of. Floods from elsewhere are dropped.
	Parent map[peer.Name]peer.Name
}

// Source says where a frame comes from. The zero Source is the local bridge.
type Source struct {
	Neighbour peer.Name  // who sent it to us; zero: the bridge
	Route     peer.Route // as the frame says; for the bridge both are zero
}

// Reason says why a frame was dropped; NotDropped (the zero Reason) that it was
// not. The names are label values of metrics.
type Reason uint8

const (
	NotDropped    Reason = iota // it goes somewhere
	DropLinkLocal               // 01:80:c2:00:00:0x: spanning tree, pause, LLDP stay on their link
	DropLocal                   // the bridge has delivered it already
	DropLoop                    // its source MAC moves too often, or it goes in circles
	DropNoRoute                 // no path to the peer it is for
	DropNoPeers                 // broadcast, and no neighbour to send it to
	DropBadSource               // source address is a group, or zero
	DropShort                   // shorter than an Ethernet header
	DropReturned                // a relayed frame that would go back where it came from
	DropOffTree                 // a flood from a neighbour that is not the parent in its origin's tree, or has just become it
	numReasons
)

var reasonNames = [numReasons]string{"", "link_local", "local", "loop", "no_route", "no_peers", "bad_source", "short", "returned", "off_tree"}

// String is the reason's name in metrics and reports.
func (r Reason) String() string { return reasonNames[r] }

// DropReasons lists the reasons that Stats.Drops can have.
func DropReasons() []string { return slices.Clone(reasonNames[1:]) }

// Verdict is what to do with a frame.
type Verdict struct {
	Drop    Reason
	Deliver bool      // put it on the local bridge
	Flood   bool      // Dest is zero; the frame goes to all Hops
	Dest    peer.Name // destination peer of a unicast frame
	Hops    []Hop     // neighbours to send it to; belongs to the snapshot
}

// Decide says what happens to a frame from src with these addresses at now
// (seconds of the switch's clock). It learns the source address. It allocates
// nothing and may be called by all workers at once.
func (s *Switch) Decide(src Source, srcMAC, dstMAC ether.MAC, now int64) Verdict {
	snap := s.snap.Load()
	if src.Neighbour.IsZero() {
		return s.decideLocal(snap, srcMAC, dstMAC, now)
	}
	return s.decideRemote(snap, src, srcMAC, dstMAC, now)
}

func (s *Switch) decideLocal(snap *Snapshot, srcMAC, dstMAC ether.MAC, now int64) Verdict {
	if isLinkLocal(dstMAC) {
		return Verdict{Drop: DropLinkLocal}
	}
	if srcMAC.IsMulticast() || srcMAC == (ether.MAC{}) {
		return Verdict{Drop: DropBadSource}
	}
	if !s.learn(srcMAC, snap.Local, now) {
		return Verdict{Drop: DropLoop}
	}
	if !dstMAC.IsMulticast() {
		if owner, ok := s.macs.lookup(dstMAC); ok {
			if owner == snap.Local {
				return Verdict{Drop: DropLocal}
			}
			return unicast(snap, owner)
		}
	}
	hops := snap.Broadcast[snap.Local]
	if len(hops) == 0 {
		return Verdict{Drop: DropNoPeers}
	}
	return Verdict{Flood: true, Hops: hops}
}

func (s *Switch) decideRemote(snap *Snapshot, src Source, srcMAC, dstMAC ether.MAC, now int64) Verdict {
	flooded := src.Route.Dest.IsZero()
	if !flooded && src.Route.Dest != snap.Local {
		v := unicast(snap, src.Route.Dest)
		if len(v.Hops) > 0 && v.Hops[0].Peer == src.Neighbour {
			return Verdict{Drop: DropReturned}
		}
		return v
	}
	if isLinkLocal(dstMAC) {
		return Verdict{Drop: DropLinkLocal}
	}
	if srcMAC.IsMulticast() || srcMAC == (ether.MAC{}) {
		return Verdict{Drop: DropBadSource}
	}
	if src.Route.Origin == snap.Local {
		return Verdict{Drop: DropLoop}
	}
	if flooded && snap.Parent[src.Route.Origin] != src.Neighbour {
		return Verdict{Drop: DropOffTree} // before anything is learned from it
	}
	if !s.learn(srcMAC, src.Route.Origin, now) {
		return Verdict{Drop: DropLoop}
	}
	v := Verdict{Deliver: true}
	if !dstMAC.IsMulticast() {
		if owner, ok := s.macs.lookup(dstMAC); ok && owner == snap.Local {
			return v
		}
	}
	v.Flood, v.Hops = true, snap.Broadcast[src.Route.Origin]
	return v
}

func unicast(snap *Snapshot, dest peer.Name) Verdict {
	hops := snap.Unicast[dest]
	if len(hops) == 0 {
		return Verdict{Drop: DropNoRoute}
	}
	return Verdict{Dest: dest, Hops: hops}
}

// isLinkLocal reports the addresses that IEEE 802.1Q 8.6.3 keeps on one link.
func isLinkLocal(m ether.MAC) bool {
	return m[0] == 0x01 && m[1] == 0x80 && m[2] == 0xc2 && m[3] == 0 && m[4] == 0 && m[5] < 0x10
}
