package mesh_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/handshake"
	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/mesh/overlay/overlaytest"
)

func TestJoin(t *testing.T) {
	tests := []struct {
		name      string
		a, b      []option
		encrypted bool
	}{
		{"no password", nil, nil, false},
		{"password", []option{psk(pskRight)}, []option{psk(pskRight)}, true},
		{"password and mutual trust", []option{psk(pskRight), trusts("10.0.0.0/24")}, []option{psk(pskRight), trusts("10.0.0.1/32")}, false},
		{"password and trust of one", []option{psk(pskRight), trusts("10.0.0.0/24")}, []option{psk(pskRight), trusts("10.0.0.9/32")}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, tt.a...)
				b := w.start(2, append(tt.b, targets("10.0.0.1"))...)
				w.run(time.Second)
				w.wantJoined(a, b)
				a.wantConns("<- 10.0.0.2 established h2")
				b.wantConns("-> 10.0.0.1 established h1")
				s := b.Status()
				if c := s.Conns[0]; c.Encrypted != tt.encrypted || c.Target != "10.0.0.1" || c.Path != "sleeve" || c.MTU != 1376 || c.Peer != a.name {
					t.Errorf("status %+v", c)
				}
				if len(s.Peers) != 2 || len(s.Peers[0].Conns) != 1 || !s.Peers[1].Conns[0].Established || s.Peers[1].NickName != "h1" {
					t.Errorf("peers %+v", s.Peers)
				}
				v := a.view()
				if v.Routes.Unicast[b.name] != b.name || !slices.Equal(v.Routes.Broadcast[a.name], []peer.Name{b.name}) || v.Peers[b.name].Version != "test" {
					t.Errorf("view %+v", v)
				}
				a.stop()
				b.stop()
				a.checkLinks(true)
				b.checkLinks(true)
				if n := w.net.Open(); n != 0 {
					t.Errorf("%d ends of connections left open", n)
				}
			})
		})
	}
}

func TestNamesAndPorts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.Name("one", "10.9.9.9", "10.0.0.1") // the first doesn't answer
		a := w.start(1)
		b := w.start(2, targets("one:6783"))
		w.run(7 * time.Second)
		w.wantJoined(a, b)
		b.Connect([]string{"two"}, false)
		w.run(100 * time.Millisecond)
		b.wantConns("-> 10.0.0.1 established h1", "-> two failed (can't find the host's address: lookup two: no such host)")
		w.net.Name("two", "10.0.0.3")
		c := w.start(3)
		w.run(10 * time.Second)
		w.wantJoined(b, c)
		if got := b.Targets(); !slices.Equal(got, []string{"one:6783", "two"}) {
			t.Errorf("targets %q", got)
		}
	})
}

func TestIPv6(t *testing.T) {
	inWorld(t, func(w *world) {
		at := func(addrs ...string) option { return func(c *mesh.Config) { c.Net = w.net.Host(addrs...) } }
		a := w.start(1, at("fd00::1"))
		b := w.start(2, at("10.0.0.2", "fd00::2"), targets("fd00::1"))
		c := w.start(3, at("fd00::3"), targets("[fd00::1]:6783", "b"))
		w.net.Name("b", "10.0.0.2", "fd00::2")
		w.run(4 * time.Second)
		w.wantJoined(a, b)
		w.wantJoined(a, c)
		w.wantJoined(b, c)
	})
}

func TestGracefulStop(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		w.wantJoined(a, b)
		begin := time.Now()
		a.stop()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
		synctest.Wait()
		if n := len(b.view().Links); n != 0 {
			t.Errorf("%d links still in use", n)
		}
		b.wantLog("connection closed", "peer stopped")
		w.run(time.Second)
		b.wantConns("-> 10.0.0.1 failed (can't connect: connection refused)")
		if a.Connect([]string{"x"}, false) != mesh.ErrStopped || a.Status().Port != 0 {
			t.Error("a stopped router answers")
		}
	})
}

