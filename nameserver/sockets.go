package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Sockets are where questions come from: bound by Listen, or by a test, or by whoever
// started the daemon. A *net.UDPConn is read in batches.
type Sockets struct {
	Packet []net.PacketConn
	Stream []net.Listener
}

// Close closes all of them.
func (s Sockets) Close() {
	for _, p := range s.Packet {
		p.Close()
	}
	for _, l := range s.Stream {
		l.Close()
	}
}

// Listen binds UDP and TCP of addr, IPv4 or IPv6, with n UDP sockets among which the
// kernel spreads the questions by their sources. Each has its worker; two are plenty.
func Listen(ctx context.Context, addr netip.AddrPort, n int) (s Sockets, err error) {
	defer func() {
		if err != nil {
			s.Close()
			s = Sockets{}
		}
	}()
	reuse := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // bursts; the kernel may give less
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	family := "4"
	if addr.Addr().Is6() {
		family = "6"
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp"+family, addr.String())
	if err != nil {
		return s, fmt.Errorf("listening for DNS over TCP: %w", err)
	}
	s.Stream = append(s.Stream, l)
	addr = netip.AddrPortFrom(addr.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
	if n == 1 {
		reuse.Control = nil // so that a second server on the port is noticed
	}
	for range max(n, 1) {
		p, err := reuse.ListenPacket(ctx, "udp"+family, addr.String())
		if err != nil {
			return s, fmt.Errorf("listening for DNS over UDP: %w", err)
		}
		s.Packet = append(s.Packet, p)
	}
	return s, nil
}

// Serve answers on more sockets until ctx ends and then returns nil, or until one of
// them breaks. It closes them. It may run beside Run, for addresses that come later.
func (s *Server) Serve(ctx context.Context, sockets Sockets) error {
	for _, a := range sockets.addrs() {
		s.bind(a, +1)
		defer s.bind(a, -1)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		sockets.Close() // wakes the others
		return nil
	})
	for _, p := range sockets.Packet {
		g.Go(func() error { return s.servePacket(ctx, p) })
	}
	pool := newPool()
	for _, l := range sockets.Stream {
		g.Go(func() error { return s.serveStream(ctx, l, pool) })
	}
	return g.Wait()
}

func (s *Server) bind(a netip.AddrPort, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound[a] += by; s.bound[a] == 0 {
		delete(s.bound, a)
	}
}

func (s Sockets) addrs() (out []netip.AddrPort) {
	add := func(a net.Addr) {
		switch a := a.(type) {
		case *net.UDPAddr:
			out = append(out, unmap(a.AddrPort()))
		case *net.TCPAddr:
			out = append(out, unmap(a.AddrPort()))
		}
	}
	for _, p := range s.Packet {
		add(p.LocalAddr())
	}
	for _, l := range s.Stream {
		add(l.Addr())
	}
	return out
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// pause waits; false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func tooManyFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED)
}
