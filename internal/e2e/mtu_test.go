package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// recovery is how long a TCP stream may stand still when its path narrows.
const recovery = 3 * time.Second

// narrow makes a host lose, without a word, what comes in packets larger than mtu,
// as a path does that filters ICMP; 0 makes it wide again. It counts fragments and
// large packets.
func narrow(h *testnet.Host, mtu int) {
	rules := "table inet path\ndelete table inet path\n"
	rules += "table inet path {\n chain in {\n  type filter hook prerouting priority -450;\n" +
		"  iifname eth0 ip frag-off & 0x3fff != 0 counter\n" +
		"  iifname eth0 exthdr frag exists counter\n" +
		"  iifname eth0 udp length > 8000 counter\n"
	if mtu > 0 {
		rules += fmt.Sprintf("  iifname eth0 meta length > %d counter drop\n", mtu)
	}
	rules += " }\n}\n"
	h.Exec("sh", "-c", "printf '"+strings.ReplaceAll(rules, "\n", `\n`)+"' | nft -f -")
}

// pathCounts reads what narrow's rules counted, in their order.
func pathCounts(h *testnet.Host) (counts []int) {
	for line := range strings.Lines(h.Exec("nft", "list", "table", "inet", "path")) {
		if _, rest, ok := strings.Cut(line, "counter packets "); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			counts = append(counts, n)
		}
	}
	return counts
}

// watched prepares hosts for narrow: their trains leave in single packets, as on a
// wire.
func watched(sites ...*site) {
	for _, s := range sites {
		s.Exec("ip", "link", "set", testnet.Uplink, "gso_max_segs", "1")
		narrow(s.Host, 0)
	}
}

// noFragments fails the test if any site got a fragment on the underlay.
func noFragments(t *testing.T, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		if c := pathCounts(s.Host); c[0]+c[1] > 0 {
			t.Errorf("%s received %d fragments on the underlay", s.Label, c[0]+c[1])
		}
	}
}

// flow is a TCP stream of bounded rate that goes on until the test ends.
type flow struct {
	bytes atomic.Int64
	last  atomic.Int64 // Unix nanoseconds
	gap   atomic.Int64 // longest time without bytes since reset, nanoseconds
	stop  atomic.Bool
}

// startFlow starts a stream from a to b.
func startFlow(t *testing.T, a, b *site, to netip.Addr) *flow {
	t.Helper()
	var l net.Listener
	if err := b.box.Do(func() (err error) { l, err = net.Listen("tcp", netip.AddrPortFrom(to, 5001).String()); return err }); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	if err := a.box.Do(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	f := &flow{}
	f.last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { f.receive(l) })
	wg.Go(func() {
		for block := make([]byte, 64<<10); !f.stop.Load(); time.Sleep(4 * time.Millisecond) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		f.stop.Store(true)
		c.Close()
		l.Close()
		wg.Wait()
	})
	return f
}

func (f *flow) receive(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		now := time.Now().UnixNano()
		f.gap.Store(max(f.gap.Load(), now-f.last.Load()))
		f.last.Store(now)
		f.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// reset forgets the longest gap.
func (f *flow) reset() { f.gap.Store(0) }

// longest returns the longest gap, the present one included.
func (f *flow) longest() time.Duration {
	return time.Duration(max(f.gap.Load(), time.Now().UnixNano()-f.last.Load()))
}

// linkMTU is what a site says of its connection to another.
func linkMTU(s, o *site) int {
	c, _ := s.to(o)
	return c.MTU
}

// Bytes of an outer packet that are not the inner one's.
const (
	outer4 = 20 + 8 + 16 + 8 + 14 + 16
	outer6 = 40 + 8 + 16 + 8 + 14 + 16
)

// A path becomes narrower under a running TCP stream and says nothing: the stream
// stands still for three seconds at most, and then gets all that the path carries.
func TestPathNarrows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mtu     int
		v6      bool
		headers int
	}{
		{"1280", 1280, false, outer4},
		{"1124", 1124, false, outer4},
		{"1280 over IPv6", 1280, true, outer6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, sites := newSites(t, 2)
			a, b := sites[0], sites[1]
			watched(a, b)
			pw := passwordFile(t, password)
			to := a.IP4
			if tt.v6 {
				to = a.IP6
			}
			a.launch("--password-file", pw)
			b.launch("--password-file", pw, to.String())
			joined(t, a, b)
			f := startFlow(t, a, b, b.in4)
			time.Sleep(time.Second)
			narrow(a.Host, tt.mtu)
			narrow(b.Host, tt.mtu)
			f.reset()
			time.Sleep(recovery + time.Second)
			sent := f.bytes.Load()
			time.Sleep(time.Second)
			gap := f.longest()
			t.Logf("stood still for %v, %d kB in the last second, mtu %d and %d", gap, (f.bytes.Load()-sent)>>10, linkMTU(a, b), linkMTU(b, a))
			if gap > recovery {
				t.Errorf("the stream stood still for %v, want %v at most", gap, recovery)
			}
			if f.bytes.Load()-sent < 1<<20 {
				t.Errorf("%d bytes in the last second", f.bytes.Load()-sent)
			}
			if got, want := linkMTU(a, b), tt.mtu-tt.headers; got > want || got < want-8 {
				t.Errorf("link's mtu is %d, want %d", got, want)
			}
			if n := a.established(); n != 1 {
				t.Errorf("%d connections", n)
			}
			noFragments(t, a, b)
			if tt.v6 {
				return // once is enough
			}
			f.reset()
			narrow(a.Host, 0)
			narrow(b.Host, 0)
			within(t, 30*time.Second, "the full size again", func() bool { return linkMTU(a, b) == 1500-tt.headers })
			if gap := f.longest(); gap > time.Second {
				t.Errorf("the stream stood still for %v when the path became wide again", gap)
			}
		})
	}
}

