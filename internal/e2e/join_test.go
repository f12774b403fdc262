package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Three hosts join with one password; all kinds of traffic cross.
func TestJoin(t *testing.T) {
	_, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := harness.PasswordFile(t, harness.Password)
	start := time.Now()
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	c.Launch("--password-file", pw, a.IP4.String(), b.IP4.String()+":6783")
	harness.Joined(t, sites...)
	t.Logf("three hosts up and joined in %v", time.Since(start).Round(time.Millisecond))
	// While the last link is new, floods are rather lost than doubled, and with them the
	// question for a neighbour that the first ping depends on.
	harness.Meet(t, harness.JoinLimit, sites...)
	for _, pair := range [][2]*harness.Site{{a, b}, {b, c}, {c, a}} {
		harness.MustPing(t, pair[0].Box, pair[1].In4)
		harness.MustPing(t, pair[0].Box, pair[1].In6)
		harness.MustPing(t, pair[0].Box, pair[1].In4, "-s", "5000")
		harness.MustPing(t, pair[0].Box, pair[1].In6, "-s", "5000")
		harness.MustPing(t, pair[0].Box, pair[1].In4, "-s", "60000", "-i", "0.1")
	}
	for _, to := range []netip.Addr{b.In4, b.In6} {
		r := harness.Stream(t, a.Box, b.Box, to, 64<<20, 20*time.Second)
		t.Logf("TCP to %v: %.0f Mb/s, %d segments sent again", to, r.Mbps(), r.Resent)
	}
	bigDatagrams(t, a, c, a.In4, c.In4)
	bigDatagrams(t, a, c, a.In6, c.In6)
	multicast(t, a, b, c)
	broadcast(t, a, b, c)
}

// multicast sends to a group from one container and wants it in the others.
func multicast(t *testing.T, from *harness.Site, to ...*harness.Site) {
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(239, 55, 0, 1), Port: 7001}
	var rx []*net.UDPConn
	for _, s := range to {
		var c *net.UDPConn
		if err := s.Box.Do(func() error {
			ifi, err := net.InterfaceByName("ethwe")
			if err != nil {
				return err
			}
			c, err = net.ListenMulticastUDP("udp4", ifi, group)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rx = append(rx, c)
	}
	flood(t, from, rx, group.AddrPort(), to)
}

// broadcast sends to the subnet's broadcast address.
func broadcast(t *testing.T, from *harness.Site, to ...*harness.Site) {
	t.Helper()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 55, 0, 255}), 7002)
	var rx []*net.UDPConn
	for _, s := range to {
		rx = append(rx, harness.ListenUDP(t, s.Box, netip.AddrPortFrom(addr.Addr(), addr.Port())))
	}
	flood(t, from, rx, addr, to)
}

// flood sends three datagrams and wants each once at each receiver.
func flood(t *testing.T, from *harness.Site, rx []*net.UDPConn, addr netip.AddrPort, to []*harness.Site) {
	t.Helper()
	tx := harness.ListenUDP(t, from.Box, netip.AddrPortFrom(from.In4, 0))
	buf := make([]byte, 2048)
	for n := range 3 {
		want := fmt.Sprintf("to %v: %d", addr, n)
		if _, err := tx.WriteToUDPAddrPort([]byte(want), addr); err != nil {
			t.Fatal(err)
		}
		for i, c := range rx {
			c.SetReadDeadline(time.Now().Add(2 * time.Second))
			n, src, err := c.ReadFromUDPAddrPort(buf)
			if err != nil || string(buf[:n]) != want || src.Addr().Unmap() != from.In4 {
				t.Errorf("%s got %q from %v (%v), want %q", to[i].Label, buf[:n], src, err, want)
			}
		}
	}
	for i, c := range rx {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _, err := c.ReadFromUDPAddrPort(buf); err == nil {
			t.Errorf("%s got %q once more", to[i].Label, buf[:n])
		}
	}
}

// bigDatagrams sends UDP datagrams that the containers' kernels have to fragment.
func bigDatagrams(t *testing.T, from, to *harness.Site, src, dst netip.Addr) {
	t.Helper()
	rx := harness.ListenUDP(t, to.Box, netip.AddrPortFrom(dst, 7000))
	tx := harness.ListenUDP(t, from.Box, netip.AddrPortFrom(src, 0))
	buf := make([]byte, 64<<10)
	for _, size := range []int{1, 1348, 1349, 1500, 4000, 8972, 20000, 65000} {
		want := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(want)
		if _, err := tx.WriteToUDPAddrPort(want, netip.AddrPortFrom(dst, 7000)); err != nil {
			t.Errorf("sending %d bytes to %v: %v", size, dst, err)
			continue
		}
		rx.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := rx.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("%d bytes to %v: got %d, %v", size, dst, n, err)
		}
	}
}

// An underlay may have IPv6 only.
func TestJoinOverIPv6(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	for _, s := range sites {
		s.Exec("ip", "-4", "addr", "flush", "dev", testnet.Uplink)
	}
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, "["+a.IP6.String()+"]:6783")
	harness.Joined(t, sites...)
	conn, _ := b.To(a)
	if !conn.Encrypted || conn.MTU < 1376 {
		t.Errorf("connection %+v", conn)
	}
	harness.MustPing(t, a.Box, b.In4)
	harness.MustPing(t, a.Box, b.In6, "-s", "5000")
	r := harness.Stream(t, b.Box, a.Box, a.In6, 32<<20, 20*time.Second)
	t.Logf("TCP over an IPv6 underlay: %.0f Mb/s", r.Mbps())
}
