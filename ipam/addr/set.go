package addr

import "slices"

// Set is a set of addresses, kept as sorted ranges with gaps between them. The
// zero Set is empty. Methods that change it work in place; a Set must not be
// copied by assignment and then changed.
type Set struct{ rs []Range }

// SetOf returns the union of rs.
func SetOf(rs ...Range) *Set {
	s := &Set{}
	for _, r := range rs {
		s.Add(r)
	}
	return s
}

// find returns the index of the first range that ends after a.
func (s *Set) find(a Addr) int {
	i, _ := slices.BinarySearchFunc(s.rs, a, func(r Range, a Addr) int {
		if r.End.v <= a.v {
			return -1
		}
		return 1
	})
	return i
}

// Add puts all of r into s.
func (s *Set) Add(r Range) {
	if r.Empty() {
		return
	}
	i := s.find(r.Start)
	if i > 0 && s.rs[i-1].End == r.Start { // touches the one before
		i--
		r.Start = s.rs[i].Start
	}
	j := i
	for j < len(s.rs) && s.rs[j].Start.v <= r.End.v {
		r.Start.v, r.End.v = min(r.Start.v, s.rs[j].Start.v), max(r.End.v, s.rs[j].End.v)
		j++
	}
	s.rs = slices.Replace(s.rs, i, j, r)
}

// Remove takes all of r out of s.
func (s *Set) Remove(r Range) {
	if r.Empty() {
		return
	}
	i := s.find(r.Start)
	j := i
	var rest [2]Range
	keep := rest[:0]
	for ; j < len(s.rs) && s.rs[j].Start.v < r.End.v; j++ {
		if old := s.rs[j]; old.Start.v < r.Start.v {
			keep = append(keep, Range{old.Start, r.Start})
		}
		if old := s.rs[j]; old.End.v > r.End.v {
			keep = append(keep, Range{r.End, old.End})
		}
	}
	if i != j {
		s.rs = slices.Replace(s.rs, i, j, keep...)
	}
}

// Contains reports whether a is in s.
func (s *Set) Contains(a Addr) bool {
	i := s.find(a)
	return i < len(s.rs) && s.rs[i].Contains(a)
}

// Covers reports whether all of r is in s.
func (s *Set) Covers(r Range) bool {
	i := s.find(r.Start)
	return r.Empty() || i < len(s.rs) && s.rs[i].Covers(r)
}

// First returns the lowest address of s that is in r.
func (s *Set) First(r Range) (Addr, bool) {
	i := s.find(r.Start)
	if i == len(s.rs) {
		return Addr{}, false
	}
	in := s.rs[i].Intersect(r)
	return in.Start, !in.Empty()
}

// Within returns the parts of s that are in r, in order.
func (s *Set) Within(r Range) (out []Range) {
	for i := s.find(r.Start); i < len(s.rs) && s.rs[i].Start.v < r.End.v; i++ {
		if in := s.rs[i].Intersect(r); !in.Empty() {
			out = append(out, in)
		}
	}
	return out
}

// SizeWithin returns how many addresses of r are in s.
func (s *Set) SizeWithin(r Range) (n uint64) {
	for i := s.find(r.Start); i < len(s.rs) && s.rs[i].Start.v < r.End.v; i++ {
		n += s.rs[i].Intersect(r).Size()
	}
	return n
}

// Size returns how many addresses s holds.
func (s *Set) Size() (n uint64) {
	for _, r := range s.rs {
		n += r.Size()
	}
	return n
}

// Ranges returns a copy of s as sorted ranges.
func (s *Set) Ranges() []Range { return slices.Clone(s.rs) }

// Clone returns a copy that changes by itself.
func (s *Set) Clone() *Set { return &Set{slices.Clone(s.rs)} }

// Equal reports whether both hold the same addresses.
func (s *Set) Equal(o *Set) bool { return slices.Equal(s.rs, o.rs) }
