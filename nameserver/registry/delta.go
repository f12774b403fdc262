package registry

import (
	"cmp"
	"maps"
	"slices"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// maxParts bounds what waits for a slow neighbour: segments of one log apart from one
// another, and removals in them. What is cut off is asked for again.
const (
	maxParts = 64
	maxDels  = 8 * keepDels
)

// Delta is a part of the registry on its way to a neighbour: segments of logs, and at
// most one message with stamps. It is immutable.
type Delta struct {
	segments map[peer.Name][]*segment // of the newest life, sorted by from
	stamps   []byte                   // or nil
}

func newDelta(segments ...*segment) *Delta {
	d := &Delta{segments: map[peer.Name][]*segment{}}
	for _, s := range segments {
		d.segments[s.origin] = combine(d.segments[s.origin], []*segment{s})
	}
	return d
}

// Merge returns a Delta with what both say; a Data of another kind is ignored.
func (d *Delta) Merge(o gossip.Data) gossip.Data {
	other, ok := o.(*Delta)
	if !ok {
		return d
	}
	out := &Delta{segments: maps.Clone(d.segments), stamps: d.stamps}
	if other.stamps != nil {
		out.stamps = other.stamps
	}
	if out.segments == nil {
		out.segments = map[peer.Name][]*segment{}
	}
	for n, parts := range other.segments {
		out.segments[n] = combine(out.segments[n], parts)
	}
	return out
}

// combine joins the segments of one log; both arguments stay as they are.
func combine(a, b []*segment) []*segment {
	if len(a) == 0 || len(b) == 0 {
		return append(a[:len(a):len(a)], b...)
	}
	switch c := a[0].life.Compare(b[0].life); {
	case c < 0:
		return b
	case c > 0:
		return a
	}
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y *segment) int {
		return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to))
	})
	out := all[:1]
	for _, s := range all[1:] {
		last := out[len(out)-1]
		if m := last.join(s); m != nil {
			out[len(out)-1] = m
		} else {
			out = append(out, s)
		}
	}
	dels := 0
	for i := len(out) - 1; i >= 0; i-- {
		if dels += len(out[i].dels); len(out)-i > maxParts || dels > maxDels && i < len(out)-1 {
			return out[i+1:]
		}
	}
	return out
}

// join returns one segment for two of the same life, s.from <= o.from, or nil if they
// leave a hole or are too big together.
func (s *segment) join(o *segment) *segment {
	switch {
	case o.from == s.from && o.to == s.to && o.whole == s.whole:
		return o
	case o.whole || o.from > s.to, o.to < s.to, len(s.dels)+len(o.dels) > maxDels:
		return nil
	}
	m := &segment{origin: s.origin, life: s.life, from: s.from, to: o.to, whole: s.whole, alive: s.alive}
	dead := map[uint64]bool{}
	for _, d := range o.dels {
		dead[d.of] = true
	}
	for _, e := range s.adds {
		if e.seq <= o.from && !dead[e.seq] {
			m.adds = append(m.adds, e)
		}
	}
	m.adds = append(m.adds, o.adds...)
	for _, d := range s.dels {
		if d.at <= o.from {
			m.dels = append(m.dels, d)
		}
	}
	m.dels = append(m.dels, o.dels...)
	return m
}

// Encode returns messages of at most gossip.MaxMessage bytes.
func (d *Delta) Encode() (out [][]byte) {
	if d.stamps != nil {
		out = append(out, d.stamps)
	}
	batch := []byte{msgSegments}
	for _, n := range slices.SortedFunc(maps.Keys(d.segments), peer.Name.Compare) {
		for _, s := range d.segments[n] {
			for _, piece := range s.split() {
				b := appendSegment(nil, piece)
				if len(batch) > 1 && len(batch)+len(b) > gossip.MaxMessage {
					out = append(out, batch)
					batch = []byte{msgSegments}
				}
				batch = append(batch, b...)
			}
		}
	}
	if len(batch) > 1 {
		out = append(out, batch)
	}
	return out
}

// empty reports whether there is nothing to send.
func (d *Delta) empty() bool { return len(d.segments) == 0 && d.stamps == nil }

// data is d as the contract wants it: nil if there is nothing to send.
func (d *Delta) data() gossip.Data {
	if d == nil || d.empty() {
		return nil
	}
	return d
}
