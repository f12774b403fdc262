// Package harness is what the tests below internal/e2e share: hosts that run weave
// ([Node]), also with a container that is there from the start ([Site]), and the ways to
// look at them, which are those of a user: commands and what they refuse, pings, streams
// and datagrams of containers, lines of output, metrics.
//
// The idea to read it: a [Node] is a [testnet.Host] with a daemon, for tests in which
// addresses come from weave; a [Site] is a Node and one container whose inner addresses
// follow from the host's number, so that a test can name every end of the traffic before
// anything has started.
//
// # Errors
//
// What a test cannot go on without ends it (t.Fatal), what it looks for is a t.Error.
package harness
