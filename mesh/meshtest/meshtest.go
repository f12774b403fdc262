// Package meshtest has a TCP-like network in memory, for many Routers in one
// process.
//
// A [Net] has hosts, each with one or more addresses; a [Host] is a mesh.Net. It
// works inside testing/synctest: everything blocks on condition variables and
// timers. The test can make dials fail, cut two hosts off from one another (bytes
// wait, as they would with TCP, and nobody is told), and crash a host (what it
// had open is reset, as by the kernel of a killed process).
//
// # Concurrency
//
// All methods may be called from any goroutine.
package meshtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Net is a network. Its lock is taken before that of a connection.
type Net struct {
	bytes atomic.Int64
	loss  loss

	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
	names     map[string][]netip.Addr
	conns     map[*conn]bool         // open ends, and some that were closed just now
	cuts      map[[2]netip.Addr]bool // from, to
	dialHook  func(from netip.Addr, to netip.AddrPort) error
	port      uint32
	nat       map[netip.Addr]netip.Addr // host behind → what others see
	holes     map[hole]*way
}

// New makes a network without hosts.
func New() *Net {
	return &Net{
		listeners: map[netip.AddrPort]*listener{}, names: map[string][]netip.Addr{},
		conns: map[*conn]bool{}, cuts: map[[2]netip.Addr]bool{}, port: 40000,
		nat: map[netip.Addr]netip.Addr{}, holes: map[hole]*way{},
	}
}

// Host returns the host with these addresses; it dials from the first of the
// family unless told otherwise.
func (n *Net) Host(addrs ...string) *Host {
	h := &Host{net: n}
	for _, a := range addrs {
		h.addrs = append(h.addrs, netip.MustParseAddr(a))
	}
	return h
}

// Name makes a host name resolve to these addresses; none: not at all.
func (n *Net) Name(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = nil
	for _, a := range addrs {
		n.names[name] = append(n.names[name], netip.MustParseAddr(a))
	}
}

// OnDial installs a hook that can make dials fail; nil removes it. It is called
// without a lock.
func (n *Net) OnDial(hook func(from netip.Addr, to netip.AddrPort) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialHook = hook
}

// Cut stops all bytes between two addresses until Mend.
func (n *Net) Cut(a, b string) { n.setCut(a, b, true, true) }

// CutOneWay stops bytes from one address to another until Mend.
func (n *Net) CutOneWay(from, to string) { n.setCut(from, to, true, false) }

// Mend ends a Cut; what was written meanwhile arrives.
func (n *Net) Mend(a, b string) { n.setCut(a, b, false, true) }

func (n *Net) setCut(a, b string, cut, both bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x, y := netip.MustParseAddr(a), netip.MustParseAddr(b)
	n.cuts[[2]netip.Addr{x, y}] = cut
	if both {
		n.cuts[[2]netip.Addr{y, x}] = cut
	}
	for c := range n.conns {
		c.mu.Lock()
		c.cutOff = n.cuts[[2]netip.Addr{c.remote.Addr(), c.local.Addr()}]
		c.cond.Broadcast()
		c.mu.Unlock()
	}
}

// isCut reports whether a connection between the two can't be made.
func (n *Net) isCut(a, b netip.Addr) bool {
	return n.cuts[[2]netip.Addr{a, b}] || n.cuts[[2]netip.Addr{b, a}]
}

// Bytes returns how many bytes were written to all connections so far.
func (n *Net) Bytes() int64 { return n.bytes.Load() }

// Open returns how many ends of connections are open.
func (n *Net) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// Host is one machine of a Net.
type Host struct {
	net   *Net
	addrs []netip.Addr
}

// Crash resets all connections of the host and closes its listeners, as when its
// process is killed. Ends that are cut off learn it when they write after Mend.
func (h *Host) Crash() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for addr, l := range h.net.listeners {
		if slices.Contains(h.addrs, addr.Addr()) {
			l.closeLocked()
		}
	}
	for c := range h.net.conns {
		if slices.Contains(h.addrs, c.local.Addr()) {
			c.mu.Lock()
			if c.cutOff || c.peer.cutOff {
				c.peer.orphan = true
			} else {
				c.peer.reset = true
			}
			c.reset = true
			c.closeLocked()
			c.mu.Unlock()
			delete(h.net.conns, c)
		}
	}
}

