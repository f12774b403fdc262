// Package names tests names with the real weave binary on whole hosts, which are
// network namespaces, see package testnet. It has no code of its own.
//
// The idea to read it: what is asserted is what a container's resolver gets to hear, and
// who is heard. Most tests ask with dig, as a user would; those that measure a time ask
// over a socket of their own, so that the start of a process is no part of it.
//
// Tests of which a time is asserted run alone; those that mostly wait run side by side.
// They need root.
package names
