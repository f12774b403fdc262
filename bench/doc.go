// Command bench measures how fast and how dear a path between two containers is:
// weave's own paths beside the kernel's and wireguard-go's, all in one run.
//
// The one idea: figures of different runs, or of different machines, say nothing
// beside each other, so every repetition measures every path once (A B C A B C…)
// and what counts is the ratio between paths of the same repetition.
//
// A path ([path]) is a way to join two endpoints over an underlay; setting it up
// is all that differs. What is measured at the endpoints is the same for all:
//
//	TCP     iperf3, 1 and 4 streams, both directions
//	UDP     64 and 1400 bytes, offered load in steps up to "as fast as it goes"
//	ping    ICMP every 10 ms, idle and beside a TCP stream
//	cost    processor seconds per gigabyte, memory of the daemons
//
// # Topology
//
//	c1 ─veth─ [bridge ─ path] h1 ══ underlay veth, MTU 1500 or 9000 ══ h2 [path ─ bridge] ─veth─ c2
//
// c1, h1, h2, c2 are network namespaces. Two baselines have no container and no
// bridge, which favours them: the bare underlay, and wireguard-go, which is a
// layer-3 tunnel.
//
// # Concurrency
//
// One path exists at a time and one bench runs at a time on a machine (a lock
// file). Processes started here die with the bench; namespaces of a bench that
// was killed are removed by the next one.
package main
