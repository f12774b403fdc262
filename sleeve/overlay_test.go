package sleeve_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve"
	"weave/sleeve/sleevetest"
)

func params() overlay.Params {
	return overlay.Params{
		Local:      peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1}),
		Remote:     peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2}),
		Initiator:  true,
		RemoteAddr: netip.MustParseAddrPort("192.0.2.2:6783"),
		Agreement:  overlay.Agreement{Cipher: session.CipherAES, Lanes: 1},
		Secret:     session.SecretFromBytes([session.SecretLen]byte{1}),
		Send:       func([]byte) error { return nil },
		Notify:     func(overlay.Event) {},
	}
}

func newOverlay(t *testing.T) *sleeve.Overlay {
	t.Helper()
	host := sleevetest.NewNet(1).Host(netip.MustParseAddrPort("192.0.2.1:6783"), 1)
	ov, err := sleeve.New(sleeve.Config{Network: host, Receiver: &received{t: t}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return ov
}

// TestPrepareFailsClosed: without a cipher nothing but a permit makes a link.
func TestPrepareFailsClosed(t *testing.T) {
	ov := newOverlay(t)
	p := params()
	p.Agreement.Cipher = session.CipherNone
	if l, err := ov.Prepare(p); !errors.Is(err, policy.ErrEncryptedOnly) || l != nil {
		t.Errorf("without cipher and permit: %v, %v, want policy.ErrEncryptedOnly", l, err)
	}
	p.Permit = policy.Decide(policy.Stance{Password: true}, policy.Stance{Password: true, Trusts: true})
	if l, err := ov.Prepare(p); !errors.Is(err, policy.ErrEncryptedOnly) || l != nil {
		t.Errorf("with a permit for nothing: %v, %v, want policy.ErrEncryptedOnly", l, err)
	}
	p.Permit = policy.Decide(policy.Stance{}, policy.Stance{})
	l, err := ov.Prepare(p)
	if err != nil {
		t.Fatalf("with a permit: %v", err)
	}
	l.Close()
}

func TestPrepareChecksParams(t *testing.T) {
	ov := newOverlay(t)
	for name, spoil := range map[string]func(*overlay.Params){
		"no address": func(p *overlay.Params) { p.RemoteAddr = netip.AddrPort{} },
		"no secret":  func(p *overlay.Params) { p.Secret = session.Secret{} },
		"no peer":    func(p *overlay.Params) { p.Remote = peer.Name{} },
		"no send":    func(p *overlay.Params) { p.Send = nil },
	} {
		p := params()
		spoil(&p)
		if l, err := ov.Prepare(p); err == nil || l != nil {
			t.Errorf("%s: %v, %v, want an error", name, l, err)
		}
	}
}

// TestPrepareSendsNothing: neither messages nor datagrams before Start.
func TestPrepareSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ov := newOverlay(t)
		p := params()
		p.Initiator = false
		sends := 0
		p.Send = func([]byte) error { sends++; return nil }
		l, err := ov.Prepare(p)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if sends != 0 {
			t.Errorf("%d messages sent before Start", sends)
		}
	})
}

// TestKeyFailureIsFatal: an end that does not speak the protocol ends the link.
func TestKeyFailureIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ov := newOverlay(t)
		p := params()
		var events []overlay.Event
		p.Notify = func(e overlay.Event) { events = append(events, e) }
		l, err := ov.Prepare(p)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.Start()
		synctest.Wait()
		l.Control([]byte("nonsense"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(events) != 1 || !events[0].Fatal || events[0].Up || !errors.Is(events[0].Err, session.ErrMessage) {
			t.Errorf("events %+v, want one that is fatal", events)
		}
		if st := l.Status(); st.Up || st.Reason != "key exchange" {
			t.Errorf("status %+v", st)
		}
	})
}

// TestRunClosesLinks: after Run there is nothing left and nothing can be made.
func TestRunClosesLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ov := newOverlay(t)
		l, err := ov.Prepare(params())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- ov.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if st := l.Status(); st.Reason != "closed" {
			t.Errorf("link's reason is %q after Run, want closed", st.Reason)
		}
		if _, err := ov.Prepare(params()); !errors.Is(err, sleeve.ErrClosed) {
			t.Errorf("Prepare after Run: %v, want ErrClosed", err)
		}
	})
}

