package mesh_test

import (
	"testing"
	"time"

	"weave/mesh"
	"weave/mesh/overlay"
)

// natted starts two hosts, each behind a NAT, that know a third one, which is not.
func (w *world) natted(opts ...option) (a, b, c *node) {
	opts = append([]option{targets(addrOf(3)), discovery}, opts...)
	w.net.NAT(addrOf(1), "192.0.2.1")
	w.net.NAT(addrOf(2), "192.0.2.2")
	c = w.start(3, discovery)
	return w.start(1, opts...), w.start(2, opts...), c
}

// Two hosts behind NATs that both know a third get a direct connection, which has
// one end that began it like any other; whose it is follows from the names.
func TestOpening(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.natted()
		w.run(time.Second)
		wantReach(t, a, b, c)
		if joined(a, b) {
			t.Fatal("joined through two NATs at once")
		}
		w.run(30 * time.Second)
		w.wantJoined(a, b)
		asked := a.Status().Counters.OpenAsked + b.Status().Counters.OpenAsked
		tried := a.Status().Counters.OpenTried + b.Status().Counters.OpenTried
		if asked == 0 || tried == 0 {
			t.Errorf("%d times asked, %d times tried", asked, tried)
		}
		for _, n := range []*node{a, b, c} {
			if r := n.Status().Refused; len(r) != 0 {
				t.Errorf("%s has refused %+v", n.name, r)
			}
			n.checkLinks(false)
		}
		// It is lost: the two find each other again.
		a.ov.Links(b.name)[0].Fire(overlay.Event{Fatal: true, Reason: "test"})
		w.run(30 * time.Second)
		w.wantJoined(a, b)
		// Without the third the connection goes on.
		c.stop()
		w.run(20 * time.Second)
		w.wantJoined(a, b)
		wantReach(t, a, b)
	})
}

// Who can be dialed is not asked to open.
func TestNoOpeningWithoutNeed(t *testing.T) {
	inWorld(t, func(w *world) {
		var nodes []*node
		for i := 1; i <= 5; i++ {
			nodes = append(nodes, w.start(i, targets(addrOf(1)), discovery))
		}
		w.net.NAT(addrOf(6), "192.0.2.6") // it dials all others
		nodes = append(nodes, w.start(6, targets(addrOf(1)), discovery))
		w.run(2 * time.Minute)
		for i, n := range nodes {
			for _, o := range nodes[:i] {
				w.wantJoined(o, n)
			}
			if s := n.Status().Counters; s.OpenTried > 0 && i != 5 {
				t.Errorf("%s was asked to open %d times", n.name, s.OpenTried)
			}
		}
	})
}

// Without discovery nobody is dialed but targets, whoever asks.
func TestNoOpeningWithoutDiscovery(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.natted(func(c *mesh.Config) { c.Discovery = c.Name == nameOf(1) })
		w.run(5 * time.Minute)
		if b.Status().Counters.OpenTried != 0 || joined(a, b) {
			t.Errorf("opened without discovery: %+v", b.Status().Counters)
		}
		wantReach(t, a, b, c)
	})
}
