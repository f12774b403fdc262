// Package keeper is what all kernel backends share: it knows what is wanted, and keeps
// the kernel in that state.
//
// Its one idea: a backend is a [Driver], which can make one device that carries frames
// of single MACs, and a Keeper, which knows the peers and MACs there are, puts the
// device on the bridge, and looks again and again whether all of it still is so. The
// Keeper is an odp.Backend; a Driver decides nothing.
//
// # What it makes in the kernel
//
//	the port       the Driver's device as a port of the bridge: it learns nothing, floods
//	               nothing, and is isolated, as the router's TAP has to be, so that frames
//	               from the network go to containers only
//	table inet weave
//	               chain fastdp drops, and counts, packets to the UDP port from addresses
//	               that are not in the sets peers4 and peers6
//
// The port's own MAC is the host's probe MAC (odp.ProbeMAC), which makes it a local
// address of the bridge: heartbeats are seen by the packet socket on the device and go
// no further. Where one port serves both families of the underlay, the second probe MAC
// is a local address by an entry of the bridge.
//
// The devices exist only while there are peers that may be reached in clear: a process
// that never calls AddPeer never makes one. The filter is there before the device is up.
//
// # Adoption
//
// All of that outlives the process. A new Keeper with Config.Adopt takes over what it
// finds, and what nobody asked for stays until Disown; without Adopt it removes it
// before Open returns.
//
// # Concurrency
//
// One mutex guards the wanted state and serialises requests to the kernel; a Driver is
// called with it held, except for its Run. Run has a goroutine that mends, one for each
// notification socket, one for each port's packet socket, and those of the Driver.
package keeper
