package mesh_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/gossip"
	"weave/mesh/overlay"
	"weave/mesh/topo"
)

// line starts hosts 1 to n, each with the one before as its target.
func (w *world) line(n int, opts ...option) []*node {
	var nodes []*node
	for i := 1; i <= n; i++ {
		o := opts
		if i > 1 {
			o = append(slices.Clone(opts), targets(addrOf(i-1)))
		}
		nodes = append(nodes, w.start(i, o...))
	}
	return nodes
}

// reach checks, by walking the routes, that each node's unicasts arrive at every
// other and its broadcasts exactly once at each.
func reach(nodes ...*node) error {
	views := map[peer.Name]mesh.View{}
	for _, n := range nodes {
		views[n.name] = n.view()
	}
	for _, from := range nodes {
		got := map[peer.Name]int{}
		for queue := []peer.Name{from.name}; len(queue) > 0; queue = queue[1:] {
			at := queue[0]
			if got[at]++; got[at] > 1 {
				return fmt.Errorf("%s gets %s's broadcast twice", at, from.name)
			}
			for _, hop := range views[at].Routes.Broadcast[from.name] {
				if views[at].Links[hop] == nil {
					return fmt.Errorf("%s forwards to %s without a link", at, hop)
				}
				if parent := views[hop].Routes.Parent[from.name]; parent != at {
					return fmt.Errorf("%s wants %s's broadcast from %s, not %s", hop, from.name, parent, at)
				}
				queue = append(queue, hop)
			}
		}
		if len(got) != len(nodes) {
			return fmt.Errorf("%s's broadcast reaches %d of %d", from.name, len(got), len(nodes))
		}
		for _, to := range nodes {
			at := from.name
			for hops := 0; at != to.name; hops++ {
				next, ok := views[at].Routes.Unicast[to.name]
				if !ok || hops > len(nodes) || views[at].Links[next] == nil {
					return fmt.Errorf("%s has no way to %s at %s", from.name, to.name, at)
				}
				at = next
			}
		}
		if len(views[from.name].Peers) != len(nodes) {
			return fmt.Errorf("%s knows %d peers, want %d", from.name, len(views[from.name].Peers), len(nodes))
		}
	}
	return nil
}

func wantReach(t *testing.T, nodes ...*node) {
	t.Helper()
	if err := reach(nodes...); err != nil {
		t.Error(err)
	}
}

func TestLine(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.line(6)
		w.run(2 * time.Second)
		wantReach(t, nodes...)
		s := nodes[5].Status()
		if len(s.Peers) != 6 || len(s.Conns) != 1 || s.Peers[0].Name != nodes[5].name {
			t.Fatalf("status %+v", s)
		}
		two := s.Peers[2]
		if two.Name != nodes[1].name || two.NickName != "h2" || two.Version != "test" || len(two.Conns) != 2 {
			t.Fatalf("peer %+v", two)
		}
		if c := two.Conns[0]; c.Peer != nodes[0].name || c.NickName != "h1" || !c.Outbound || !c.Established || c.Addr != "10.0.0.1:6783" {
			t.Errorf("connection of another peer %+v", c)
		}
		// The middle goes: each half forgets the other, and finds it again.
		nodes[3].stop()
		w.run(1500 * time.Millisecond)
		wantReach(t, nodes[:3]...)
		wantReach(t, nodes[4:]...)
		nodes[3] = w.start(4, targets(addrOf(3)))
		w.run(5 * time.Second)
		wantReach(t, nodes...)
	})
}

// A link that dies in a ring: the way around it is in use before 300 ms have passed.
func TestReroute(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.line(7)
		nodes[0].Connect([]string{addrOf(7)}, false)
		w.run(10 * time.Second)
		wantReach(t, nodes...)
		if via := nodes[0].view().Routes.Unicast[nodes[3].name]; via != nodes[1].name {
			t.Fatalf("from 1 to 4 via %s", via)
		}
		for _, p := range [][2]*node{{nodes[2], nodes[3]}, {nodes[3], nodes[2]}} {
			l := p[0].ov.Links(p[1].name)
			l[len(l)-1].Fire(overlay.Event{Reason: "heartbeat lost"})
		}
		w.run(300 * time.Millisecond)
		wantReach(t, nodes...)
		if via := nodes[0].view().Routes.Unicast[nodes[3].name]; via != nodes[6].name {
			t.Errorf("after the loss from 1 to 4 via %s", via)
		}
	})
}

