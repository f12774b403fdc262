// Package vxlan is the kernel path over a vxlan device that is a port of the bridge.
//
// Its one idea: the device floods nothing and learns nothing, so that it carries
// exactly the MACs that were steered to it: each has an entry "self, dst PEER" on the
// device, and the bridge's own entry for the MAC points to the device's port. What
// the bridge does not know goes to user space as if the device were not there.
//
// Package keeper says when, puts the device on the bridge and keeps strangers out.
//
// # What it leaves in the kernel
//
//	weavevx, weavevx6     a vxlan device for each family of the underlay that has
//	                      peers; nolearning, no default remote, don't fragment
//	self entries          of MACs, and of each peer's probe MAC, on the device
//	table inet weave      see package keeper
package vxlan
