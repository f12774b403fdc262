// Package ring says who owns which addresses: a replicated map from every
// address of the network's range to one peer.
//
// Its one idea: each address carries a [Stamp], and two replicas are joined by
// taking, address by address, the greater of the two stamps. That is a total
// function of the two states: it cannot fail half way, and it does not matter
// in which order, how often, or in how many pieces changes arrive. Neighbouring
// addresses with equal stamps are kept as one [Entry], so that a replica costs
// memory per range, not per address.
//
// # Who may write
//
// Only the owner of an address makes a new stamp for it, one version up: it
// gives the address away ([Ring.Grant]) or keeps it ([Ring.Restamp]). So all
// stamps of an address form one line, and at most one peer finds itself at its
// end. The exception is an administrator's word that a peer is gone for good
// ([Ring.TakeOver]): it raises the epoch, which beats whatever the lost peer
// still writes, in every replica alike. Two administrators who do so at once
// make equal epochs and versions; then the greater peer name wins, everywhere.
// A [Fence] stays behind, so that what the lost peer was given just before its
// end can be taken over too when it becomes known.
//
// # Identity
//
// A ring begins as a pure function of its [ID], the range and the peers it was
// first divided among, so a replica can start from the ID and any delta. Rings
// of different IDs have no common beginning and are never joined: [ConflictError].
//
// # Concurrency
//
// A Ring is owned by one goroutine. Entries are never changed in place: slices
// handed out stay valid and may be read anywhere.
//
// The package is pure.
package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weave/internal/peer"
	"weave/ipam/addr"
)

// Limits on what is believed from outside. They keep memory bounded and leave an
// owner room to count on after the greatest version that it can be sent.
const (
	MaxEntries = 1 << 16
	MaxFences  = 1 << 10
	MaxSeeds   = 1 << 10
	MaxVersion = 1 << 62
	MaxEpoch   = 1 << 30
)

// Errors of Merge; ErrRange and ErrSeeds come inside a *ConflictError.
var (
	ErrRange   = errors.New("the network uses another address range")
	ErrSeeds   = errors.New("the address range was divided among other peers")
	ErrInvalid = errors.New("bad ring delta")
	ErrTooMany = errors.New("ring has too many entries")
)

// Errors of changes made here.
var (
	ErrNotOwner = errors.New("range is not owned by the giver")
	ErrWornOut  = errors.New("range has no versions left")
)

// ID is what a ring began as. Rings of the same ID are replicas of one another.
type ID struct {
	Range addr.Range
	Seeds []peer.Name // sorted, no duplicates, at least one
	Nonce uint64      // tells elections apart; 0 when the seeds were configured
}

// NewID sorts the seeds and drops duplicates and the unknown peer.
func NewID(universe addr.Range, seeds []peer.Name, nonce uint64) ID {
	s := slices.DeleteFunc(slices.Clone(seeds), peer.Name.IsZero)
	slices.SortFunc(s, peer.Name.Compare)
	return ID{Range: universe, Seeds: slices.Compact(s), Nonce: nonce}
}

// Equal reports whether rings of both IDs can be joined.
func (id ID) Equal(o ID) bool {
	return id.Range == o.Range && id.Nonce == o.Nonce && slices.Equal(id.Seeds, o.Seeds)
}

// valid reports what no ring can begin as.
func (id ID) valid() error {
	switch {
	case id.Range.Size() < addr.MinSize:
		return fmt.Errorf("%w: range %v", ErrInvalid, id.Range)
	case len(id.Seeds) == 0 || len(id.Seeds) > MaxSeeds:
		return fmt.Errorf("%w: %d seeds", ErrInvalid, len(id.Seeds))
	}
	for i, n := range id.Seeds {
		if n.IsZero() || i > 0 && id.Seeds[i-1].Compare(n) >= 0 {
			return fmt.Errorf("%w: seeds out of order", ErrInvalid)
		}
	}
	return nil
}

// String is for people: the range and the seeds.
func (id ID) String() string {
	var names []string
	for _, s := range id.Seeds {
		names = append(names, s.String())
	}
	var prefixes []string
	for _, p := range id.Range.Prefixes() {
		prefixes = append(prefixes, p.String())
	}
	if len(names) == 0 {
		return strings.Join(prefixes, "+")
	}
	return strings.Join(prefixes, "+") + " seeded by " + strings.Join(names, ",")
}

// ConflictError says that two rings cannot be joined, and how they differ. It
// wraps ErrRange or ErrSeeds.
type ConflictError struct{ Ours, Theirs ID }

// Error names both rings by range and seeds.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: ours is %v, theirs %v", e.Unwrap(), e.Ours, e.Theirs)
}

// Unwrap returns ErrRange or ErrSeeds.
func (e *ConflictError) Unwrap() error {
	if e.Ours.Range != e.Theirs.Range {
		return ErrRange
	}
	return ErrSeeds
}

// Stamp says who owns an address, and what it takes to change that.
type Stamp struct {
	Epoch   uint32 // how often it was taken over from a lost peer
	Version uint64 // changes by its owners
	Owner   peer.Name
}

// Compare orders stamps totally: epoch, then version, then owner. Two stamps that
// are equal in all are the same.
func (s Stamp) Compare(o Stamp) int {
	switch {
	case s.Epoch != o.Epoch:
		return cmpOf(s.Epoch < o.Epoch)
	case s.Version != o.Version:
		return cmpOf(s.Version < o.Version)
	}
	return s.Owner.Compare(o.Owner)
}