func TestDiscovery(t *testing.T) {
	inWorld(t, func(w *world) {
		var nodes []*node
		for i := 1; i <= 8; i++ {
			o := []option{discovery, psk(pskRight), targets("10.0.0.1", addrOf(i))}
			nodes = append(nodes, w.start(i, o...))
		}
		quiet := w.start(9, psk(pskRight), targets("10.0.0.1"))
		w.run(2 * time.Second)
		for _, n := range append(nodes, quiet) {
			if v := n.view(); len(v.Peers) != 9 || len(v.Routes.Unicast) != 8 {
				t.Errorf("%s knows %d peers and has routes to %d", n.name, len(v.Peers), len(v.Routes.Unicast))
			}
		}
		w.run(8 * time.Second)
		wantReach(t, append(nodes, quiet)...)
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				w.wantJoined(a, b)
			}
			w.wantJoined(a, quiet) // found by those who look
		}
		for _, c := range quiet.Status().Conns {
			if c.Outbound && c.Target == "" {
				t.Errorf("a peer without discovery dialed %+v", c)
			}
		}
		for _, n := range nodes {
			for _, c := range n.Status().Conns {
				if c.Found && c.State != mesh.StateEstablished {
					t.Errorf("%s: %+v", n.name, c)
				}
			}
		}
		before := nodes[0].Status().Counters
		w.run(10 * time.Minute)
		if after := nodes[0].Status().Counters; after.Dialed != before.Dialed || after.Terminated != before.Terminated {
			t.Errorf("at rest: %+v, then %+v", before, after)
		}
	})
}

// The peer that all knew is gone for good: the others stay one network, also over
// a cut.
func TestBootstrapGone(t *testing.T) {
	inWorld(t, func(w *world) {
		boot := w.start(1, discovery)
		var nodes []*node
		for i := 2; i <= 6; i++ {
			nodes = append(nodes, w.start(i, discovery, targets("10.0.0.1")))
		}
		w.run(10 * time.Second)
		boot.kill()
		cut := func(f func(a, b string)) {
			for i := 2; i <= 3; i++ {
				for j := 4; j <= 6; j++ {
					f(addrOf(i), addrOf(j))
				}
			}
		}
		cut(w.net.Cut)
		w.run(time.Minute)
		wantReach(t, nodes[:2]...)
		wantReach(t, nodes[2:]...)
		cut(w.net.Mend)
		w.run(6 * time.Second)
		for _, n := range nodes {
			if got := len(n.view().Routes.Unicast); got != 4 {
				t.Errorf("%s has routes to %d after 6 s", n.name, got)
			}
		}
		w.run(time.Minute)
		wantReach(t, nodes...)
	})
}

// Discovery joins nobody to another network: at an address that a peer had given
// there is somebody else now.
func TestForeignNetwork(t *testing.T) {
	inWorld(t, func(w *world) {
		hub := w.start(1)
		b := w.start(2, discovery, targets("10.0.0.1"))
		c := w.start(3, targets("10.0.0.1"))
		dials := 0
		w.net.OnDial(nil)
		w.run(time.Second)
		wantReach(t, hub, b, c)
		c.stop()
		alien := w.start(77, func(cfg *mesh.Config) { cfg.Net = c.host })
		other := w.start(78, targets(addrOf(3)))
		w.run(2 * time.Minute)
		if len(b.view().Peers) != 2 || len(alien.view().Peers) != 2 {
			t.Errorf("peers %v and %v after %d dials", b.view().Peers, alien.view().Peers, dials)
		}
		wantReach(t, hub, b)
		wantReach(t, alien, other)
	})
}