func TestSilentPeer(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		b := w.start(2, targets("10.0.0.1"))
		w.run(20 * time.Second)
		w.wantJoined(a, b)
		if rtt := a.Status().Conns[0].RTT; rtt != 0 {
			t.Errorf("round trip %v in no time", rtt)
		}
		w.net.Cut(addrOf(1), addrOf(2))
		w.run(16 * time.Second)
		a.wantConns()
		a.wantLog("connection closed", "peer silent")
		w.net.Mend(addrOf(1), addrOf(2))
		w.run(11 * time.Second) // a dial may be under way
		w.wantJoined(a, b)
	})
}

// A connection that carries frames stays when the same peer is found at another address,
// from whichever end.
func TestSameAtOtherAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1, func(c *mesh.Config) { c.Net = w.net.Host("10.0.0.1", "10.0.0.101") })
		b := w.start(2, targets("10.0.0.1"), func(c *mesh.Config) { c.Net = w.net.Host("10.0.0.2", "10.0.0.102") })
		w.run(5 * time.Second)
		w.wantJoined(a, b)
		was := b.view().Links[a.name][0]
		for _, c := range []struct {
			n      *node
			target string
		}{{b, "10.0.0.101"}, {a, "10.0.0.102"}} {
			if err := c.n.Connect([]string{c.target}, false); err != nil {
				t.Fatal(err)
			}
			w.run(5 * time.Second)
		}
		if now := b.view().Links[a.name]; len(now) != 1 || now[0] != was {
			t.Errorf("another connection took the place of one that was established")
		}
		if d := b.Status().Counters.Duplicates; d == 0 {
			t.Error("no other connection was tried")
		}
	})
}

// A peer whose address dies is reached by another that is known, before the old
// connection is given up, and the old one goes on if the address comes back first.
func TestOtherAddress(t *testing.T) {
	for name, to := range map[string][]string{
		"two targets": {"10.0.0.1", "10.0.0.101"},
		"a name":      {"h1"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.net.Name("h1", "10.0.0.1", "10.0.0.101")
				a := w.start(1, func(c *mesh.Config) { c.Net = w.net.Host("10.0.0.1", "10.0.0.101") })
				b := w.start(2, targets(to...))
				w.run(5 * time.Second)
				w.wantJoined(a, b)
				at := b.view().Links[a.name][0].Status().Remote.Addr()
				w.net.Cut(at.String(), addrOf(2))
				loseLinks(a, b)
				w.run(1700 * time.Millisecond)
				w.wantJoined(a, b)
			})
		})
	}
}

// The same goes when the connection outlives its links for a while.
func TestOtherAddressWhilePending(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1, func(c *mesh.Config) { c.Net = w.net.Host("10.0.0.1", "10.0.0.101") })
		b := w.start(2, targets("10.0.0.1", "10.0.0.101"))
		w.run(5 * time.Second)
		w.wantJoined(a, b)
		at := b.view().Links[a.name][0].Status().Remote.Addr()
		loseLinks(a, b)
		w.run(10 * time.Second)
		b.wantConns(fmt.Sprintf("-> %v pending (no path works; sleeve: heartbeat lost)", at))
		w.net.Cut(at.String(), addrOf(2))
		w.run(5 * time.Second)
		w.wantJoined(a, b)
	})
}

// loseLinks takes down the links between two, of their latest connection.
func loseLinks(a, b *node) {
	for _, links := range [][]*overlaytest.Link{a.ov.Links(b.name), b.ov.Links(a.name)} {
		links[len(links)-1].Fire(overlay.Event{Reason: "heartbeat lost"})
	}
}

