package proof

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"weave/internal/ether"
)

var t0 = time.Unix(1000, 0)

// play runs a machine against a path that answers requests while alive says so,
// and returns when, in milliseconds, and to what the state changed.
func play(m *Machine, ms int, alive func(ms int) bool) (changes []string, at []int) {
	note := func(now int) {
		s, _ := m.State()
		changes, at = append(changes, s.String()), append(at, now)
	}
	for now := 0; now <= ms; now += 10 {
		t := t0.Add(time.Duration(now) * time.Millisecond)
		send, seq, changed := m.Tick(t)
		if changed {
			note(now)
		}
		if send && alive(now) && m.Reply(seq, time.Millisecond, t) {
			note(now)
		}
	}
	return changes, at
}

func TestProvenAfterThreeReplies(t *testing.T) {
	m := New(Timing{}, t0)
	changes, at := play(m, 3000, func(int) bool { return true })
	if len(changes) != 1 || changes[0] != "up" || at[0] != 200 {
		t.Errorf("changes %v at %v, want up at 200", changes, at)
	}
	if m.RTT() != time.Millisecond {
		t.Errorf("RTT %v", m.RTT())
	}
}

func TestLostReplyBreaksTheRow(t *testing.T) {
	changes, at := play(New(Timing{}, t0), 4000, func(ms int) bool { return ms != 200 })
	if len(changes) != 1 || at[0] != 500 {
		t.Errorf("changes %v at %v, want up at 500", changes, at)
	}
}

// TestDemotionAndReturn is the figure that users see: traffic leaves a dead path
// before TCP tries for the fourth time, after 1.4 s, and is back within 30 s of the
// path's repair.
func TestDemotionAndReturn(t *testing.T) {
	const cut, mend = 20_000, 60_000
	changes, at := play(New(Timing{}, t0), 120_000, func(ms int) bool { return ms < cut || ms >= mend })
	want := []string{"up", "down", "up"}
	if len(changes) != 3 || changes[1] != want[1] || changes[2] != want[2] {
		t.Fatalf("changes %v at %v, want %v", changes, at, want)
	}
	if d := at[1] - cut; d > 1250 {
		t.Errorf("down %d ms after the cut, want at most 1250", d)
	}
	if d := at[2] - mend; d > 30_000 {
		t.Errorf("up %d ms after the repair, want at most 30000", d)
	}
}

// An answer that is missing is asked for again soon, so that a few lost ones are no
// reason to leave.
func TestSuspicion(t *testing.T) {
	n := 0
	changes, _ := play(New(Timing{}, t0), 60_000, func(ms int) bool { n++; return ms < 2000 || n%6 == 0 })
	if len(changes) != 1 {
		t.Errorf("changes %v with every sixth request answered, want up only", changes)
	}
}

// A host that was held up, and asked nothing in that time, has no reason to leave the
// path; one that asks and gets no answer has.
func TestHeldUp(t *testing.T) {
	m := New(Timing{}, t0)
	play(m, 3000, func(int) bool { return true })
	wake := m.Wake()
	for _, held := range []time.Duration{time.Second, 3 * time.Second, time.Minute} {
		now := wake.Add(held)
		send, seq, changed := m.Tick(now)
		if s, _ := m.State(); !send || changed || s != Up {
			t.Fatalf("held up for %v: %v, want up and a request", held, s)
		}
		m.Reply(seq, time.Millisecond, now)
		wake = m.Wake()
	}
	down := wake.Add(3 * time.Second) // held up, and then the path is dead
	start := down
	for s := Up; s == Up; s, _ = m.State() {
		m.Tick(down)
		down = m.Wake()
	}
	if _, since := m.State(); since.Sub(start) > 2*time.Second {
		t.Errorf("down after %v, want at most 2 s", since.Sub(start))
	}
}

func TestBackoff(t *testing.T) {
	m := New(Timing{}, t0)
	want := []time.Duration{10, 20, 40, 80, 160, 300, 300}
	for n, w := range want {
		if got := m.backoff(n); got != w*time.Second {
			t.Errorf("backoff(%d) = %v, want %v s", n, got, int(w))
		}
	}
	// A path that holds for two seconds at a time is left alone longer each time.
	_, at := play(New(Timing{}, t0), 200_000, func(ms int) bool { return ms%25_000 < 20_000 })
	for i := 3; i+2 < len(at); i += 2 {
		if at[i+1]-at[i] < at[i-1]-at[i-2] {
			t.Errorf("down for %d ms after %d ms before: %v", at[i+1]-at[i], at[i-1]-at[i-2], at)
		}
	}
}

func TestRepliesThatCountForNothing(t *testing.T) {
	m := New(Timing{Needed: 2}, t0)
	_, seq, _ := m.Tick(t0)
	for range 5 { // the same reply again
		m.Reply(seq, 0, t0)
	}
	m.Reply(seq+1, 0, t0) // never sent
	m.Reply(0, 0, t0)
	if s, _ := m.State(); s != Probing {
		t.Errorf("%v after one true reply, want probing", s)
	}
}

func TestRefuse(t *testing.T) {
	m := New(Timing{}, t0)
	play(m, 3000, func(int) bool { return true })
	if !m.Refuse(t0) || m.Refuse(t0) {
		t.Error("Refuse: want one change")
	}
	if s, _ := m.State(); s != Down {
		t.Errorf("%v, want down", s)
	}
}

var key = [KeyLen]byte{1, 2, 3}

var golden = Beat{
	Dst: ether.MAC{2, 0, 0, 0, 0, 2}, Src: ether.MAC{2, 0, 0, 0, 0, 1}, Type: Reply,
	Got: 1390, Seq: 7, Clock: 0x0102030405060708, ConnUID: 0x1112131415161718,
}

const goldenHex = "02000000000202000000000188b50102056e00000007" + "01020304050607081112131415161718"

func TestGolden(t *testing.T) {
	f := golden.Append(nil, &key, 0)
	if got := hex.EncodeToString(f[:len(f)-sumLen]); got != goldenHex {
		t.Errorf("frame %s, want %s", got, goldenHex)
	}
	if len(f) != MinLen {
		t.Errorf("%d bytes, want %d", len(f), MinLen)
	}
	long := golden.Append(nil, &key, 1390)
	if len(long) != 1390 || !bytes.Equal(long[:MinLen], f) {
		t.Errorf("padded to %d bytes", len(long))
	}
	for _, frame := range [][]byte{f, long} {
		if got, err := Parse(frame, &key); err != nil || got != golden {
			t.Errorf("Parse = %+v, %v", got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	f := golden.Append(nil, &key, 0)
	for i := 12; i < MinLen; i++ { // every byte but the addresses is covered
		bad := bytes.Clone(f)
		bad[i] ^= 1
		if _, err := Parse(bad, &key); err == nil {
			t.Errorf("accepted with byte %d changed", i)
		}
	}
	other := key
	other[0]++
	if _, err := Parse(f, &other); err == nil {
		t.Error("accepted with another key")
	}
	if _, err := Parse(f[:MinLen-1], &key); err == nil {
		t.Error("accepted truncated")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(golden.Append(nil, &key, 0))
	f.Add(golden.Append(nil, &key, 100))
	f.Fuzz(func(t *testing.T, frame []byte) {
		b, err := Parse(frame, &key)
		if err != nil {
			return
		}
		if back, err := Parse(b.Append(nil, &key, 0), &key); err != nil || back != b {
			t.Errorf("%+v became %+v, %v", b, back, err)
		}
	})
}
