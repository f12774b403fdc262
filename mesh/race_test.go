package mesh_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A host whose first packets were lost is reached by a later try, a quarter of a second
// after the way works, not a whole one.
func TestDialRace(t *testing.T) {
	inWorld(t, func(w *world) {
		var dials atomic.Int32
		w.net.OnDial(func(netip.Addr, netip.AddrPort) error { dials.Add(1); return nil })
		w.net.Cut(addrOf(1), addrOf(2))
		a, b := w.start(1), w.start(2, targets(addrOf(1)))
		w.run(600 * time.Millisecond)
		w.net.Mend(addrOf(1), addrOf(2))
		w.run(200 * time.Millisecond)
		w.wantJoined(a, b)
		if n := dials.Load(); n != 4 {
			t.Errorf("%d tries, want 4", n)
		}
		if c := b.Status().Counters; c.Dialed != 1 || c.DialFailed != 0 {
			t.Errorf("%d dialed and %d failed, want one attempt", c.Dialed, c.DialFailed)
		}
		synctest.Wait()
		if n := w.net.Open(); n != 2 {
			t.Errorf("%d ends open, want those of one connection", n)
		}
	})
}

// An address where nobody answers gets no more than maxRace tries, and is given up in
// time; one that refuses gets one.
func TestDialRaceEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		var dials atomic.Int32
		w.net.OnDial(func(netip.Addr, netip.AddrPort) error { dials.Add(1); return nil })
		w.net.Cut(addrOf(1), addrOf(2))
		b := w.start(2, targets(addrOf(1)))
		w.run(5500 * time.Millisecond)
		b.wantConns("-> 10.0.0.1 failed (can't connect: no answer)")
		if n := dials.Load(); n != 4 {
			t.Errorf("%d tries of a silent address, want 4", n)
		}
		w.net.Mend(addrOf(1), addrOf(2))
		dials.Store(0)
		b.Connect([]string{addrOf(1)}, false)
		w.run(400 * time.Millisecond)
		b.wantConns("-> 10.0.0.1 failed (can't connect: connection refused)")
		if n := dials.Load(); n != 1 {
			t.Errorf("%d tries of an address that refuses, want 1", n)
		}
	})
}
