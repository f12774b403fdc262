// Package mesh tests networks of many hosts with whole daemons in network namespaces:
// sparse ones, in which frames cross other hosts, and full ones, and what happens to
// their traffic when hosts die, freeze, join, move and are cut off. All of it is in the
// tests.
//
// The idea to read it: starting sixteen daemons costs seconds, so a test makes one
// network and tells several stories with it, each of which leaves the network whole.
//
// The underlay's family differs from test to test, and each looks at both families of
// the overlay, so that a run sees all four combinations.
package mesh
