package mesh_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"weave/crypto/handshake"
	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/meshtest"
	"weave/mesh/overlay"
	"weave/mesh/overlay/overlaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	pskRight = handshake.PSKFromPassword([]byte("right"))
	pskWrong = handshake.PSKFromPassword([]byte("wrong"))
)

var ciphers = []session.Cipher{session.CipherAES, session.CipherChaCha}

func nameOf(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, byte(i)}) }
func addrOf(i int) string    { return fmt.Sprintf("10.0.0.%d", i) }

// world is a network with routers in one synctest bubble.
type world struct {
	t    *testing.T
	net  *meshtest.Net
	keys map[int]*handshake.StaticKey

	atOnce bool // start doesn't wait until the router listens
}

func inWorld(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: meshtest.New(), keys: map[int]*handshake.StaticKey{}}
		f(w)
	})
}

func (w *world) key(i int) *handshake.StaticKey {
	if w.keys[i] == nil {
		k, err := handshake.NewStaticKey(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		w.keys[i] = k
	}
	return w.keys[i]
}

// node is a router that runs.
type node struct {
	*mesh.Router
	w    *world
	name peer.Name
	host *meshtest.Host
	ov   *overlaytest.Overlay
	log  *logBuffer
	stop func() // gracefully; returns when Run has

	mu    sync.Mutex
	views []mesh.View
}

// logBuffer is the text of a node's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type option = func(*mesh.Config)

func targets(ts ...string) option       { return func(c *mesh.Config) { c.Targets = ts } }
func psk(p *handshake.PSK) option       { return func(c *mesh.Config) { c.PSK = p } }
func named(n peer.Name) option          { return func(c *mesh.Config) { c.Name = n } }
func limit(n int) option                { return func(c *mesh.Config) { c.ConnLimit = n } }
func pins(p mesh.Pins) option           { return func(c *mesh.Config) { c.Pins = p } }
func key(k *handshake.StaticKey) option { return func(c *mesh.Config) { c.Static = k } }
func trusts(prefix string) option {
	return func(c *mesh.Config) { c.Trusted = append(c.Trusted, netip.MustParsePrefix(prefix)) }
}

// start runs host i: its name, address and key follow from i.
func (w *world) start(i int, opts ...option) *node {
	w.t.Helper()
	n := &node{
		w: w, name: nameOf(i), host: w.net.Host(addrOf(i)), log: &logBuffer{},
		ov: overlaytest.New(overlay.Path{Name: "sleeve", Port: 6783}),
	}
	cfg := mesh.Config{
		Name: n.name, NickName: fmt.Sprintf("h%d", i), Static: w.key(i), Lanes: 2, Version: "test",
		Ciphers:  ciphers,
		Overlays: []overlay.Overlay{n.ov}, Net: n.host,
		Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnChange: func(v mesh.View) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.views = append(n.views, v)
		},
	}
	for _, o := range opts {
		o(&cfg)
	}
	n.name = cfg.Name
	r, err := mesh.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Router = r
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			w.t.Errorf("host %d: %v", i, err)
		}
	}()
	if !w.atOnce {
		synctest.Wait()
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(func() {
		n.stop()
		if w.t.Failed() {
			w.t.Logf("log of %s:\n%s", cfg.NickName, n.log)
		}
	})
	return n
}

// kill ends a node as kill -9 does: its peers see resets and no close message.
func (n *node) kill() {
	n.host.Crash()
	n.stop()
}

// run lets time pass until everything rests.
func (w *world) run(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (n *node) view() mesh.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.views[len(n.views)-1]
}

