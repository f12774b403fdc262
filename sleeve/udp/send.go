package udp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sending, in order:
//
//	Send       cuts the buffer into trains the kernel takes
//	sendTrain  one sendmsg with UDP_SEGMENT; when refused →
//	sendPlain  the same datagrams one by one, by sendmmsg
//	again      waits for room in the socket buffer, a bounded time per call
//
// SendBatch puts many trains into one sendmmsg and gives the ones that fail to
// sendTrain.

const (
	batchLen  = 64              // messages per sendmmsg
	sendWaits = 4               // waits for room per call of Send
	waitMS    = 100 / sendWaits // length of each
	fillerLen = 64              // a runt as the last segment resets the firmware of some cards
)

// Sender sends from one Socket. It owns the scratch memory of the calls, so it
// belongs to one goroutine.
type Sender struct {
	sock  *Socket
	sys   kernel
	c     txCounters
	waits int // left in this call

	msgs    [batchLen]mmsghdr
	scratch [batchLen]scratch // msgs[i] points into scratch[i]
	jobs    [batchLen]job     // what msgs[i] carries, SendBatch only
	filler  [fillerLen]byte
	poll    [1]unix.PollFd
}

// scratch is the memory that one msghdr points to. The head of the UDP_SEGMENT message
// never changes; a plain message starts behind it.
type scratch struct {
	name rawName
	iov  [2]unix.Iovec // the datagrams, the filler
	ctl  [sendCtlMax]byte
}

// job is one train, or one datagram, of a batch.
type job struct {
	msg int // index of its Message
	buf []byte
	seg int
}

// Message is one element of SendBatch: what Send takes, and the error it gave.
type Message struct {
	To      *Endpoint
	Buf     []byte
	SegSize int
	Err     error // set by SendBatch
}

