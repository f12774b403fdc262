package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many questions one system call takes in; as many replies go out in one.
const batch = 32

// servePacket answers on one UDP socket until it is closed.
func (s *Server) servePacket(ctx context.Context, p net.PacketConn) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.Close() // ends what the group still sends
	var err error
	if u, ok := p.(*net.UDPConn); ok {
		err = s.serveUDP(ctx, u, &wg)
	} else {
		err = s.serveAny(ctx, p, &wg)
	}
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serving DNS over UDP: %w", err)
}

// serveAny reads any kind of packet socket, one question at a time.
func (s *Server) serveAny(ctx context.Context, p net.PacketConn, wg *sync.WaitGroup) error {
	sc, c := s.newScratch(), s.newCounters()
	in, out := make([]byte, maxRequest+1), make([]byte, 0, maxUDP)
	for {
		n, from, err := p.ReadFrom(in)
		if err != nil {
			return err
		}
		source, ok := from.(interface{ AddrPort() netip.AddrPort })
		if !ok || !s.mayAsk(source.AddrPort().Addr().Unmap(), n, c) {
			continue
		}
		reply, ok := s.quick(out, in[:n], sc, c, true)
		if !ok {
			s.later(ctx, wg, in[:n], sc, func(b []byte) error {
				_, err := p.WriteTo(b, from)
				return err
			})
			continue
		}
		if len(reply) > 0 {
			if _, err := p.WriteTo(reply, from); err != nil {
				c.drops[DropSend].Add(1)
			}
		}
	}
}

func (s *Server) mayAsk(source netip.Addr, n int, c *counters) bool {
	if !s.allow(source) {
		c.drops[DropSource].Add(1)
		return false
	}
	if n > maxRequest {
		c.drops[DropLong].Add(1)
		return false
	}
	return true
}

// later answers a question that takes time beside the worker. Over maxWaiting the
// answer is that there is none, at once.
func (s *Server) later(ctx context.Context, wg *sync.WaitGroup, request []byte, sc *scratch, send func([]byte) error) {
	request = append([]byte(nil), request...)
	q := &scratch{q: sc.q}
	wg.Add(1)
	go func() {
		defer wg.Done()
		if b := s.respond(ctx, request, q, true); len(b) > 0 {
			if err := send(b); err != nil && ctx.Err() == nil {
				s.shared.drops[DropSend].Add(1)
			}
		}
	}()
}

// mmsghdr is struct mmsghdr of Linux's include/linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// slot is one question and its reply.
type slot struct {
	from    unix.RawSockaddrInet6 // or an Inet4: the kernel says by the family
	iov     unix.Iovec
	outIov  unix.Iovec
	control [64]byte // the address that was asked, if the socket has many
	in      [maxRequest + 1]byte
	out     [maxUDP]byte
}

// udpWorker reads one socket in batches. All of it belongs to one goroutine.
type udpWorker struct {
	s     *Server
	conn  *net.UDPConn
	raw   syscall.RawConn
	sc    *scratch
	c     *counters
	many  bool // the socket is bound to no address: replies must say from which
	slots [batch]slot
	in    [batch]mmsghdr
	out   [batch]mmsghdr
	got   int
	send  int // messages of out
	sent  int
	err   error
}

// serveUDP reads a UDP socket.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, wg *sync.WaitGroup) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	w := &udpWorker{s: s, conn: conn, raw: raw, sc: s.newScratch(), c: s.newCounters()}
	if local, ok := conn.LocalAddr().(*net.UDPAddr); ok && local.IP.IsUnspecified() {
		w.many = true
		if err := raw.Control(askDestination); err != nil {
			return err
		}
	}
	w.init()
	read, write := w.read, w.write // made once: they escape
	for {
		if err := raw.Read(read); err != nil {
			return err
		}
		if w.err != nil {
			return w.err
		}
		w.send, w.sent = 0, 0
		for i := range w.got {
			w.answer(ctx, wg, i)
		}
		for w.sent < w.send {
			if err := raw.Write(write); err != nil {
				return err
			}
		}
	}
}