// conns writes the connections as text: direction, address, state, peer.
func (n *node) conns() string {
	var out []string
	for _, c := range n.Status().Conns {
		s := map[bool]string{true: "-> ", false: "<- "}[c.Outbound]
		if c.Outbound {
			s += strings.TrimSuffix(c.Addr, ":6783")
		} else {
			s += netip.MustParseAddrPort(c.Addr).Addr().String()
		}
		s += " " + c.State.String()
		switch {
		case c.Error != "":
			s += " (" + c.Error + ")"
			if c.Never {
				s += " never"
			}
		case !c.Peer.IsZero():
			s += " " + c.NickName
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func (n *node) wantConns(want ...string) {
	n.w.t.Helper()
	if got := n.conns(); got != strings.Join(want, "\n") {
		n.w.t.Errorf("connections of %s:\n%s\nwant:\n%s", n.name, got, strings.Join(want, "\n"))
	}
}

// joined reports whether exactly one connection stands between the two, and it is
// established and carried by the same links on both ends.
func joined(a, b *node) bool {
	la, lb := a.view().Links[b.name], b.view().Links[a.name]
	if len(la) != 1 || len(lb) != 1 {
		return false
	}
	pa, pb := la[0].(*overlaytest.Link).Params, lb[0].(*overlaytest.Link).Params
	return pa.ConnUID == pb.ConnUID && pa.Initiator != pb.Initiator && pa.Secret.Equal(pb.Secret) && !pa.Secret.IsZero()
}

func (w *world) wantJoined(a, b *node) {
	w.t.Helper()
	if !joined(a, b) {
		w.t.Errorf("%s and %s are not joined:\n%s\n--\n%s", a.name, b.name, a.conns(), b.conns())
	}
}

func (n *node) wantLog(parts ...string) {
	n.w.t.Helper()
	for _, line := range strings.Split(n.log.String(), "\n") {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return
		}
	}
	n.w.t.Errorf("no line with %q in the log of %s", parts, n.name)
}

// checkLinks finds links that were used against the contract, or left open.
func (n *node) checkLinks(stopped bool) {
	for i := range 20 {
		for _, l := range n.ov.Links(nameOf(i)) {
			if m := l.Misuse(); len(m) > 0 {
				n.w.t.Errorf("link to %s: %q", nameOf(i), m)
			}
			if stopped && !l.Closed() {
				n.w.t.Errorf("link to %s was left open", nameOf(i))
			}
		}
	}
}

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

// Both ends dial at once, again and again with different connection identities:
// one connection stays, the same on both ends, and nobody calls it a failure.
func TestDuplicateRace(t *testing.T) {
	for i := range 30 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.atOnce = true
				a := w.start(1, targets("10.0.0.2"))
				b := w.start(2, targets("10.0.0.1"))
				if i%3 == 0 { // otherwise one may find the other not yet listening
					synctest.Wait()
					a.Connect([]string{"10.0.0.2"}, false)
					b.Connect([]string{"10.0.0.1"}, false)
				}
				w.run(5 * time.Second)
				w.wantJoined(a, b)
				w.run(time.Hour)
				w.wantJoined(a, b)
				for _, n := range []*node{a, b} {
					if s := n.Status(); len(s.Conns) != 1 || s.Counters.Terminated != 0 {
						t.Errorf("status %+v", s)
					}
					if strings.Contains(n.log.String(), "level=WARN") {
						t.Errorf("%s warned:\n%s", n.name, n.log)
					}
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
		a.stop() // the other may have the name now
		w.run(10 * time.Minute)
		w.wantJoined(hub, c)
	})
}

func TestWrongPassword(t *testing.T) {
	tests := []struct {
		name           string
		a, b           *handshake.PSK
		reason         mesh.Reason
		accepts, dials string
	}{
		{"wrong", pskRight, pskWrong, mesh.ReasonPassword,
			"wrong password: the passwords of the two hosts differ", "wrong password: the passwords of the two hosts differ"},
		{"only the dialer has one", nil, pskWrong, mesh.ReasonOneSided,
			"the other host has a password, this one has none", "this host has a password, the other one has none"},
		{"only the acceptor has one", pskRight, nil, mesh.ReasonOneSided,
			"this host has a password, the other one has none", "the other host has a password, this one has none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, psk(tt.a))
				b := w.start(2, psk(tt.b), targets("10.0.0.1"))
				w.run(500 * time.Millisecond)
				b.wantConns("-> 10.0.0.1 failed (" + tt.dials + ")")
				if c := b.Status().Conns[0]; c.Reason != tt.reason || c.Retry.IsZero() {
					t.Errorf("status %+v", c)
				}
				a.wantConns()
				r := a.Status().Refused
				if len(r) != 1 || r[0].Reason != tt.reason || r[0].Error != tt.accepts || r[0].Addr.String() != "10.0.0.2" {
					t.Errorf("refused %+v", r)
				}
				w.run(50 * time.Second)
				for _, n := range []*node{a, b} {
					if got := strings.Count(n.log.String(), "level=WARN"); got != 1 {
						t.Errorf("%s warned %d times, want once:\n%s", n.name, got, n.log)
					}
				}
				a.wantLog("level=WARN", tt.accepts, "10.0.0.2")
				b.wantLog("level=WARN", tt.dials, "10.0.0.1")
				if n := a.Status().Refused[0].Count; n < 4 || n > 12 {
					t.Errorf("%d tries in 50 s", n)
				}
				if n := len(a.view().Peers); n != 1 {
					t.Errorf("%d peers known", n)
				}
			})
		})
	}
}

