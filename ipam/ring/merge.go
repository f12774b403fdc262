package ring

import (
	"fmt"
	"maps"
	"slices"

	"weave/internal/peer"
	"weave/ipam/addr"
)

// Move is a range that changed hands.
type Move struct {
	addr.Range
	From, To peer.Name
}

// Change is what a merge did.
type Change struct {
	News  Delta  // the parts of the delta that were new here
	Moves []Move // the parts of those with another owner than before, in order
}

// Merge joins d into r. On an error r is as before: a *ConflictError if d is of
// another ring, ErrInvalid if it is of none, ErrTooMany if r would grow beyond
// MaxEntries. Nothing else can go wrong.
func (r *Ring) Merge(d Delta) (Change, error) {
	if err := d.Valid(); err != nil {
		return Change{}, err
	}
	if !r.id.Equal(d.ID) {
		return Change{}, &ConflictError{Ours: r.id, Theirs: d.ID}
	}
	c, err := r.join(d.Entries)
	if err != nil {
		return Change{}, err
	}
	for _, f := range d.Fences {
		if old, ok := r.fences[f.Victim]; (!ok || old.less(f)) && (ok || len(r.fences) < MaxFences) {
			r.fences[f.Victim] = f
			c.News.Fences = append(c.News.Fences, f)
			r.summed = false
		}
	}
	return c, nil
}

// join takes the greater stamp at each address.
func (r *Ring) join(over []Entry) (Change, error) {
	c := Change{News: Delta{ID: r.id}}
	if !r.older(over) {
		return c, nil
	}
	out := make([]Entry, 0, len(r.entries)+2*len(over))
	j := 0
	for _, b := range r.entries {
		pos := b.Start
		for j < len(over) && over[j].Start.Less(b.End) {
			o := Entry{over[j].Range.Intersect(b.Range), over[j].Stamp}
			if b.Stamp.Compare(o.Stamp) < 0 {
				out = push(out, Entry{addr.Range{Start: pos, End: o.Start}, b.Stamp})
				out = push(out, o)
				c.News.Entries = push(c.News.Entries, o)
				if o.Owner != b.Owner {
					c.Moves = pushMove(c.Moves, Move{o.Range, b.Owner, o.Owner})
				}
				pos = o.End
			}
			if b.End.Less(over[j].End) {
				break
			}
			j++
		}
		out = push(out, Entry{addr.Range{Start: pos, End: b.End}, b.Stamp})
	}
	if len(out) > MaxEntries {
		return Change{}, fmt.Errorf("%w: %d", ErrTooMany, len(out))
	}
	r.entries, r.summed = out, false
	return c, nil
}

// older reports whether any part of over would win.
func (r *Ring) older(over []Entry) bool {
	for _, o := range over {
		for i := r.find(o.Start); i < len(r.entries) && r.entries[i].Start.Less(o.End); i++ {
			if r.entries[i].Stamp.Compare(o.Stamp) < 0 {
				return true
			}
		}
	}
	return false
}

// push appends e, unless it is empty, to a list without gaps between equals.
func push(out []Entry, e Entry) []Entry {
	if e.Empty() {
		return out
	}
	if n := len(out); n > 0 && out[n-1].End == e.Start && out[n-1].Stamp == e.Stamp {
		out[n-1].End = e.End
		return out
	}
	return append(out, e)
}

func pushMove(out []Move, m Move) []Move {
	if n := len(out); n > 0 && out[n-1].End == m.Start && out[n-1].From == m.From && out[n-1].To == m.To {
		out[n-1].End = m.End
		return out
	}
	return append(out, m)
}

// find returns the index of the entry that holds a.
func (r *Ring) find(a addr.Addr) int {
	i, _ := slices.BinarySearchFunc(r.entries, a, func(e Entry, a addr.Addr) int {
		if a.Less(e.End) {
			return 1
		}
		return -1
	})
	return i
}

// Join returns a delta that holds both; for deltas of one ring.
func (d Delta) Join(o Delta) Delta {
	if d.Empty() {
		return o
	}
	out := Delta{ID: d.ID, Entries: overlay(d.Entries, o.Entries)}
	fences := map[peer.Name]Fence{}
	for _, f := range slices.Concat(d.Fences, o.Fences) {
		if old, ok := fences[f.Victim]; !ok || old.less(f) {
			fences[f.Victim] = f
		}
	}
	for _, v := range slices.SortedFunc(maps.Keys(fences), peer.Name.Compare) {
		out.Fences = append(out.Fences, fences[v])
	}
	return out
}

// overlay joins two sorted lists that may have gaps.
func overlay(a, b []Entry) (out []Entry) {
	var cuts []addr.Addr
	for _, e := range slices.Concat(a, b) {
		cuts = append(cuts, e.Start, e.End)
	}
	slices.SortFunc(cuts, addr.Addr.Compare)
	cuts = slices.Compact(cuts)
	i, j := 0, 0
	for k := 0; k+1 < len(cuts); k++ {
		piece := addr.Range{Start: cuts[k], End: cuts[k+1]}
		for i < len(a) && !piece.Start.Less(a[i].End) {
			i++
		}
		for j < len(b) && !piece.Start.Less(b[j].End) {
			j++
		}
		inA := i < len(a) && a[i].Contains(piece.Start)
		inB := j < len(b) && b[j].Contains(piece.Start)
		switch {
		case inA && (!inB || b[j].Stamp.Compare(a[i].Stamp) < 0):
			out = push(out, Entry{piece, a[i].Stamp})
		case inB:
			out = push(out, Entry{piece, b[j].Stamp})
		}
	}
	return out
}
