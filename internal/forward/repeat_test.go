package forward

import (
	"testing"

	"weave/internal/ether"
)

// Identical floods pass until there are too many in a second; then the first of a second
// passes, and of other frames some, until it is tried again.
func TestRepeats(t *testing.T) {
	s := newSwitch(t, newBridge(t), nil)
	frame := func(dst ether.MAC, text string) [][]byte {
		b := append(append(append([]byte{}, dst[:]...), macA[:]...), text...)
		return [][]byte{b[:14], b[14:]}
	}
	all := ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for i, st := range []struct {
		pieces [][]byte
		now    int64
		want   int // of 1000
	}{
		{frame(macB, "\x08\x00to one"), 0, 1000},
		{frame(all, "\x08\x06who is it?"), 0, repeatLimit},
		{frame(all, "\x08\x06who is it?"), 0, 0},
		{frame(all, "\x08\x06who is this?"), 0, 1},
		{frame(all, "\x08\x06who is it?"), 1, 1},
		{frame(macB, "\x08\x00to one"), 1, repeatUnicast},
		{frame(macB, "\x08\x00to one"), repeatFor, 1000},
		{frame(all, "\x08\x06who is it?"), repeatFor, repeatLimit},
	} {
		passed := 0
		for range 1000 {
			if !s.circulates(st.pieces, st.now) {
				passed++
			}
		}
		if passed != st.want {
			t.Errorf("step %d: %d of 1000 pass, want %d", i, passed, st.want)
		}
	}
	whole := [][]byte{append([]byte{}, all[:]...)}
	whole[0] = append(whole[0], macA[:]...)
	if n := testing.AllocsPerRun(100, func() { s.circulates(whole, 5) }); n != 0 {
		t.Errorf("looking for repetitions allocates %v times", n)
	}
}
