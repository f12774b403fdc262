package udp

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// slotLen is the size of a receive slot. A joined train never exceeds it;
	// anything smaller would cut trains (net/ipv4/udp_offload.c).
	slotLen = 65535

	slotStride = 1 << 16

	// DefaultSlots is the number of slots that keeps a worker's buffers inside a
	// core's second-level cache.
	DefaultSlots = 8
)

// Slot is one packet from the socket: a datagram, or a train of datagrams from one
// sender that the kernel joined. It and its Data are valid until the next Recv; Data
// may be written to.
type Slot struct {
	Data    []byte
	SegSize int            // length of each datagram but the last; 0: Data is one datagram
	From    netip.AddrPort // sender, 4in6 unmapped
	To      netip.Addr     // local address it was sent to
	Reply   Endpoint       // destination From, source To; compare it with == to see a sender move

	next int // offset of the datagram that Next returns
}

// Next returns the next datagram of the slot, or nil at the end. Fillers are left
// out, see the package comment.
func (s *Slot) Next() []byte {
	for s.next < len(s.Data) {
		end := len(s.Data)
		if s.SegSize > 0 {
			end = min(end, s.next+s.SegSize)
		}
		d := s.Data[s.next:end:end]
		s.next = end
		if len(d) > 1 && d[0] != 0 {
			return d
		}
	}
	return nil
}

// Receiver receives from one Socket. It owns the memory of its slots, so it belongs
// to one goroutine.
type Receiver struct {
	sock *Socket
	c    rxCounters

	slots []Slot
	arena []byte // slotStride bytes for each message
	msgs  []mmsghdr
	iovs  []unix.Iovec
	names []rawName
	ctls  [][recvCtlMax]byte
	used  int // messages that the last call wrote to

	drops uint32 // last SO_RXQ_OVFL
	last  sender
}

// sender is the decoded form of the last addresses seen: they rarely change from one
// slot to the next.
type sender struct {
	name  rawName
	local localAddr
	from  netip.AddrPort
	to    netip.Addr
	reply Endpoint
}

// NewReceiver returns the Receiver for the worker of this socket, with the given
// number of slots of 64 KiB each (0: DefaultSlots).
func (s *Socket) NewReceiver(slots int) *Receiver {
	if slots <= 0 {
		slots = DefaultSlots
	}
	r := &Receiver{
		sock:  s,
		slots: make([]Slot, slots),
		arena: make([]byte, slots*slotStride),
		msgs:  make([]mmsghdr, slots),
		iovs:  make([]unix.Iovec, slots),
		names: make([]rawName, slots),
		ctls:  make([][recvCtlMax]byte, slots),
		used:  slots,
	}
	for i := range r.msgs {
		r.iovs[i].Base = &r.arena[i*slotStride]
		r.iovs[i].SetLen(slotLen)
		h := &r.msgs[i].hdr
		h.Name, h.Control, h.Iov, h.Iovlen = &r.names[i][0], &r.ctls[i][0], &r.iovs[i], 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receivers = append(s.receivers, r)
	return r
}

// Recv returns the slots that are queued, at least one and as many as the Receiver
// has at most, or ErrWouldBlock. They are valid until the next Recv. Any other error
// is final. Recv never blocks.
func (r *Receiver) Recv() ([]Slot, error) {
	// Errors and cut slots are stepped over, a bounded number of times.
	for range len(r.msgs) {
		r.rearm()
		n, e := recvmmsg(r.sock.fd, &r.msgs[0], len(r.msgs))
		switch {
		case e == 0:
			r.used = n
			if slots := r.collect(n); len(slots) > 0 {
				return slots, nil
			}
		case e == unix.EAGAIN:
			return nil, ErrWouldBlock
		case e == unix.EBADF || e == unix.ENOTSOCK:
			return nil, ErrClosed
		case e == unix.EFAULT || e == unix.EINVAL:
			return nil, fmt.Errorf("receiving: %w", e)
		default:
			r.c.errors.Add(1)
		}
	}
	return nil, ErrWouldBlock
}

// rearm restores what the last call overwrote.
func (r *Receiver) rearm() {
	for i := range r.used {
		h := &r.msgs[i].hdr
		h.Namelen, h.Flags = uint32(len(rawName{})), 0
		h.SetControllen(recvCtlMax)
	}
	r.used = 0
}

// collect makes slots of the first n messages.
func (r *Receiver) collect(n int) []Slot {
	k, count, bytes := 0, 0, 0
	for i := range n {
		m := &r.msgs[i]
		// Without its control messages the slot's datagrams cannot be told apart.
		if m.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			r.c.truncated.Add(1)
			continue
		}
		size := min(int(m.len), slotLen)
		c := parseControl(r.ctls[i][:min(int(m.hdr.Controllen), recvCtlMax)])
		if c.hasDrops && c.drops != r.drops {
			r.c.overflow.Add(uint64(c.drops - r.drops))
			r.drops = c.drops
		}
		if c.segSize >= size {
			c.segSize = 0
		}
		if r.names[i] != r.last.name || c.local != r.last.local {
			r.last = decode(r.names[i], c.local)
		}
		off := i * slotStride
		r.slots[k] = Slot{
			Data: r.arena[off : off+size : off+size], SegSize: c.segSize,
			From: r.last.from, To: r.last.to, Reply: r.last.reply,
		}
		k++
		bytes += size
		if c.segSize == 0 {
			count++
		} else {
			count += datagrams(size, c.segSize)
		}
	}
	r.c.slots.Add(uint64(k))
	r.c.datagrams.Add(uint64(count))
	r.c.bytes.Add(uint64(bytes))
	return r.slots[:k]
}

// decode makes addresses out of what the kernel wrote. A multicast address cannot be
// the source of a reply.
func decode(name rawName, local localAddr) sender {
	s := sender{name: name, local: local, from: name.addrPort(), to: local.addr()}
	source := s.to
	if source.IsMulticast() {
		source = netip.Addr{}
	}
	s.reply, _ = NewEndpoint(s.from, source) // invalid for port 0: not to be replied to
	return s
}