func TestLinkStates(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		a.ov.Hold(true)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		a.wantConns("<- 10.0.0.2 pending (no path works)")
		if len(a.view().Links) != 0 || len(a.view().Peers) != 2 {
			t.Errorf("view %+v", a.view())
		}
		la := a.ov.Links(b.name)[0]
		la.Fire(overlay.Event{Up: true})
		w.run(time.Second)
		w.wantJoined(a, b)
		la.Fire(overlay.Event{Reason: "heartbeat lost"})
		w.run(time.Second)
		a.wantConns("<- 10.0.0.2 pending (no path works; sleeve: heartbeat lost)")
		if len(a.view().Links) != 0 || len(a.view().Routes.Unicast) != 0 {
			t.Errorf("view %+v", a.view())
		}
		la.Fire(overlay.Event{Up: true})
		w.run(time.Second)
		w.wantJoined(a, b)
		a.ov.Hold(false)
		la.Fire(overlay.Event{Reason: "keys exhausted", Fatal: true})
		synctest.Wait()
		if !la.Closed() {
			t.Error("link is open after a fatal event")
		}
		b.wantLog("sleeve link: keys exhausted")
		w.run(10 * time.Second)
		w.wantJoined(a, b)
		if got := len(a.ov.Links(b.name)); got != 2 {
			t.Errorf("%d links, want 2", got)
		}
	})
}

// A connection that stays without a link is closed and tried again.
func TestNoPath(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		a.ov.Hold(true)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		a.ov.Hold(false)
		w.run(60 * time.Second)
		b.wantLog("connection closed", "no path works")
		w.run(10 * time.Second)
		w.wantJoined(a, b)
	})
}

func TestNothingInCommon(t *testing.T) {
	other := overlaytest.New(overlay.Path{Name: "carrier-pigeon"})
	tests := []struct {
		name string
		o    option
		text string
	}{
		{"path", func(c *mesh.Config) { c.Overlays = []overlay.Overlay{other} }, "no path in common"},
		{"cipher", func(c *mesh.Config) { c.Ciphers = []session.Cipher{9} }, "no cipher in common"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, psk(pskRight))
				b := w.start(2, psk(pskRight), targets("10.0.0.1"), tt.o)
				w.run(time.Second)
				b.wantLog("connection closed", tt.text)
				a.wantLog("connection closed", tt.text)
				if len(b.view().Links) != 0 {
					t.Error("joined")
				}
			})
		})
	}
}

func TestConnectReplaceAndForget(t *testing.T) {
	inWorld(t, func(w *world) {
		a, c := w.start(1), w.start(3)
		b := w.start(2, targets("10.0.0.1", "10.0.0.8"))
		w.run(time.Second)
		w.wantJoined(a, b)
		if err := b.Connect([]string{"10.0.0.3", "a:b:c"}, false); err == nil || !strings.Contains(err.Error(), `"a:b:c"`) {
			t.Errorf("bad target: %v", err)
		}
		w.run(time.Second)
		w.wantJoined(b, c)
		if err := b.Connect([]string{"10.0.0.3"}, true); err != nil {
			t.Error(err)
		}
		w.run(time.Second)
		w.wantJoined(a, b) // connections stay
		b.wantConns("-> 10.0.0.1 established h1", "-> 10.0.0.3 established h3")
		a.kill()
		w.start(1)
		if err := b.Forget([]string{"10.0.0.3", "never.seen"}); err != nil {
			t.Error(err)
		}
		c.kill()
		w.start(3)
		w.run(time.Minute)
		b.wantConns()
		if got := b.Targets(); len(got) != 0 {
			t.Errorf("targets %q", got)
		}
	})
}

// A target that is forgotten while it is dialed doesn't become a connection.
func TestForgetWhileDialing(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		synctest.Wait()
		hold := make(chan struct{})
		w.net.OnDial(func(netip.Addr, netip.AddrPort) error { <-hold; return nil })
		b := w.start(2, targets("10.0.0.1"))
		synctest.Wait()
		b.Forget([]string{"10.0.0.1"})
		close(hold)
		w.run(time.Second)
		a.wantConns()
		b.wantConns()
		b.wantLog("the target was forgotten")
	})
}

