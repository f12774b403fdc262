// Package ipam gives every container of the network an address that no other
// container has, without a central store.
//
// Its one idea: the range of addresses is divided among the peers (package ring),
// and only its owner hands an address out, so that this needs nobody else. A peer
// that has none left is given some by another. All decisions are made by one pure
// function, core.step, from an event to effects; everything with a clock, a disk
// or a network is in [Allocator], the loop around it.
//
// # Order of effects
//
// The effects of an event are carried out in this order: save, send, reply. What
// a peer says to others, or to a container, is on its disk before. [Allocator]
// takes many events together, saves what they changed in one transaction, and only
// then sends and replies.
//
// # What a peer knows for sure
//
// An address belongs to the peer whose replica of the ring says "mine", as only
// that peer can give it away. That holds as long as replicas never go back in
// time; a lost disk, an old snapshot and a copied one do just that. Therefore
// what a peer owns rests (package space: held) at each start, until the others have
// said what they remember:
//
//   - each run of a daemon has a number, kept in its store and remembered by the
//     others (ring.Member);
//   - a starting peer asks all it can reach (sync), and hears their rings and the
//     number they remember for it (ack);
//   - if that is not older than its own, the store is not the last one: then every
//     owner in the ring must have answered, and the host must have told which
//     addresses are in use ([Allocator.Reconcile]), before the peer hands out
//     what it owns. Space that it is given meanwhile it may use at once;
//   - a peer that reaches nobody goes on after three seconds with what its store
//     says, or what its seeds say. It is the only place where an old store cannot be
//     told from a good one.
//
// The same exchange precedes and follows [Allocator.RmPeer]: before, so that no
// grant of the lost peer is overlooked and a living one is found alive; after,
// so that of two administrators who act at once only one's peer uses the space.
//
// # When a range is lost that has containers in it
//
// That takes a mistake, such as rmpeer for a peer that comes back. The containers
// keep running and their leases are kept, as foreign ones. The event names the new
// owner and the addresses, and the peer asks the new owner for each of them: an
// address that is still free there is given back at once, one that is not is a
// duplicate, which is reported on both sides and in status until one of the two
// containers is gone. No connection is ever cut for it.
//
// # Limits
//
// No address is used twice as long as
//
//   - fewer than a quorum of the electors have lost their disks before a ring, or
//     after it while those who have it are out of reach;
//   - a peer with a lost, old or copied disk can reach the others when it starts, or
//     they do not use what it gave them since;
//   - [Allocator.RmPeer] is used for a peer whose containers are gone, while the
//     other peers can be reached.
//
// Beyond that an address can be used twice; then the section above applies.
//
// # Wire format
//
// See message.go.
//
// # Errors
//
// See errors.go: each says what to do.
//
// # Concurrency
//
// An [Allocator]'s methods may be called from any goroutine. One goroutine, in
// Run, owns the core.
package ipam
