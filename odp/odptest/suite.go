package odptest

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/odp"
	"weave/odp/proof"
)

// Run tries all that odp promises of a Backend.
func Run(t *testing.T, c Config) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, *Config)
	}{
		{"carry", testCarry},
		{"probe", testProbe},
		{"known unicast only", testNoFlood},
		{"strangers", testStrangers},
		{"unsteer", testUnsteer},
		{"move", testMove},
		{"nothing before peers", testNothingBeforePeers},
		{"adopt", testAdopt},
		{"no adoption", testNoAdoption},
		{"broken", testBroken},
		{"rules flushed", testFlushed},
		{"occupied", testOccupied},
		{"mtu", testMTU},
	} {
		if len(c.Only) == 0 || slices.Contains(c.Only, tt.name) {
			t.Run(tt.name, func(t *testing.T) { tt.test(t, &c) })
		}
	}
}

func testCarry(t *testing.T, c *Config) {
	options := []Options{{Underlay: MTU + c.overhead(false)}, {IPv6: true, Underlay: MTU + c.overhead(true)}, {}, {IPv6: true}}
	if testing.Short() {
		options = options[:2]
	}
	for _, o := range options {
		a, b := c.connected(t, o)
		for _, e := range [][2]*end{{a, b}, {b, a}} {
			if st := e[0].be.State(e[1].Name); st.Err != nil || st.MTU < MTU || st.Port == 0 || st.Source != e[0].Addr {
				t.Errorf("%+v: state %+v", o, st)
			}
			if !e[0].carries(e[1], 5, MTU) {
				t.Errorf("%+v: full-size pings lost", o)
			}
		}
	}
}

// nowhere is an address that nobody has.
var nowhere = netip.MustParseAddrPort("192.0.2.1:6784")

// other is the name of a peer that is nowhere.
var other = func() peer.Name {
	n, err := peer.ParseName("02:00:00:00:00:77")
	if err != nil {
		panic(err)
	}
	return n
}()

func probe(from, to *end, ipv6 bool, size int) []byte {
	f := make([]byte, size)
	dst, src := to.cfg.probeMAC(to.Host, ipv6), from.cfg.probeMAC(from.Host, ipv6)
	copy(f, dst[:])
	copy(f[6:], src[:])
	f[12], f[13] = proof.EtherType>>8, proof.EtherType&0xff
	for i := 14; i < size; i++ {
		f[i] = byte(i)
	}
	return f
}

func testProbe(t *testing.T, c *Config) {
	for _, ipv6 := range []bool{false, true} {
		a, b := c.pair(t, Options{IPv6: ipv6})
		a.add(b)
		b.add(a)
		for n, size := range []int{proof.MinLen, MTU + 14} {
			want := probe(a, b, ipv6, size)
			if err := a.be.SendProbe(b.Name, want); err != nil {
				t.Fatalf("send: %v", err)
			}
			within(t, 10*time.Second, "probe", func() bool { return len(b.got()) > n })
			if got := b.got()[n]; !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
		}
		if n := len(b.got()); n != 2 {
			t.Errorf("%d probes arrived of 2", n)
		}
		if n := len(a.got()); n != 0 {
			t.Errorf("%d of our own probes came back", n)
		}
	}
}

// A frame that was not steered must not reach the other end, whatever it is.
func testNoFlood(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	dev := a.device(a.be.State(b.Name).Port)
	sent := func() string {
		_, tx, _ := strings.Cut(a.must("ip", "-s", "link", "show", "dev", dev), "TX:")
		return strings.Join(strings.Fields(tx)[6:8], " ") // bytes, packets
	}
	// What the kernel itself says on a new device (IPv6) ends after a while.
	for quiet, last, n := 0, sent(), 0; quiet < 6 && n < 50; n++ {
		time.Sleep(200 * time.Millisecond)
		if now := sent(); now == last {
			quiet++
		} else {
			quiet, last = 0, now
		}
	}
	// Unknown unicast and broadcast.
	a.Container("ip", "neigh", "replace", "10.99.0.77", "lladdr", "02:77:77:77:77:77", "dev", "ethwe", "nud", "permanent")
	for try := range 5 {
		before := sent()
		a.Container("ping", "-n", "-q", "-c", "2", "-i", "0.02", "-W", "0.1", "10.99.0.77")
		a.Container("ping", "-n", "-q", "-c", "2", "-i", "0.02", "-W", "0.1", "10.99.0.78") // ARP
		after := sent()
		if before == after {
			return
		}
		t.Logf("try %d: sent: %s before, %s after frames to unknown MACs", try, before, after)
	}
	t.Error("frames to unknown MACs are sent each time")
}

func testStrangers(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	if !a.carries(b, 1, 100) {
		t.Fatal("does not carry")
	}
	b.be.AddPeer(odp.Peer{Name: other, Addr: nowhere}) // keeps the device
	b.be.RemovePeer(a.Name)
	if a.pings(b, 1, 100) {
		t.Error("a ping of a stranger came back")
	}
	if c.Sealed != nil {
		return
	}
	within(t, 3*time.Second, "counting", func() bool { return b.be.Counters()["stranger"] > 0 })
}

func testUnsteer(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	if !a.carries(b, 2, 100) {
		t.Fatal("does not carry")
	}
	a.be.Unsteer(b.MAC)
	if a.pings(b, 1, 100) {
		t.Error("still carries")
	}
	a.steer(b)
	if !a.carries(b, 2, 100) {
		t.Error("does not carry after steering again")
	}
}

