package ipam

import (
	"errors"
	"fmt"
)

// Kinds of refusal, for errors.Is. The error itself reads as a sentence with the
// names in it, and what to do.
var (
	// ErrNoQuorum: the range is not divided yet and too few electors are reachable.
	ErrNoQuorum = errors.New("no quorum")
	// ErrExhausted: all addresses asked for are in use, everywhere.
	ErrExhausted = errors.New("range exhausted")
	// ErrWaiting: somebody else has to answer first, or has to be given up.
	ErrWaiting = errors.New("waiting")
	// ErrInUse: the address belongs to another container, here or elsewhere.
	ErrInUse = errors.New("address in use")
	// ErrSubnet: the subnet or address cannot be managed.
	ErrSubnet = errors.New("bad subnet")
	// ErrNotFound: no such address or peer.
	ErrNotFound = errors.New("not found")
	// ErrAlive: a peer that is to be removed answers.
	ErrAlive = errors.New("peer is alive")
	// ErrIdentity: another daemon uses this peer's name.
	ErrIdentity = errors.New("peer name in use elsewhere")
	// ErrStopped: the allocator is shutting down.
	ErrStopped = errors.New("address allocation is shutting down")
	// ErrNotTaken: nobody confirmed to have taken over the space given up.
	ErrNotTaken = errors.New("space given up was not taken over")
	// ErrBusy: too many requests wait already.
	ErrBusy = errors.New("too many requests")
	// ErrMessage: a message that no peer of ours would send.
	ErrMessage = errors.New("bad address message")
	// ErrStore: what was stored cannot be used.
	ErrStore = errors.New("bad stored addresses")
)

// refusal is an error of a kind with its own words.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}