// raw dials host i without a router.
func (w *world) raw(from string, i int) net.Conn {
	w.t.Helper()
	c, err := w.net.Host(from).Dial(w.t.Context(), netip.Addr{}, netip.MustParseAddrPort(addrOf(i)+":6783"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestStrangers(t *testing.T) {
	preamble := "weave\x00\r\n\x01\x01\x00\x00\x00\x00\x00\x00"
	tests := []struct {
		name   string
		send   string
		then   time.Duration // between bytes
		silent bool          // nothing may be answered
		within time.Duration
		reason mesh.Reason
	}{
		{"garbage", "GET / HTTP/1.1\r\n\r\n", 0, true, time.Second, mesh.ReasonNotWeave},
		{"nothing", "", 0, true, 10 * time.Second, mesh.ReasonTimeout},
		{"half a preamble", preamble[:9], 0, true, 10 * time.Second, mesh.ReasonTimeout},
		{"one byte a second", preamble, time.Second, true, 10 * time.Second, mesh.ReasonTimeout},
		{"stops after its preamble", preamble, 0, false, 10 * time.Second, mesh.ReasonTimeout},
		{"oversized length", preamble + "\xff\xff", 0, false, time.Second, mesh.ReasonHandshake},
		{"zero length", preamble + "\x00\x00", 0, false, time.Second, mesh.ReasonHandshake},
		{"bad message", preamble + "\x00\x04\x01abc", 0, false, time.Second, mesh.ReasonHandshake},
		{"later version", "weave\x00\r\n\x07\x09\x00\x00\x00\x00\x00\x00", 0, false, time.Second, mesh.ReasonVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1)
				synctest.Wait()
				c := w.raw("10.0.0.66", 1)
				var answer int
				closed := make(chan time.Duration, 1)
				begin := time.Now()
				go func() {
					buf := make([]byte, 4096)
					for {
						n, err := c.Read(buf)
						answer += n
						if err != nil {
							closed <- time.Since(begin)
							return
						}
					}
				}()
				go func() {
					for i := range tt.send {
						if _, err := c.Write([]byte{tt.send[i]}); err != nil {
							return
						}
						time.Sleep(tt.then)
					}
				}()
				if took := <-closed; took > tt.within {
					t.Errorf("closed after %v, want %v", took, tt.within)
				}
				if tt.silent && answer > 0 {
					t.Errorf("%d bytes answered", answer)
				}
				c.Close()
				synctest.Wait()
				if r := a.Status().Refused; len(r) != 1 || r[0].Reason != tt.reason {
					t.Errorf("refused %+v, want %q", r, tt.reason)
				}
				b := w.start(2, targets("10.0.0.1"))
				w.run(time.Second)
				w.wantJoined(a, b)
			})
		})
	}
}