func cmpOf(less bool) int {
	if less {
		return -1
	}
	return 1
}

// next is the stamp by which the owner of s gives the address to another peer.
func (s Stamp) next(owner peer.Name) (Stamp, bool) {
	n := Stamp{s.Epoch, s.Version + 1, owner}
	if n.Version > MaxVersion {
		n.Epoch, n.Version = n.Epoch+1, 0
	}
	return n, n.Epoch <= MaxEpoch
}

// Entry is a range of addresses with one stamp.
type Entry struct {
	addr.Range
	Stamp
}

// Fence says that By took over what Victim had, up to and including the run of
// Victim that is numbered Boot.
type Fence struct {
	Victim peer.Name
	Boot   uint64
	By     peer.Name
}

func (f Fence) less(o Fence) bool {
	if f.Boot != o.Boot {
		return f.Boot < o.Boot
	}
	return f.By.Compare(o.By) < 0
}

// Delta is a part of a ring: what changed, or all of it.
type Delta struct {
	ID      ID
	Entries []Entry // sorted, disjoint
	Fences  []Fence
}

// Valid reports whether d can come from a ring: ErrInvalid.
func (d Delta) Valid() error {
	if err := d.ID.valid(); err != nil {
		return err
	}
	if len(d.Entries) > MaxEntries || len(d.Fences) > MaxFences {
		return fmt.Errorf("%w: %d entries, %d fences", ErrInvalid, len(d.Entries), len(d.Fences))
	}
	for i, e := range d.Entries {
		switch {
		case e.Empty() || !d.ID.Range.Covers(e.Range):
			return fmt.Errorf("%w: entry %v outside %v", ErrInvalid, e.Range, d.ID.Range)
		case i > 0 && e.Start.Less(d.Entries[i-1].End):
			return fmt.Errorf("%w: entries out of order at %v", ErrInvalid, e.Start)
		case e.Owner.IsZero() || e.Version > MaxVersion || e.Epoch > MaxEpoch:
			return fmt.Errorf("%w: stamp of %v", ErrInvalid, e.Range)
		}
	}
	for _, f := range d.Fences {
		if f.Victim.IsZero() || f.By.IsZero() {
			return fmt.Errorf("%w: fence without a name", ErrInvalid)
		}
	}
	return nil
}

// Empty reports that d changes nothing.
func (d Delta) Empty() bool { return len(d.Entries) == 0 && len(d.Fences) == 0 }

// Ring is a replica.
type Ring struct {
	id      ID
	entries []Entry // cover id.Range without gaps; neighbours have different stamps
	fences  map[peer.Name]Fence
	sum     [sha256.Size]byte
	summed  bool
}

// New divides the range of id among its seeds: the first half of the range to the
// first half of the seeds, and so on, so that shares are CIDR-aligned but not
// equal (three seeds: 1/2, 1/4, 1/4). ErrInvalid if no ring can begin so.
func New(id ID) (*Ring, error) {
	if err := id.valid(); err != nil {
		return nil, err
	}
	r := &Ring{id: id, fences: map[peer.Name]Fence{}}
	r.claimForPeers(id.Range, id.Seeds)
	return r, nil
}

func (r *Ring) claimForPeers(rng addr.Range, peers []peer.Name) {
	if len(peers) == 1 || rng.Size() == 1 {
		r.entries = append(r.entries, Entry{rng, Stamp{Owner: peers[0]}})
		return
	}
	mid := rng.Start.Plus(rng.Size() / 2)
	half := len(peers) / 2
	r.claimForPeers(addr.Range{Start: rng.Start, End: mid}, peers[:half])
	r.claimForPeers(addr.Range{Start: mid, End: rng.End}, peers[half:])
}

// Clone returns a replica that changes by itself.
func (r *Ring) Clone() *Ring {
	c := *r
	c.fences = maps.Clone(r.fences)
	return &c
}

// ID returns what r began as.
func (r *Ring) ID() ID { return r.id }

// Entries returns all entries in order. The caller must not change them; they
// stay as they are when the ring changes.
func (r *Ring) Entries() []Entry { return r.entries }

// All returns the whole state.
func (r *Ring) All() Delta {
	d := Delta{ID: r.id, Entries: r.entries}
	for _, v := range slices.SortedFunc(maps.Keys(r.fences), peer.Name.Compare) {
		d.Fences = append(d.Fences, r.fences[v])
	}
	return d
}

// Sum is equal for equal states and, but for accidents, for no others.
func (r *Ring) Sum() [sha256.Size]byte {
	if r.summed {
		return r.sum
	}
	b := make([]byte, 0, 64+40*len(r.entries))
	b = appendRange(b, r.id.Range)
	b = binary.BigEndian.AppendUint64(b, r.id.Nonce)
	for _, s := range r.id.Seeds {
		b = s.AppendBytes(b)
	}
	for _, e := range r.entries {
		b = appendRange(b, e.Range)
		b = binary.BigEndian.AppendUint32(b, e.Epoch)
		b = binary.BigEndian.AppendUint64(b, e.Version)
		b = e.Owner.AppendBytes(b)
	}
	for _, f := range r.All().Fences {
		b = f.Victim.AppendBytes(b)
		b = binary.BigEndian.AppendUint64(b, f.Boot)
		b = f.By.AppendBytes(b)
	}
	r.sum, r.summed = sha256.Sum256(b), true
	return r.sum
}

func appendRange(b []byte, r addr.Range) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Start.Number())
	return binary.BigEndian.AppendUint64(b, r.End.Number())
}
