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
// (TCP_NODELAY is Go's default), and the kernel gives up on one after DeadAfter
// without acknowledgement.
func SystemNet() Net { return systemNet{} }

type systemNet struct{}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: HeartbeatEvery, Interval: HeartbeatEvery, Count: 3}

func (systemNet) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	host := ""
	if addr.Addr().IsValid() {
		host = addr.Addr().String()
	}
	return c.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(addr.Port()))))
}

func (systemNet) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	if from.IsValid() && from.Is4() == to.Addr().Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

func (systemNet) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// setUserTimeout bounds how long written data may stay unacknowledged; accepted
// connections inherit it from the listener (tcp(7)).
func setUserTimeout(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel that refuses it leaves us the heartbeats.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(DeadAfter/time.Millisecond))
	})
}