// Half of a mesh's dials fail at random; all find one another nevertheless.
func TestUnreliableDials(t *testing.T) {
	inWorld(t, func(w *world) {
		var mu sync.Mutex
		n := 0
		w.net.OnDial(func(netip.Addr, netip.AddrPort) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n%10 < 3 {
				return fmt.Errorf("dial %d dropped", n)
			}
			return nil
		})
		var all []string
		for i := 1; i <= 8; i++ {
			all = append(all, addrOf(i))
		}
		var nodes []*node
		for i := 1; i <= 8; i++ {
			nodes = append(nodes, w.start(i, targets(all...), psk(pskRight)))
		}
		w.run(30 * time.Second)
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				w.wantJoined(a, b)
			}
		}
		for _, a := range nodes {
			a.checkLinks(false)
			a.stop()
			a.checkLinks(true)
		}
	})
}

// A peer that takes no messages is given up when the queue is full; nobody blocks.
func TestOverflow(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		w.net.Cut(addrOf(1), addrOf(2))
		send := a.ov.Links(b.name)[0].Params.Send
		total := 0
		for send(make([]byte, 8<<10)) == nil {
			if total += 8 << 10; total > 64<<20 {
				t.Fatal("there is no bound")
			}
		}
		synctest.Wait()
		a.wantConns()
		a.wantLog("connection closed", "peer takes no messages")
		if send([]byte{1}) == nil {
			t.Error("sending over a closed connection")
		}
		w.net.Mend(addrOf(1), addrOf(2))
		w.run(5 * time.Second)
		w.wantJoined(a, b)
	})
}

// Overlays talk through the control connection, in order, also at length.
func TestOverlayControl(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		b := w.start(2, targets("10.0.0.1"))
		w.run(time.Second)
		la, lb := a.ov.Links(b.name)[0], b.ov.Links(a.name)[0]
		for i := range 200 {
			if err := la.Params.Send(bytes.Repeat([]byte{byte(i)}, 16000)); err != nil {
				t.Fatal(err)
			}
			if i%50 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		got := lb.Received()
		if len(got) != 201 {
			t.Fatalf("%d messages arrived", len(got))
		}
		for i, m := range got[1:] {
			if len(m) != 16000 || m[0] != byte(i) || m[15999] != byte(i) {
				t.Errorf("message %d is %d bytes of %d", i, len(m), m[0])
			}
		}
		if err := la.Params.Send(make([]byte, 64<<10)); err == nil {
			t.Error("a message over the limit was taken")
		}
	})
}

func TestBadConfig(t *testing.T) {
	k, _ := handshake.NewStaticKey(nil)
	good := mesh.Config{Name: nameOf(1), Static: k}
	tests := map[string]func(*mesh.Config){
		"no name":      func(c *mesh.Config) { c.Name = peer.Name{} },
		"no key":       func(c *mesh.Config) { c.Static = nil },
		"bad target":   func(c *mesh.Config) { c.Targets = []string{"a:b:c"} },
		"bad overlay":  func(c *mesh.Config) { c.Overlays = []overlay.Overlay{overlaytest.New(overlay.Path{})} },
		"limit":        func(c *mesh.Config) { c.ConnLimit = -1 },
		"cipher twice": func(c *mesh.Config) { c.Ciphers = []session.Cipher{1, 1} },
	}
	if _, err := mesh.New(good); err != nil {
		t.Error(err)
	}
	for name, spoil := range tests {
		c := good
		spoil(&c)
		if _, err := mesh.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPortInUse(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		synctest.Wait()
		r, err := mesh.New(mesh.Config{Name: nameOf(2), Static: w.key(2), Net: a.host})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "port 6783") {
			t.Errorf("Run: %v", err)
		}
		if r.Targets() != nil {
			t.Error("a router that didn't start answers")
		}
	})
}
