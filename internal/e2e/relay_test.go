package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// Two hosts that know a third one only talk through it: TCP's superframes cross it
// whole, and a broadcast reaches every container once.
func TestRelay(t *testing.T) {
	_, sites := newSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := passwordFile(t, password)
	c.launch("--no-discovery", "--password-file", pw)
	a.launch("--no-discovery", "--password-file", pw, c.IP4.String())
	b.launch("--no-discovery", "--password-file", pw, c.IP4.String())
	joined(t, a, c)
	joined(t, b, c)
	within(t, joinLimit, "a way through c", func() bool { return reaches(a.box, b.in4) })
	mustPing(t, a.box, b.in6)

	before := carried(t, c)
	r := stream(t, a.box, b.box, b.in4, 64<<20, 20*time.Second)
	after := carried(t, c)
	size := (after.bytes - before.bytes) / (after.frames - before.frames)
	t.Logf("%.0f Mb/s through c, in frames of %.0f bytes on average", r.mbps(), size)
	if _, direct := a.to(b); direct {
		t.Error("a and b are connected")
	}
	if after.bytes-before.bytes < 64<<20 {
		t.Errorf("%.0f bytes went through c", after.bytes-before.bytes)
	}
	if size < 8000 { // acknowledgements on the way back count as well
		t.Errorf("c relayed frames of %.0f bytes on average: superframes do not stay whole", size)
	}

	counts := map[*site]func() int{b: hearBroadcasts(t, b.box), c: hearBroadcasts(t, c.box)}
	const broadcasts = 500
	shout(t, a.box, broadcasts)
	for s, count := range counts {
		within(t, 5*time.Second, "broadcasts at "+s.Label, func() bool { return count() >= broadcasts })
	}
	time.Sleep(200 * time.Millisecond) // for copies that should not come
	for s, count := range counts {
		if n := count(); n != broadcasts {
			t.Errorf("%s heard %d broadcasts of %d", s.Label, n, broadcasts)
		}
	}
}

type carriedBy struct{ frames, bytes float64 }

// carried is what a site's links have sent.
func carried(t *testing.T, s *site) carriedBy {
	t.Helper()
	m := metrics(t, s)
	return carriedBy{m.sum(`weave_frames_total{direction="out"`), m.sum(`weave_bytes_total{direction="out"`)}
}

const broadcastPort = 7101

// hearBroadcasts counts the broadcasts that arrive in a container.
func hearBroadcasts(t *testing.T, in *testnet.Namespace) func() int {
	t.Helper()
	conn := listenUDP(t, in, netip.AddrPortFrom(netip.IPv4Unspecified(), broadcastPort))
	heard := make(chan int, 1)
	heard <- 0
	go func() {
		buf := make([]byte, 2048)
		for {
			_, _, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			heard <- <-heard + 1
		}
	}()
	return func() int {
		n := <-heard
		heard <- n
		return n
	}
}

// shout sends broadcasts from a container.
func shout(t *testing.T, from *testnet.Namespace, n int) {
	t.Helper()
	conn := listenUDP(t, from, netip.AddrPort{})
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
	to := netip.MustParseAddrPort(fmt.Sprintf("10.55.0.255:%d", broadcastPort))
	for i := range n {
		if _, err := conn.WriteToUDPAddrPort(fmt.Appendf(nil, "broadcast %d", i), to); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}
