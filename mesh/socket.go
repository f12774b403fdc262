package mesh

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weave/crypto/handshake"
	"weave/mesh/overlay"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

// Times of a control connection.
const (
	HandshakeTimeout = 10 * time.Second // from the socket to admission
	HeartbeatEvery   = 5 * time.Second
	DeadAfter        = 15 * time.Second // without a message, or with one that can't be written
	drainTime        = time.Second      // for the last message to arrive after we stopped
)

// keepBuffer is the largest buffer, in bytes, that a connection keeps between
// messages: with hundreds of connections idle memory counts.
const keepBuffer = 2 << 10

// What one peer may make us do with gossip; a reader that is over it waits.
const (
	gossipRate  = 4 << 20 // bytes per second
	gossipBurst = 32 << 20
	gossipCost  = 2 << 10 // of a message, besides its bytes
)

// socket is the network's side of a connection: its socket, and the two
// goroutines that read and write it.
//
// The reader's goroutine runs serve and owns the socket's end. The loop knows a
// socket as a *conn from admission on.
type socket struct {
	r        *Router
	nc       net.Conn
	outbound bool
	attempt  uint64 // of the connection maker; 0: inbound
	found    bool   // the address came from other peers
	hinted   bool   // the address came from a peer that had no room
	room     wire.Room
	pressed  bool // another connection was let go for it; owned by the loop
	opened   bool // we dialed because the other end asked, and that is inbound
	local    netip.AddrPort
	remote   netip.AddrPort
	trusts   bool // we trust them
	q        *queue

	evicted  atomic.Bool           // by the gate
	closing  atomic.Bool           // the last message is queued: read only until the end
	writeErr atomic.Pointer[error] // what stopped the writer

	// Set by the reader's goroutine before it asks for admission.
	hs    handshake.Result
	agree overlay.Agreement
	offer overlay.Offer // theirs
	hello wire.Hello
	uid   uint64
	sign  topo.Key // of the peer's topology records
	mark  topo.Mark
}

