package session

// Replay window after RFC 6479: a ring of bit blocks that is moved by whole
// blocks. One block of the ring is always being filled, so the window that is
// promised is one block short of the ring.
const (
	blockBits  = 64
	ringBlocks = 128
	windowSize = (ringBlocks - 1) * blockBits
)

// window remembers which counters were accepted. Checking and committing are two
// steps because only an authenticated datagram may change it: otherwise anybody
// could close the window with one forged counter. The zero window is empty.
type window struct {
	last uint64 // highest counter committed
	ring [ringBlocks]uint64
}

// fresh reports whether c is neither too old nor committed already.
func (w *window) fresh(c uint64) bool {
	if c > w.last {
		return true
	}
	if w.last-c > windowSize {
		return false
	}
	return w.ring[c/blockBits%ringBlocks]&(1<<(c%blockBits)) == 0
}

// commit marks c, which must be fresh, and moves the window up to it.
func (w *window) commit(c uint64) {
	if c > w.last {
		from, to := w.last/blockBits, c/blockBits
		for i := range min(to-from, ringBlocks) {
			w.ring[(to-i)%ringBlocks] = 0
		}
		w.last = c
	}
	w.ring[c/blockBits%ringBlocks] |= 1 << (c % blockBits)
}
