package tun

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/rawio"
)

// The stations of the tests: the host under test and a neighbour that exists only
// as the test that reads and writes the TAP.
var (
	hostIP4, peerIP4 = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	hostIP6, peerIP6 = netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd09::2")
	peerMAC          = ether.MAC{0x02, 0, 0, 0, 0, 0x02}
)

const testMTU = 1376

// inNetns moves the test into a network namespace of its own, until it ends.
func inNetns(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("making a network namespace (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := netns.Set(before); err != nil {
			t.Fatalf("leaving the network namespace: %v", err) // the thread stays locked and dies
		}
		before.Close()
		ns.Close()
		runtime.UnlockOSThread()
	})
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openTAP(t testing.TB, cfg Config) *Device {
	t.Helper()
	if cfg.MTU == 0 {
		cfg.MTU = testMTU
	}
	if cfg.Log == nil {
		cfg.Log = discard()
	}
	d, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// addHost gives the TAP the host's addresses and its neighbour.
func addHost(t testing.TB, d *Device) (mac ether.MAC) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Tests want a station at the TAP itself.
	must(os.WriteFile("/proc/sys/net/ipv6/conf/"+d.Name()+"/disable_ipv6", []byte("0"), 0))
	link, err := netlink.LinkByIndex(d.Index())
	must(err)
	for _, ip := range []netip.Addr{hostIP4, hostIP6} {
		mask := net.CIDRMask(ip.BitLen()*3/4, ip.BitLen())
		must(netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}))
	}
	for _, ip := range []netip.Addr{peerIP4, peerIP6} {
		must(netlink.NeighSet(&netlink.Neigh{LinkIndex: d.Index(), State: netlink.NUD_PERMANENT,
			IP: ip.AsSlice(), HardwareAddr: peerMAC[:]}))
	}
	// IPv6 addresses get their local routes from a kernel worker.
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		routes, err := netlink.RouteGet(hostIP6.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return ether.MAC(link.Attrs().HardwareAddr)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no local route: %v, %v", routes, err)
		}
	}
}

// readMatch reads frames until one is accepted; it stays in sf.
func readMatch(t testing.TB, q *Queue, sf *ether.Superframe, accept func(l ether.Layers, frame []byte) bool) ether.Layers {
	t.Helper()
	p, err := rawio.NewPoller(q.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		switch err := q.Read(sf); {
		case err == rawio.ErrWouldBlock:
			if _, err := p.Wait(100); err != nil {
				t.Fatal(err)
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		if l, err := ether.Parse(sf.Frame()); err == nil && accept(l, sf.Frame()) {
			return l
		}
	}
	t.Fatal("the frame did not come")
	panic("unreachable")
}

func randBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// pieces cuts b as a joined run would come: its template, then pieces of n bytes.
func pieces(b []byte, template, n int) [][]byte {
	out := [][]byte{b[:template]}
	for b = b[template:]; len(b) > n; b = b[n:] {
		out = append(out, b[:n])
	}
	return append(out, b)
}

// firstDiff describes where two byte strings part; they are too long to print.
func firstDiff(got, want []byte) (at int, same bool) {
	if bytes.Equal(got, want) {
		return 0, true
	}
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return at, false
}