// Listen implements mesh.Net.
func (h *Host) Listen(_ context.Context, at netip.AddrPort) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l := &listener{net: h.net, cond: sync.NewCond(&h.net.mu)}
	addrs := h.addrs
	if at.Addr().IsValid() {
		addrs = []netip.Addr{at.Addr()}
	}
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a, at.Port())
		if h.net.listeners[ap] != nil {
			l.closeLocked()
			return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
		}
		h.net.listeners[ap] = l
		l.addrs = append(l.addrs, ap)
	}
	return l, nil
}

// Dial implements mesh.Net. While the address is cut off, or a NAT lets nobody in, it
// tries each second, until ctx ends.
func (h *Host) Dial(ctx context.Context, local, to netip.AddrPort) (net.Conn, error) {
	from := local.Addr()
	if !from.IsValid() {
		i := slices.IndexFunc(h.addrs, func(a netip.Addr) bool { return a.Is4() == to.Addr().Is4() })
		if i < 0 {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}
		}
		from = h.addrs[i]
	}
	h.net.mu.Lock()
	hook := h.net.dialHook
	h.net.mu.Unlock()
	if hook != nil {
		if err := hook(from, to); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if local = netip.AddrPortFrom(from, local.Port()); local.Port() == 0 {
		h.net.port++
		local = netip.AddrPortFrom(from, uint16(h.net.port%50000+10000))
	}
	seen := h.net.seenLocked(local)
	at := to // where it arrives
	dialing := h.net.pierceLocked(local, to)
	defer func() { dialing.dialer = nil }()
	for {
		if c := dialing.met; c != nil {
			dialing.met = nil
			return c, nil
		}
		in, open := h.net.insideLocked(seen, to)
		if in != nil && in.dialer != nil && in != dialing {
			a, b := h.net.joinLocked(local, to, in.dialer.local, seen)
			in.met = b
			in.dialer.wake()
			return a, nil
		}
		if in != nil {
			at = in.local
		}
		if open && !h.net.isCut(from, at.Addr()) && !h.net.loss.lost() && !h.net.loss.lost() {
			break
		}
		dialing.dialer = &dialer{local: local, woken: make(chan struct{}, 1)}
		woken := dialing.dialer.woken
		h.net.mu.Unlock()
		retransmit := time.NewTimer(time.Second) // as Linux does for the first seconds, since 6.5
		select {
		case <-ctx.Done():
		case <-woken:
		case <-retransmit.C:
		}
		retransmit.Stop()
		h.net.mu.Lock()
		if ctx.Err() != nil && dialing.met == nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}
	}
	l := h.net.listeners[at]
	if l == nil || len(l.backlog) >= 128 {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	a, b := h.net.joinLocked(local, to, at, seen)
	l.backlog = append(l.backlog, b)
	l.cond.Broadcast()
	return a, nil
}

// joinLocked makes the two ends of a connection.
func (n *Net) joinLocked(aLocal, aRemote, bLocal, bRemote netip.AddrPort) (a, b *conn) {
	mu := new(sync.Mutex)
	a = &conn{net: n, mu: mu, cond: sync.NewCond(mu), local: aLocal, remote: aRemote}
	b = &conn{net: n, mu: mu, cond: sync.NewCond(mu), local: bLocal, remote: bRemote, peer: a}
	a.peer = b
	n.conns[a], n.conns[b] = true, true
	return a, b
}

// Resolve implements mesh.Net.
func (h *Host) Resolve(_ context.Context, host string) ([]netip.Addr, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if a := h.net.names[host]; len(a) > 0 {
		return slices.Clone(a), nil
	}
	return nil, fmt.Errorf("lookup %s: no such host", host)
}

type listener struct {
	net     *Net
	cond    *sync.Cond // on net.mu
	addrs   []netip.AddrPort
	backlog []*conn
	closed  bool
}

func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for len(l.backlog) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, net.ErrClosed
	}
	c := l.backlog[0]
	l.backlog = l.backlog[1:]
	return c, nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addrs[0]) }

