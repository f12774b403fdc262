package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// recovery is how long a TCP stream may stand still when its path narrows.
const recovery = 3 * time.Second

// A path becomes narrower under a running TCP stream and says nothing: the stream
// stands still for three seconds at most, and then gets all that the path carries.
func TestPathNarrows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		mtu     int
		v6      bool
		headers int
	}{
		{"1280", 1280, false, harness.Outer4},
		{"1124", 1124, false, harness.Outer4},
		{"1280 over IPv6", 1280, true, harness.Outer6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, sites := harness.NewSites(t, 2)
			a, b := sites[0], sites[1]
			harness.Watched(a, b)
			pw := harness.PasswordFile(t, harness.Password)
			via := 0
			if tt.v6 {
				via = 1
			}
			a.Launch("--password-file", pw)
			b.Launch("--password-file", pw, a.Via(via))
			harness.Joined(t, a, b)
			flows := []*harness.Flow{harness.StartFlow(t, a, b, b.In4), harness.StartFlow(t, b, a, a.In6)}
			time.Sleep(time.Second)
			harness.Narrow(a.Host, tt.mtu)
			harness.Narrow(b.Host, tt.mtu)
			for _, f := range flows {
				f.Reset()
			}
			time.Sleep(recovery + time.Second)
			for i, f := range flows {
				sent := f.Bytes.Load()
				time.Sleep(time.Second)
				gap := f.Longest()
				t.Logf("%s stood still for %v, %d kB in the last second, mtu %d and %d", []string{"IPv4", "IPv6"}[i], gap, (f.Bytes.Load()-sent)>>10, a.LinkMTU(b), b.LinkMTU(a))
				if gap > recovery {
					t.Errorf("the stream stood still for %v, want %v at most", gap, recovery)
				}
				if f.Bytes.Load()-sent < 1<<20 {
					t.Errorf("%d bytes in the last second", f.Bytes.Load()-sent)
				}
			}
			if got, want := a.LinkMTU(b), tt.mtu-tt.headers; got > want || got < want-8 {
				t.Errorf("link's mtu is %d, want %d", got, want)
			}
			if n := a.Established(); n != 1 {
				t.Errorf("%d connections", n)
			}
			harness.NoFragments(t, a, b)
			if tt.v6 {
				return // once is enough
			}
			harness.Narrow(a.Host, 0)
			harness.Narrow(b.Host, 0)
			for _, f := range flows {
				f.Reset()
			}
			took := harness.Within(t, 30*time.Second, "the full size again", func() bool { return a.LinkMTU(b) == 1500-tt.headers })
			t.Logf("the full size again after %v", took)
			for _, f := range flows {
				if gap := f.Longest(); gap > time.Second {
					t.Errorf("a stream stood still for %v when the path became wide again", gap)
				}
			}
		})
	}
}

// eachUnderlay runs a test over IPv4 and over IPv6, side by side; via is for Via, headers
// are the bytes of an outer packet that are not the inner one's.
func eachUnderlay(t *testing.T, test func(t *testing.T, via, headers int)) {
	t.Parallel()
	for via, headers := range []int{harness.Outer4, harness.Outer6} {
		t.Run([]string{"IPv4", "IPv6"}[via], func(t *testing.T) {
			t.Parallel()
			test(t, via, headers)
		})
	}
}

// An underlay with jumbo frames is used to the full without a word from the user:
// with the usual overlay MTU a datagram carries several segments, with a large one
// a large segment; at once, or when the underlay grows.
func TestJumboUnderlay(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start int
		flags []string
	}{{"usual MTU", 9000, nil}, {"large MTU", 9000, []string{"--mtu", "8870"}}, {"grown", 1500, nil}} {
		t.Run(tt.name, func(t *testing.T) {
			eachUnderlay(t, func(t *testing.T, via, headers int) {
				_, sites := harness.NewSites(t, 2, testnet.MTU(tt.start))
				a, b := sites[0], sites[1]
				harness.Watched(a, b)
				flags := append([]string{"--no-fastdp"}, tt.flags...) // it is sleeve's size that is looked for
				a.Launch(flags...)
				b.Launch(append(flags, a.Via(via))...)
				harness.Joined(t, a, b)
				harness.Within(t, 5*time.Second, "the underlay's size", func() bool { return a.LinkMTU(b) == tt.start-headers })
				b.SetMTU(9000)
				a.SetMTU(9000)
				// The first of the two looked for more in vain, and does so again 10 s later.
				for _, dir := range [][2]*harness.Site{{a, b}, {b, a}} {
					took := harness.Within(t, 30*time.Second, "full jumbo size", func() bool { return dir[0].LinkMTU(dir[1]) == 9000-headers })
					t.Logf("%s to %s: full jumbo size after %v more", dir[0].Label, dir[1].Label, took)
				}
				for _, to := range []netip.Addr{b.In4, b.In6} {
					before := harness.PathCounts(b.Host)[2]
					r := harness.Stream(t, a.Box, b.Box, to, 16<<20, 20*time.Second)
					large := harness.PathCounts(b.Host)[2] - before
					t.Logf("to %v: %.0f Mb/s, %d datagrams of more than 7500 bytes", to, r.Mbps(), large)
					if want := 16 << 20 / 9000 * 8 / 10; large < want {
						t.Errorf("%d datagrams of more than 7500 bytes carried 16 MiB, want %d at least", large, want)
					}
				}
				harness.NoFragments(t, a, b)
			})
		})
	}
}

