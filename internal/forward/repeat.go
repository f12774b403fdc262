package forward

import (
	"hash/maphash"
	"sync/atomic"

	"weave/internal/ether"
)

const (
	repeatLimit   = 200 // identical floods in a second that nobody sends
	repeatUnicast = 20  // the same of other frames, where there is a loop
	repeatFor     = 60  // seconds after which it is tried whether the loop is still there
	repeatSlots   = 1024
)

// repeats ends the circulation of frames where a second layer-2 path joins the bridges
// of two hosts. Such a loop has no end by itself: each round of a frame is a flood like
// any other. But it is the same frame, hundreds of times a second. Once that was seen,
// identical floods pass once a second, the first of them, from whichever side it
// comes: the way by which it came is where its sender is, and the loop is a tree. MAC
// addresses move freely then, for it is the order of arrival that counts.
//
// All workers share it without a lock. A race, or two frames in one slot, lose a count.
type repeats struct {
	seed  maphash.Seed
	until atomic.Int64 // there is a loop, by the switch's clock
	// A slot has, from the highest bit: 44 bits of a frame's hash, 12 of the second in
	// which it was seen, 8 that count how often.
	slots [repeatSlots]atomic.Uint64
}

// count takes note of a frame in pieces and returns how often it was seen in this
// second; 255 is that, or more.
func (r *repeats) count(pieces [][]byte, now int64) (times uint64) {
	var h maphash.Hash
	h.SetSeed(r.seed)
	for _, p := range pieces {
		h.Write(p)
	}
	sum := h.Sum64()
	slot := &r.slots[sum%repeatSlots]
	frame := sum&^0xfffff | uint64(now)&0xfff<<8
	times = 1
	if old := slot.Load(); old&^0xff == frame {
		times = min(old&0xff+1, 255)
	}
	slot.Store(frame | times)
	return times
}

// circulates looks at a frame, in pieces, before anything is learned from it, and
// reports whether it has to be dropped.
func (s *Switch) circulates(pieces [][]byte, now int64) bool {
	r := &s.repeats
	loop := now < r.until.Load()
	group := ether.MAC(pieces[0][0:6]).IsMulticast()
	if !loop && !group {
		return false
	}
	times := r.count(pieces, now)
	switch {
	case !loop && times <= repeatLimit:
		return false
	case !loop:
		s.macs.free.Store(now + repeatFor)
		if r.until.Swap(now+repeatFor) <= now {
			s.log.Warn("frames go in circles: a second path joins the bridges of two hosts", "source", ether.MAC(pieces[0][6:12]))
		}
		return true
	case group:
		return times > 1
	default:
		return times > repeatUnicast
	}
}
