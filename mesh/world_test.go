package mesh_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

func nameOf(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}) }
func addrOf(i int) string    { return fmt.Sprintf("10.0.%d.%d", i>>8, i&255) }

// world is a network with routers in one synctest bubble.
type world struct {
	t    *testing.T
	net  *meshtest.Net
	keys map[int]*handshake.StaticKey

	quiet bool // no logs of what failed
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

func discovery(c *mesh.Config)          { c.Discovery = true }
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
	synctest.Wait() // it listens
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(func() {
		n.stop()
		if w.t.Failed() && !w.quiet {
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
