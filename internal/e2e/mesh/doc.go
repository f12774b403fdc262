// Package mesh tests networks of many hosts with whole daemons in network namespaces:
// sparse ones, in which frames cross other hosts, and full ones, and what happens to
// their traffic when hosts die, freeze, join, move and are cut off. All of it is in the
// tests.
//
// The idea to read it: starting sixteen daemons costs seconds, so a test makes one
// network and tells several stories with it, each of which leaves the network whole.
//
// Each test sees all four combinations of IPv4 and IPv6 of underlay and overlay: the
// connections of one network are of both families in turn ([harness.Site.Via]), or it
// has a network of each; and what it sends from container to container, it sends over
// both families.
package mesh
