package session

import (
	"math"
	"math/rand/v2"
	"testing"

	"golang.zx2c4.com/wireguard/replay"
)

// slowWindow is what window must be equal to: every counter ever committed.
type slowWindow struct {
	last uint64
	seen map[uint64]bool
}

func (w *slowWindow) fresh(c uint64) bool {
	return !w.seen[c] && (c > w.last || w.last-c <= windowSize)
}

func (w *slowWindow) commit(c uint64) {
	w.seen[c] = true
	w.last = max(w.last, c)
}

// TestWindowAgainstTwins runs random counters through the window, through the map
// and through WireGuard's filter, which commits whatever it accepts.
func TestWindowAgainstTwins(t *testing.T) {
	steps := 3_000_000
	if testing.Short() {
		steps = 200_000
	}
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	var w window
	var wg replay.Filter
	slow := slowWindow{seen: map[uint64]bool{}}
	for i := range steps {
		c := nextCounter(rng, slow.last)
		got, want := w.fresh(c), slow.fresh(c)
		if got != want {
			t.Fatalf("seed %d step %d: fresh(%d) = %v with last %d, want %v", seed, i, c, got, slow.last, want)
		}
		if !got || rng.IntN(8) == 0 { // now and then a datagram is no good: no commit
			continue
		}
		if !wg.ValidateCounter(c, math.MaxUint64) {
			t.Fatalf("seed %d step %d: counter %d is fresh here, not there", seed, i, c)
		}
		w.commit(c)
		slow.commit(c)
		if w.last != slow.last {
			t.Fatalf("seed %d step %d: last %d, want %d", seed, i, w.last, slow.last)
		}
	}
}

// nextCounter draws counters where it matters: near the top, near the far end of
// the window, and rarely ahead by a block, a window or much more.
func nextCounter(rng *rand.Rand, last uint64) uint64 {
	back := func(n uint64) uint64 { return last - min(last, n) }
	switch n := rng.IntN(1000); {
	case n < 500:
		return last + 1
	case n < 800:
		return back(rng.Uint64N(256))
	case n < 900:
		return back(windowSize - 70 + rng.Uint64N(140))
	case n < 990:
		return last + rng.Uint64N(200)
	case n < 997:
		return last + windowSize - 70 + rng.Uint64N(200)
	case n < 999:
		return back(rng.Uint64())
	}
	return last + rng.Uint64N(1<<40)
}

func TestWindowEdges(t *testing.T) {
	const far = math.MaxUint64
	for _, tt := range []struct {
		name   string
		commit []uint64
		c      uint64
		want   bool
	}{
		{"empty takes zero", nil, 0, true},
		{"empty takes the highest", nil, far, true},
		{"zero twice", []uint64{0}, 0, false},
		{"last of the window", []uint64{windowSize}, 0, true},
		{"one behind the window", []uint64{windowSize + 1}, 0, false},
		{"same bit one ring later", []uint64{5}, 5 + ringBlocks*blockBits, true},
		{"after a jump over the whole ring", []uint64{5, 5 + ringBlocks*blockBits}, 6 + windowSize, true},
		{"old bits are gone after a jump", []uint64{1, 2, 3, 1 << 40}, 1<<40 - 1, true},
		{"replay at the top", []uint64{far}, far, false},
		{"window at the top", []uint64{far}, far - windowSize, true},
	} {
		var w window
		for _, c := range tt.commit {
			w.commit(c)
		}
		if got := w.fresh(tt.c); got != tt.want {
			t.Errorf("%s: fresh(%d) = %v, want %v", tt.name, tt.c, got, tt.want)
		}
	}
}
