package api

import (
	"encoding/json"
	"net/netip"
	"time"

	"weave/internal/peer"
)

// Schema is the version of the JSON types of this package.
const Schema = "v1"

// State is how far a connection is.
type State string

const (
	StateEstablished State = "established" // control connection and a proven path
	StatePending     State = "pending"     // control connection, no proven path yet
	StateConnecting  State = "connecting"  // first attempt under way
	StateRetrying    State = "retrying"    // attempt under way after one that failed
	StateFailed      State = "failed"      // waiting for Retry, or given up
)

// States in the order in which they are counted and shown.
var States = []State{StateEstablished, StatePending, StateRetrying, StateFailed, StateConnecting}

// Status is the services block of `weave status`.
type Status struct {
	Schema    string    `json:"schema"` // set by the server
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at,omitzero"`
	Degraded  []string  `json:"degraded"`           // reasons for `status --check` to fail; see DegradedBy
	Check     Code      `json:"check,omitempty"`    // what it fails with: CodeDegraded, or CodeAuth if a password is the reason
	Warnings  []string  `json:"warnings,omitempty"` // of the start, for instance that the stored state was damaged
	Router    Router    `json:"router"`
	IPAM      *IPAM     `json:"ipam,omitempty"` // without lists; left out when addresses are not allocated
	DNS       *DNS      `json:"dns,omitempty"`  // without lists; left out when it is not served here
}

// Router is the part of Status that concerns connections and traffic.
type Router struct {
	Name           peer.Name      `json:"name"`
	NickName       string         `json:"nickname"`
	Protocol       string         `json:"protocol"` // version or range, for instance "1"
	Port           uint16         `json:"port"`
	Encryption     bool           `json:"encryption"` // a password is set
	PeerDiscovery  bool           `json:"peer_discovery"`
	Targets        int            `json:"targets"`
	Connections    map[State]int  `json:"connections"`
	Peers          PeerCounts     `json:"peers"`
	TrustedSubnets []netip.Prefix `json:"trusted_subnets"`
	MTU            int            `json:"mtu"`                     // of the overlay, as containers see it
	FastDP         string         `json:"fastdp"`                  // kernel backend for data in clear: "off", "vxlan" or "ovs"
	FastDPReason   string         `json:"fastdp_reason,omitempty"` // constant word: why it is off
	EncryptedPath  string         `json:"encrypted_path"`          // who carries encrypted data where it can: "sleeve" or "cage"
	EncryptedWhy   string         `json:"encrypted_path_reason,omitempty"`
	MinPath        string         `json:"min_path"` // of --min-path
	Bridge         string         `json:"bridge"`
	Conflicts      []string       `json:"conflicts"` // hosts that share a peer name, a sentence each
}

// PeerCounts sums over all known peers, so a full mesh of n has n(n-1)
// established connections.
type PeerCounts struct {
	Known       int `json:"known"` // this one included
	Established int `json:"established"`
	Pending     int `json:"pending"`
}

// Connections is the answer to `weave status connections`.
type Connections struct {
	Schema      string       `json:"schema"`
	Encryption  bool         `json:"encryption"` // a password is set here: text output then says how each line is
	Connections []Connection `json:"connections"`
}

// Connection is one connection of this peer, or a target it cannot reach.
type Connection struct {
	Outbound  bool          `json:"outbound"` // this end dialed
	Address   string        `json:"address"`  // the other end of the control connection, or the target as given
	State     State         `json:"state"`
	Peer      peer.Name     `json:"peer,omitzero"`
	NickName  string        `json:"nickname,omitempty"`
	Path      string        `json:"path,omitempty"` // "fastdp" or "sleeve"
	Encrypted bool          `json:"encrypted"`      // data travels encrypted; false until a path is proven
	Cipher    string        `json:"cipher,omitempty"`
	MTU       int           `json:"mtu,omitempty"` // largest inner IP packet that needs no slicing; 0 unknown
	RTT       time.Duration `json:"rtt_ns,omitempty"`
	Error     string        `json:"error,omitempty"`    // why it is not established
	Reason    string        `json:"reason,omitempty"`   // constant word for Error, for instance ReasonSelf
	Retry     time.Time     `json:"retry_at,omitzero"`  // of a failed one; zero: never
	Attempts  int           `json:"attempts,omitempty"` // of one who dials us and is turned away: how often so far
	Last      time.Time     `json:"last_at,omitzero"`   // the last of them
	Why       string        `json:"why,omitempty"`      // constant word: why it does not use a kernel path
	Refused   bool          `json:"refused,omitempty"`  // it carries no frames: its path is below --min-path
	Found     bool          `json:"found,omitempty"`    // no target: other peers told of the address
	Reached   bool          `json:"reached,omitempty"`  // a target that --conn-limit leaves to other hosts, which lead there
	Link      *Link         `json:"link,omitempty"`     // details, in report
}

