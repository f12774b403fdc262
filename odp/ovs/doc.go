// Package ovs is the kernel path over the Open vSwitch kernel datapath. No part of the
// Open vSwitch project but the kernel module is needed.
//
// Its one idea: the flows are there before the frames. Each steered MAC has a flow that
// gives frames the peer's address as their outer header, each peer has one that lets
// its packets in; they stay when the daemon does not. A frame without a flow is an
// exception: it is sent up, and is answered by the flow that is missing, or by one that
// drops what follows, which goes when nobody needs it for a while.
//
//	containers ── bridge weave ── weave-ovs ═ datapath weave-ovs ═ weave-ovsvx ── underlay
//	                              port 0                           port 1
//
// Package keeper says when, puts the device on the bridge and keeps strangers out; here
// strangers are dropped by flows too, so that a kernel without nftables will do.
//
// # What it leaves in the kernel
//
//	weave-ovs     a datapath, whose own device is a port of the bridge; upcalls go to a
//	              socket for each processor, or to all by vport before Linux 5.15
//	weave-ovsvx   a vxlan device for both families of the underlay that takes the outer
//	              header from each frame ("external"); vport 1
//	flows         each with an identifier, see below
//	table inet weave
//	              see package keeper
//
// On the wire it is the same as package vxlan: a host with one talks to a host with the
// other.
//
// # Flows
//
// A frame to a MAC (flow kind 1), and one from a peer (kind 2); all that is not named is
// wild, but for VLAN tags: the kernel always compares them. So tagged frames go up, and
// get flows of their own, by tag and inner ethertype, while they last.
//
//	in_port 0, destination MAC [, tag]              → set tunnel (VNI, peer, TTL 64, DF, checksum), output 1
//	in_port 1, tunnel (VNI, source address) [, tag] → output 0
//
// Identifiers (UFID), by which an earlier run's flows are known:
//
//	0    2  "wv"
//	2    1  layout of all this, 1: flows of another one are removed
//	3    1  kind
//	4       kind 1: MAC, then the tag; kind 2: BLAKE2s of address, VNI and tag, 12 bytes
//
// Heartbeats take the way of all frames: the probe MAC of each peer has a flow.
//
// The attributes of all messages are drawn in package wire.
//
// # Concurrency
//
// What keeper says of drivers. Besides there is a goroutine for each upcall socket, which
// decides under the Keeper's lock, so that an answer is never older than the state.
package ovs