// An underlay with jumbo frames is used to the full without a word from the user:
// with the usual overlay MTU a datagram carries several segments, with a large one
// a large segment.
func TestJumboUnderlay(t *testing.T) {
	for _, flags := range [][]string{nil, {"--mtu", "8900"}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			_, sites := newSites(t, 2, testnet.MTU(9000))
			a, b := sites[0], sites[1]
			watched(a, b)
			flags := append([]string{"--no-fastdp"}, flags...) // it is sleeve's size that is looked for
			a.launch(flags...)
			b.launch(append(flags, a.IP4.String())...)
			joined(t, a, b)
			within(t, 5*time.Second, "full jumbo size", func() bool { return linkMTU(a, b) == 9000-outer4 })
			r := stream(t, a.box, b.box, b.in4, 32<<20, 20*time.Second)
			large := pathCounts(b.Host)[2]
			t.Logf("%.0f Mb/s, %d datagrams of more than 8000 bytes", r.mbps(), large)
			if want := 32 << 20 / 9000 * 8 / 10; large < want {
				t.Errorf("%d datagrams of more than 8000 bytes carried 32 MiB, want %d at least", large, want)
			}
			noFragments(t, a, b)
		})
	}
}

// Hosts with 9000 and with 1500 bytes meet in one mesh: each link is as wide as its
// path.
func TestMixedUnderlay(t *testing.T) {
	lab := testnet.New(t)
	var sites []*site
	for i, mtu := range []int{9000, 9000, 1500} {
		sites = append(sites, siteOn(t, lab.Host(string(rune('a'+i)), testnet.MTU(mtu)), i+1))
	}
	a, b, c := sites[0], sites[1], sites[2]
	watched(sites...)
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	c.launch("--password-file", pw, a.IP4.String(), b.IP4.String())
	joined(t, sites...)
	for _, tt := range []struct {
		from, to *site
		mtu      int
	}{{a, b, 9000}, {b, a, 9000}, {a, c, 1500}, {c, a, 1500}, {b, c, 1500}, {c, b, 1500}} {
		within(t, 10*time.Second, tt.from.Label+" to "+tt.to.Label, func() bool { return linkMTU(tt.from, tt.to) == tt.mtu-outer4 })
		r := stream(t, tt.from.box, tt.to.box, tt.to.in4, 8<<20, 20*time.Second)
		t.Logf("%s to %s: mtu %d, %.0f Mb/s", tt.from.Label, tt.to.Label, linkMTU(tt.from, tt.to), r.mbps())
	}
	noFragments(t, sites...)
}

// What is larger than the path and may not be cut is answered; the rest arrives.
func TestPacketTooBig(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	watched(a, b)
	const path = 1280
	narrow(a.Host, path)
	narrow(b.Host, path)
	a.launch()
	b.launch(a.IP4.String())
	joined(t, a, b)
	const inner = path - outer4
	within(t, 10*time.Second, "the size of the path", func() bool { return linkMTU(a, b) == inner && linkMTU(b, a) == inner })
	mustPing(t, a.box, b.in4, "-M", "do", "-s", strconv.Itoa(inner-28))
	r := ping(a.box, b.in4, 2, "-M", "do", "-s", "1300")
	if !strings.Contains(r.Stdout+r.Stderr, fmt.Sprintf("mtu = %d", inner)) && !strings.Contains(r.Stdout+r.Stderr, fmt.Sprintf("mtu=%d", inner)) {
		t.Errorf("IPv4, DF set, 1328 bytes: want an answer with mtu %d, got\n%s%s", inner, r.Stdout, r.Stderr)
	}
	mustPing(t, b.box, a.in4, "-M", "dont", "-s", "1300")
	r = ping(a.box, b.in6, 2, "-M", "do", "-s", "1300")
	if !strings.Contains(r.Stdout+r.Stderr, "mtu: 1280") && !strings.Contains(r.Stdout+r.Stderr, "mtu=1280") {
		t.Errorf("IPv6, 1348 bytes: want an answer with mtu 1280, got\n%s%s", r.Stdout, r.Stderr)
	}
	mustPing(t, b.box, a.in6, "-M", "do", "-s", strconv.Itoa(1280-48)) // narrower than IPv6 allows: cut by us
	udpAnswered(t, a, b, inner)
	stream(t, a.box, b.box, b.in4, 8<<20, 20*time.Second)
	stream(t, a.box, b.box, b.in6, 8<<20, 20*time.Second)
	noFragments(t, a, b)
}

// udpAnswered: an application that sends datagrams with DF learns the size, too.
func udpAnswered(t *testing.T, a, b *site, inner int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	echo(t, b.box, netip.AddrPortFrom(b.in4, 7000))
	cmd := a.box.Command(ctx, "ip", "route", "get", b.in4.String())
	conn := listenUDP(t, a.box, netip.AddrPort{})
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { dontFragment(fd) })
	for range 20 {
		conn.WriteToUDPAddrPort(make([]byte, 1300), netip.AddrPortFrom(b.in4, 7000))
		time.Sleep(10 * time.Millisecond)
	}
	out, err := cmd.Output()
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("mtu %d", inner); !strings.Contains(string(out), want) {
		t.Errorf("route after datagrams of 1328 bytes with DF: %q, want %q", out, want)
	}
}

// dontFragment sets DF on what a socket sends, whatever the kernel knows.
func dontFragment(fd uintptr) {
	unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
}
