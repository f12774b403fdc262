package api

import (
	"net/netip"
	"time"

	"weave/internal/peer"
)

// ExposeRequest puts the host itself on the network.
type ExposeRequest struct {
	Addrs             []Addr   `json:"addrs,omitempty"` // none: DefaultNet
	Names             []string `json:"names,omitempty"` // DNS names of the addresses
	WithoutMasquerade bool     `json:"without_masquerade,omitempty"`
	Wait              bool     `json:"wait,omitempty"` // as in AttachRequest
}

// HideRequest takes the host off the network; with no addresses, wholly.
type HideRequest struct {
	Addrs []Addr `json:"addrs,omitempty"`
}

// PrimeRequest waits until the address range is divided among the peers.
type PrimeRequest struct {
	Wait bool `json:"wait,omitempty"` // as in AttachRequest
}

// RmPeerRequest gives up a peer that is gone for good.
type RmPeerRequest struct {
	Peer string `json:"peer"` // name or nickname
}

// Removed is the answer to rmpeer.
type Removed struct {
	Schema    string `json:"schema"`
	Peer      string `json:"peer"`      // as in the request
	Addresses uint64 `json:"addresses"` // taken over; 0 for a peer that had none, and for this one
}

// ResetRequest asks for everything on the host to be undone and all state to be
// forgotten.
type ResetRequest struct {
	Force bool `json:"force,omitempty"` // do not wait for others to take anything over
}

// Given is the answer to reset.
type Given struct {
	Schema    string `json:"schema"`
	Addresses uint64 `json:"addresses"`         // of this host that another has now
	Warning   string `json:"warning,omitempty"` // nobody confirmed to have them, and what to do
}

// IPAM says how the address range is shared. In Status the lists are left out.
type IPAM struct {
	Schema        string       `json:"schema,omitempty"`
	Status        string       `json:"status"` // a phrase, see docs/addresses.md
	Ready         bool         `json:"ready"`  // what this host owns may be handed out
	Range         netip.Prefix `json:"range"`
	RangeNumIPs   uint64       `json:"range_addresses"`
	DefaultSubnet netip.Prefix `json:"default_subnet"`
	Init          string       `json:"init"`                // consensus, seed or observer
	ActiveIPs     uint64       `json:"active"`              // in use on this host
	Owned         uint64       `json:"owned"`               // addresses that this host hands out
	Free          uint64       `json:"free"`                // of them
	Unreachable   uint64       `json:"unreachable"`         // addresses of peers that cannot be reached
	Conflicts     []string     `json:"conflicts,omitempty"` // what is wrong now, a sentence each

	Quorum      int         `json:"quorum,omitempty"` // of the election; 0 once it is over
	KnownPeers  []peer.Name `json:"known_electors,omitempty"`
	Seeds       []peer.Name `json:"seeds,omitempty"`  // among whom the range was divided first
	Shares      []Share     `json:"shares,omitempty"` // this peer first, then by name; none until the range is divided
	Entries     []RingEntry `json:"entries,omitempty"`
	Leases      []Lease     `json:"leases,omitempty"`
	Claims      []PendingIP `json:"pending_claims,omitempty"`
	Allocations []PendingIP `json:"pending_allocations,omitempty"`
	Events      []string    `json:"events,omitempty"` // what happened lately, oldest first
}

// Share is what one peer owns of the range.
type Share struct {
	Peer      peer.Name `json:"peer"`
	NickName  string    `json:"nickname"`
	Addresses uint64    `json:"addresses"`
	Self      bool      `json:"self,omitempty"`
	Reachable bool      `json:"reachable"`
}

// RingEntry is a part of the range with one owner.
type RingEntry struct {
	Start    netip.Addr `json:"start"`
	Size     uint64     `json:"size"`
	Peer     peer.Name  `json:"peer"`
	NickName string     `json:"nickname"`
	Known    bool       `json:"known"` // the mesh knows the peer now
	Version  uint64     `json:"version"`
}

// Lease is an address in use on this host.
type Lease struct {
	Owner   string       `json:"owner"` // a Container's text, or weave:expose
	Address netip.Prefix `json:"address"`
	Foreign bool         `json:"foreign,omitempty"` // of another host's share, or outside the range
}

// PendingIP is a request for an address that waits.
type PendingIP struct {
	Owner   string       `json:"owner"`
	Address netip.Prefix `json:"address"` // or the subnet
	Reason  string       `json:"reason"`
}

// DNS says what the name server knows. In Status the records are left out.
type DNS struct {
	Schema    string           `json:"schema,omitempty"`
	Domain    string           `json:"domain"` // with its final dot
	Listening []netip.AddrPort `json:"listening"`
	Upstream  []netip.AddrPort `json:"upstream"`
	TTL       time.Duration    `json:"ttl_ns"`
	Entries   int              `json:"entries"`           // of all peers
	Warning   string           `json:"warning,omitempty"` // an address that cannot be listened on
	Records   []DNSRecord      `json:"records,omitempty"`
}

// DNSRecord is one name of one address.
type DNSRecord struct {
	Name      string     `json:"name"` // with its final dot
	Short     string     `json:"short_name"`
	Address   netip.Addr `json:"address"`
	Container string     `json:"container"` // a Container's text, weave:expose or weave:extern
	Origin    peer.Name  `json:"origin"`
	NickName  string     `json:"nickname"` // of Origin
}

// DNSRequest adds or removes names of this host.
type DNSRequest struct {
	Container Container    `json:"container,omitzero"` // none: weave:extern, addresses that are no container's
	Addrs     []netip.Addr `json:"addrs,omitempty"`    // none: all that the container has
	Name      string       `json:"name,omitempty"`     // to remove: none is all
}

// LookupRequest asks for the addresses of a name in the DNS domain.
type LookupRequest struct {
	Name string
}

// NameAddresses is the answer to dns-lookup.
type NameAddresses struct {
	Schema string       `json:"schema"`
	Name   string       `json:"name"`
	Addrs  []netip.Addr `json:"addrs"`
}
