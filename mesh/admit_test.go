package mesh_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
)

// Both ends dial at the same time, many times, as goroutines run in another order each time:
// one connection stays, the same on both ends, and nobody calls it a failure.
func TestDuplicateRace(t *testing.T) {
	races := 0
	for i := range 40 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inWorld(t, func(w *world) {
				var dials atomic.Int32
				both := make(chan struct{})
				w.net.OnDial(func(netip.Addr, netip.AddrPort) error {
					if dials.Add(1) == 2 {
						close(both)
					}
					<-both
					return nil
				})
				a := w.start(1, targets("10.0.0.2"))
				b := w.start(2, targets("10.0.0.1"))
				w.run(100 * time.Millisecond)
				w.wantJoined(a, b)
				w.run(time.Hour)
				w.wantJoined(a, b)
				for _, n := range []*node{a, b} {
					s := n.Status()
					if len(s.Conns) != 1 || s.Counters.Terminated != 0 || s.Counters.Dialed != 1 {
						t.Errorf("status %+v", s)
					}
					if strings.Contains(n.log.String(), "level=WARN") {
						t.Errorf("%s warned:\n%s", n.name, n.log)
					}
					races += int(s.Counters.Duplicates)
				}
			})
		})
	}
	if races == 0 {
		t.Error("no two connections ever met")
	}
}

// The two ends do not learn at the same time that a connection carries frames. When
// another one comes meanwhile, from whichever end, they keep the same one of the two.
func TestDuplicateWhilePending(t *testing.T) {
	for i := range 16 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inWorld(t, func(w *world) {
				hosts := [2][]string{{"10.0.0.1", "10.0.0.101"}, {"10.0.0.2", "10.0.0.102"}}
				var nodes [2]*node
				for k, addrs := range hosts {
					nodes[k] = w.start(k+1, func(c *mesh.Config) { c.Net = w.net.Host(addrs...) })
				}
				w.net.SetLatency(20 * time.Millisecond)
				held, by := i%2, i/2%2 // whose link stays down, who dials again
				nodes[held].ov.Hold(true)
				nodes[held].Connect(hosts[1-held][:1], false)
				w.run(time.Second)
				nodes[by].Connect(hosts[1-by][1:], false)
				w.run(200 * time.Millisecond)
				for _, l := range nodes[held].ov.Links(nodes[1-held].name) {
					l.Fire(overlay.Event{Up: true})
				}
				w.run(time.Millisecond)
				w.wantJoined(nodes[0], nodes[1])
				if nodes[0].Status().Counters.Duplicates == 0 {
					t.Error("no other connection was tried")
				}
			})
		})
	}
}

func TestSelf(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1, targets("10.0.0.1", "10.0.0.2"))
		b := w.start(2, targets("10.0.0.1", "10.0.0.2"))
		w.run(time.Minute)
		w.wantJoined(a, b)
		for _, n := range []*node{a, b} {
			if !strings.Contains(n.conns(), "failed (the address is this host's own) never") {
				t.Errorf("connections:\n%s", n.conns())
			}
			s := n.Status()
			if s.Counters.Terminated != 0 || len(s.Refused) != 0 {
				t.Errorf("%+v", s)
			}
		}
		before := a.Status().Counters.Dialed
		w.run(time.Hour)
		if got := a.Status().Counters.Dialed; got != before {
			t.Errorf("%d more dials", got-before)
		}
		a.Connect([]string{"10.0.0.1"}, false)
		w.run(time.Second)
		if got := a.Status().Counters.Dialed; got != before+1 {
			t.Errorf("explicit connect: %d dials, want 1", got-before)
		}
	})
}

func TestNameCollision(t *testing.T) {
	t.Run("with us", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a := w.start(1)
			b := w.start(2, named(nameOf(1)), targets("10.0.0.1"))
			w.run(time.Minute)
			text := "peer name 02:00:00:00:00:01 already used by"
			b.wantConns("-> 10.0.0.1 failed (" + text + " h1 at 10.0.0.1: give one host another --name) never")
			b.wantLog(text + " h1 at 10.0.0.1: give one host another --name")
			a.wantLog(text+" h2 at 10.0.0.2: give one host another --name", "name collision")
			if r := a.Status().Refused; len(r) != 1 || r[0].Reason != mesh.ReasonCollision || r[0].Count != 1 {
				t.Errorf("refused %+v", r)
			}
		})
	})
	t.Run("with a third", func(t *testing.T) {
		inWorld(t, func(w *world) {
			hub := w.start(1)
			a := w.start(2, targets("10.0.0.1"))
			w.run(time.Second)
			c := w.start(3, named(nameOf(2)), targets("10.0.0.1"))
			w.run(time.Minute)
			w.wantJoined(hub, a)
			text := "peer name 02:00:00:00:00:02 already used by h2 at 10.0.0.2: give one host another --name"
			c.wantConns("-> 10.0.0.1 failed (" + text + ") never")
			c.wantLog(text)
			hub.wantLog(text, "10.0.0.3")
			if got := hub.Status().Counters; got.Repinned != 0 || got.Terminated != 0 {
				t.Errorf("counters %+v", got)
			}
		})
	})
}

// pinMap is Pins that outlive a router.
type pinMap map[peer.Name]handshake.PublicKey

func (m pinMap) Pin(n peer.Name) (handshake.PublicKey, bool) { k, ok := m[n]; return k, ok }
func (m pinMap) SetPin(n peer.Name, k handshake.PublicKey)   { m[n] = k }

