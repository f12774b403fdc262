package harness

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// Audience is an address that every container hears at.
type Audience string

// The audiences.
const (
	Broadcast4 Audience = "10.55.0.255"
	Multicast4 Audience = "239.55.0.1"
	Multicast6 Audience = "ff02::5501%ethwe"
)

const audiencePort = 7101

// Ear counts what a container hears.
type Ear struct {
	conn *net.UDPConn

	mu    sync.Mutex
	heard map[string]int // times, by text
}

// Hear starts listening in a container that is attached. It ends with the test.
func Hear(t testing.TB, in *testnet.Namespace) *Ear {
	t.Helper()
	e := &Ear{conn: ListenUDP(t, in, netip.AddrPortFrom(netip.IPv6Unspecified(), audiencePort)), heard: make(map[string]int)}
	if err := in.Do(e.join); err != nil {
		t.Fatal(err)
	}
	go e.listen()
	return e
}

// join makes the socket a member of the groups.
func (e *Ear) join() error {
	ifi, err := net.InterfaceByName("ethwe")
	if err != nil {
		return err
	}
	return control(e.conn, func(fd int) error {
		m4 := unix.IPMreqn{Multiaddr: netip.MustParseAddr(string(Multicast4)).As4(), Ifindex: int32(ifi.Index)}
		m6 := unix.IPv6Mreq{Multiaddr: netip.MustParseAddr(string(Multicast6)).As16(), Interface: uint32(ifi.Index)}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &m4),
			unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &m6))
	})
}

func (e *Ear) listen() {
	buf := make([]byte, 2048)
	for {
		n, _, err := e.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		e.mu.Lock()
		e.heard[string(buf[:n])]++
		e.mu.Unlock()
	}
}

// Heard returns how often each text was heard until now.
func (e *Ear) Heard() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.heard)
}

// Count returns how many different texts were heard, and how many were heard again.
func (e *Ear) Count() (texts, again int) {
	for _, n := range e.Heard() {
		texts++
		again += n - 1
	}
	return texts, again
}

// Shout sends n texts to an audience from a site's container, one a millisecond. They
// begin with the site's label and the audience.
func Shout(t testing.TB, from *Site, to Audience, n int) {
	t.Helper()
	addr := netip.MustParseAddr(string(to))
	src := from.In4
	if addr.Is6() {
		src = from.In6
	}
	var conn *net.UDPConn
	if err := from.Box.Do(func() (err error) { // the zone is looked up in the namespace
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
		c, err := d.Dial("udp", netip.AddrPortFrom(addr, audiencePort).String())
		if err == nil {
			conn = c.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range n {
		if _, err := fmt.Fprintf(conn, "%s to %s, %d", from.Label, to, i); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}