// Stalled strangers, from one address or many, don't keep an honest peer out.
func TestManyStrangers(t *testing.T) {
	for _, sources := range []int{1, 200} {
		t.Run(fmt.Sprint(sources), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, psk(pskRight))
				synctest.Wait()
				for i := range 1000 {
					c := w.raw(fmt.Sprintf("10.1.0.%d", i%sources+1), 1)
					defer c.Close()
					if i%50 == 0 {
						w.run(100 * time.Millisecond)
					}
				}
				synctest.Wait()
				if n := w.net.Open(); n > 1000+64 {
					t.Errorf("%d ends of connections are open", n)
				}
				b := w.start(2, psk(pskRight), targets("10.0.0.1"))
				w.run(time.Second)
				w.wantJoined(a, b)
				s := a.Status()
				if len(s.Refused) > 32 {
					t.Errorf("%d refusals kept", len(s.Refused))
				}
				if n := strings.Count(a.log.String(), "level=WARN"); n > 25 {
					t.Errorf("%d lines of log", n)
				}
				for _, r := range []mesh.Reason{mesh.ReasonRate, mesh.ReasonCrowded} {
					if sources == 1 && s.Counters.InboundRefused[r] == 0 {
						t.Errorf("nobody was %s: %v", r, s.Counters.InboundRefused)
					}
				}
			})
		})
	}
}

func TestConnLimit(t *testing.T) {
	inWorld(t, func(w *world) {
		hub := w.start(1, limit(2))
		a := w.start(2, targets("10.0.0.1"))
		b := w.start(3, targets("10.0.0.1"))
		w.run(time.Second)
		c := w.start(4, targets("10.0.0.1"))
		w.run(time.Second)
		w.wantJoined(hub, a)
		w.wantJoined(hub, b)
		c.wantConns("-> 10.0.0.1 failed (connection limit of 2 reached at 02:00:00:00:00:01)")
		hub.Connect([]string{"10.0.0.4"}, false)
		w.run(time.Second)
		if got := hub.conns(); !strings.HasPrefix(got, "-> 10.0.0.4 failed (connection limit reached)") {
			t.Errorf("connections of the hub:\n%s", got)
		}
		a.stop()
		w.run(time.Second)
		w.wantJoined(hub, c)
		if strings.Contains(hub.conns(), "failed") {
			t.Errorf("connections of the hub:\n%s", hub.conns())
		}
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
		b.wantConns("-> 10.0.0.1 failed (can't connect: connect: connection refused)")
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
		a = w.start(1)
		if err := b.Forget([]string{"10.0.0.3", "never.seen"}); err != nil {
			t.Error(err)
		}
		c.kill()
		c = w.start(3)
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

func (r *roamingNet) Dial(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	return r.Net.Dial(ctx, *r.from.Load(), to)
}

// The same run of a peer may come back too, when its end of the connection is
// gone and ours doesn't know: whichever identity is lower.
func TestReconnectUnanswered(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1)
				roam := &roamingNet{Net: w.net.Host("10.0.0.2", "10.0.0.12")}
				roam.move("10.0.0.2")
				b := w.start(2, targets("10.0.0.1"), func(c *mesh.Config) { c.Net = roam })
				w.run(time.Second)
				w.wantJoined(a, b)
				roam.move("10.0.0.12")
				w.net.Cut(addrOf(1), addrOf(2))
				b.ov.Links(a.name)[0].Fire(overlay.Event{Fatal: true, Reason: "test"})
				w.run(3 * time.Second)
				w.wantJoined(a, b)
			})
		})
	}
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