// Reasons of connections that decide something; the others are for people.
const (
	// ReasonSelf is that of a target that turned out to be this very peer. Users may
	// list all hosts everywhere, so it is no fault.
	ReasonSelf = "self"
	// Two hosts whose passwords differ, or of which one has none.
	ReasonPassword = "wrong password"
	ReasonOneSided = "password on one side only"
)

// Link holds the inner state of a connection's path, for the report.
type Link struct {
	Remote    netip.AddrPort    `json:"remote,omitzero"` // where datagrams go now
	Lanes     int               `json:"lanes"`
	KeyEpoch  uint32            `json:"key_epoch"`
	KeyAge    time.Duration     `json:"key_age_ns"`
	LastHeard time.Time         `json:"last_heard,omitzero"`
	Offloads  string            `json:"offloads,omitempty"`
	TxFrames  uint64            `json:"tx_frames"`
	TxBytes   uint64            `json:"tx_bytes"`
	RxFrames  uint64            `json:"rx_frames"`
	RxBytes   uint64            `json:"rx_bytes"`
	Drops     map[string]uint64 `json:"drops,omitempty"` // by reason
}

// Peers is the answer to `weave status peers`.
type Peers struct {
	Schema string `json:"schema"`
	Peers  []Peer `json:"peers"`
}

// Peer is a known member of the network.
type Peer struct {
	Name        peer.Name        `json:"name"`
	NickName    string           `json:"nickname"`
	Self        bool             `json:"self,omitempty"`
	UID         peer.UID         `json:"uid,string,omitempty"` // text: more than 53 bits
	Version     uint64           `json:"version,omitempty"`    // of its connection list, as gossiped
	Connections []PeerConnection `json:"connections"`
}

// PeerConnection is a connection as its owner announced it.
type PeerConnection struct {
	Name        peer.Name `json:"name"` // the peer at the other end
	NickName    string    `json:"nickname"`
	Address     string    `json:"address"`
	Outbound    bool      `json:"outbound"`
	Established bool      `json:"established"`
}

// Targets is the answer to `weave status targets`: what was given to launch and
// connect, literally.
type Targets struct {
	Schema  string   `json:"schema"`
	Targets []string `json:"targets"`
}

// ConnectRequest adds targets, or makes them the only ones.
type ConnectRequest struct {
	Peers   []string `json:"peers"` // valid for ParsePeer
	Replace bool     `json:"replace,omitempty"`
}

// ForgetRequest removes targets; existing connections stay up. An unknown target
// is no error.
type ForgetRequest struct {
	Peers []string `json:"peers"` // literally as given to connect
}

// AttachRequest gives a container an interface and addresses. All of it may be
// there already.
type AttachRequest struct {
	Container        Container `json:"container"`
	Addrs            []Addr    `json:"addrs,omitempty"`              // none: DefaultNet
	Names            []string  `json:"names,omitempty"`              // DNS names of the addresses; one label gets the domain
	NoMulticastRoute bool      `json:"no_multicast_route,omitempty"` // leave out the route 224.0.0.0/4
	Wait             bool      `json:"wait,omitempty"`               // however long an address takes, instead of 5 s
}

// DetachRequest takes addresses from a container; with none, all of them. A subnet
// stands for the container's addresses in it. The interface goes with the last.
type DetachRequest struct {
	Container Container `json:"container"`
	Addrs     []Addr    `json:"addrs,omitempty"`
}

