package mesh

import (
	"fmt"
	"net/netip"
	"time"

	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/mesh/topo"
)

// Status is the state of a Router for people and metrics, a copy.
type Status struct {
	Local      Peer         `json:"local"`
	Port       uint16       `json:"port"`
	Encryption bool         `json:"encryption"` // a password is set
	Discovery  bool         `json:"discovery"`
	ConnLimit  int          `json:"connLimit"`
	Trusted    []string     `json:"trustedSubnets"`
	Targets    []string     `json:"targets"`     // as given, in order of text
	Conns      []ConnStatus `json:"connections"` // outbound first, then by address
	Peers      []PeerStatus `json:"peers"`       // the local peer first, then by name
	Refused    []Refused    `json:"refused"`     // recent inbound attempts that came to nothing, newest first
	Counters   Counters     `json:"counters"`

	Channels  []ChannelStatus `json:"channels"`  // gossip, the topology first
	Topology  topo.Counters   `json:"topology"`  // what was left out of the topology
	Conflicts []Conflict      `json:"conflicts"` // names that two hosts have, seen in the last minutes
}

// ChannelStatus counts what happened on a channel of gossip since New.
type ChannelStatus struct {
	Name      string    `json:"name"`
	Sent      uint64    `json:"sent"`      // updates, one for each neighbour told
	SentBytes uint64    `json:"sentBytes"` // of updates, before sealing
	Received  uint64    `json:"received"`  // updates, answers and digests
	Digests   uint64    `json:"digests"`   // sent
	Unicasts  uint64    `json:"unicasts"`  // received
	Errors    uint64    `json:"errors"`    // messages that the channel could not use
	LastError string    `json:"lastError,omitempty"`
	ErrorFrom peer.Name `json:"errorFrom,omitzero"` // neighbour that sent the last
	ErrorNick string    `json:"errorNick,omitempty"`
	ErrorAt   time.Time `json:"errorAt,omitzero"`
}

// Conflict is a second host with a peer's name.
type Conflict struct {
	Name     peer.Name `json:"name"`
	NickName string    `json:"nickName"` // of the host that is not believed, or of the other copy
	Clone    bool      `json:"clone"`    // it has the same key too: a copy of that host's state
	Refused  bool      `json:"refused"`  // it was not let into the network
	Last     time.Time `json:"last"`     // when it was heard of
	Text     string    `json:"text"`     // what it means and what to do
}

// State is where a connection, or a target without one, stands. The numbers are
// not stable; the names are.
type State uint8

const (
	StateConnecting  State = iota // first attempt under way
	StateRetrying                 // attempt under way after an error
	StateFailed                   // waiting for the next attempt, or for ever
	StatePending                  // control connection stands, no link is up
	StateEstablished              // control connection and at least one link are up
)

var stateNames = [...]string{"connecting", "retrying", "failed", "pending", "established"}

// String returns the word used in status.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText gives the String form.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts the String form.
func (s *State) UnmarshalText(b []byte) error {
	for i, n := range stateNames {
		if n == string(b) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("unknown connection state %q", b)
}

// ConnStatus is one line of `weave status connections`: a connection, or a target
// that has none.
type ConnStatus struct {
	Addr     string `json:"address"`          // ip:port; the target's text while it is not resolved
	Target   string `json:"target,omitempty"` // as the user gave it; empty for inbound connections
	Outbound bool   `json:"outbound"`
	State    State  `json:"state"`

	// Pending and established connections only.
	Peer      peer.Name        `json:"peer,omitzero"`
	NickName  string           `json:"nickName,omitempty"`
	Since     time.Time        `json:"since,omitzero"` // when the state was entered
	Encrypted bool             `json:"encrypted"`      // frames of the path in use are sealed
	Path      string           `json:"path,omitempty"` // overlay in use, or the best one while none is up
	MTU       int              `json:"mtu,omitempty"`  // of the path in use, 0 unknown
	RTT       time.Duration    `json:"rtt,omitempty"`  // of the path in use, else of the control connection; 0 unknown
	Links     []overlay.Status `json:"links,omitempty"`

	// Error is the last error of a target, or why a connection is still pending.
	Error  string    `json:"error,omitempty"`
	Reason Reason    `json:"reason,omitempty"` // the kind of Error, empty for kinds without a Reason
	Retry  time.Time `json:"retry,omitzero"`   // next attempt, when State is StateFailed; zero: not known
	Never  bool      `json:"never,omitempty"`  // no attempt until an explicit connect

	// Found says that it is no target: other peers told of the address. That it can't
	// be reached is no fault of anybody's.
	Found bool `json:"found,omitempty"`

	// Reached says that the target has no connection because one of the two ends has no
	// room, and that other peers lead there: nothing is wrong.
	Reached bool `json:"reached,omitempty"`
}

// PeerStatus is one known peer with what is known of its connections.
type PeerStatus struct {
	Peer
	Record uint64     `json:"record,omitempty"` // version of what it says of its connections; 0: nothing was heard yet
	Conns  []PeerConn `json:"connections"`
}

// PeerConn is one connection of a peer, seen from that peer.
type PeerConn struct {
	Peer        peer.Name `json:"peer"`
	NickName    string    `json:"nickName"`
	Addr        string    `json:"address"`
	Outbound    bool      `json:"outbound"`
	Established bool      `json:"established"`
}

// Refused is one or more inbound attempts from an address that came to nothing.
type Refused struct {
	Addr   netip.Addr `json:"address"`
	Reason Reason     `json:"reason"`
	Error  string     `json:"error"` // of the last attempt
	Count  int        `json:"count"` // attempts with this address and reason
	Last   time.Time  `json:"last"`
}

// Counters since New.
type Counters struct {
	Terminated      uint64            `json:"terminated"` // connections that ended, those to ourselves and duplicates apart
	Dialed          uint64            `json:"dialed"`     // attempts made
	DialFailed      uint64            `json:"dialFailed"` // attempts that gave no connection
	Accepted        uint64            `json:"accepted"`   // sockets accepted
	Admitted        uint64            `json:"admitted"`   // connections that passed all checks
	InboundRefused  map[Reason]uint64 `json:"inboundRefused"`
	Duplicates      uint64            `json:"duplicates"`      // closed because another connection to that peer won
	Repinned        uint64            `json:"repinned"`        // peers that came back with another static key
	OpenAsked       uint64            `json:"openAsked"`       // attempts for which the other end was asked to dial too
	OpenTried       uint64            `json:"openTried"`       // dials because the other end asked
	UnknownMessages uint64            `json:"unknownMessages"` // ignored control messages of a tag we don't know
	Surrogated      uint64            `json:"surrogated"`      // messages passed on of channels that this peer lacks
	UnicastRelayed  uint64            `json:"unicastRelayed"`  // messages handed on to the next hop
	UnicastLost     uint64            `json:"unicastLost"`     // messages without a next hop, or with one that is busy
	UnicastSpoofed  uint64            `json:"unicastSpoofed"`  // messages that did not come from whom they say
}
