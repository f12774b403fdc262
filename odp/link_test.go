package odp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
)

// wire is a Backend whose packets go straight to another's Sink.
type wire struct {
	mu    sync.Mutex
	other *Overlay
	drop  func(frame []byte) bool // nil: nothing
	state State
	peers map[peer.Name]Peer
	sent  int
}

func newWire() *wire {
	return &wire{peers: map[peer.Name]Peer{}, state: State{Port: 7, MTU: 1450, Source: netip.MustParseAddr("192.0.2.99")}}
}

func (w *wire) Name() string                            { return "wire" }
func (w *wire) Steer(ether.MAC, peer.Name) (int, error) { return 7, nil }
func (w *wire) Unsteer(ether.MAC)                       {}
func (w *wire) Ports() []int                            { return []int{7} }
func (w *wire) Adopted() map[ether.MAC]netip.Addr       { return nil }
func (w *wire) Disown()                                 {}
func (w *wire) Counters() map[string]uint64             { return nil }
func (w *wire) Run(ctx context.Context, _ Sink) error   { <-ctx.Done(); return nil }
func (w *wire) Close() error                            { return nil }
func (w *wire) do(f func())                             { w.mu.Lock(); defer w.mu.Unlock(); f() }
func (w *wire) AddPeer(p Peer)                          { w.do(func() { w.peers[p.Name] = p }) }
func (w *wire) RemovePeer(n peer.Name)                  { w.do(func() { delete(w.peers, n) }) }
func (w *wire) State(peer.Name) (st State)              { w.do(func() { st = w.state }); return st }
func (w *wire) has(n peer.Name) (p Peer, ok bool)       { w.do(func() { p, ok = w.peers[n] }); return p, ok }
func (w *wire) lose(drop func([]byte) bool)             { w.do(func() { w.drop = drop }) }
func (w *wire) SendProbe(_ peer.Name, frame []byte) error {
	w.mu.Lock()
	w.sent++
	lost := w.drop != nil && w.drop(frame)
	w.mu.Unlock()
	if !lost {
		w.other.Probe(frame)
	}
	return nil
}

// side is one end of a link in a test.
type side struct {
	w  *wire
	o  *Overlay
	l  overlay.Link
	mu sync.Mutex

	events  []overlay.Event
	vouched []ether.MAC
	relayed atomic.Bool
}

func (s *side) last() (e overlay.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.events); n > 0 {
		e = s.events[n-1]
	}
	return e
}

func (s *side) told() []ether.MAC {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.vouched)
}

var (
	nameA   = peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1})
	nameB   = peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2})
	inClear = policy.Decide(policy.Stance{}, policy.Stance{})
)

func newSide(t *testing.T, name peer.Name) *side { return newSideOf(t, name, Config{}) }