// A full peer tells those that it turns away where to go; they join the network.
func TestJoinThroughFull(t *testing.T) {
	inWorld(t, func(w *world) {
		var nodes []*node
		for i := 1; i <= 24; i++ {
			nodes = append(nodes, w.start(i, discovery, limit(6), targets("10.0.0.1")))
		}
		w.run(30 * time.Second)
		wantReach(t, nodes...)
		for _, n := range nodes {
			if c := len(n.view().Links); c > 6 || c < 2 {
				t.Errorf("%s has %d connections", n.name, c)
			}
			if s := n.Status(); s.Counters.UnknownMessages != 0 || s.Counters.Dialed > 100 {
				t.Errorf("%s: %+v", n.name, s.Counters)
			}
		}
	})
}

// A host behind NAT works from its side; two of them are relayed.
func TestNAT(t *testing.T) {
	inWorld(t, func(w *world) {
		hidden := map[string]bool{addrOf(3): true, addrOf(4): true}
		w.net.OnDial(func(_ netip.Addr, to netip.AddrPort) error {
			if hidden[to.Addr().String()] {
				return syscall.EHOSTUNREACH
			}
			return nil
		})
		hub := w.start(1, discovery)
		var nodes []*node
		for i := 2; i <= 4; i++ {
			nodes = append(nodes, w.start(i, discovery, targets("10.0.0.1")))
		}
		w.run(15 * time.Second)
		wantReach(t, append(nodes, hub)...)
		w.wantJoined(nodes[0], nodes[1])
		w.wantJoined(nodes[0], nodes[2])
		if joined(nodes[1], nodes[2]) {
			t.Error("joined through two NATs")
		}
		for _, c := range nodes[1].Status().Conns {
			if c.Error != "" && !c.Found {
				t.Errorf("%+v", c)
			}
		}
		w.run(time.Hour)
		if n := nodes[1].Status().Counters.Dialed; n > 40 {
			t.Errorf("%d attempts in an hour", n)
		}
	})
}

func TestCollisionAcrossRelays(t *testing.T) {
	for _, clone := range []bool{false, true} {
		t.Run(fmt.Sprint("clone ", clone), func(t *testing.T) {
			inWorld(t, func(w *world) {
				nodes := w.line(4)
				k := w.key(51)
				if clone {
					k = w.key(50)
				}
				if !clone { // both are there before the two networks become one
					nodes[2].Forget([]string{addrOf(2)})
					w.net.Cut(addrOf(2), addrOf(3))
					w.run(time.Minute)
				}
				a := w.start(50, targets(addrOf(1)))
				b := w.start(51, named(nameOf(50)), key(k), targets(addrOf(4)))
				w.run(time.Second)
				w.net.Mend(addrOf(2), addrOf(3))
				nodes[2].Connect([]string{addrOf(2)}, false)
				w.run(3 * time.Minute)
				for _, n := range []*node{a, b} {
					c := n.Status().Conflicts
					if len(c) != 1 || c[0].Name != nameOf(50) || c[0].Clone != clone || !strings.Contains(c[0].Text, "02:00:00:00:00:32") {
						t.Errorf("conflicts at %s: %+v", n.Status().Local.NickName, c)
					}
				}
				w.wantJoined(nodes[1], nodes[2])
				before := nodes[1].Status().Channels[0].Received
				w.run(10 * time.Minute)
				if got := nodes[1].Status().Channels[0].Received - before; got > 1000 {
					t.Errorf("%d messages in 10 minutes: they fight", got)
				}
				b.stop()
				w.run(10 * time.Minute)
				wantReach(t, append(nodes, a)...)
				if c := a.Status().Conflicts; len(c) != 0 {
					t.Errorf("conflicts when it is over: %+v", c)
				}
			})
		})
	}
}