// Hosts with 9000 and with 1500 bytes meet in one mesh: each link is as wide as its
// path, and so are the datagrams.
func TestMixedUnderlay(t *testing.T) {
	eachUnderlay(t, func(t *testing.T, via, headers int) {
		lab := testnet.New(t)
		var sites []*harness.Site
		for i, mtu := range []int{9000, 9000, 1500} {
			sites = append(sites, harness.SiteOn(t, lab.Host(string(rune('a'+i)), testnet.MTU(mtu)), i+1))
		}
		a, b, c := sites[0], sites[1], sites[2]
		harness.Watched(sites...)
		pw := harness.PasswordFile(t, harness.Password)
		a.Launch("--password-file", pw)
		b.Launch("--password-file", pw, a.Via(via))
		c.Launch("--password-file", pw, a.Via(via), b.Via(via))
		harness.Joined(t, sites...)
		for _, tt := range []struct {
			from, to *harness.Site
			mtu      int
		}{{a, b, 9000}, {b, a, 9000}, {a, c, 1500}, {c, a, 1500}, {b, c, 1500}, {c, b, 1500}} {
			harness.Within(t, 10*time.Second, tt.from.Label+" to "+tt.to.Label, func() bool { return tt.from.LinkMTU(tt.to) == tt.mtu-headers })
			before := harness.PathCounts(tt.to.Host)
			const size = 4 << 20
			r := harness.Stream(t, tt.from.Box, tt.to.Box, tt.to.In4, size, 20*time.Second)
			harness.Stream(t, tt.from.Box, tt.to.Box, tt.to.In6, size, 20*time.Second)
			after := harness.PathCounts(tt.to.Host)
			whole := after[3] - before[3]
			if tt.mtu == 9000 {
				whole = after[2] - before[2]
			}
			t.Logf("%s to %s: mtu %d, %.0f Mb/s, %d datagrams that fill the path", tt.from.Label, tt.to.Label, tt.from.LinkMTU(tt.to), r.Mbps(), whole)
			if want := 2 * size / tt.mtu * 8 / 10; whole < want {
				t.Errorf("%s to %s: %d datagrams fill the path, want %d at least", tt.from.Label, tt.to.Label, whole, want)
			}
		}
		harness.NoFragments(t, sites...)
	})
}

// What is larger than the path and may not be cut is answered; the rest arrives.
func TestPacketTooBig(t *testing.T) {
	eachUnderlay(t, tooBig)
}

func tooBig(t *testing.T, via, headers int) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	harness.Watched(a, b)
	const path = 1280
	harness.Narrow(a.Host, path)
	harness.Narrow(b.Host, path)
	a.Launch()
	b.Launch(a.Via(via))
	harness.Joined(t, a, b)
	inner := path - headers
	harness.Within(t, 10*time.Second, "the size of the path", func() bool { return a.LinkMTU(b) == inner && b.LinkMTU(a) == inner })
	harness.MustPing(t, a.Box, b.In4, "-M", "do", "-s", strconv.Itoa(inner-28))
	r := harness.Ping(a.Box, b.In4, 2, "-M", "do", "-s", "1300")
	if !strings.Contains(r.Stdout+r.Stderr, fmt.Sprintf("mtu = %d", inner)) && !strings.Contains(r.Stdout+r.Stderr, fmt.Sprintf("mtu=%d", inner)) {
		t.Errorf("IPv4, DF set, 1328 bytes: want an answer with mtu %d, got\n%s%s", inner, r.Stdout, r.Stderr)
	}
	harness.MustPing(t, b.Box, a.In4, "-M", "dont", "-s", "1300")
	r = harness.Ping(a.Box, b.In6, 2, "-M", "do", "-s", "1300")
	if !strings.Contains(r.Stdout+r.Stderr, "mtu: 1280") && !strings.Contains(r.Stdout+r.Stderr, "mtu=1280") {
		t.Errorf("IPv6, 1348 bytes: want an answer with mtu 1280, got\n%s%s", r.Stdout, r.Stderr)
	}
	harness.MustPing(t, b.Box, a.In6, "-M", "do", "-s", strconv.Itoa(1280-48)) // narrower than IPv6 allows: cut by us
	udpAnswered(t, a, b, inner)
	harness.Stream(t, a.Box, b.Box, b.In4, 8<<20, 20*time.Second)
	harness.Stream(t, a.Box, b.Box, b.In6, 8<<20, 20*time.Second)
	harness.NoFragments(t, a, b)
}

// udpAnswered: an application that sends datagrams with DF learns the size, too.
func udpAnswered(t *testing.T, a, b *harness.Site, inner int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	at := harness.Echo(t, b.Box, b.In4)
	cmd := a.Box.Command(ctx, "ip", "route", "get", b.In4.String())
	conn := harness.ListenUDP(t, a.Box, netip.AddrPort{})
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { dontFragment(fd) })
	for range 20 {
		conn.WriteToUDPAddrPort(make([]byte, 1300), at)
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