func (r *Router) newSocket(nc net.Conn, attempt uint64) *socket {
	s := &socket{
		r: r, nc: nc, outbound: attempt != 0, attempt: attempt, q: newQueue(),
		local: addrPort(nc.LocalAddr()), remote: addrPort(nc.RemoteAddr()),
	}
	for _, p := range r.cfg.Trusted {
		s.trusts = s.trusts || p.Contains(s.remote.Addr().WithZone(""))
	}
	return s
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// serve runs the connection from its first byte to its last and closes the
// socket. Release is called when the connection is admitted or over. It reports to
// the loop; ctx ends it only until admission, afterwards the loop does.
func (s *socket) serve(ctx context.Context, release func()) {
	defer s.nc.Close()
	defer release()
	unhook := context.AfterFunc(ctx, func() { s.nc.Close() })
	defer unhook()
	patience := HandshakeTimeout
	if s.opened {
		patience = openTime // it may have met a listener, which waits as we do
	}
	s.nc.SetDeadline(time.Now().Add(patience))

	if err := s.handshake(); err != nil {
		if s.evicted.Load() {
			err = &Error{Reason: ReasonCrowded, Text: "made room for newer connections during the handshake"}
		}
		s.r.call(func(l *loop) { l.turnedAway(s, err) })
		return
	}
	var writer sync.WaitGroup
	writer.Go(s.write)
	defer writer.Wait()
	defer s.nc.Close() // before the wait: ends a blocked write
	defer s.q.end(nil)

	in := &reader{s: s, br: bufio.NewReaderSize(s.nc, 1<<10)}
	c, err := s.join(in)
	if err != nil {
		s.r.call(func(l *loop) { l.turnedAway(s, err) })
		return
	}
	if c == nil {
		in.drain()
		return
	}
	release()
	if !unhook() {
		return
	}
	s.nc.SetDeadline(time.Time{})
	err = s.receive(in, c)
	s.r.call(func(l *loop) { l.ended(c, err) })
	in.drain()
}

// join asks both ends to let the connection in; no conn and no error: this one didn't.
func (s *socket) join(in *reader) (*conn, *Error) {
	if err := s.greet(in); err != nil {
		return nil, err
	}
	if s.room == 0 { // else it is likely to be refused, and until then nobody is to hear of it
		if v := s.ask(false); !v.wait {
			return v.conn, nil
		}
	}
	if err := s.welcomed(in); err != nil {
		return nil, err
	}
	return s.ask(true).conn, nil
}

// ask waits until the loop has decided whether to admit the connection.
func (s *socket) ask(chosen bool) verdict {
	answer := make(chan verdict, 1)
	s.r.call(func(l *loop) { l.admit(&candidate{socket: s, verdict: answer, chosen: chosen}) })
	select {
	case v := <-answer:
		return v
	case <-s.r.quit:
		return verdict{}
	}
}

// handshake authenticates the other end and reads its offer.
func (s *socket) handshake() *Error {
	m, err := handshake.New(handshake.Config{
		Initiator: s.outbound, Static: s.r.cfg.Static, PSK: s.r.cfg.PSK, Offer: s.r.offerBytes,
	})
	if err != nil {
		return handshakeError(err)
	}
	if s.hs, err = handshake.Run(s.nc, m); err != nil {
		return handshakeError(err)
	}
	if s.offer, err = wire.DecodeOffer(s.hs.RemoteOffer); err != nil {
		return &Error{Reason: ReasonProtocol, Err: err}
	}
	s.agree = overlay.Agree(s.offer, s.r.offer)
	if s.outbound {
		s.agree = overlay.Agree(s.r.offer, s.offer)
	}
	return nil
}

// greet exchanges hellos.
func (s *socket) greet(in *reader) *Error {
	h := s.r.hello()
	h.Trusts, h.Found, h.Room = s.trusts, s.found, s.room
	m, err := h.Msg()
	if err == nil {
		err = s.q.push(m)
	}
	if err != nil {
		return &Error{Reason: ReasonProtocol, Err: err}
	}
	if m, err = in.next(); err != nil {
		return s.readError(err)
	}
	if m.Tag == wire.TagClose {
		return s.closeError(m.Body)
	}
	if m.Tag != wire.TagHello {
		return &Error{Reason: ReasonProtocol, Text: m.Tag.String() + " before hello"}
	}
	if s.hello, err = wire.ParseHello(m.Body); err != nil {
		return &Error{Reason: ReasonProtocol, Err: err}
	}
	if s.sign, err = parseSignKey(s.hello.Caps[wire.CapSignKey]); err != nil {
		return &Error{Reason: ReasonProtocol, Err: err}
	}
	s.uid, s.mark = wire.ConnUID(h.ConnID, s.hello.ConnID), s.sign.Mark()
	return nil
}

// welcomed waits for the first message after the hello, which says whether the other end
// has let us in; the next is in.next.
func (s *socket) welcomed(in *reader) *Error {
	m, err := in.next()
	if err != nil {
		return s.readError(err)
	}
	if m.Tag == wire.TagClose {
		return s.closeError(m.Body)
	}
	in.held = &wire.Msg{Tag: m.Tag, Body: slices.Clone(m.Body)}
	return nil
}

// receive hands messages to the loop until the connection ends.
func (s *socket) receive(in *reader, c *conn) *Error {
	for {
		s.nc.SetReadDeadline(time.Now().Add(DeadAfter))
		if s.closing.Load() { // set before the deadline that it shortens
			return nil
		}
		m, err := in.next()
		if err != nil {
			return s.readError(err)
		}
		switch m.Tag {
		case wire.TagHeartbeat:
			token, err := wire.ParseToken(m.Body)
			if err != nil {
				return &Error{Reason: ReasonProtocol, Err: err}
			}
			s.q.pushEcho(token)
		case wire.TagClose:
			return s.closeError(m.Body)
		default:
			m.Body = append([]byte(nil), m.Body...) // the loop may keep it
			s.r.call(func(l *loop) { l.message(c, m) })
			if m.Tag == wire.TagGossip || m.Tag == wire.TagDigest || m.Tag == wire.TagUnicast {
				in.rest(len(m.Body))
			}
		}
	}
}

// rest waits when the peer says more than we care to hear.
func (r *reader) rest(size int) {
	now := time.Now()
	if !r.heardAt.IsZero() {
		r.heard = max(0, r.heard-now.Sub(r.heardAt).Seconds()*gossipRate)
	}
	r.heardAt = now
	if r.heard += float64(size + gossipCost); r.heard > gossipBurst {
		time.Sleep(min(time.Duration((r.heard-gossipBurst)/gossipRate*float64(time.Second)), time.Second))
	}
}

func (s *socket) closeError(body []byte) *Error {
	m, err := wire.ParseClose(body)
	if err != nil {
		return &Error{Reason: ReasonProtocol, Err: err}
	}
	return fromPeer(m)
}

func (s *socket) readError(err error) *Error {
	if w := s.writeErr.Load(); w != nil {
		err = *w
	}
	switch {
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLong), errors.Is(err, handshake.ErrAuth):
		return &Error{Reason: ReasonProtocol, Err: err}
	case isTimeout(err):
		return &Error{Reason: ReasonSilent, Text: "the peer fell silent"}
	case isClosed(err):
		return &Error{Reason: ReasonLost, Text: "the peer closed the connection"}
	}
	return &Error{Reason: ReasonLost, Err: err}
}