// newSideOf makes a side with what is particular about its path.
func newSideOf(t *testing.T, name peer.Name, more Config) *side {
	s := &side{w: newWire()}
	var err error
	s.o, err = New(Config{
		Sealed: more.Sealed, Wanted: more.Wanted, OfferData: more.OfferData,
		Backend: s.w, Local: name, MTU: 1376, Port: 6784, VNI: 1, Log: slog.New(slog.DiscardHandler),
		Changed: func() {},
		Relayed: func(peer.Name) bool { return s.relayed.Load() },
		Vouched: func(_ peer.Name, macs []ether.MAC) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.vouched = append(s.vouched, macs...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// connect prepares and starts a link between two sides.
func connect(t *testing.T, a, b *side) {
	t.Helper()
	connectWith(t, a, b, inClear, session.CipherNone)
}

func connectWith(t *testing.T, a, b *side, permit policy.Permit, cipher session.Cipher) {
	t.Helper()
	a.w.other, b.w.other = b.o, a.o
	secret := session.SecretFromBytes([session.SecretLen]byte{1, 2, 3})
	for _, e := range []struct {
		s, other      *side
		local, remote peer.Name
		initiator     bool
	}{{a, b, nameA, nameB, true}, {b, a, nameB, nameA, false}} {
		l, err := e.s.o.Prepare(overlay.Params{
			Local: e.local, Remote: e.remote, ConnUID: 77, Initiator: e.initiator, Secret: secret, Permit: permit,
			RemoteAddr: netip.MustParseAddrPort("192.0.2.1:6784"), Offer: e.other.o.Offer(), Agreement: overlay.Agreement{Cipher: cipher},
			Send: func(msg []byte) error {
				e.other.l.Control(msg)
				return nil
			},
			Notify: func(ev overlay.Event) {
				e.s.mu.Lock()
				defer e.s.mu.Unlock()
				e.s.events = append(e.s.events, ev)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		e.s.l = l
	}
	a.l.Start()
	b.l.Start()
}

func pair(t *testing.T) (a, b *side) { return newSide(t, nameA), newSide(t, nameB) }

func (s *side) want(t *testing.T, up bool, reason string) {
	t.Helper()
	if st := s.l.Status(); st.Up != up || st.Reason != reason {
		t.Errorf("up %v, reason %q; want %v, %q", st.Up, st.Reason, up, reason)
	}
	if e := s.last(); e.Up != up && up {
		t.Errorf("last event %+v, want up %v", e, up)
	}
}

func TestLinkComesUpAndVouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		m1, m2 := ether.MAC{2, 1, 1, 1, 1, 1}, ether.MAC{2, 1, 1, 1, 1, 2}
		a.o.SetLocalMACs([]ether.MAC{m1})
		connect(t, a, b)
		time.Sleep(600 * time.Millisecond)
		a.want(t, true, "")
		b.want(t, true, "")
		if p, _ := a.w.has(nameB); p.Also != netip.MustParseAddr("192.0.2.99") {
			t.Errorf("the address the peer says it sends from is not admitted: %+v", p)
		}
		a.o.SetLocalMACs([]ether.MAC{m1, m2})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := b.told(); !slices.Equal(got, []ether.MAC{m1, m2}) {
			t.Errorf("vouched for %v", got)
		}
		time.Sleep(vouchEvery)
		if got := b.told(); len(got) != 4 {
			t.Errorf("after a minute: %v", got)
		}
		a.l.Close()
		b.l.Close()
		synctest.Wait()
		time.Sleep(3 * time.Second)
	})
}

func TestLinkLeavesAndReturns(t *testing.T) {
	all := func([]byte) bool { return true }
	for _, tt := range []struct {
		name     string
		atA, atB func([]byte) bool
	}{{"both ways", all, all}, {"one way", all, nil}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				connect(t, a, b)
				time.Sleep(3300 * time.Millisecond)
				a.w.lose(tt.atA)
				b.w.lose(tt.atB)
				time.Sleep(2 * time.Second)
				a.want(t, false, ReasonTimeout)
				b.want(t, false, ReasonTimeout)
				time.Sleep(time.Minute)
				a.want(t, false, ReasonSilent)
				a.w.lose(nil)
				b.w.lose(nil)
				time.Sleep(2 * time.Second)
				a.want(t, false, ReasonSettling)
				time.Sleep(28 * time.Second)
				a.want(t, true, "")
				b.want(t, true, "")
				a.l.Close()
				b.l.Close()
				time.Sleep(3 * time.Second)
			})
		})
	}
}

func TestLinkReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		narrow := func(f []byte) bool { return len(f) > 1300 }
		a.w.lose(narrow)
		b.w.lose(narrow)
		connect(t, a, b)
		time.Sleep(4 * time.Second)
		a.want(t, false, ReasonMTU)
		a.w.lose(nil)
		b.w.lose(nil)
		time.Sleep(5 * time.Second)
		a.want(t, true, "")
		a.w.do(func() { a.w.state.Err = &ReasonError{Why: ReasonPort, Err: errors.New("x")} })
		time.Sleep(time.Second)
		a.want(t, false, ReasonPort)
		sent := func() (n int) {
			a.w.do(func() { n = a.w.sent })
			return n
		}
		before := sent()
		time.Sleep(5 * time.Second)
		if n := sent() - before; n > 20 { // answers to the other end
			t.Errorf("%d heartbeats sent on a path that cannot work", n)
		}
		a.l.Close()
		b.l.Close()
		time.Sleep(3 * time.Second)
	})
}