// A peer whose address changes is steered to there.
func testMove(t *testing.T, c *Config) {
	a, b := c.pair(t, Options{})
	b.add(a)
	b.steer(a)
	a.addAt(b, nowhere)
	if _, err := a.be.Steer(b.MAC, b.Name); err != nil {
		t.Fatal(err)
	}
	a.add(b)
	a.steer(b)
	if !a.carries(b, 2, 100) {
		t.Error("does not carry after the peer's address changed")
	}
}

func testNothingBeforePeers(t *testing.T, c *Config) {
	a, b := c.pair(t, Options{})
	if left := c.Remains(a.Host); left != "" {
		t.Errorf("in the kernel before there are peers: %s", left)
	}
	a.add(b)
	if c.Remains(a.Host) == "" {
		t.Error("nothing in the kernel for a peer")
	}
	a.be.RemovePeer(b.Name)
	if left := c.Remains(a.Host); left != "" {
		t.Errorf("in the kernel without peers: %s", left)
	}
}

func testAdopt(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	within(t, 10*time.Second, "carrying", func() bool { return a.carries(b, 3, MTU) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lost := make(chan bool, 1)
	go func() {
		ok := true
		for ctx.Err() == nil && ok {
			ok = a.answered(b, 50, MTU) >= 50-1 // ping may stop before the last answer
		}
		lost <- !ok
	}()
	a.close()
	a.open(true)
	if got := a.be.Adopted()[b.MAC]; got != c.inside(b.Host) {
		t.Errorf("adopted %v, want %v at %v", a.be.Adopted(), b.MAC, c.inside(b.Host))
	}
	time.Sleep(1500 * time.Millisecond) // the adopted state has to survive mending
	a.add(b)
	a.steer(b)
	a.be.Disown()
	if n := len(a.be.Adopted()); n != 0 {
		t.Errorf("%d entries still adopted", n)
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	if <-lost {
		t.Error("pings lost")
	}
	if !a.carries(b, 5, MTU) {
		t.Error("does not carry after adoption")
	}
	a.close()
	a.open(true)
	a.be.Disown()
	if left := c.Remains(a.Host); left != "" {
		t.Errorf("left after disowning all: %s", left)
	}
}

func testNoAdoption(t *testing.T, c *Config) {
	a, _ := c.connected(t, Options{})
	a.close()
	if c.Remains(a.Host) == "" {
		t.Error("nothing survives Close")
	}
	a.open(false)
	if left := c.Remains(a.Host); left != "" {
		t.Errorf("left although not to be adopted: %s", left)
	}
}

func testBroken(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	within(t, 5*time.Second, "word of the new port", func() bool { return a.changes() > 0 })
	before := a.changes()
	if err := c.Break(a.Host); err != nil {
		t.Fatal(err)
	}
	took := within(t, 5*time.Second, "repair", func() bool { return a.changes() > before && a.be.State(b.Name).Err == nil })
	t.Logf("repaired after %v", took)
	a.steer(b)
	if !a.carries(b, 3, MTU) {
		t.Error("does not carry after repair")
	}
	want := probe(b, a, false, MTU+14)
	within(t, 2*time.Second, "probe after repair", func() bool {
		b.be.SendProbe(a.Name, want)
		return len(a.got()) > 0
	})
}

func testFlushed(t *testing.T, c *Config) {
	a, b := c.connected(t, Options{})
	a.must("nft", "flush", "ruleset")
	if c.Sealed != nil { // it has no rules
		if !a.carries(b, 3, MTU) {
			t.Error("does not carry any more")
		}
		return
	}
	took := within(t, 2*time.Second, "rules", func() bool {
		out, _ := a.Run("nft", "list", "ruleset")
		return bytes.Contains([]byte(out), []byte(b.Addr.String()))
	})
	t.Logf("rules were back after %v", took)
	if !a.carries(b, 3, MTU) {
		t.Error("does not carry after repair")
	}
}

func testOccupied(t *testing.T, c *Config) {
	a, b := c.pair(t, Options{})
	free, err := c.Occupy(a.Host)
	if err != nil {
		t.Fatal(err)
	}
	a.add(b)
	if got := odp.ReasonOf(a.be.State(b.Name).Err); got != odp.ReasonPort {
		t.Errorf("reason %q, want %q (%v)", got, odp.ReasonPort, a.be.State(b.Name).Err)
	}
	if _, err := a.be.Steer(ether.MAC{2, 1, 1, 1, 1, 1}, b.Name); err == nil {
		t.Error("steers without a device")
	}
	if err := free(); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "recovery", func() bool { return a.be.State(b.Name).Err == nil })
}

func testMTU(t *testing.T, c *Config) {
	for _, o := range []Options{{Underlay: MTU + c.overhead(false) - 1}, {IPv6: true, Underlay: MTU + c.overhead(true) - 1}} {
		a, b := c.pair(t, o)
		a.add(b)
		st := a.be.State(b.Name)
		if got := odp.ReasonOf(st.Err); got != odp.ReasonMTU || st.MTU != MTU-1 {
			t.Errorf("%+v: reason %q with MTU %d, want %q, %d", o, got, st.MTU, odp.ReasonMTU, MTU-1)
		}
	}
}