// finish makes the writer send a last message, nil for none, and the reader wait
// for the other end to close. It may be called from any goroutine.
func (s *socket) finish(last *wire.Close) {
	s.q.end(last)
	s.closing.Store(true)
	s.nc.SetReadDeadline(time.Now().Add(drainTime))
}

// write sends what is queued until the queue ends.
func (s *socket) write() {
	w := writer{s: s, enc: wire.NewEncoder(s.hs.Transport)}
	for range s.q.wake {
		msgs, p, ended := s.q.take(w.msgs[:0])
		w.msgs = msgs
		if !w.send(msgs) || p != nil && !w.sendParcel(p) || !s.flush(&w.buf) {
			return
		}
		if ended {
			break
		}
		if cap(w.msgs) > 64 {
			w.msgs = nil
		}
	}
	if w, ok := s.nc.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// writer is owned by the writer's goroutine.
type writer struct {
	s    *socket
	enc  *wire.Encoder
	msgs []wire.Msg
	buf  []byte // sealed, not written yet
}

// send seals messages and writes what would make the buffer large.
func (w *writer) send(msgs []wire.Msg) bool {
	for _, m := range msgs {
		var err error
		if w.buf, err = w.enc.Append(w.buf, m); err != nil {
			w.s.writeFailed(err)
			return false
		}
		if len(w.buf) >= 4*wire.MaxSealed && !w.s.flush(&w.buf) {
			return false
		}
	}
	clear(msgs)
	return true
}

// sendParcel lets heartbeats and the like overtake the rest of a large parcel.
func (w *writer) sendParcel(p *parcel) bool {
	for i, m := range p.encode() {
		w.msgs = w.msgs[:0]
		if i > 0 {
			w.msgs = w.s.q.urgent(w.msgs)
		}
		if !w.send(append(w.msgs, m)) {
			return false
		}
	}
	return true
}

func (s *socket) flush(buf *[]byte) bool {
	if len(*buf) == 0 {
		return true
	}
	limit := DeadAfter
	if s.closing.Load() {
		limit = drainTime
	}
	s.nc.SetWriteDeadline(time.Now().Add(limit))
	_, err := s.nc.Write(*buf)
	if *buf = (*buf)[:0]; cap(*buf) > keepBuffer {
		*buf = nil
	}
	if err != nil {
		s.writeFailed(err)
	}
	return err == nil
}

// writeFailed wakes the reader, which ends the connection.
func (s *socket) writeFailed(err error) {
	s.writeErr.CompareAndSwap(nil, &err)
	s.nc.Close()
}

// reader takes messages off the socket. It is owned by the reader's goroutine.
type reader struct {
	s   *socket
	br  *bufio.Reader
	buf []byte // one record, in place
	asm wire.Assembler

	held *wire.Msg // taken before its time; nil: none

	heard   float64 // bytes of gossip not yet forgotten at gossipRate
	heardAt time.Time
}

// next blocks for the next message; its body is valid until the call after.
func (r *reader) next() (wire.Msg, error) {
	if m := r.held; m != nil {
		r.held = nil
		return *m, nil
	}
	for {
		var head [wire.LengthLen]byte
		if _, err := io.ReadFull(r.br, head[:]); err != nil {
			return wire.Msg{}, err
		}
		n, err := wire.SealedLen(head)
		if err != nil {
			return wire.Msg{}, err
		}
		if cap(r.buf) < n {
			r.buf = make([]byte, n)
		}
		record := r.buf[:n]
		if _, err := io.ReadFull(r.br, record); err != nil {
			return wire.Msg{}, err
		}
		plain, err := r.s.hs.Transport.Open(record[:0], record)
		if err != nil {
			return wire.Msg{}, err
		}
		if m, ok, err := r.asm.Push(plain); ok || err != nil {
			if cap(r.buf) > keepBuffer {
				r.buf = nil // m may have it until the next call
			}
			return m, err
		}
	}
}

// drain reads until the other end closes, so that our last message isn't
// destroyed by a reset, for at most drainTime.
func (r *reader) drain() {
	if r.s.closing.Load() {
		r.s.nc.SetReadDeadline(time.Now().Add(drainTime))
		io.Copy(io.Discard, io.LimitReader(r.br, wire.MaxMessage))
	}
}
