package sleeve

import (
	"slices"
	"time"
)

// Path MTU discovery after RFC 8899 (DPLPMTUD), in two halves: heart notices by its
// own probes that the size in use does not pass any more, and search looks for the
// largest size that does. A probe is an authentic heartbeat of that size; what
// counts is only its echo, never ICMP, which anybody can send.

const (
	maxProbes   = 3 // MAX_PROBES: a size fails when so many probes of it do
	searchWidth = 7 // sizes asked for in one round: the gap shrinks by 8
	searchStep  = 8 // the least growth that is looked for
)

// search finds the largest size that passes. It asks for several sizes at a time, so
// a round costs one round trip if they pass and maxProbes times the wait if not. It
// is pure; the zero search is over.
//
//	begin: one step above what passes, and the sizes of common networks
//	       none passes: over
//	next:  evenly spaced sizes in the gap, until there is none left
type search struct {
	active bool
	lo     int   // passes
	hi     int   // does not pass, or cannot leave this host; lo < hi
	sizes  []int // asked for in this round, ascending, lo < each < hi
	passed int   // the largest that was echoed in this round; 0: none
	tries  int   // of this round
	found  bool  // lo is larger than at the beginning
}

// begin starts a search above lo. table are sizes to try first, the largest of them
// the largest that can leave this host. It returns what to ask for.
func (s *search) begin(lo int, table []int) []int {
	*s = search{lo: lo, hi: slices.Max(table) + 1, tries: 1, sizes: s.sizes[:0]}
	for _, t := range append([]int{lo + searchStep}, table...) {
		if s.lo < t && t < s.hi {
			s.sizes = append(s.sizes, t)
		}
	}
	slices.Sort(s.sizes)
	s.sizes = slices.Compact(s.sizes)
	s.active = len(s.sizes) > 0
	return s.sizes
}

// echo notes that a size passed. It reports whether the round is over, because
// what passed is the largest of it.
func (s *search) echo(size int) bool {
	if !s.active || size <= s.passed || !slices.Contains(s.sizes, size) {
		return false
	}
	s.passed = size
	return size == s.sizes[len(s.sizes)-1]
}

// next goes on when the round is over, or was waited for long enough. It returns
// what to ask for; the search is over when that is nothing. lo is up to date then.
func (s *search) next() []int {
	if s.passed > 0 {
		s.lo, s.found = s.passed, true
		s.sizes = slices.DeleteFunc(s.sizes, func(n int) bool { return n <= s.lo })
		s.passed = 0
	}
	if len(s.sizes) > 0 {
		if s.tries++; s.tries <= maxProbes {
			return s.sizes
		}
		s.hi = s.sizes[0]
	}
	s.tries, s.sizes = 1, s.sizes[:0]
	if s.found {
		s.sizes = spread(s.sizes, s.lo, s.hi)
	}
	s.active = len(s.sizes) > 0
	return s.sizes
}

// spread appends up to searchWidth sizes between lo and hi at equal distances.
func spread(sizes []int, lo, hi int) []int {
	n := min(searchWidth, hi-lo-1)
	for i := 1; i <= n; i++ {
		sizes = append(sizes, lo+(hi-lo)*i/(n+1))
	}
	return sizes
}

// wait is how long an echo may take, given the usual round trip time.
func wait(rtt time.Duration) time.Duration {
	return min(max(minWait, 2*rtt), maxWait)
}
