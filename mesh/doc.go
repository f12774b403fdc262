// Package mesh connects this peer with the others: it dials, accepts, checks and
// keeps the control connections, and asks the overlays for the links that carry
// frames beside them.
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
// peer is given up after [DeadAfter].
//
// # Who is who
//
// A peer proves the static key of its handshake; the first key seen for a name is
// pinned. Two live peers can never hold the same name: the second is refused and
// both ends say which host to rename. A peer that comes back with another key is
// taken (a reinstalled host) when nobody with that name answers any more. A peer
// that comes back with the same key and a new UID was restarted: it replaces its
// old connection, unless that still answers, in which case two hosts run from
// copies of one state directory, and both ends say so.
//
// # Concurrency
//
// All methods of Router may be called from any goroutine except from inside
// Config.OnChange, which runs on the loop. Links call Params.Send and
// Params.Notify from any goroutine; both only append to a bounded queue.
package mesh
