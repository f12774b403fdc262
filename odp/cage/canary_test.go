package cage_test

import (
	"context"
	"encoding/hex"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weave/internal/testnet"
	"weave/internal/testnet/odplab"
	"weave/odp"
	"weave/odp/cage"
	"weave/odp/odptest"
)

// canary is in every frame that the containers send, and must not be on the wire.
const canary = "canary-in-a-cage"

// TestNothingInClear lets containers talk all the time, steered to the cage, while what
// it is made of is taken away piece by piece, peers are dropped, and the daemon is gone.
func TestNothingInClear(t *testing.T) {
	testnet.NeedModule(t, "wireguard")
	a, b, seen := odplab.Watched(t, odptest.Options{}, canary)
	leaveNothing(t, a, b)
	// What is lost on its way out of the cage would find a way out of the host.
	for _, e := range [][2]*odptest.Host{{a, b}, {b, a}} {
		if out, err := e[0].Run("ip", "route", "add", "default", "via", e[1].Addr.String()); err != nil {
			t.Fatal(out)
		}
	}
	ea, eb := start(t, a), start(t, b)
	connect(t, ea, eb)
	connect(t, eb, ea)
	var talk sync.WaitGroup
	ctx, hush := context.WithCancel(t.Context())
	for _, e := range [][2]*odptest.Host{{a, b}, {b, a}} {
		talk.Go(func() {
			for ctx.Err() == nil {
				e[0].Container("ping", "-n", "-q", "-i", "0.05", "-c", "20", "-W", "1", "-s", "200", "-p", hex.EncodeToString([]byte(canary)), e[1].IP.String())
			}
		})
	}
	carries(t, a, b)

	waitFor(t, "word of the new port", func() bool { return ea.changes.Load() > 0 })
	for _, away := range breakages {
		before, start := ea.changes.Load(), time.Now()
		if err := away.do(a); err != nil {
			t.Fatalf("%s: %v", away.name, err)
		}
		waitFor(t, away.name, func() bool { return ea.changes.Load() > before && ea.be.State(b.Name).Err == nil })
		t.Logf("%s: mended after %v", away.name, time.Since(start))
		connect(t, ea, eb) // the bridge has lost its entries
		carries(t, a, b)
	}
	ea.be.RemovePeer(b.Name)
	steer(t, a, b)
	time.Sleep(300 * time.Millisecond)
	connect(t, ea, eb)
	carries(t, a, b)

	ea.stop()
	carries(t, a, b)
	refusesImpostor(t, a, b)
	ea = start(t, a)
	connect(t, ea, eb)
	connect(t, eb, ea)
	carries(t, a, b)
	ea.stop() // from here on nobody mends
	carries(t, a, b)
	for _, away := range breakages[2:] {
		if err := away.do(a); err != nil {
			t.Fatalf("%s: %v", away.name, err)
		}
		steer(t, a, b)
		time.Sleep(300 * time.Millisecond)
	}
	hush()
	talk.Wait()
	for _, c := range seen {
		frames, _ := c.Frames()
		t.Logf("%d frames on the underlay", frames)
		c.MustBeClean()
	}
}

// refusesImpostor has a backend find an impostor of the port, with an entry, where
// nothing else is missing.
func refusesImpostor(t *testing.T, a, b *odptest.Host) {
	t.Helper()
	err := impostor(a)
	if err == nil {
		_, err = a.Run("bridge", "fdb", "add", b.MAC.String(), "dev", device, "self", "permanent", "dst", cage.AddressOf(b.Name).String())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.In(func() error {
		be, err := open(t, a, true)
		if err != nil {
			return err
		}
		if n := len(be.Adopted()); n != 0 {
			t.Errorf("%d entries of an impostor adopted", n)
		}
		return be.Close()
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run("ip", "link", "show", device); err == nil {
		t.Error("the impostor is still there")
	}
}

// end is a host with a running backend.
type end struct {
	*odptest.Host
	be interface {
		odp.Backend
		OfferData() []byte
	}
	stop    func()
	changes atomic.Int64
}

func (*end) Probe([]byte) {}
func (e *end) Changed()   { e.changes.Add(1) }

func start(t *testing.T, h *odptest.Host) *end {
	t.Helper()
	e := &end{Host: h}
	err := h.In(func() (err error) {
		e.be, err = open(t, h, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.be.Run(ctx, e)
	}()
	e.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		e.be.Close()
	})
	t.Cleanup(e.stop)
	return e
}

// connect makes a's container reach b's through the cage.
func connect(t *testing.T, a, b *end) {
	t.Helper()
	a.be.AddPeer(odp.Peer{Name: b.Name, Addr: netip.AddrPortFrom(b.Addr, odptest.Port), Data: string(b.be.OfferData()), PSK: [32]byte{1}})
	waitFor(t, "steering", func() bool { _, err := a.be.Steer(b.MAC, b.Name); return err == nil })
	steer(t, a.Host, b.Host)
	a.Container("ip", "neigh", "replace", b.IP.String(), "lladdr", b.MAC.String(), "dev", "ethwe", "nud", "permanent")
}

// steer sets the bridge's entry, where there is a port.
func steer(t *testing.T, a, b *odptest.Host) {
	a.Run("bridge", "fdb", "replace", b.MAC.String(), "dev", device, "master", "dynamic", "extern_learn")
}

func carries(t *testing.T, a, b *odptest.Host) {
	t.Helper()
	waitFor(t, "carrying", func() bool {
		_, err := a.Container("ping", "-n", "-q", "-c", "1", "-W", "1", b.IP.String())
		return err == nil
	})
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