func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	for _, a := range l.addrs {
		if l.net.listeners[a] == l {
			delete(l.net.listeners, a)
		}
	}
	for _, c := range l.backlog {
		c.mu.Lock()
		c.peer.reset = true
		c.closeLocked()
		c.mu.Unlock()
		delete(l.net.conns, c)
	}
	l.closed, l.backlog = true, nil
	l.cond.Broadcast()
}

// bufSize is how much a connection holds before writers block.
const bufSize = 64 << 10

// conn is one end of a connection; the fields of both ends are under one lock.
type conn struct {
	net           *Net
	mu            *sync.Mutex
	cond          *sync.Cond // on mu, what this end waits for
	local, remote netip.AddrPort
	peer          *conn

	in     []byte // received, not read yet; at most bufSize with late
	late   late   // on the way
	cutOff bool   // nothing arrives here
	closed bool
	shut   bool // writes are over (FIN sent)
	reset  bool // by the other end
	orphan bool // the other end is gone and we'll learn it when we write

	readBy, writeBy deadline
}

// deadline has a timer that rings at the time or earlier: so setting it to a later
// time again and again costs nothing.
type deadline struct {
	at    time.Time
	timer *time.Timer
	rings time.Time
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.err("read", net.ErrClosed)
		case c.readBy.passed():
			return 0, c.err("read", os.ErrDeadlineExceeded)
		case c.cutOff:
		case c.reset:
			return 0, c.err("read", syscall.ECONNRESET)
		case len(c.in) > 0:
			n := copy(b, c.in)
			if c.in = c.in[n:]; len(c.in) == 0 {
				c.in = nil
			}
			c.peer.cond.Broadcast()
			return n, nil
		case c.peer.shut && !c.orphan && c.late.bytes == 0:
			return 0, io.EOF
		}
		c.cond.Wait()
	}
}

func (c *conn) Write(b []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		cut := c.cutOff || c.peer.cutOff
		switch {
		case c.closed || c.shut:
			return n, c.err("write", net.ErrClosed)
		case c.writeBy.passed():
			return n, c.err("write", os.ErrDeadlineExceeded)
		case !cut && (c.reset || c.peer.closed):
			c.reset = true
			c.cond.Broadcast()
			return n, c.err("write", syscall.ECONNRESET)
		}
		k := min(len(b), bufSize-len(c.peer.in)-c.peer.late.bytes)
		c.peer.arriveLocked(b[:k])
		n += k
		c.net.bytes.Add(int64(k))
		c.peer.cond.Broadcast()
		if b = b[k:]; len(b) == 0 {
			return n, nil
		}
		c.cond.Wait()
	}
}

func (c *conn) err(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: net.TCPAddrFromAddrPort(c.remote), Err: err}
}

// CloseWrite ends the stream that the other end reads.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	c.peer.cond.Broadcast()
	return nil
}

// Close resets the connection when received bytes weren't read, like TCP.
func (c *conn) Close() error {
	c.mu.Lock()
	if !c.closed && len(c.in) > 0 {
		c.peer.reset = true
		c.peer.in = nil
	}
	c.closeLocked()
	c.mu.Unlock()
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return nil
}

func (c *conn) closeLocked() {
	c.closed, c.shut = true, true
	for _, d := range []*deadline{&c.readBy, &c.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	c.cond.Broadcast()
	c.peer.cond.Broadcast()
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	c.SetWriteDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.setDeadline(&c.readBy, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.setDeadline(&c.writeBy, t); return nil }

func (c *conn) setDeadline(d *deadline, t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.at = t
	if t.IsZero() || c.closed {
		return
	}
	if d.passed() {
		c.cond.Broadcast()
	} else if d.timer == nil || t.Before(d.rings) {
		c.ringLocked(d)
	}
}

// ringLocked makes the timer of d ring at its time.
func (c *conn) ringLocked(d *deadline) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.rings = d.at
	d.timer = time.AfterFunc(time.Until(d.at), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.closed || d.at.IsZero():
			d.timer = nil
		case d.passed():
			d.timer = nil
			c.cond.Broadcast()
		default:
			c.ringLocked(d)
		}
	})
}
