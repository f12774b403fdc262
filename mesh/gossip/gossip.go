// Package gossip is the contract between the mesh, which moves messages between
// peers, and the replicated states that live on it: the topology itself, the ring
// of addresses, the registry of names.
//
// Its one idea: a [Channel] is a state that merges. A peer tells its neighbours
// what changed (an update, forwarded by each as far as it is news), and now and
// then compares digests with one of them, so that what was lost on the way is
// found and sent again. Nothing on the wire depends on anybody's clock.
//
// # Flow
//
//	local change      Sender.Update(delta)     → some neighbours (2·log2 of the number of peers)
//	message received  Channel.OnMessage        → News forwarded to some neighbours, the sender left out
//	                                           → Reply back to the sender
//	every few seconds Channel.Digest           → one neighbour, whose OnMessage replies with what
//	                                             differs, or with a longer digest
//	unicast           Sender.Unicast           → hop by hop to one peer → Channel.OnUnicast
//
// # Back-pressure
//
// A [Data] waiting to be sent on a connection is merged with the next one of the
// same channel, so that a slow neighbour costs memory for one state, never for a
// queue of messages.
//
// # Concurrency
//
// The mesh calls a Channel from one goroutine at a time. A Channel does not block
// in its methods and does not call Sender while it holds a lock that they take.
//
// The package is pure.
package gossip

import (
	"errors"

	"weave/internal/peer"
)

var (
	// ErrNoRoute says that no chain of connections leads to a peer.
	ErrNoRoute = errors.New("no route to peer")
	// ErrBusy says that the next hop takes no more messages now.
	ErrBusy = errors.New("connection to peer is busy")
	// ErrTooLong reports a message over MaxMessage.
	ErrTooLong = errors.New("gossip message too long")
)

// MaxMessage is the largest encoded Data or unicast message, in bytes. A larger
// state is encoded as several.
const MaxMessage = 128 << 10

// Data is a part of a channel's state on its way to some neighbours. It is
// immutable: the same Data waits on many connections, and their writers encode it
// while the channel makes the next.
type Data interface {
	// Encode returns messages of at most MaxMessage bytes; each can be merged by
	// itself, in any order. It is called from any goroutine, perhaps never.
	Encode() [][]byte
	// Merge returns a Data that holds both; it changes neither.
	Merge(Data) Data
}

// Channel is one replicated state. An error from the On methods means that the
// message was not of this channel's making (it is counted, named in status and
// ignored); it never costs the connection.
type Channel interface {
	// Name tells channels apart on the wire: at most 32 bytes.
	Name() string
	// Digest is a message that sums up the state for a neighbour to compare with:
	// short, and the same for equal states.
	Digest() []byte
	// OnMessage takes an update or a digest from a neighbour.
	OnMessage(from peer.Name, msg []byte) (Reaction, error)
	// OnUnicast takes a message from any peer of the mesh.
	OnUnicast(from peer.Name, msg []byte) error
	// OnGone says that a peer is not reachable any more and was forgotten.
	OnGone(peer.Name)
}

// Reaction is what a message from a neighbour gives rise to; both may be nil.
type Reaction struct {
	News  Data // changed something here: goes on to other neighbours
	Reply Data // goes back to the sender
}

// Sender is what the mesh gives to a channel. Its methods never block and may be
// called from any goroutine.
type Sender interface {
	// Update spreads a change made here. What comes before the mesh runs, or
	// faster than it can be sent, is merged.
	Update(Data)
	// Unicast sends to one peer, over as many hops as it takes; it fails at once, with
	// one of the errors of this package, if no route is known or the way is full. It
	// copies msg. Delivery is not certain.
	Unicast(to peer.Name, msg []byte) error
}

// Open makes a channel that speaks through s. The mesh calls it once, before any
// message comes.
type Open func(s Sender) Channel
