// Package vxlan is the kernel path over a vxlan device that is a port of the bridge.
//
// Its one idea: the device floods nothing and learns nothing, so that it carries
// exactly the MACs that were steered to it: each has an entry "self, dst PEER" on the
// device, and the bridge's own entry for the MAC points to the device's port. What
// the bridge does not know goes to user space as if the device were not there.
//
// # What it leaves in the kernel
//
//	weavevx, weavevx6     a vxlan device for each family of the underlay that has
//	                      peers; nolearning, no default remote, don't fragment
//	self entries          of MACs, and of each peer's probe MAC, on the device
//	table inet weave      chain fastdp drops, and counts, packets to the vxlan port
//	                      from addresses that are not in the sets peers4 and peers6
//
// The device's own MAC is the host's probe MAC (odp.ProbeMAC), which makes it a local
// address of the bridge: heartbeats are seen by the packet socket on the device and
// go no further. The port is isolated, and so has to be the router's TAP, so that
// frames from the network go to containers only.
//
// The devices exist only while there are peers that may be reached in clear: a
// process that never calls AddPeer never makes one. The filter is there before the
// device is up.
//
// # Adoption
//
// All of that outlives the process. A new Backend with Config.Adopt takes over what it
// finds under these names, and what nobody asked for stays until Disown; without
// Adopt it removes it before Open returns.
//
// # Concurrency
//
// One mutex guards the wanted state and serialises requests to the kernel. Run has a
// goroutine that mends, one for each notification socket, and one for each device's
// packet socket.
package vxlan
