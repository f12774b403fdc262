package harness

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"weave/internal/testnet"
)

// Ping is one of the ping command's runs: quick, and patient for the last answer.
func Ping(from *testnet.Namespace, to netip.Addr, n int, args ...string) testnet.Result {
	args = append([]string{"-n", "-i", "0.05", "-c", fmt.Sprint(n), "-W", "1"}, args...)
	return from.Try("ping", append(args, to.String())...)
}

// MustPing fails the test if any of a few pings is lost.
func MustPing(t testing.TB, from *testnet.Namespace, to netip.Addr, args ...string) {
	t.Helper()
	if r := Ping(from, to, 5, args...); r.Code != 0 || !strings.Contains(r.Stdout, " 0% packet loss") {
		t.Errorf("ping %v %q: exit %d\n%s%s", to, args, r.Code, r.Stdout, r.Stderr)
	}
}

// Reaches reports whether a ping is answered.
func Reaches(from *testnet.Namespace, to netip.Addr) bool { return Ping(from, to, 1).Code == 0 }

// ListenUDP opens a socket inside a namespace until the test ends; the port may be 0.
func ListenUDP(t testing.TB, in *testnet.Namespace, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := in.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Echo answers datagrams to an address of a namespace, at the returned port, until the
// test ends.
func Echo(t testing.TB, in *testnet.Namespace, addr netip.Addr) netip.AddrPort {
	t.Helper()
	return EchoAt(t, in, netip.AddrPortFrom(addr, 0))
}

// EchoAt is Echo at a port of one's choice.
func EchoAt(t testing.TB, in *testnet.Namespace, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	c := ListenUDP(t, in, at)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
