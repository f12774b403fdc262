// Package daemon is the glue: it builds the packages of one daemon in one readable
// order ([Run]) and passes what they say to each other. It decides nothing itself.
//
// # Order
//
//	store → identity, key, password → TAP, bridge → sockets, sleeve, switch
//	→ addresses, names → mesh → control socket, status listener → ready
//
// The order is undone from the end: mesh first (peers are told), then the workers,
// then sockets and TAP. The bridge and the containers on it stay; only reset takes
// them away.
//
// # What passes through here
//
//	mesh.View        → forward.Snapshot, swapped in by one pointer
//	forward.MACEvent → the bridge's forwarding table, and back
//	api.Backend      → mesh, hostnet, ipam, nameserver
//	hostnet.List     → ipam.Reconcile, names of what is there
package daemon
