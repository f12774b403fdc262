// Package space keeps account of the addresses that this peer owns: which are
// free, which are in use, and which must rest for now.
//
// Its one idea: an owned address is in exactly one of three sets. Free ones may
// be handed out or given away. Used ones belong to a container. Held ones are
// ours as far as we know, but we might not know enough, for example right after
// our disk was lost; they are handed out to nobody, and only who already has one
// can claim it.
//
// What is owned follows the ring, in both directions: [Space.Gain], [Space.Lose].
//
// The package is pure.
package space

import (
	"fmt"

	"weave/ipam/addr"
)

// Space is the account. The zero Space owns nothing. One goroutine owns it.
type Space struct {
	owned, free, held addr.Set // free and held are disjoint parts of owned; the rest of owned is used
}

// Gain adds addresses that became ours, as free ones, or as held ones. Addresses
// that were ours already stay what they are.
func (s *Space) Gain(r addr.Range, held bool) {
	into := &s.free
	if held {
		into = &s.held
	}
	fresh := addr.SetOf(r)
	for _, old := range s.owned.Within(r) {
		fresh.Remove(old)
	}
	for _, n := range fresh.Ranges() {
		into.Add(n)
	}
	s.owned.Add(r)
}

// Lose takes away addresses that are no longer ours, whatever they are used for.
// The caller knows who uses them and what to do about it.
func (s *Space) Lose(r addr.Range) {
	s.owned.Remove(r)
	s.free.Remove(r)
	s.held.Remove(r)
}

// Allocate takes the lowest free address of r into use; false if there is none.
func (s *Space) Allocate(r addr.Range) (addr.Addr, bool) {
	a, ok := s.free.First(r)
	if ok {
		s.free.Remove(addr.Of(a))
	}
	return a, ok
}

// Claim takes a free or held address into use; false if it is used or not ours.
func (s *Space) Claim(a addr.Addr) bool {
	if !s.free.Contains(a) && !s.held.Contains(a) {
		return false
	}
	s.free.Remove(addr.Of(a))
	s.held.Remove(addr.Of(a))
	return true
}

// Free gives a used address back; false if it was not in use or not ours.
func (s *Space) Free(a addr.Addr) bool {
	if !s.Used(a) {
		return false
	}
	s.free.Add(addr.Of(a))
	return true
}

// Hold makes what is free in r rest.
func (s *Space) Hold(r addr.Range) {
	for _, f := range s.free.Within(r) {
		s.held.Add(f)
		s.free.Remove(f)
	}
}

// Release makes what rests in r free.
func (s *Space) Release(r addr.Range) {
	for _, h := range s.held.Within(r) {
		s.free.Add(h)
		s.held.Remove(h)
	}
}

// Donate takes a chunk of free space in r out of the account, to be given to
// another peer; false if nothing is free there. The chunk is the largest
// CIDR-aligned one, of equals the last; if it is more than half of what is free in
// r, only its upper half.
func (s *Space) Donate(r addr.Range) (addr.Range, bool) {
	var chunk addr.Range
	total := uint64(0)
	for _, f := range s.free.Within(r) {
		total += f.Size()
		if b := f.LargestBlock(); b.Size() >= chunk.Size() {
			chunk = b
		}
	}
	if chunk.Empty() {
		return addr.Range{}, false
	}
	if 2*chunk.Size() > total {
		chunk = chunk.UpperHalf()
	}
	s.Lose(chunk)
	return chunk, true
}

// Owns reports whether a is ours.
func (s *Space) Owns(a addr.Addr) bool { return s.owned.Contains(a) }

// Used reports whether a is ours and in use.
func (s *Space) Used(a addr.Addr) bool {
	return s.owned.Contains(a) && !s.free.Contains(a) && !s.held.Contains(a)
}

// Held reports whether a is ours and rests.
func (s *Space) Held(a addr.Addr) bool { return s.held.Contains(a) }

// FreeIn and HeldIn return how many addresses of r are free, or rest.
func (s *Space) FreeIn(r addr.Range) uint64 { return s.free.SizeWithin(r) }

// HeldIn: see FreeIn.
func (s *Space) HeldIn(r addr.Range) uint64 { return s.held.SizeWithin(r) }

// Owned returns what is ours, Unheld the part of it that does not rest.
func (s *Space) Owned() *addr.Set { return s.owned.Clone() }

// Unheld: see Owned.
func (s *Space) Unheld() *addr.Set {
	u := s.owned.Clone()
	for _, h := range s.held.Ranges() {
		u.Remove(h)
	}
	return u
}

// Sizes returns how many addresses are ours, free, and at rest.
func (s *Space) Sizes() (owned, free, held uint64) {
	return s.owned.Size(), s.free.Size(), s.held.Size()
}

// Check reports a broken account; for tests.
func (s *Space) Check() error {
	for _, part := range []*addr.Set{&s.free, &s.held} {
		for _, r := range part.Ranges() {
			if !s.owned.Covers(r) {
				return fmt.Errorf("%v is not ours", r)
			}
		}
	}
	for _, r := range s.free.Ranges() {
		if s.held.SizeWithin(r) > 0 {
			return fmt.Errorf("%v is both free and held", r)
		}
	}
	return nil
}
