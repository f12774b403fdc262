package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"weave/internal/testnet"
)

// Three hosts join with one password; all kinds of traffic cross.
func TestJoin(t *testing.T) {
	_, sites := newSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := passwordFile(t, password)
	start := time.Now()
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	c.launch("--password-file", pw, a.IP4.String(), b.IP4.String()+":6783")
	joined(t, sites...)
	t.Logf("three hosts up and joined in %v", time.Since(start).Round(time.Millisecond))
	for _, pair := range [][2]*site{{a, b}, {b, c}, {c, a}} {
		mustPing(t, pair[0].box, pair[1].in4)
		mustPing(t, pair[0].box, pair[1].in6)
		mustPing(t, pair[0].box, pair[1].in4, "-s", "5000")
		mustPing(t, pair[0].box, pair[1].in6, "-s", "5000")
		mustPing(t, pair[0].box, pair[1].in4, "-s", "60000", "-i", "0.1")
	}
	for _, to := range []netip.Addr{b.in4, b.in6} {
		r := stream(t, a.box, b.box, to, 64<<20, 20*time.Second)
		t.Logf("TCP to %v: %.0f Mb/s, %d segments sent again", to, r.mbps(), r.retrans)
	}
	bigDatagrams(t, a, c, a.in4, c.in4)
	bigDatagrams(t, a, c, a.in6, c.in6)
	multicast(t, a, b, c)
	broadcast(t, a, b, c)
}

// multicast sends to a group from one container and wants it in the others.
func multicast(t *testing.T, from *site, to ...*site) {
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(239, 55, 0, 1), Port: 7001}
	var rx []*net.UDPConn
	for _, s := range to {
		var c *net.UDPConn
		if err := s.box.Do(func() error {
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
func broadcast(t *testing.T, from *site, to ...*site) {
	t.Helper()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 55, 0, 255}), 7002)
	var rx []*net.UDPConn
	for _, s := range to {
		rx = append(rx, listenUDP(t, s.box, netip.AddrPortFrom(addr.Addr(), addr.Port())))
	}
	flood(t, from, rx, addr, to)
}

// flood sends three datagrams and wants each once at each receiver.
func flood(t *testing.T, from *site, rx []*net.UDPConn, addr netip.AddrPort, to []*site) {
	t.Helper()
	tx := listenUDP(t, from.box, netip.AddrPortFrom(from.in4, 0))
	buf := make([]byte, 2048)
	for n := range 3 {
		want := fmt.Sprintf("to %v: %d", addr, n)
		if _, err := tx.WriteToUDPAddrPort([]byte(want), addr); err != nil {
			t.Fatal(err)
		}
		for i, c := range rx {
			c.SetReadDeadline(time.Now().Add(2 * time.Second))
			n, src, err := c.ReadFromUDPAddrPort(buf)
			if err != nil || string(buf[:n]) != want || src.Addr().Unmap() != from.in4 {
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
func bigDatagrams(t *testing.T, from, to *site, src, dst netip.Addr) {
	t.Helper()
	rx := listenUDP(t, to.box, netip.AddrPortFrom(dst, 7000))
	tx := listenUDP(t, from.box, netip.AddrPortFrom(src, 0))
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
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	for _, s := range sites {
		s.Exec("ip", "-4", "addr", "flush", "dev", testnet.Uplink)
	}
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, "["+a.IP6.String()+"]:6783")
	joined(t, sites...)
	conn, _ := b.to(a)
	if !conn.Encrypted || conn.MTU < 1376 {
		t.Errorf("connection %+v", conn)
	}
	mustPing(t, a.box, b.in4)
	mustPing(t, a.box, b.in6, "-s", "5000")
	r := stream(t, b.box, a.box, a.in6, 32<<20, 20*time.Second)
	t.Logf("TCP over an IPv6 underlay: %.0f Mb/s", r.mbps())
}
