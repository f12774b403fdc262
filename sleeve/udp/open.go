package udp

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// open is how the first socket was bound, for the others to follow.
type open struct {
	family int // AF_INET or AF_INET6
	dual   bool
	addr   netip.Addr
	port   uint16
}

// openFirst binds the first socket without SO_REUSEPORT, so that a port which
// another process holds, shared or not, is an error and not a silent split of the
// traffic. It finds out whether there is IPv6.
func openFirst(cfg Config) (int, open, error) {
	o := open{family: unix.AF_INET6, addr: cfg.Addr, port: cfg.Port, dual: !cfg.Addr.IsValid()}
	switch {
	case o.dual:
		o.addr = netip.IPv6Unspecified()
	case cfg.Addr.Is4():
		o.family = unix.AF_INET
	}
	fd, err := openSocket(o, false)
	if o.dual && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
		o = open{family: unix.AF_INET, addr: netip.IPv4Unspecified(), port: cfg.Port}
		fd, err = openSocket(o, false)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = ErrPortInUse
	}
	if err == nil && o.port == 0 {
		if o.port, err = localPort(fd); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, o, fmt.Errorf("listening on udp port %d: %w", cfg.Port, err)
	}
	return fd, o, nil
}

// openRest opens the sockets of lanes 1 and up and steers to them. It returns all of
// them or, when the kernel lacks something, none.
func (g *Group) openRest(cfg Config, o open, first int) []int {
	if cfg.Sockets == 1 {
		return nil
	}
	// The order of binding is the order in the reuseport group. Setting the option
	// on a bound socket lets later ones join it (net/ipv4/udp.c, udp_lib_lport_inuse
	// and udp_reuseport_add_sock).
	var fds []int
	err := unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	for len(fds) < cfg.Sockets-1 && err == nil {
		var fd int
		if fd, err = openSocket(o, true); err == nil {
			fds = append(fds, fd)
		}
	}
	if err == nil {
		err = steer(first, cfg.Sockets)
	}
	if err == nil {
		return fds
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	g.log.Warn("cannot steer datagrams by lane, using one udp socket", "sockets", cfg.Sockets, "err", err)
	return nil
}

// openSocket makes one bound socket. Everything that changes what is received is
// set before bind.
func openSocket(o open, shared bool) (fd int, err error) {
	fd, err = unix.Socket(o.family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if shared {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, err
		}
	}
	if err = setOptions(fd, o); err != nil {
		return -1, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(o.port), Addr: as4(o.addr)}
	if o.family == unix.AF_INET6 {
		scope, err := scopeOf(o.addr.Zone())
		if err != nil {
			return -1, fmt.Errorf("binding to %v: %w", o.addr, err)
		}
		sa = &unix.SockaddrInet6{Port: int(o.port), Addr: o.addr.As16(), ZoneId: scope}
	}
	if err = unix.Bind(fd, sa); err != nil {
		return -1, fmt.Errorf("binding to %v: %w", o.addr, err)
	}
	return fd, nil
}

// as4 is Addr.As4 that gives 0.0.0.0 for addresses without an IPv4 form.
func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// setOptions sets what the package cannot do without: DF on every datagram with no
// regard to the kernel's cached path MTU (which ICMP can set for the whole host),
// the local address of received datagrams, and the count of lost ones. On a
// dual-stack socket the IPv4 option governs IPv4 traffic.
func setOptions(fd int, o open) error {
	type option struct {
		name              string
		level, opt, value int
	}
	opts := []option{
		{"IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{"SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
	}
	if o.family == unix.AF_INET6 {
		v6only := 1
		if o.dual {
			v6only = 0
		}
		opts = append(opts,
			option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, v6only},
			option{"IPV6_MTU_DISCOVER", unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			option{"IPV6_RECVPKTINFO", unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1})
	} else {
		opts = append(opts, option{"IP_PKTINFO", unix.SOL_IP, unix.IP_PKTINFO, 1})
	}
	for _, op := range opts {
		if err := unix.SetsockoptInt(fd, op.level, op.opt, op.value); err != nil {
			return fmt.Errorf("setting %s: %w", op.name, err)
		}
	}
	return nil
}

func localPort(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, unix.EAFNOSUPPORT
}

// probe sets the optional features on all sockets and records what came of it.
func (g *Group) probe(cfg Config, fds []int) {
	f := &g.feat
	f.GRO, f.RcvBuf, f.SndBuf = !cfg.NoGRO, cfg.RcvBuf, cfg.SndBuf
	for _, fd := range fds {
		if f.GRO && unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) != nil {
			f.GRO = false
		}
		f.RcvBuf = min(f.RcvBuf, setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.RcvBuf))
		f.SndBuf = min(f.SndBuf, setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SndBuf))
	}
	if f.RcvBuf < cfg.RcvBuf || f.SndBuf < cfg.SndBuf {
		g.log.Warn("udp socket buffers are smaller than wanted, bursts may be lost",
			"rcvbuf", f.RcvBuf, "sndbuf", f.SndBuf, "raise", "sysctl net.core.rmem_max net.core.wmem_max")
	}
	f.MaxSegments = 1
	if !cfg.NoGSO {
		f.MaxSegments = probeSegments(fds[0])
	}
	f.GSO = f.MaxSegments > 1
	f.Filler = f.GSO && needsFiller(kernelRelease())
	if !f.GSO || !f.GRO {
		g.log.Info("udp offload is off, throughput will be lower", "gso", f.GSO, "gro", f.GRO)
	}
}

// setBuffer asks for size bytes, past the limit of the sysctl if it may, and returns
// what it got. The kernel's own figure is twice that, for its bookkeeping.
func setBuffer(fd, force, plain, size int) int {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
	if err != nil {
		return 0
	}
	return got / 2
}
