package mesh

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/topo"
)

// hears lets the bench learn what peer i says of itself, from peer 2.
func (b *bench) hears(t *testing.T, i int, to ...int) {
	t.Helper()
	for _, m := range says(i, to...) {
		if _, err := b.shape.OnMessage(testName(2), m); err != nil {
			t.Fatal(err)
		}
	}
}

// asker is a peer further away that is to ask us, by its name.
func asker() int {
	for i := 4; ; i++ {
		if _, weAsk := pairHash(testName(1), testName(i)); !weAsk {
			return i
		}
	}
}

// TestOpeningIsBounded: whatever members ask for, we dial only where the topology says
// that a known peer is, a few addresses, a few at a time, rarely for the same peer.
func TestOpeningIsBounded(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	i := asker()
	b.hears(t, 2, 1, 3, i)
	b.hears(t, i, 2)
	tried := func(from peer.Name, at time.Time) int {
		before := b.counters.OpenTried
		b.open(from, at)
		b.tasks.Wait()
		b.opening.busy = 0 // the attempts have nobody to report to
		return int(b.counters.OpenTried - before)
	}
	if n := tried(testName(99), now); n != 0 {
		t.Errorf("%d dials for a peer that nobody knows", n)
	}
	if n := tried(testName(2), now); n != 0 {
		t.Errorf("%d dials for a peer that is connected", n)
	}
	if len(b.topo.Addrs(testName(i))) == 0 {
		t.Fatal("no address of the peer known")
	}
	if n := tried(testName(i), now); n == 0 || n > maxOpenTo {
		t.Errorf("%d dials, want 1 to %d", n, maxOpenTo)
	}
	if n := tried(testName(i), now.Add(openEvery/2)); n != 0 {
		t.Errorf("%d dials for a peer that asks again at once", n)
	}
	if n := tried(testName(i), now.Add(openEvery)); n == 0 {
		t.Error("no dial for a peer that asks again later")
	}
	later := now.Add(time.Minute)
	b.opening.busy = maxOpen
	if b.open(testName(i), later); b.opening.busy != maxOpen {
		t.Errorf("%d attempts at a time", b.opening.busy)
	}
	b.opening.busy = 0
	clear(b.opening.asked)
	for k := range maxAsked {
		b.opening.asked[testName(1000+k)] = later
	}
	if n := tried(testName(i), later.Add(openEvery/2)); n != 0 || len(b.opening.asked) > maxAsked {
		t.Errorf("%d dials while %d others ask", n, len(b.opening.asked))
	}
	for _, msg := range [][]byte{nil, {}, {9}, {0, 1}, {msgMeet}, {msgMeet, 1, 2}, make([]byte, 18), append([]byte{msgMeet}, make([]byte, 5*18)...)} {
		if err := b.OnUnicast(testName(i), msg); !errors.Is(err, topo.ErrMessage) {
			t.Errorf("%x: error %v", msg, err)
		}
	}
	if err := b.OnUnicast(testName(i), []byte{msgOpen, 9}); err != nil {
		t.Errorf("a longer message: %v", err)
	}
}

// TestAsk: only a peer that did not answer is asked, by one of the two.
func TestAsk(t *testing.T) {
	b := newBench(t)
	target := dial.Effect{Attempt: 1, Dial: netip.MustParseAddrPort("192.0.2.1:6783")}
	if port := b.ask(target); port != 0 {
		t.Errorf("an attempt to a target is made from port %d", port)
	}
	target.Peer = testName(asker())
	if port := b.ask(target); port != 0 || b.counters.OpenAsked != 0 {
		t.Errorf("the first attempt is made from port %d", port)
	}
}
