package registry

import (
	"cmp"
	"slices"

	"weave/internal/peer"
)

const (
	keepDels   = 512     // removals remembered of each log; up to twice as many before a trim
	maxPending = 1 << 16 // removals known ahead of a hole
	maxAhead   = 32      // ranges known ahead of a hole
)

// Life is one run of a peer as its names see it. The zero Life is older than any.
type Life struct {
	Epoch uint64 // raised by its owner above whatever life of itself it hears of
	UID   peer.UID
}

// Compare is -1 if l is the older life, +1 if it is the newer one.
func (l Life) Compare(o Life) int {
	return cmp.Or(cmp.Compare(l.Epoch, o.Epoch), cmp.Compare(l.UID, o.UID))
}

// del says that change number at removed the entry that change number of added.
type del struct{ at, of uint64 } // of < at

// span is the range (from, to] of change numbers.
type span struct{ from, to uint64 }

// log is what is known here of one peer's changes.
type log struct {
	life  Life
	known uint64   // every change up to it is known
	ahead []span   // ranges known beyond it, sorted, apart from one another and from known
	live  []*Entry // sorted by seq
	dels  []del    // sorted by at; complete in (floor, known]
	floor uint64   // floor <= known
}

// covers reports whether what change number seq did is known.
func (l *log) covers(seq uint64) bool {
	if seq <= l.known {
		return true
	}
	for _, s := range l.ahead {
		if s.from < seq && seq <= s.to {
			return true
		}
	}
	return false
}

// coversSpan is covers for all of (from, to].
func (l *log) coversSpan(from, to uint64) bool {
	if to <= l.known {
		return true
	}
	for _, s := range l.ahead {
		if s.from <= max(from, l.known) && to <= s.to {
			return true
		}
	}
	return false
}

func (l *log) search(seq uint64) (int, bool) {
	if n := len(l.live); n == 0 || l.live[n-1].seq < seq {
		return n, false // nearly always: changes come in order
	}
	return slices.BinarySearchFunc(l.live, seq, func(e *Entry, s uint64) int { return cmp.Compare(e.seq, s) })
}

func (l *log) insert(e *Entry, x *Index) bool {
	i, found := l.search(e.seq)
	if found || len(l.live) >= MaxEntries || x.Len() >= MaxTotal {
		return false
	}
	l.live = slices.Insert(l.live, i, e)
	x.add(e)
	return true
}

func (l *log) drop(seq uint64, x *Index) bool {
	i, found := l.search(seq)
	if found {
		x.remove(l.live[i])
		l.live = slices.Delete(l.live, i, i+1)
	}
	return found
}

// clear takes all entries out of the index.
func (l *log) clear(x *Index) {
	for _, e := range l.live {
		x.remove(e)
	}
	l.live = nil
}

// killed reports whether a removal that was heard of ahead of a hole is about seq.
func (l *log) killed(seq uint64) bool {
	for i := len(l.dels) - 1; i >= 0 && l.dels[i].at > l.known; i-- {
		if l.dels[i].of == seq {
			return true
		}
	}
	return false
}

// note remembers a removal; it reports whether that is new.
func (l *log) note(d del) bool {
	i, found := slices.BinarySearchFunc(l.dels, d.at, func(d del, at uint64) int { return cmp.Compare(d.at, at) })
	if !found {
		l.dels = slices.Insert(l.dels, i, d)
	}
	return !found
}

// trim forgets the oldest removals.
func (l *log) trim() {
	if len(l.dels) < 2*keepDels {
		return
	}
	n := len(l.dels) - keepDels
	for n > 0 && l.dels[n-1].at > l.known {
		n--
	}
	if n > 0 {
		l.floor = l.dels[n-1].at
		l.dels = slices.Clone(l.dels[n:])
	}
}

// apply takes in what a segment of the same UID says and reports whether that is
// news, to be passed on. See doc.go for why its order does not matter.
func (l *log) apply(s *segment, x *Index) (news bool) {
	if l.coversSpan(s.from, s.to) || len(l.dels)+len(s.dels) > maxPending || s.whole && s.from > l.known {
		return false // removals are missing from a whole segment: no hole before it
	}
	for _, d := range s.dels {
		if !l.covers(d.at) {
			news = l.note(d) || news
			news = l.drop(d.of, x) || news
		}
	}
	for _, e := range s.adds {
		if !l.covers(e.seq) && !l.killed(e.seq) {
			news = l.insert(e, x) || news
		}
	}
	news = l.prune(s, x) || news
	if s.whole {
		l.floor = max(l.floor, s.to)
	}
	news = l.advance(span{s.from, s.to}) || news
	l.trim()
	return news
}

// prune removes the entries that a segment does not list though they are in its reach.
func (l *log) prune(s *segment, x *Index) (pruned bool) {
	from := s.from
	if s.whole {
		from = 0
	}
	first, _ := l.search(from + 1)
	keep := l.live[:first]
	run, add := 0, 0
	for _, e := range l.live[first:] {
		for run < len(s.alive) && s.alive[run].to < e.seq {
			run++
		}
		for add < len(s.adds) && s.adds[add].seq < e.seq {
			add++
		}
		switch {
		case e.seq > s.to,
			e.seq <= s.from && run < len(s.alive) && s.alive[run].from < e.seq,
			e.seq > s.from && add < len(s.adds) && s.adds[add].seq == e.seq:
			keep = append(keep, e)
		default:
			x.remove(e)
			pruned = true
		}
	}
	clear(l.live[len(keep):])
	l.live = keep
	return pruned
}

// advance marks a range as known. It reports false if there are too many holes to
// remember it: then it will be asked for again.
func (l *log) advance(s span) bool {
	if s.from > l.known {
		if len(l.ahead) >= maxAhead || s.from == s.to {
			return false
		}
		i, _ := slices.BinarySearchFunc(l.ahead, s.from, func(a span, from uint64) int { return cmp.Compare(a.from, from) })
		l.ahead = join(slices.Insert(l.ahead, i, s))
		return true
	}
	l.known = max(l.known, s.to)
	for len(l.ahead) > 0 && l.ahead[0].from <= l.known {
		l.known = max(l.known, l.ahead[0].to)
		l.ahead = l.ahead[1:]
	}
	if len(l.ahead) == 0 {
		l.ahead = nil
	}
	return true
}

// join merges sorted ranges that touch.
func join(in []span) []span {
	out := in[:1]
	for _, s := range in[1:] {
		if last := &out[len(out)-1]; s.from <= last.to {
			last.to = max(last.to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// since makes the segment that brings a replica which knows all up to from up to date.
func (l *log) since(origin peer.Name, from uint64) *segment {
	s := &segment{origin: origin, life: l.life, from: min(from, l.known), to: l.known}
	lo, _ := l.search(s.from + 1)
	hi, _ := l.search(l.known + 1)
	s.adds = slices.Clone(l.live[lo:hi])
	if s.from < l.floor || s.from == 0 {
		s.whole = true
		s.alive = runs(l.live[:lo])
		return s
	}
	for _, d := range l.dels {
		if s.from < d.at && d.at <= s.to {
			s.dels = append(s.dels, d)
		}
	}
	return s
}

// runs sums up the numbers of entries.
func runs(entries []*Entry) (out []span) {
	for _, e := range entries {
		out = appendRun(out, e.seq)
	}
	return out
}

func appendRun(runs []span, seq uint64) []span {
	if n := len(runs); n > 0 && runs[n-1].to == seq-1 {
		runs[n-1].to = seq
		return runs
	}
	return append(runs, span{seq - 1, seq})
}