// A second host with a name is refused by those who know of the first, however far it
// is, and taken when that one is gone. Who had the name first keeps it, also when
// somebody took it in the meantime.
func TestNamesake(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.line(4, psk(pskRight))
		a := w.start(50, psk(pskRight), targets(addrOf(1)))
		w.run(2 * time.Second)
		b := w.start(51, psk(pskRight), named(nameOf(50)), targets(addrOf(4)))
		w.run(10 * time.Second)
		b.wantConns("-> 10.0.0.4 failed (peer name 02:00:00:00:00:32 already used by h50 elsewhere in the network: give one host another --name)")
		if s := b.Status().Conns[0]; s.Reason != mesh.ReasonNamesake || s.Never || s.Retry.IsZero() {
			t.Errorf("%+v", s)
		}
		if c := nodes[3].Status().Conflicts; len(c) != 1 || c[0].Name != nameOf(50) || c[0].NickName != "h51" || !c[0].Refused {
			t.Errorf("conflicts at the last in the line: %+v", c)
		}
		wantReach(t, append(nodes, a)...)
		a.stop()
		w.run(time.Minute)
		w.wantJoined(nodes[3], b)
		wantReach(t, append(nodes, b)...)

		b.stop()
		w.run(5 * time.Second)
		e := w.infiltrate(66, 2)
		seed := make([]byte, ed25519.SeedSize)
		stolen := ed25519.NewKeyFromSeed(seed)
		mark := func(k ed25519.PrivateKey) topo.Mark { return topo.Key(k.Public().(ed25519.PublicKey)).Mark() }
		own := topo.New(topo.Config{Name: e.name, UID: 666, Key: e.key})
		fake := topo.New(topo.Config{Name: nameOf(50), UID: 667, NickName: "fake", Key: stolen})
		for _, d := range []topo.Delta{
			own.SetConns([]topo.Conn{{Peer: nameOf(2), Mark: mesh.SignMark(nodes[1].Router), Established: true}, {Peer: nameOf(50), Mark: mark(stolen), Established: true}}, false),
			fake.SetConns([]topo.Conn{{Peer: e.name, Mark: mark(e.key), Established: true}}, false),
		} {
			for _, m := range d.Encode() {
				e.gossip("topology", m)
			}
		}
		w.run(2 * time.Second)
		if p := nodes[3].view().Peers[nameOf(50)]; p.NickName != "fake" {
			t.Fatalf("the name is not taken: %+v", p)
		}
		b = w.start(51, psk(pskRight), named(nameOf(50)), targets(addrOf(4)))
		w.run(2 * time.Second)
		w.wantJoined(nodes[3], b)
	})
}

var errBad = errors.New("not mine")

// ledger is a channel whose state is the highest number heard for each key.
type ledger struct {
	name string
	s    gossip.Sender

	*guarded
}

func openLedger(name string, to **ledger) option {
	return func(c *mesh.Config) {
		c.Channels = append(c.Channels, func(s gossip.Sender) gossip.Channel {
			*to = &ledger{name: name, s: s, guarded: &guarded{state: ledgerData{}}}
			return *to
		})
	}
}