func TestReinstalledHost(t *testing.T) {
	inWorld(t, func(w *world) {
		p := pinMap{nameOf(2): w.key(99).Public()}
		a := w.start(1, pins(p))
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		w.wantJoined(a, b)
		a.wantLog("level=WARN", "new static key", w.key(99).Public().ShortString(), w.key(2).Public().ShortString())
		if p[b.name] != w.key(2).Public() || a.Status().Counters.Repinned != 1 {
			t.Error("not pinned anew, or not counted")
		}
		// Killed without a reset, reinstalled: the old connection doesn't answer.
		w.net.Cut(addrOf(1), addrOf(2))
		b.kill()
		w.net.Mend(addrOf(1), addrOf(2))
		b = w.start(2, targets("10.0.0.1"), key(w.key(98)))
		w.run(3 * time.Second)
		w.wantJoined(a, b)
		if p[b.name] != w.key(98).Public() {
			t.Error("not pinned anew")
		}
	})
}

// A peer that is killed and launched again is back in less than 5 s, whoever
// dials, and whether or not the old connection was reset.
func TestRestart(t *testing.T) {
	for _, dialer := range []string{"restarted", "other", "both"} {
		for _, silent := range []bool{false, true} {
			for _, down := range []time.Duration{0, time.Second, 30 * time.Second, 9 * time.Minute} {
				t.Run(fmt.Sprintf("%s dials, silent %v, down %v", dialer, silent, down), func(t *testing.T) {
					inWorld(t, func(w *world) {
						var ta, tb []string
						if dialer != "restarted" {
							ta = []string{"10.0.0.2"}
						}
						if dialer != "other" {
							tb = []string{"10.0.0.1"}
						}
						a := w.start(1, targets(ta...))
						b := w.start(2, targets(tb...))
						w.run(5 * time.Second)
						w.wantJoined(a, b)
						if silent {
							w.net.Cut(addrOf(1), addrOf(2))
						}
						b.kill()
						w.run(down)
						w.net.Mend(addrOf(1), addrOf(2))
						b = w.start(2, targets(tb...))
						w.run(5 * time.Second)
						if dialer == "other" && silent && down < 15*time.Second {
							// Nobody can know before the silence is over.
							w.run(20 * time.Second)
						}
						w.wantJoined(a, b)
						if n := len(a.Status().Conns); n != 1 {
							t.Errorf("connections:\n%s", a.conns())
						}
						if len(a.ov.Links(b.name)) > 3 {
							t.Errorf("%d links were made", len(a.ov.Links(b.name)))
						}
						w.run(time.Minute)
						w.wantJoined(a, b)
					})
				})
			}
		}
	}
}

func TestClone(t *testing.T) {
	inWorld(t, func(w *world) {
		hub := w.start(1)
		a := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		c := w.start(3, named(nameOf(2)), key(w.key(2)), targets("10.0.0.1"))
		w.run(time.Minute)
		w.wantJoined(hub, a)
		text := "peer name 02:00:00:00:00:02 and its key already used by h2 at 10.0.0.2"
		hub.wantLog(text)
		c.wantLog(text)
		if got := c.Status().Conns[0]; got.Reason != mesh.ReasonClone || got.Never {
			t.Errorf("status of the clone %+v", got)
		}
		if got := hub.Status().Conflicts; len(got) != 1 || got[0].Name != nameOf(2) || !got[0].Clone || !got[0].Refused || !strings.Contains(got[0].Text, "weave reset") {
			t.Errorf("conflicts at the hub %+v", got)
		}
		a.stop() // the other may have the name now
		w.run(10 * time.Minute)
		w.wantJoined(hub, c)
	})
}

// A peer that comes back by another address while nothing tells of the end of the
// old connection replaces it: the old link is closed before the new is prepared.
func TestReplaceUnanswered(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		w.net.Cut(addrOf(1), addrOf(2))
		b.kill()
		b = w.start(2, targets("10.0.0.1"), func(c *mesh.Config) { c.Net = w.net.Host("10.0.0.12") })
		w.run(2 * time.Second)
		w.wantJoined(a, b)
		links := a.ov.Links(b.name)
		if len(links) != 2 || !links[0].Closed() || links[1].Closed() {
			t.Errorf("links %+v", links)
		}
		a.wantLog("connection closed", "peer restarted")
	})
}

// roamingNet dials from an address that the test changes.
type roamingNet struct {
	mesh.Net
	from atomic.Pointer[netip.Addr]
}

func (r *roamingNet) move(to string) {
	a := netip.MustParseAddr(to)
	r.from.Store(&a)
}

func (r *roamingNet) Dial(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	return r.Net.Dial(ctx, netip.AddrPortFrom(*r.from.Load(), from.Port()), to)
}

// The same run of a peer may come back too, when its end of the connection is
// gone and ours doesn't know: whichever end decides between two connections.
func TestReconnectUnanswered(t *testing.T) {
	for i := 1; i <= 2; i++ {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(i)
				addr, moved := addrOf(3-i), addrOf(10+i)
				roam := &roamingNet{Net: w.net.Host(addr, moved)}
				roam.move(addr)
				b := w.start(3-i, targets(addrOf(i)), func(c *mesh.Config) { c.Net = roam })
				w.run(time.Second)
				w.wantJoined(a, b)
				roam.move(moved)
				w.net.Cut(addrOf(1), addrOf(2))
				b.ov.Links(a.name)[0].Fire(overlay.Event{Fatal: true, Reason: "test"})
				w.run(3 * time.Second)
				w.wantJoined(a, b)
			})
		})
	}
}
