package mesh

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SystemNet is the host's network. Its connections send small messages at once
// (TCP_NODELAY is Go's default) and, where packets are lost, repeat them after the same
// short time again and again, as is fair while few are under way. The kernel gives up
// on a connection after DeadAfter without acknowledgement.
func SystemNet() Net { return systemNet{} }

type systemNet struct{}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: HeartbeatEvery, Interval: HeartbeatEvery, Count: 3}

func (systemNet) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: keepAlive, Control: setOptions}
	c.SetMultipathTCP(false) // its sockets don't share a port with others
	host := ""
	if addr.Addr().IsValid() {
		host = addr.Addr().String()
	}
	l, err := c.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(addr.Port()))))
	if err != nil {
		return nil, err
	}
	// Only now, so that the port was free: no other daemon has it.
	if rc, err := l.(*net.TCPListener).SyscallConn(); err == nil {
		share(rc)
	}
	return l, nil
}

func (systemNet) Dial(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: setOptions}
	bind := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		bind = netip.IPv4Unspecified()
	}
	if from.Addr().IsValid() && from.Addr().Is4() == to.Addr().Is4() {
		bind = from.Addr()
	}
	if from.Port() != 0 {
		d.Control = func(network, address string, c syscall.RawConn) error {
			share(c)
			// What is left of the connection must not keep the next daemon, which asks
			// for a port that nobody listens on, from this one (as Go's listeners do).
			c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return setOptions(network, address, c)
		}
	}
	if from.Port() != 0 || !bind.IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(bind, from.Port()))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// share lets a socket have a port together with others of this program that allow it.
// A connection belongs to the socket that made it, a new one to the listener.
func share(c syscall.RawConn) {
	c.Control(func(fd uintptr) {
		// A kernel that refuses it dials from no port of ours.
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
}

func (systemNet) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// setOptions prepares a socket for a network that loses packets; accepted connections
// inherit all of it from the listener. A kernel that refuses one leaves us the
// heartbeats, and its own longer waits.
func setOptions(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// How long written data may stay unacknowledged (tcp(7)).
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(DeadAfter/time.Millisecond))
		// The wait of a stream with less than four packets under way doubles from the
		// seventh repetition on only (Documentation/networking/tcp-thin.rst). Congestion
		// control that keeps no threshold, such as BBR, makes the kernel ignore it.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
	})
}
