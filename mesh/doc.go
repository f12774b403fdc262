// Package mesh connects this peer with the others: it dials, accepts, checks and
// keeps the control connections, asks the overlays for the links that carry frames
// beside them, spreads what peers have to tell one another, and knows the ways
// through the network.
//
// The one idea to read it: a [Router] is one goroutine that owns all state (the
// loop, loop.go). Every connection has a goroutine that reads and one that
// writes, every attempt to dial has one that resolves and dials; they tell the
// loop what happened and the loop decides. What others need leaves it as
// immutable values: a [View] after each change, a [Status] when asked.
//
// # Life of a connection
//
//	accept.go   a socket from a stranger: rate limits, bounded state, silence to garbage
//	attempt.go  a target is due: resolve, dial
//	socket.go   both: Noise handshake, hello, then reading until the end
//	admit.go    the loop checks who it is: ourselves, a stranger with a name in use,
//	            a restarted peer, a second connection to the same peer, too many
//	link.go     links are prepared and started; established when the first is up
//	loop.go     heartbeats, time, the end
//
// A connection is pending until its first link is up and established from then
// on; it falls back to pending when no link is up, and is closed when that lasts
// too long. Peers learn at once of a graceful end by a close message; a silent
// peer is given up after [DeadAfter]. When no link is up and the peer does not answer
// on the connection either, its other addresses are dialed meanwhile
// ([dial.Maker.Doubt]): whichever works first, the old connection or a new one, stays.
//
// # What lives on the connections
//
//	spread.go   gossip: rounds of news to some neighbours, digests, channels we lack
//	unicast.go  messages to one peer, hop by hop
//	shape.go    the topology, which is a channel of gossip; routes, who is gone
//	find.go     discovery: which peers to dial, how many, and where they may be
//	room.go     the connection limit, and that it never closes parts of the network to others
//	open.go     two peers that can't be dialed dial each other at the same time
//
// A message of gossip waits for the writer of each connection merged with what waits
// there already (queue.go): a slow neighbour costs memory for one state. What one
// neighbour may make us do is limited (reader.rest, topo's limits), and an error of a
// channel is counted and named in [Status] but costs no connection.
//
// Both ends dial when peers find each other through others: one at once, the other
// some seconds later, so that a host behind NAT comes through from its side and two
// that can both be dialed don't meet. A peer dialed like that is refused if the
// network doesn't know it.
//
// # Who is who
//
// A peer proves the static key of its handshake; the first key seen for a name is
// pinned. Two live peers can never hold the same name: the second is refused and
// both ends say which host to rename. A peer that comes back with another key is
// taken (a reinstalled host) when nobody with that name answers any more. A peer
// that comes back with the same key and a new UID was restarted: it replaces its
// old connection, unless that still answers, in which case two hosts run from
// copies of one state directory, and both ends say so. Two hosts with one name that
// are further apart learn of each other through the topology's gossip ([Conflict]).
//
// # Concurrency
//
// All methods of Router may be called from any goroutine except from inside
// Config.OnChange, which runs on the loop. Links call Params.Send and
// Params.Notify from any goroutine; both only append to a bounded queue.
package mesh