// TestWrongSecret: two ends without a secret in common never hear each other.
func TestWrongSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		var links [2]overlay.Link
		var ups int
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		for i := range links {
			local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 6783)
			ov, err := sleeve.New(sleeve.Config{Network: net.Host(local, 1), Receiver: &received{t: t}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			go ov.Run(ctx)
			p := params()
			p.Initiator = i == 0
			p.Secret = session.SecretFromBytes([session.SecretLen]byte{byte(i + 1)})
			p.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 - i)}), 6783)
			p.Send = func(m []byte) error { links[1-i].Control(m); return nil }
			p.Notify = func(e overlay.Event) {
				if e.Up {
					ups++
				}
			}
			if links[i], err = ov.Prepare(p); err != nil {
				t.Fatal(err)
			}
		}
		links[0].Start()
		links[1].Start()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		st := links[1].Status()
		if ups != 0 || st.Up || st.Counters.Drops["auth"] == 0 {
			t.Errorf("%d times up, status %+v, want drops for auth", ups, st)
		}
	})
}

// TestCountersSurviveLinks: the overlay's sums go on when a link is gone.
func TestCountersSurviveLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{Cipher: session.CipherAES})
		p.send(newTraffic(1).any(), newTraffic(2).any())
		ov := p.Nodes[0].Overlay
		if c := ov.Counters(); c.TxFrames != 2 || c.TxDatagrams == 0 {
			t.Errorf("counters %+v, want 2 frames sent", c)
		}
		p.link.Close()
		if c := ov.Counters(); c.TxFrames != 2 {
			t.Errorf("%d frames sent after Close, want 2", c.TxFrames)
		}
	})
}

// lanesOnly is a Network that has a number of sockets and nothing else.
type lanesOnly int

func (n lanesOnly) Lanes() int                  { return int(n) }
func (n lanesOnly) Port() uint16                { return 6783 }
func (n lanesOnly) Socket(int) sleeve.Socket    { return nil }
func (n lanesOnly) NewSender(int) sleeve.Sender { return nil }
func (n lanesOnly) MTU(netip.Addr) int          { return 1500 }
func (n lanesOnly) Offloads() string            { return "" }

// TestSocketsAndLanes: a receiver that has fewer lanes than there are sockets is
// refused; more are safe.
func TestSocketsAndLanes(t *testing.T) {
	tests := []struct {
		sockets, lanes int
		ok             bool
	}{
		{1, 0, true}, {1, 1, true}, {1, 4, true}, {4, 0, true}, {4, 4, true}, {4, 16, true},
		{2, 1, false}, {16, 4, false}, {0, 1, false}, {17, 17, false}, {1, 17, false}, {1, -1, false},
	}
	for _, tt := range tests {
		_, err := sleeve.New(sleeve.Config{
			Network: lanesOnly(tt.sockets), Lanes: tt.lanes, Receiver: &received{t: t}, Log: slog.New(slog.DiscardHandler),
		})
		if (err == nil) != tt.ok {
			t.Errorf("%d sockets, %d lanes: %v", tt.sockets, tt.lanes, err)
		}
		if more := tt.sockets > tt.lanes && tt.lanes > 0 && tt.sockets <= 16; more != errors.Is(err, sleeve.ErrLanes) {
			t.Errorf("%d sockets, %d lanes: %v, ErrLanes wanted: %v", tt.sockets, tt.lanes, err, more)
		}
	}
}

// TestMoreWorkersThanSockets: four TX workers over one socket, as when the kernel
// cannot steer by lane, send at the same time.
func TestMoreWorkersThanSockets(t *testing.T) {
	const workers, rounds = 4, 200
	rx := &received{t: t}
	m := sleevetest.NewMesh(t, sleevetest.NewNet(1), 2, sleevetest.Options{
		Cipher:   session.CipherAES,
		Receiver: func(int) sleeve.Receiver { return rx },
		Config:   func(_ int, cfg *sleeve.Config) { cfg.Lanes = workers },
	})
	m.WaitUp(t)
	rt := peer.Route{Origin: m.Nodes[0].Name, Dest: m.Nodes[1].Name}
	want := map[string]int{}
	var batches [workers][]sent
	tr := newTraffic(1)
	for q := range batches {
		for range rounds {
			s := tr.superframe(tr.packet(), 3000, 1000)
			batches[q] = append(batches[q], s)
			for _, p := range s.packets {
				want[string(p)]++
			}
		}
	}
	var wg sync.WaitGroup
	for q := range batches {
		wg.Go(func() {
			for _, s := range batches[q] {
				m.Nodes[0].Links[m.Nodes[1].Name].Send(q, rt, s.sf)
				m.Nodes[0].Overlay.Flush(q)
			}
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); len(want) > 0; {
		frames, _ := rx.take()
		for _, f := range frames {
			if want[string(f)]--; want[string(f)] == 0 {
				delete(want, string(f))
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d packets did not arrive", len(want))
		}
		runtime.Gosched()
	}
}
