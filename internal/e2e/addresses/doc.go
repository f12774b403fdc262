// Package addresses tests addresses with the real weave binary on whole
// hosts, which are network namespaces, see package testnet. It has no code of its own.
//
// The idea to read it: as in package e2e, a test is a story that a user could live
// through, and asserts what that user sees: what commands print, exit codes, which
// container reaches which, what dig says.
//
// One test waits for the half minute that the address of a container that is gone is
// kept; all others take some seconds. They need root.
package addresses
