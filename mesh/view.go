package mesh

import (
	"weave/internal/peer"
	"weave/mesh/overlay"
)

// View is what the data plane needs of the mesh. It is immutable: the receiver
// may keep it and read it from any goroutine.
type View struct {
	Local peer.Name
	// Links has, per peer with an established connection, those of its links that
	// are up, best first; never an empty slice.
	Links map[peer.Name][]overlay.Link
	// Peers has every known peer, the local one included.
	Peers  map[peer.Name]Peer
	Routes Routes
}

// Peer is one known member of the network.
type Peer struct {
	Name     peer.Name `json:"name"`
	NickName string    `json:"nickName"`
	UID      peer.UID  `json:"uid"`
	Version  string    `json:"version,omitempty"`
}

// Routes says to which neighbour a frame goes next. Next hops are always keys of
// View.Links.
type Routes struct {
	// Unicast maps a destination to the next hop.
	Unicast map[peer.Name]peer.Name
	// Broadcast maps the peer a frame came from at first to the neighbours that it
	// goes on to; an origin that is missing goes nowhere.
	Broadcast map[peer.Name][]peer.Name
	// Parent maps another peer to the neighbour that its broadcasts come from. The
	// receiver should drop those that come from elsewhere: while the peers learn of a
	// change a broadcast is then rather lost than doubled.
	Parent map[peer.Name]peer.Name
}