// NewSender returns a Sender for one goroutine, which keeps it as long as the
// Socket: its counters stay part of Socket.Stats.
func (s *Socket) NewSender() *Sender {
	t := &Sender{sock: s, sys: newKernel()}
	t.poll[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLOUT}
	for i := range t.msgs {
		m, h := &t.scratch[i], &t.msgs[i].hdr
		putCmsg(m.ctl[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		h.Name, h.Iov = &m.name[0], &m.iov[0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.senders = append(s.senders, t)
	return t
}

// Send sends the datagrams in buf to ep: each segSize bytes, the last one maybe
// shorter. A segSize of 0, or larger than buf, means that buf is one datagram.
// Neither ep nor buf is kept. It may block for 100 ms while the socket buffer is
// full.
func (s *Sender) Send(ep *Endpoint, buf []byte, segSize int) error {
	s.waits = sendWaits
	var tooBig error
	seg := segment(buf, segSize)
	for len(buf) > 0 {
		n := s.trainLen(len(buf), seg)
		switch err := s.sendTrain(ep, buf[:n], seg); err {
		case nil:
		case ErrTooBig:
			tooBig = err // the rest is of the same size, but for the tail
		default:
			s.c.dropped(err, datagrams(len(buf)-n, seg))
			return err
		}
		buf = buf[n:]
	}
	return tooBig
}

// SendBatch sends messages of any sizes to any endpoints, in order, in as few
// system calls as it can. Each Message gets its own Err; the first of them is
// returned. After ErrCongested nothing more is sent.
func (s *Sender) SendBatch(msgs []Message) error {
	s.waits = sendWaits
	n := 0
	for i := range msgs {
		m := &msgs[i]
		m.Err = nil
		buf, seg := m.Buf, segment(m.Buf, m.SegSize)
		for len(buf) > 0 {
			l := s.trainLen(len(buf), seg)
			if !s.gso() {
				l = min(l, seg)
			}
			if n == batchLen {
				s.flush(msgs, n)
				n = 0
			}
			s.jobs[n] = job{msg: i, buf: buf[:l], seg: seg}
			s.fill(n, m.To, buf[:l], seg)
			n++
			buf = buf[l:]
		}
	}
	s.flush(msgs, n)
	for i := range msgs {
		if err := msgs[i].Err; err != nil {
			return err
		}
	}
	return nil
}

// flush sends the first n jobs.
func (s *Sender) flush(msgs []Message, n int) {
	for i := 0; i < n; {
		k, e := s.sys.sendmmsg(s.sock.fd, &s.msgs[i], n-i)
		for ; k > 0; k-- {
			j := &s.jobs[i]
			s.countSent(j.buf, j.seg)
			i++
		}
		if e == 0 || s.again(e) {
			continue
		}
		j := &s.jobs[i]
		err := s.sendTrain(msgs[j.msg].To, j.buf, j.seg)
		s.fail(msgs, j, err)
		i++
		if err == ErrCongested || err == ErrClosed {
			for ; i < n; i++ {
				j := &s.jobs[i]
				s.c.dropped(err, datagrams(len(j.buf), j.seg))
				s.fail(msgs, j, err)
			}
		}
		for r := i; r < n; r++ { // sendTrain used their scratch memory
			j := &s.jobs[r]
			s.fill(r, msgs[j.msg].To, j.buf, j.seg)
		}
	}
}

// fail notes the first error of a job's message.
func (s *Sender) fail(msgs []Message, j *job, err error) {
	if m := &msgs[j.msg]; m.Err == nil {
		m.Err = err
	}
}

// sendTrain sends what fits into one train.
func (s *Sender) sendTrain(ep *Endpoint, buf []byte, seg int) error {
	if len(buf) <= seg || !s.gso() {
		return s.sendPlain(ep, buf, seg)
	}
	s.fill(0, ep, buf, seg)
	e := s.sys.sendmsg(s.sock.fd, &s.msgs[0].hdr)
	for e != 0 && s.again(e) {
		e = s.sys.sendmsg(s.sock.fd, &s.msgs[0].hdr)
	}
	switch {
	case e == 0:
		s.countSent(buf, seg)
		return nil
	case !refusesTrain(e):
		return s.drop(e, ep, len(buf), seg)
	case e == unix.EIO && !s.sock.gsoOff.Swap(true):
		s.sock.log.Warn("udp segmentation offload refused by the kernel, sending plain", "to", ep.String())
	}
	s.c.plain.Add(1)
	return s.sendPlain(ep, buf, seg)
}

// sendPlain sends datagrams without offload.
func (s *Sender) sendPlain(ep *Endpoint, buf []byte, seg int) error {
	var tooBig error
	for len(buf) > 0 {
		n := 0
		for rest := buf; n < batchLen && len(rest) > 0; n++ {
			d := min(seg, len(rest))
			s.fill(n, ep, rest[:d], d)
			rest = rest[d:]
		}
		sent, e := s.transmit(n)
		if sent > 0 {
			l := min(sent*seg, len(buf))
			s.c.sent(sent, l)
			buf = buf[l:]
		}
		switch e {
		case 0:
		case unix.EMSGSIZE:
			// All of this length will fail; a shorter tail may pass.
			tooBig = ErrTooBig
			l := max(len(buf)-len(buf)%seg, min(seg, len(buf)))
			s.c.dropped(tooBig, datagrams(l, seg))
			buf = buf[l:]
		default:
			return s.drop(e, ep, len(buf), seg)
		}
	}
	return tooBig
}

// transmit sends the first n messages; it returns how many, and why no more.
func (s *Sender) transmit(n int) (sent int, e unix.Errno) {
	for sent < n {
		k, e := s.sys.sendmmsg(s.sock.fd, &s.msgs[sent], n-sent)
		sent += k
		if e != 0 && !s.again(e) {
			return sent, e
		}
	}
	return sent, 0
}

// again waits, when e is an error that passes, and reports whether to repeat the
// call. Without a bound a full queue would hold the worker for ever.
func (s *Sender) again(e unix.Errno) bool {
	if !isFull(e) && !isStale(e) || s.waits == 0 {
		return false
	}
	s.waits--
	switch {
	case e == unix.EAGAIN:
		s.c.waits.Add(1)
		s.sys.wait(s.poll[:], waitMS)
	case isFull(e): // the socket is writable: it is memory that lacks
		s.c.waits.Add(1)
		s.sys.wait(nil, 1)
	}
	return true
}

// drop counts what is left of a call after e, and names e.
func (s *Sender) drop(e unix.Errno, ep *Endpoint, size, seg int) error {
	err := sendError(e, ep.ctlLen > 0)
	s.c.dropped(err, datagrams(size, seg))
	return err
}

// countSent counts a message that was sent alone or in a batch.
func (s *Sender) countSent(buf []byte, seg int) {
	n := datagrams(len(buf), seg)
	s.c.sent(n, len(buf))
	if n > 1 {
		s.c.trains.Add(1)
	}
}

// fill makes message i carry buf to ep, as a train when it is longer than seg.
func (s *Sender) fill(i int, ep *Endpoint, buf []byte, seg int) {
	m, h := &s.scratch[i], &s.msgs[i].hdr
	m.name, h.Namelen = ep.name, uint32(ep.nameLen)
	m.iov[0].Base = &buf[0]
	m.iov[0].SetLen(len(buf))
	h.Iovlen = 1
	*(*[sourceCtlMax]byte)(m.ctl[segmentCtl:]) = ep.ctl
	if len(buf) <= seg {
		h.Control = &m.ctl[segmentCtl]
		h.SetControllen(int(ep.ctlLen))
		return
	}
	binary.NativeEndian.PutUint16(m.ctl[cmsgHdr:], uint16(seg))
	h.Control = &m.ctl[0]
	h.SetControllen(segmentCtl + int(ep.ctlLen))
	if s.sock.filler && len(buf)%seg == 0 {
		m.iov[1].Base = &s.filler[0]
		m.iov[1].SetLen(min(fillerLen, seg-1))
		h.Iovlen = 2
	}
}

// gso reports whether trains are sent as one message.
func (s *Sender) gso() bool { return s.sock.segments > 1 && !s.sock.gsoOff.Load() }

// trainLen returns how many of size bytes the next train takes, all of them when
// they are sent plain.
func (s *Sender) trainLen(size, seg int) int {
	if !s.gso() {
		return size
	}
	count, bytes := s.sock.segments, maxTrain
	if s.sock.filler {
		count, bytes = count-1, bytes-fillerLen
	}
	if size <= bytes && size <= count*seg {
		return size
	}
	return min(size, seg*max(1, min(count, bytes/seg)))
}

// segment returns the segment size that segSize means for buf.
func segment(buf []byte, segSize int) int {
	if segSize <= 0 || segSize > len(buf) {
		return len(buf)
	}
	return segSize
}

// datagrams returns the number of datagrams of seg bytes in size bytes.
func datagrams(size, seg int) int {
	if size <= seg {
		return min(size, 1)
	}
	return (size + seg - 1) / seg
}