// Addresses is the answer to attach, detach, expose and hide: what the request came
// to, in the order of the request.
type Addresses struct {
	Schema string         `json:"schema"`
	Addrs  []netip.Prefix `json:"addrs"`
}

// PsRequest selects containers; none means all.
type PsRequest struct {
	Containers []Container
}

// Attachments is the answer to `weave ps`.
type Attachments struct {
	Schema      string       `json:"schema"`
	Attachments []Attachment `json:"attachments"`
}

// Attachment is one interface on the network: the bridge itself, or a
// container's.
type Attachment struct {
	Container string         `json:"container"` // "weave:expose" for the bridge, else a Container's text
	Interface string         `json:"interface,omitempty"`
	MAC       string         `json:"mac"` // six lower-case hex octets
	Addrs     []netip.Prefix `json:"addrs"`
}

// Report is all that is known, for support and for machines. Field names are
// those of Weave Net's report where the meaning is the same, so that templates
// such as '{{.Router.Name}}' work.
type Report struct {
	Schema          string                     `json:"schema"`
	Ready           bool                       `json:"ready"`
	Version         string                     `json:"version"`
	PID             int                        `json:"pid"`
	StartedAt       time.Time                  `json:"started_at,omitzero"`
	Degraded        []string                   `json:"degraded"`
	Router          Router                     `json:"router"`
	Connections     []Connection               `json:"connections"`
	Peers           []Peer                     `json:"peers"`
	Targets         []string                   `json:"targets"`
	Attachments     []Attachment               `json:"attachments"`
	UnicastRoutes   []UnicastRoute             `json:"unicast_routes"`
	BroadcastRoutes []BroadcastRoute           `json:"broadcast_routes"`
	MACs            []MACEntry                 `json:"macs"`
	IPAM            *IPAM                      `json:"ipam,omitempty"`
	DNS             *DNS                       `json:"dns,omitempty"`
	Features        map[string]string          `json:"features"` // kernel feature -> "yes", or why not and what is used instead
	Diagnostics     map[string]json.RawMessage `json:"diagnostics,omitempty"`
}

// UnicastRoute says through which neighbour frames for Dest leave.
type UnicastRoute struct {
	Dest peer.Name `json:"dest"`
	Via  peer.Name `json:"via,omitzero"` // left out for this peer itself
}

// BroadcastRoute says to which neighbours broadcasts of Source are passed on.
type BroadcastRoute struct {
	Source peer.Name   `json:"source"`
	Via    []peer.Name `json:"via"`
}

// MACEntry says at which peer a MAC lives.
type MACEntry struct {
	MAC      string    `json:"mac"` // six lower-case hex octets
	Name     peer.Name `json:"name"`
	NickName string    `json:"nickname"`
	LastSeen time.Time `json:"last_seen,omitzero"`
}

// DegradedBy lists why cs are not all well, one line for each connection that is
// not established. It is nil when all are; a target that is this peer itself does
// not count, nor one that other hosts lead to for lack of room, nor do strangers who were turned away, since anybody can be one, nor peers
// that were only heard of: they may be where nobody can dial them.
func DegradedBy(cs []Connection) []string {
	var out []string
	for _, c := range cs {
		if !c.degrades() {
			continue
		}
		line := "connection to " + c.Address + " is " + string(c.State)
		if c.Error != "" {
			line += ": " + c.Error
		}
		out = append(out, line)
	}
	return out
}

// degrades reports whether not all is well because of c.
func (c Connection) degrades() bool {
	turnedAway := c.State == StateFailed && !c.Outbound
	return c.State != StateEstablished && c.Reason != ReasonSelf && !turnedAway && !c.Found && !c.Reached
}

// CheckCode is what `status --check` fails with because of cs: CodeAuth if passwords
// keep one from being made, which no waiting cures; else CodeDegraded, or "" if all are
// well.
func CheckCode(cs []Connection) (code Code) {
	for _, c := range cs {
		switch {
		case !c.degrades():
		case c.Reason == ReasonPassword || c.Reason == ReasonOneSided:
			return CodeAuth
		default:
			code = CodeDegraded
		}
	}
	return code
}
