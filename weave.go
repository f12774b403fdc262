// Package weave is the root of an overlay network that joins containers and hosts
// on many machines into one flat, encrypted Ethernet network.
//
// Nothing is here but the tests that hold for the whole tree: which package may
// import which, and that each has a doc comment. Start with ARCHITECTURE.md.
package weave
