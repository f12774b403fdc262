package api

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"weave/internal/peer"
)

// WhyRequest asks why the connection to a peer is as it is.
type WhyRequest struct {
	Peer string // name or nickname
}

// Verdict says what became of a path.
type Verdict string

const (
	VerdictInUse   Verdict = "in-use"  // known unicast frames take it
	VerdictStandBy Verdict = "standby" // proven, and a better one is there; broadcasts may take it
	VerdictDown    Verdict = "down"    // there is one, and it does not work now
	VerdictAbsent  Verdict = "absent"  // this connection cannot have it
)

// Why is the answer to `weave why`: the paths of a connection, best first.
type Why struct {
	Schema    string    `json:"schema"`
	Peer      peer.Name `json:"peer"`
	NickName  string    `json:"nickname"`
	State     State     `json:"state,omitempty"` // empty: there is no connection
	Outbound  bool      `json:"outbound"`
	Address   string    `json:"address,omitempty"`
	Via       peer.Name `json:"via,omitzero"` // next hop of frames when there is no connection
	Path      string    `json:"path,omitempty"`
	Encrypted bool      `json:"encrypted"`
	Reason    string    `json:"reason,omitempty"` // why no kernel path is used
	MinPath   string    `json:"min_path"`         // of --min-path
	Refused   bool      `json:"refused"`          // the path is below it, and carries nothing
	// RefusedFrames were dropped for that since the connection began.
	RefusedFrames uint64      `json:"refused_frames,omitempty"`
	Error         string      `json:"error,omitempty"`
	Candidates    []Candidate `json:"candidates"`
}

// Candidate is one path of a connection.
type Candidate struct {
	Path      string            `json:"path"`
	Backend   string            `json:"backend,omitempty"` // of the kernel path
	Verdict   Verdict           `json:"verdict"`
	Reason    string            `json:"reason,omitempty"`  // constant word
	Meaning   string            `json:"meaning,omitempty"` // of Reason, and what to do
	MTU       int               `json:"mtu,omitempty"`     // largest inner packet that was proven to pass
	RTT       time.Duration     `json:"rtt_ns,omitempty"`
	Remote    netip.AddrPort    `json:"remote,omitzero"`
	LastHeard time.Time         `json:"last_heard,omitzero"`
	Cipher    string            `json:"cipher,omitempty"`
	Tx        uint64            `json:"tx_datagrams"` // of a kernel path: heartbeats
	Rx        uint64            `json:"rx_datagrams"`
	Drops     map[string]uint64 `json:"drops,omitempty"` // by reason
}

func (w *Why) fill() {
	w.Schema = Schema
	w.Candidates = orEmpty(w.Candidates)
}

// meanings explain reasons of paths.
var meanings = map[string]string{
	"off":           "the kernel path is switched off at this host (--no-fastdp)",
	"not-offered":   "the other host does not offer this path: it has it switched off, or must encrypt",
	"encryption":    "the data must be encrypted and this path is not: trust each other's subnets (--trusted-subnets on both) if the network is safe",
	"no-vxlan":      "the kernel cannot make the device: load module vxlan",
	"no-nftables":   "the kernel cannot keep strangers' packets out: load module nf_tables",
	"port-in-use":   "something else on this host has the UDP port: stop it, or choose another --port everywhere",
	"device":        "the kernel's device is not in order: see the log",
	"no-route":      "this host has no route to the other's address",
	"mtu":           "the network between the hosts does not carry packets of the overlay's MTU on this path: lower --mtu, or raise the network's",
	"version":       "the other host's kernel path is of another kind: upgrade one of them",
	"probing":       "not known yet: heartbeats are on their way",
	"no-reply":      "heartbeats get no answer: let UDP to the port in brackets pass between the hosts",
	"timeout":       "heartbeats are not answered any more: is UDP to the port in brackets blocked since?",
	"settling":      "works again, and is watched for a while before it is used",
	"closed":        "the connection ended",
	"starting":      "not known yet: the link starts",
	"proving":       "not known yet: heartbeats are on their way",
	"keys expired":  "no new keys could be agreed on",
	"not-available": "not in this build",

	"no-openvswitch": "the kernel has no Open vSwitch datapath: load module openvswitch",
	"no-wireguard":   "the kernel has no WireGuard: load module wireguard",
	"clear":          "the data may be in clear, and this path encrypts",
	"cipher":         "both CPUs do AES, so user space encrypts faster: --encrypted-path=kernel prefers this path",
	"quarantine":     "earlier runs died soon after they used a kernel path: relaunch with --fastdp=vxlan or --encrypted-path=kernel to try it again",
	"spare":          "the other backend of this host is used",
}

// Meaning explains a reason; "" if there is nothing to say.
func Meaning(reason string) string { return meanings[reason] }

// WriteWhy writes what the connection is, then one line for each path:
//
//	       Peer: 02:aa:bb:cc:dd:ee(h2)
//	 Connection: -> 192.0.2.7:6783 established, unencrypted
//	       Path: sleeve
//
//	fastdp/vxlan  down     no-reply: heartbeats get no answer ... [192.0.2.7:6784] sent=12 heard=0
//	sleeve        in-use   mtu=1418 rtt=0.2ms [192.0.2.7:6783] sent=120 heard=130
func WriteWhy(w io.Writer, y Why) error {
	var b block
	b.line("Peer", "%s", nameAndNick(y.Peer, y.NickName))
	switch {
	case y.State != "":
		arrow, sealed := "<-", "unencrypted"
		if y.Outbound {
			arrow = "->"
		}
		if y.Encrypted {
			sealed = "encrypted"
		}
		b.line("Connection", "%s %s %s, %s", arrow, y.Address, y.State, sealed)
		b.line("Path", "%s", orDash(y.Path))
	case !y.Via.IsZero():
		b.line("Connection", "none; frames go through %s", y.Via)
	default:
		b.line("Connection", "none")
	}
	switch {
	case y.State == "" || !strings.HasPrefix(y.MinPath, "kernel") || y.Path == "fastdp":
	case y.Refused:
		b.line("MinPath", "%s: this connection is below it, and carries nothing (%d frames dropped)", y.MinPath, y.RefusedFrames)
	default:
		b.line("MinPath", "%s: this connection is below it", y.MinPath)
	}
	if y.Error != "" {
		b.line("Error", "%s", y.Error)
	}
	if err := b.flush(w); err != nil || len(y.Candidates) == 0 {
		return err
	}
	var lines bytes.Buffer
	lines.WriteByte('\n')
	for _, c := range y.Candidates {
		path := c.Path
		if c.Backend != "" {
			path += "/" + c.Backend
		}
		fmt.Fprintln(&lines, strings.TrimRight(oneLine(fmt.Sprintf("%-13s %-8s %s", path, c.Verdict, c.describe())), " "))
	}
	_, err := w.Write(lines.Bytes())
	return err
}

func (c Candidate) describe() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if c.Reason != "" {
		if c.Meaning != "" {
			add("%s: %s", c.Reason, c.Meaning)
		} else {
			add("%s", c.Reason)
		}
	}
	if c.MTU > 0 {
		add("mtu=%d", c.MTU)
	}
	if c.RTT > 0 {
		add("rtt=%s", millis(c.RTT))
	}
	if c.Cipher != "" {
		add("cipher=%s", c.Cipher)
	}
	if c.Remote.IsValid() {
		add("[%s] sent=%d heard=%d", c.Remote, c.Tx, c.Rx)
	}
	return strings.Join(parts, " ")
}