// askDestination lets the kernel say to which address a packet came.
func askDestination(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// init points the kernel to the slots.
func (w *udpWorker) init() {
	for i := range w.slots {
		sl, h := &w.slots[i], &w.in[i].hdr
		sl.iov.Base = &sl.in[0]
		sl.iov.SetLen(len(sl.in))
		h.Name = (*byte)(unsafe.Pointer(&sl.from))
		h.Iov = &sl.iov
		h.SetIovlen(1)
		if w.many {
			h.Control = &sl.control[0]
		}
	}
	w.got = batch
}

// read fills the slots; false lets the poller wait.
func (w *udpWorker) read(fd uintptr) bool {
	for i := range w.got { // the kernel changed what it used
		h := &w.in[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		if w.many {
			h.SetControllen(len(w.slots[i].control))
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&w.in)), batch, unix.MSG_DONTWAIT, 0, 0)
	w.got, w.err = int(n), nil
	switch errno {
	case 0:
		return true
	case unix.EAGAIN:
		return false
	case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH: // ICMP of an earlier reply
		w.got = 0
		return true
	}
	w.got, w.err = 0, errno
	return true
}

// write sends the replies that are ready; one that cannot be sent is counted and left
// out.
func (w *udpWorker) write(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.out[w.sent])), uintptr(w.send-w.sent), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		w.sent += int(n)
	case unix.EAGAIN:
		return false
	case unix.EINTR:
	default:
		w.c.drops[DropSend].Add(1)
		w.sent++
	}
	return true
}

// source reads the sockaddr of a slot.
func (sl *slot) source() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sl.from.Port))[:])
	if sl.from.Family == unix.AF_INET {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sl.from))
		return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sl.from.Addr).Unmap(), port)
}

// answer deals with the question in slot i.
func (w *udpWorker) answer(ctx context.Context, wg *sync.WaitGroup, i int) {
	sl, h := &w.slots[i], &w.in[i]
	n := int(h.len)
	if !w.s.mayAsk(sl.source().Addr(), n, w.c) {
		return
	}
	reply, ok := w.s.quick(sl.out[:0], sl.in[:n], w.sc, w.c, true)
	if !ok {
		name := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&sl.from)), h.hdr.Namelen)...)
		control := append([]byte(nil), w.controlOf(i)...)
		w.s.later(ctx, wg, sl.in[:n], w.sc, func(b []byte) error { return w.sendOne(b, name, control) })
		return
	}
	if len(reply) == 0 {
		return
	}
	o := &w.out[w.send].hdr
	sl.outIov.Base = &reply[0]
	sl.outIov.SetLen(len(reply))
	*o = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&sl.from)), Namelen: h.hdr.Namelen, Iov: &sl.outIov}
	o.SetIovlen(1)
	if c := w.controlOf(i); len(c) > 0 {
		o.Control = &c[0]
		o.SetControllen(len(c))
	}
	w.send++
}

// controlOf makes of what the kernel said about a question's destination what it must
// hear about the reply's source.
func (w *udpWorker) controlOf(i int) []byte {
	h := &w.in[i].hdr
	if !w.many || h.Controllen < unix.SizeofCmsghdr {
		return nil
	}
	c := w.slots[i].control[:h.Controllen]
	cm := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	data := c[unix.SizeofCmsghdr:]
	switch {
	case cm.Level == unix.IPPROTO_IP && cm.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex = 0 // let the routes decide
	case cm.Level == unix.IPPROTO_IPV6 && cm.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		if p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])); !netip.AddrFrom16(p.Addr).IsLinkLocalUnicast() {
			p.Ifindex = 0
		}
	default:
		return nil
	}
	return c[:min(uint64(len(c)), uint64(cmsgAlign(int(cm.Len))))]
}

func cmsgAlign(n int) int { return (n + 7) &^ 7 }

// sendOne sends a reply that took time, from its own goroutine.
func (w *udpWorker) sendOne(b, name, control []byte) error {
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	h := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov}
	h.SetIovlen(1)
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	var errno syscall.Errno
	err := w.raw.Write(func(fd uintptr) bool {
		_, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