func TestChannels(t *testing.T) {
	inWorld(t, func(w *world) {
		// 1-2-3-4-5-6, where 3 and 4 lack the channel.
		ls := make([]*ledger, 7)
		var nodes []*node
		for i := 1; i <= 6; i++ {
			o := []option{openLedger("other", new(*ledger))}
			if i != 3 && i != 4 {
				o = append(o, openLedger("ledger", &ls[i]))
			}
			if i > 1 {
				o = append(o, targets(addrOf(i-1)))
			}
			nodes = append(nodes, w.start(i, o...))
		}
		w.run(time.Second)
		ls[1].set("x", 7)
		w.run(time.Second)
		for _, i := range []int{1, 2, 5, 6} {
			if got := ls[i].get("x"); got != 7 {
				t.Errorf("%d has %d, want 7", i, got)
			}
		}
		// What was said while somebody was away is found by digests.
		nodes[5].stop()
		ls[1].set("y", 8)
		ls[2].set("x", 9)
		w.run(time.Second)
		nodes[5] = w.start(6, openLedger("ledger", &ls[6]), targets(addrOf(5)))
		w.run(2 * time.Second)
		if x, y := ls[6].get("x"), ls[6].get("y"); x != 9 || y != 8 {
			t.Errorf("6 has x=%d y=%d, want 9 and 8", x, y)
		}
		if s := nodes[2].Status(); s.Counters.Surrogated == 0 {
			t.Error("nothing passed on")
		}
		// Unicasts, over peers that lack the channel.
		if err := ls[1].s.Unicast(nodes[5].name, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := ls[6].inbox(); !slices.Equal(got, []string{nodes[0].name.String() + " hello"}) {
			t.Errorf("6 received %q", got)
		}
		if err := ls[1].s.Unicast(nameOf(99), nil); !errors.Is(err, gossip.ErrNoRoute) {
			t.Errorf("unicast to nobody: %v", err)
		}
		if err := ls[1].s.Unicast(nodes[1].name, make([]byte, gossip.MaxMessage+1)); !errors.Is(err, gossip.ErrTooLong) {
			t.Errorf("unicast too long: %v", err)
		}
		// To oneself.
		if err := ls[1].s.Unicast(nodes[0].name, []byte("me")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := ls[1].inbox(); !slices.Equal(got, []string{nodes[0].name.String() + " me"}) {
			t.Errorf("1 received %q", got)
		}
		// Gone: all channels hear of it, and of nobody else.
		nodes[5].stop()
		w.run(2 * time.Second)
		for _, i := range []int{1, 2, 5} {
			if got := ls[i].gone(); len(got) == 0 || got[len(got)-1] != nodes[5].name {
				t.Errorf("%d was told that %v are gone", i, got)
			}
		}
		// A message that the channel can't use costs nothing but a line.
		ls[1].s.Update(raw("bad"))
		w.run(100 * time.Millisecond)
		s := nodes[1].Status().Channels[2]
		if s.Name != "ledger" || s.Errors != 1 || s.LastError != errBad.Error() || s.ErrorFrom != nodes[0].name || s.ErrorNick != "h1" {
			t.Errorf("status of the channel %+v", s)
		}
		nodes[1].wantLog("bad gossip", "channel=ledger", "peer="+nodes[0].name.String())
		wantReach(t, nodes[:5]...)
	})
}

// A neighbour that takes nothing costs one state, not a queue, and gets all at last.
func TestBackPressure(t *testing.T) {
	inWorld(t, func(w *world) {
		var a, b *ledger
		na := w.start(1, openLedger("ledger", &a))
		nb := w.start(2, openLedger("ledger", &b), targets("10.0.0.1"))
		w.run(time.Second)
		w.net.Cut(addrOf(1), addrOf(2))
		for i := range 10_000 {
			a.set(fmt.Sprint("k", i%100), i)
			if i%10 == 0 {
				w.run(time.Millisecond)
			}
		}
		if n := na.Status().Channels[1].Sent; n < 20 {
			t.Errorf("only %d rounds", n)
		}
		w.net.Mend(addrOf(1), addrOf(2))
		w.run(100 * time.Millisecond)
		if got := b.get("k99"); got != 9999 {
			t.Errorf("b has %d, want 9999", got)
		}
		if n := nb.Status().Channels[1].Received; n > 200 {
			t.Errorf("%d messages arrived", n)
		}
		w.wantJoined(na, nb)
	})
}

func TestBadChannels(t *testing.T) {
	for _, names := range [][]string{{""}, {"topology"}, {"a", "a"}, {strings.Repeat("a", 33)}} {
		c := mesh.Config{Name: nameOf(1), Static: mustKey(t)}
		for _, n := range names {
			openLedger(n, new(*ledger))(&c)
		}
		if _, err := mesh.New(c); !errors.Is(err, mesh.ErrConfig) {
			t.Errorf("%q: %v", names, err)
		}
	}
}