func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		connect(t, a, b)
		time.Sleep(time.Second)
		a.l.Close()
		b.l.Close()
		time.Sleep(LingerTime - time.Millisecond)
		if _, ok := a.w.has(nameB); !ok || !a.o.Lingers(nameB) {
			t.Error("a path that was up does not linger")
		}
		time.Sleep(time.Second)
		if _, ok := a.w.has(nameB); ok || a.o.Lingers(nameB) {
			t.Error("it lingers for ever")
		}

		connect(t, a, b)
		time.Sleep(time.Second)
		a.l.Close()
		b.l.Close()
		time.Sleep(LingerShort - time.Millisecond)
		connect(t, a, b)
		time.Sleep(lingerLook)
		if !a.o.Lingers(nameB) {
			t.Error("it does not linger while the next connection has no path yet")
		}
		time.Sleep(LingerTime)
		if _, ok := a.w.has(nameB); !ok || a.o.Lingers(nameB) {
			t.Error("it lingers beside the next connection, or that has lost the peer")
		}
		a.relayed.Store(true)
		a.l.Close()
		b.l.Close()
		time.Sleep(LingerShort - time.Millisecond)
		if _, ok := a.w.has(nameB); !ok {
			t.Error("a path that was up does not linger where others relay")
		}
		time.Sleep(200 * time.Millisecond)
		if _, ok := a.w.has(nameB); ok || a.o.Lingers(nameB) {
			t.Error("it lingers though others relay")
		}

		connect(t, a, b)
		time.Sleep(time.Second)
		a.l.Close()
		if _, err := a.o.Prepare(overlay.Params{Local: nameA, Remote: nameB}); !errors.Is(err, policy.ErrEncryptedOnly) {
			t.Errorf("without a permit: %v", err)
		}
		if _, ok := a.w.has(nameB); ok || a.o.Lingers(nameB) {
			t.Error("the kernel still carries data that has to be encrypted")
		}
		b.l.Close()
		time.Sleep(3 * time.Second)

		connect(t, a, b)
		time.Sleep(time.Second)
		a.o.Closing()
		a.l.Close()
		b.l.Close()
		time.Sleep(10 * time.Second)
		if _, ok := a.w.has(nameB); !ok {
			t.Error("a daemon that stops takes its kernel path along")
		}
	})
}

// Heartbeats of strangers, of another connection, and our own do nothing.
func TestForgedHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		connect(t, a, b)
		var own []byte
		a.w.lose(func(f []byte) bool { own = slices.Clone(f); return true })
		b.w.lose(func([]byte) bool { return true })
		time.Sleep(time.Second)
		var forged []byte
		a.w.do(func() { forged = slices.Clone(own) })
		m := ProbeMAC(nameB, false)
		copy(forged[6:], m[:]) // reflected, as if B had sent it
		for range 100 {
			a.o.Probe(forged)
			a.o.Probe(forged[:20])
			forged[40] ^= 1
		}
		time.Sleep(time.Second)
		a.want(t, false, ReasonProbing)
		if n := a.l.Status().Counters.Drops["auth"]; n != 100 {
			t.Errorf("%d forged heartbeats counted, want 100", n)
		}
		a.l.Close()
		b.l.Close()
		time.Sleep(3 * time.Second)
	})
}

// A sealed path is for connections that must be encrypted, and tells its backend what
// it needs for that.
func TestSealed(t *testing.T) {
	sealed := func(key string, wanted bool) Config {
		return Config{Sealed: true, Wanted: wanted, OfferData: []byte(key)}
	}
	var encrypted policy.Permit
	synctest.Test(t, func(t *testing.T) {
		a, b := newSideOf(t, nameA, sealed("key a", true)), newSideOf(t, nameB, sealed("key b", false))
		connectWith(t, a, b, encrypted, session.CipherAES)
		time.Sleep(time.Second)
		a.want(t, true, "")
		b.want(t, true, "")
		if st := a.l.Status(); st.Cipher != session.CipherChaCha || st.Path != Name {
			t.Errorf("status %+v", st)
		}
		pa, _ := b.w.has(nameA)
		pb, _ := a.w.has(nameB)
		if pa.Data != "key a" || pb.Data != "key b" || pa.PSK != pb.PSK || pa.PSK == [32]byte{} {
			t.Errorf("peers %+v, %+v", pa, pb)
		}
		a.l.Close()
		b.l.Close()
	})
	for _, tt := range []struct {
		name           string
		wanted, theirs bool
		permit         policy.Permit
		cipher         session.Cipher
		reason         string
	}{
		{"in clear", true, true, inClear, session.CipherNone, ReasonClear},
		{"nobody wants it", false, false, encrypted, session.CipherAES, ReasonCipher},
		{"no AES", false, false, encrypted, session.CipherChaCha, ""},
		{"wanted here", true, false, encrypted, session.CipherAES, ""},
		{"wanted there", false, true, encrypted, session.CipherAES, ""},
	} {
		a, b := newSideOf(t, nameA, sealed("", tt.wanted)), newSideOf(t, nameB, sealed("", tt.theirs))
		p := overlay.Params{Permit: tt.permit, Offer: b.o.Offer(), Agreement: overlay.Agreement{Cipher: tt.cipher}}
		got := ""
		if err := a.o.refuse(&p); err != nil {
			got = overlay.ReasonOf(err)
		}
		if got != tt.reason {
			t.Errorf("%s: refused for %q, want %q", tt.name, got, tt.reason)
		}
	}
}

func TestClearPathIsRefusedWithoutPermit(t *testing.T) {
	s := newSide(t, nameA)
	if _, err := s.o.Prepare(overlay.Params{Remote: nameB}); overlay.ReasonOf(err) != ReasonPolicy {
		t.Errorf("%v, want reason %q", err, ReasonPolicy)
	}
}
