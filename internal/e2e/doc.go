// Package e2e tests the real weave binary on whole hosts: network namespaces with
// an underlay between them, see package testnet. It has no code of its own.
//
// The idea to read it: a test is a story that a user could live through (join,
// mistype the password, pull the plug, fill the disk), told with the command line
// and with traffic of containers, and what it asserts is what that user sees:
// exit codes, lines of status and log, packets, and what is left on the host.
//
// # Figures
//
// Tests log the times they measure ("link back after 1.2s"), so `go test -v` is a
// table of them. Limits are the promises of the documentation, not those times.
//
// # Two daemons
//
// Most tests run the binary that users get. What cannot be reached by its flags,
// such as a short life of keys, is reached by running the test binary itself as
// the daemon (see TestMain): the same internal/daemon with other settings.
//
// # Concurrency
//
// Tests run one after the other: they measure times, and the machine may have no
// more than two cores. They need root.
package e2e
