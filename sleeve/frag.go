package sleeve

import (
	"time"

	"weave/internal/peer"
)

const (
	fragTimeout = 250 * time.Millisecond // since a frame's first piece came
	fragSlots   = 16                     // frames in reassembly per lane
	fragSmall   = 2304                   // most frames are not longer
	fragPool    = 16                     // buffers of each size, and slots, kept for reuse
	fragBytes   = 8 << 20                // in reassembly, per worker
	fragUnits   = (maxMessage + fragUnit - 1) / fragUnit
)

// fragBudget bounds what a worker spends on reassembly. Buffers come in two sizes
// and are used again.
type fragBudget struct {
	live         int // frames in reassembly
	bytes        int // in buffers of theirs
	small, large [][]byte
	slots        []*fragSlot
	lanes        []*rxLane // those with a live frame
}

// reassembly is one lane's frames of which some FRAGs came. The slots are the
// worker's, lent while a frame is live; nil: free.
type reassembly struct {
	slots [fragSlots]*fragSlot
	live  int
}

// fragSlot is a frame in reassembly. A piece that overlaps another is ignored, so
// what is once there does not change.
type fragSlot struct {
	at       int // in reassembly.slots
	id       uint16
	rt       peer.Route
	deadline time.Time
	buf      []byte // its capacity is one of the two sizes
	total    int    // bytes; 0: the last piece has not come
	units    int    // units of 8 bytes that have
	have     [(fragUnits + 63) / 64]uint64
}

// frag takes a piece; the last one to come completes the frame.
func (w *rxWorker) frag(ln *rxLane, r *record) {
	s := w.fragSlotOf(ln, r)
	if s == nil {
		ln.entry.link.rxDrops[dropFragSpace].Add(1)
		return
	}
	off := int(r.m.a&^fragMore) * fragUnit
	if !w.fragGrow(s, off+len(r.data)) {
		w.fragRelease(ln, s)
		ln.entry.link.rxDrops[dropFragSpace].Add(1)
		return
	}
	if !s.add(off, r.data, r.m.a&fragMore == 0) {
		ln.entry.link.rxDrops[dropBadMeta].Add(1)
		return
	}
	if !s.complete() {
		return
	}
	m, frame, ok := parseMeta(s.buf[:s.total])
	if ok && m.kind == kindFrame {
		w.frame(ln, s.rt, &m, frame)
	} else {
		ln.entry.link.rxDrops[dropBadMeta].Add(1)
	}
	w.fragRelease(ln, s)
}

// fragSlotOf returns the slot of r's frame, a new one if need be, in place of the
// oldest if there is no room; nil when the worker has no room either.
func (w *rxWorker) fragSlotOf(ln *rxLane, r *record) *fragSlot {
	if ln.frags == nil {
		ln.frags = new(reassembly)
	}
	free, oldest := -1, -1
	for i, s := range ln.frags.slots {
		switch {
		case s == nil:
			free = i
		case s.id == r.m.b && s.rt == r.rt:
			return s
		case oldest < 0 || s.deadline.Before(ln.frags.slots[oldest].deadline):
			oldest = i
		}
	}
	if free < 0 {
		ln.entry.link.rxDrops[dropFragTimeout].Add(1)
		w.fragRelease(ln, ln.frags.slots[oldest])
		free = oldest
	}
	buf, ok := w.frags.take(fragSmall)
	if !ok {
		return nil
	}
	s := w.frags.slot()
	*s = fragSlot{at: free, id: r.m.b, rt: r.rt, deadline: w.now.Add(fragTimeout), buf: buf}
	ln.frags.slots[free] = s
	if ln.frags.live == 0 {
		w.frags.lanes = append(w.frags.lanes, ln)
	}
	ln.frags.live++
	w.frags.live++
	return s
}

// fragGrow makes room for n bytes.
func (w *rxWorker) fragGrow(s *fragSlot, n int) bool {
	if n <= cap(s.buf) {
		return true
	}
	buf, ok := w.frags.take(maxMessage)
	if !ok {
		return false
	}
	copy(buf, s.buf)
	w.frags.give(s.buf)
	s.buf = buf
	return true
}

func (w *rxWorker) fragRelease(ln *rxLane, s *fragSlot) {
	w.frags.give(s.buf)
	s.buf = nil
	ln.frags.slots[s.at] = nil
	if len(w.frags.slots) < fragPool {
		w.frags.slots = append(w.frags.slots, s)
	}
	w.frags.live--
	ln.frags.live--
	if ln.frags.live > 0 {
		return
	}
	for i, o := range w.frags.lanes {
		if o == ln {
			last := len(w.frags.lanes) - 1
			w.frags.lanes[i] = w.frags.lanes[last]
			w.frags.lanes[last] = nil
			w.frags.lanes = w.frags.lanes[:last]
			return
		}
	}
}

// fragExpire gives up the frames that took too long.
func (w *rxWorker) fragExpire() {
	for i := len(w.frags.lanes) - 1; i >= 0; i-- {
		ln := w.frags.lanes[i]
		for _, s := range ln.frags.slots {
			if s != nil && !w.now.Before(s.deadline) {
				ln.entry.link.rxDrops[dropFragTimeout].Add(1)
				w.fragRelease(ln, s)
			}
		}
	}
}

// add copies a piece in; false if it contradicts what came before. A piece that
// is there already is left out.
func (s *fragSlot) add(off int, piece []byte, last bool) bool {
	end := off + len(piece)
	if s.total > 0 && (end > s.total || last && end != s.total) {
		return false
	}
	from, to := off/fragUnit, (end+fragUnit-1)/fragUnit
	for u := from; u < to; u++ {
		if s.have[u/64]&(1<<(u%64)) != 0 {
			return true
		}
	}
	if last {
		for u := to; u < fragUnits; u++ {
			if s.have[u/64]&(1<<(u%64)) != 0 {
				return false
			}
		}
		s.total = end
	}
	for u := from; u < to; u++ {
		s.have[u/64] |= 1 << (u % 64)
	}
	s.units += to - from
	copy(s.buf[off:end], piece)
	return true
}

func (s *fragSlot) complete() bool {
	return s.total > 0 && s.units == (s.total+fragUnit-1)/fragUnit
}

func (b *fragBudget) take(n int) ([]byte, bool) {
	pool, size := &b.small, fragSmall
	if n > fragSmall {
		pool, size = &b.large, maxMessage
	}
	if b.bytes+size > fragBytes {
		return nil, false
	}
	b.bytes += size
	if k := len(*pool); k > 0 {
		buf := (*pool)[k-1]
		*pool = (*pool)[:k-1]
		return buf, true
	}
	return make([]byte, size), true
}

// slot returns one that is in no lane.
func (b *fragBudget) slot() *fragSlot {
	if k := len(b.slots); k > 0 {
		s := b.slots[k-1]
		b.slots = b.slots[:k-1]
		return s
	}
	return new(fragSlot)
}

func (b *fragBudget) give(buf []byte) {
	b.bytes -= cap(buf)
	pool := &b.small
	if cap(buf) > fragSmall {
		pool = &b.large
	}
	if len(*pool) < fragPool {
		*pool = append(*pool, buf)
	}
}
