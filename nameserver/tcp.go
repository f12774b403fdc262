package nameserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of TCP.
const (
	maxConns   = 1000             // then the one that was quiet for longest makes room
	idleTime   = 10 * time.Second // without a question, RFC 7766 section 6.2.3
	arriveTime = 2 * time.Second  // for a question from its first byte to its last
	writeTime  = 2 * time.Second
	maxPending = 16 // questions of one connection that wait for upstream
)

// pool holds the TCP connections of a Serve.
type pool struct {
	mu    sync.Mutex
	conns map[*tcpConn]time.Time // when its last question came
}

func newPool() *pool { return &pool{conns: map[*tcpConn]time.Time{}} }

// add takes a connection in; evicted is the one that had to go for it, or nil.
func (p *pool) add(c *tcpConn, now time.Time) (evicted *tcpConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) >= maxConns {
		for o, last := range p.conns {
			if evicted == nil || last.Before(p.conns[evicted]) {
				evicted = o
			}
		}
		delete(p.conns, evicted)
	}
	p.conns[c] = now
	return evicted
}

// touch notes a question; a connection that was evicted stays out.
func (p *pool) touch(c *tcpConn, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.conns[c]; ok {
		p.conns[c] = now
	}
}

func (p *pool) remove(c *tcpConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// close ends all connections.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.conn.Close()
	}
}

// serveStream accepts connections until the listener is closed.
func (s *Server) serveStream(ctx context.Context, l net.Listener, p *pool) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.close() // all end together
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || tooManyFiles(err) {
				if !pause(ctx, 50*time.Millisecond) {
					return nil
				}
				continue
			}
			return fmt.Errorf("serving DNS over TCP: %w", err)
		}
		s.accept(ctx, conn, p, &wg)
	}
}

func (s *Server) accept(ctx context.Context, conn net.Conn, p *pool, wg *sync.WaitGroup) {
	source, ok := conn.RemoteAddr().(interface{ AddrPort() netip.AddrPort })
	if !ok || !s.allow(source.AddrPort().Addr().Unmap()) {
		s.shared.drops[DropSource].Add(1)
		conn.Close()
		return
	}
	c := &tcpConn{s: s, conn: conn, pool: p, sc: s.newScratch(), pending: make(chan struct{}, maxPending)}
	if old := p.add(c, time.Now()); old != nil {
		s.shared.drops[DropConn].Add(1)
		old.conn.Close()
	}
	wg.Go(func() {
		c.run(ctx)
		p.remove(c)
	})
	if ctx.Err() != nil {
		conn.Close() // it came after those that the end closed
	}
}

// tcpConn is one connection. Its reader owns all but conn's write side.
type tcpConn struct {
	s       *Server
	conn    net.Conn
	pool    *pool
	sc      *scratch
	pending chan struct{}

	mu sync.Mutex // writes of a reply are whole
}

// run answers questions until the connection ends, idles or trickles.
func (c *tcpConn) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.conn.Close()
	r := bufio.NewReaderSize(c.conn, plainSize)
	var request, reply []byte
	for {
		var err error
		if request, err = c.next(r, request); err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				c.s.shared.drops[DropSlow].Add(1)
			}
			return
		}
		c.pool.touch(c, time.Now())
		var ok bool
		if reply, ok = c.s.quick(reply[:0], request, c.sc, &c.s.shared, false); !ok {
			if !c.later(ctx, &wg, request) {
				return
			}
			continue
		}
		if len(reply) == 0 || c.write(reply) != nil {
			return // who sends replies or nonsense here has no business with us
		}
	}
}

// next reads one message into buf and returns it.
func (c *tcpConn) next(r *bufio.Reader, buf []byte) ([]byte, error) {
	if r.Buffered() == 0 {
		if err := c.conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
			return nil, err
		}
	}
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(arriveTime)); err != nil {
		return nil, err
	}
	head, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head))
	if n > maxRequest {
		c.s.shared.drops[DropLong].Add(1)
		return nil, errLong
	}
	_, _ = r.Discard(2) // they are buffered
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err = io.ReadFull(r, buf[:n])
	return buf[:n], err
}

var errLong = errors.New("longer than any question")

// later answers beside the reader; it waits while too many questions of this
// connection are under way.
func (c *tcpConn) later(ctx context.Context, wg *sync.WaitGroup, request []byte) bool {
	select {
	case c.pending <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	request = append([]byte(nil), request...)
	sc := &scratch{q: c.sc.q}
	wg.Go(func() {
		defer func() { <-c.pending }()
		if b := c.s.respond(ctx, request, sc, false); len(b) > 0 {
			if c.write(b) != nil {
				c.conn.Close()
			}
		}
	})
	return true
}

// write sends a reply behind its length. It may be called from any goroutine.
func (c *tcpConn) write(reply []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	var head [2]byte
	binary.BigEndian.PutUint16(head[:], uint16(len(reply)))
	b := net.Buffers{head[:], reply}
	_, err := b.WriteTo(c.conn)
	return err
}
