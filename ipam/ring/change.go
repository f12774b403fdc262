package ring

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"weave/internal/peer"
	"weave/ipam/addr"
)

// Grant gives rng, all of which must be giver's, to another peer: ErrNotOwner,
// ErrWornOut. The delta says so to others.
func (r *Ring) Grant(giver peer.Name, rng addr.Range, to peer.Name) (Delta, error) {
	if rng.Empty() || to.IsZero() || !r.id.Range.Covers(rng) {
		return Delta{}, fmt.Errorf("%v to %v: %w", rng, to, ErrNotOwner)
	}
	d := Delta{ID: r.id}
	for e := range r.within(rng) {
		if e.Owner != giver {
			return Delta{}, fmt.Errorf("%v is owned by %v: %w", e.Range, e.Owner, ErrNotOwner)
		}
		next, ok := e.Stamp.next(to)
		if !ok {
			return Delta{}, fmt.Errorf("%v: %w", e.Range, ErrWornOut)
		}
		d.Entries = push(d.Entries, Entry{e.Range, next})
	}
	_, err := r.join(d.Entries)
	return d, err
}

// GiveAll grants each of ranges to another peer, as one delta. Ranges that are not
// giver's are left alone.
func (r *Ring) GiveAll(giver peer.Name, ranges []addr.Range, to peer.Name) Delta {
	d := Delta{ID: r.id}
	for _, rng := range ranges {
		if g, err := r.Grant(giver, rng, to); err == nil {
			d = d.Join(g)
		}
	}
	return d
}

// TakeOver makes all of victim's ranges by's, on an administrator's word that no
// run of victim up to number boot will be seen again. It returns how many
// addresses that are, and the delta that says so to others.
func (r *Ring) TakeOver(victim, by peer.Name, boot uint64) (uint64, Delta) {
	n, d := r.seize(victim, by)
	d.Fences = r.fence(Fence{Victim: victim, Boot: boot, By: by})
	return n, d
}

// Retire sets a fence around a peer that leaves: its heir may take late what the
// peer is given by others who do not know yet.
func (r *Ring) Retire(leaver, heir peer.Name, boot uint64) Delta {
	return Delta{ID: r.id, Fences: r.fence(Fence{Victim: leaver, Boot: boot, By: heir})}
}

func (r *Ring) fence(f Fence) []Fence {
	old, ok := r.fences[f.Victim]
	if ok && !old.less(f) || !ok && len(r.fences) >= MaxFences {
		return nil
	}
	r.fences[f.Victim] = f
	r.summed = false
	return []Fence{f}
}

func (r *Ring) seize(victim, by peer.Name) (n uint64, d Delta) {
	d.ID = r.id
	if victim == by {
		return 0, d
	}
	for _, e := range r.entries {
		if e.Owner == victim && e.Epoch < MaxEpoch {
			n += e.Size()
			d.Entries = push(d.Entries, Entry{e.Range, Stamp{e.Epoch + 1, e.Version, by}})
		}
	}
	if _, err := r.join(d.Entries); err != nil {
		return 0, Delta{ID: r.id} // cannot be: no more entries than before
	}
	return n, d
}

// Restamp gives neighbouring ranges of one owner equal stamps, which makes them
// one entry again. For the owner alone; nothing changes hands.
func (r *Ring) Restamp(owner peer.Name) Delta {
	d := Delta{ID: r.id}
	for i := 0; i < len(r.entries); {
		j, top := i+1, r.entries[i].Stamp
		for ; j < len(r.entries) && r.entries[j].Owner == r.entries[i].Owner; j++ {
			if top.Compare(r.entries[j].Stamp) < 0 {
				top = r.entries[j].Stamp
			}
		}
		if next, ok := top.next(owner); ok && j > i+1 && top.Owner == owner {
			d.Entries = append(d.Entries, Entry{addr.Range{Start: r.entries[i].Start, End: r.entries[j-1].End}, next})
		}
		i = j
	}
	if _, err := r.join(d.Entries); err != nil {
		return Delta{ID: r.id}
	}
	return d
}

// within yields the entries of rng, cut to it.
func (r *Ring) within(rng addr.Range) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := r.find(rng.Start); i < len(r.entries) && r.entries[i].Start.Less(rng.End); i++ {
			in := r.entries[i].Range.Intersect(rng)
			if !in.Empty() && !yield(Entry{in, r.entries[i].Stamp}) {
				return
			}
		}
	}
}

// Owner returns who owns a; false outside the ring's range.
func (r *Ring) Owner(a addr.Addr) (peer.Name, bool) {
	if !r.id.Range.Contains(a) {
		return peer.Name{}, false
	}
	return r.entries[r.find(a)].Owner, true
}

// OwnedBy returns the ranges of a peer.
func (r *Ring) OwnedBy(n peer.Name) *addr.Set {
	s := &addr.Set{}
	for _, e := range r.entries {
		if e.Owner == n {
			s.Add(e.Range)
		}
	}
	return s
}

// Owners returns how many addresses of rng each peer owns.
func (r *Ring) Owners(rng addr.Range) map[peer.Name]uint64 {
	m := map[peer.Name]uint64{}
	for e := range r.within(rng) {
		m[e.Owner] += e.Size()
	}
	return m
}

// Fence returns the fence around a peer, if an administrator set one.
func (r *Ring) Fence(victim peer.Name) (Fence, bool) {
	f, ok := r.fences[victim]
	return f, ok
}

// ChoosePeersToAskForSpace returns the other owners of addresses in rng, those
// first that are likely to have many free: at random, weighted by free, which
// says how many addresses a peer reported free. Peers that reported none come
// last, for reports may be old.
func (r *Ring) ChoosePeersToAskForSpace(self peer.Name, rng addr.Range, free func(peer.Name) uint64, rnd *rand.Rand) []peer.Name {
	owners := r.Owners(rng)
	delete(owners, self)
	type choice struct {
		name   peer.Name
		weight float64
	}
	choices := make([]choice, 0, len(owners))
	for _, n := range slices.SortedFunc(maps.Keys(owners), peer.Name.Compare) { // sorted: the same rnd gives the same order
		choices = append(choices, choice{n, float64(min(owners[n], free(n))) * (1 - rnd.Float64())})
	}
	slices.SortStableFunc(choices, func(a, b choice) int { return cmp.Compare(b.weight, a.weight) })
	names := make([]peer.Name, len(choices))
	for i, c := range choices {
		names[i] = c.name
	}
	return names
}
