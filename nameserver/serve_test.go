package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"weave/nameserver/dnstest"
)

// serve runs s on sockets until the test ends.
func serve(t testing.TB, s *Server, sockets Sockets) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, sockets) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(exchangeTime):
			t.Error("Serve does not end")
		}
	})
}

func listen(t testing.TB, addr string, n int) (Sockets, string) {
	t.Helper()
	s, err := Listen(t.Context(), netip.MustParseAddrPort(addr), n)
	for range 20 { // the port that is free of TCP may be taken of UDP
		if err == nil {
			break
		}
		s, err = Listen(t.Context(), netip.MustParseAddrPort(addr), n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Packet[0].LocalAddr().String()
}

// exchangeTime is more than a busy machine takes: a reply that is lost never comes.
const exchangeTime = 30 * time.Second

// eventually waits until ok. It does not end the test, which may have to release others.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(exchangeTime); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within %v", exchangeTime)
			return
		}
	}
}

func exchange(t testing.TB, network, to string, q *dns.Msg) *dns.Msg {
	t.Helper()
	m, _, err := (&dns.Client{Net: network, Timeout: exchangeTime, UDPSize: 1232}).Exchange(q, to)
	if err != nil {
		t.Fatalf("%s %s: %v", network, to, err)
	}
	return m
}

func TestServeUDPAndTCP(t *testing.T) {
	for _, listenOn := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(listenOn, func(t *testing.T) {
			s := newServer(t, nil)
			for i := range 50 {
				s.mustAdd(t, "c", "fifty.weave.local", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
			}
			sockets, _ := listen(t, listenOn, 2)
			port := sockets.Packet[0].LocalAddr().(*net.UDPAddr).Port
			serve(t, s, sockets)
			targets := []string{"127.0.0.1", "127.0.0.77"} // a reply comes from where the question went
			switch listenOn {
			case "127.0.0.1:0":
				targets = targets[:1]
			case "[::1]:0", "[::]:0":
				targets = []string{"::1"}
			}
			for _, a := range targets {
				to := netip.AddrPortFrom(addr(a), uint16(port)).String()
				q := newQuestion("fifty.weave.local.", dns.TypeA)
				if m := exchange(t, "udp", to, q); !m.Truncated || len(m.Answer) != (512-35)/16 {
					t.Errorf("UDP: %d answers, TC %v", len(m.Answer), m.Truncated)
				}
				if m := exchange(t, "tcp", to, q); m.Truncated || len(m.Answer) != 50 {
					t.Errorf("TCP: %d answers, TC %v", len(m.Answer), m.Truncated)
				}
				q.SetEdns0(700, false)
				if m := exchange(t, "udp", to, q); !m.Truncated || len(m.Answer) != (700-46)/16 {
					t.Errorf("EDNS0 700: %d answers, TC %v", len(m.Answer), m.Truncated)
				}
				q.SetEdns0(1232, false)
				if m := exchange(t, "udp", to, newQuestion("9.0.0.10.in-addr.arpa.", dns.TypePTR)); len(m.Answer) != 1 {
					t.Errorf("PTR: %v", m)
				}
			}
			if st := s.Status(); len(st.Listening) == 0 || st.Entries != 50 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// Anything that is a net.PacketConn will do.
func TestServeAnyPacketConn(t *testing.T) {
	s := newServer(t, nil)
	s.mustAdd(t, "c", "a", "10.0.0.1")
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, Sockets{Packet: []net.PacketConn{struct{ net.PacketConn }{p}}})
	for _, name := range []string{"a.weave.local.", "1.0.0.10.in-addr.arpa."} {
		if m := exchange(t, "udp", p.LocalAddr().String(), newQuestion(name, dns.TypeANY)); len(m.Answer) != 1 {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// Who is not allowed hears nothing at all, over UDP and TCP.
func TestSourcesAreChecked(t *testing.T) {
	s := newServer(t, func(c *Config) {
		c.Allow = func(a netip.Addr) bool { return a == addr("127.0.0.1") }
	})
	s.mustAdd(t, "c", "a", "10.0.0.1")
	sockets, to := listen(t, "0.0.0.0:0", 1)
	_, port, _ := net.SplitHostPort(to)
	to = "127.0.0.1:" + port
	serve(t, s, sockets)
	stranger := &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := stranger.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, h := range hostile {
		c.Write(h.request())
	}
	request, _ := newQuestion("a.weave.local.", dns.TypeA).Pack()
	c.Write(request)
	tcp := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	ct, err := tcp.Dial("tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer ct.Close()
	ct.SetReadDeadline(time.Now().Add(exchangeTime))
	if n, err := ct.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("TCP: %d bytes, %v", n, err)
	}
	exchange(t, "udp", to, newQuestion("a.weave.local.", dns.TypeA)) // behind the others in the queue
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a stranger got %d bytes", n)
	}
	// An empty datagram counts too.
	if got, want := s.Counts().Drops["source"], uint64(len(hostile)+2); got != want {
		t.Errorf("%d dropped, want %d", got, want)
	}
}

// pipes is a listener whose connections are pipes, for tests in virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type pipeEnd struct{ net.Conn }

func (pipeEnd) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- pipeEnd{theirs}
	return ours
}

// closesAfter waits until the server closes c and says how long that took.
func closesAfter(c net.Conn) time.Duration {
	began := time.Now()
	io.Copy(io.Discard, c)
	return time.Since(began)
}

func TestSlowTCP(t *testing.T) {
	request, _ := newQuestion("a.weave.local.", dns.TypeA).Pack()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(request))), request...)
	for _, tt := range []struct {
		name   string
		do     func(c net.Conn)
		lo, hi time.Duration
	}{
		{"silent", func(net.Conn) {}, idleTime, idleTime},
		{"one byte", func(c net.Conn) { c.Write(framed[:1]) }, arriveTime, arriveTime},
		{"length only", func(c net.Conn) { c.Write(framed[:2]) }, arriveTime, arriveTime},
		{"trickle of a byte each 100 ms", func(c net.Conn) {
			for _, b := range framed {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, 0, arriveTime},
		{"announces 64 KiB", func(c net.Conn) { c.Write([]byte{0xff, 0xff}) }, 0, 0},
		{"announces nothing", func(c net.Conn) { c.Write([]byte{0, 0}) }, 0, 0},
		{"a reply", func(c net.Conn) { c.Write([]byte("\x00\x0c\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00")) }, 0, 0},
		{"a question, then silence", func(c net.Conn) { c.Write(framed) }, idleTime, idleTime},
		{"takes no reply", nil, writeTime, writeTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, nil)
				l := newPipes()
				serve(t, s, Sockets{Stream: []net.Listener{l}})
				c := l.dial()
				defer c.Close()
				began := time.Now()
				if tt.do == nil {
					c.Write(framed)
					time.Sleep(writeTime) // a pipe has no buffer: the write blocks
					synctest.Wait()
				} else {
					go tt.do(c)
				}
				closesAfter(c)
				if took := time.Since(began); took < tt.lo || took > tt.hi {
					t.Errorf("closed after %v, want %v to %v", took, tt.lo, tt.hi)
				}
				time.Sleep(time.Minute) // the writer of the test ends
			})
		})
	}
}

// Questions in a row on one connection are answered, each within the idle time.
func TestTCPStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, nil)
		s.mustAdd(t, "c", "a", "10.0.0.1")
		l := newPipes()
		serve(t, s, Sockets{Stream: []net.Listener{l}})
		c := &dns.Conn{Conn: l.dial()}
		defer c.Close()
		for range 5 {
			time.Sleep(idleTime - time.Second)
			if err := c.WriteMsg(newQuestion("a.weave.local.", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
				t.Fatal(m, err)
			}
		}
	})
}

// 1,000 idle connections and more: who comes with a question is answered, the idle ones
// make room, and there are never more than 1,000.
func TestManyIdleTCP(t *testing.T) {
	s := newServer(t, nil)
	s.mustAdd(t, "c", "a", "10.0.0.1")
	sockets, to := listen(t, "127.0.0.1:0", 1)
	serve(t, s, sockets)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range maxConns + 50 {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	if m := exchange(t, "tcp", to, newQuestion("a.weave.local.", dns.TypeA)); len(m.Answer) != 1 {
		t.Fatal(m)
	}
	if m := exchange(t, "udp", to, newQuestion("a.weave.local.", dns.TypeA)); len(m.Answer) != 1 {
		t.Fatal(m)
	}
	if n := s.Counts().Drops["slow"]; n != 0 {
		t.Errorf("answered only after %d connections had idled out", n)
	}
	// The oldest ones went.
	idle[0].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := idle[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest connection is still open: %v", err)
	}
	if got := s.Counts().Drops["conn"]; got < 50 || got > 52 {
		t.Errorf("%d connections made room, want 51", got)
	}
}

// A server that ends while questions wait for upstream leaves nothing behind.
func TestServeEnds(t *testing.T) {
	up := dnstest.Start(t, 1, dnstest.Silent)
	s := newServer(t, func(c *Config) {
		c.ResolvConf, c.UpstreamPort = dnstest.ResolvConf(t, up[0]), up[0].Addr.Port()
		c.Sockets, _ = listen(t, "127.0.0.1:0", 1)
	})
	to := s.config.Packet[0].LocalAddr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	u, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		request, _ := newQuestion(fmt.Sprintf("%d.example.org.", i), dns.TypeA).Pack()
		u.Write(request)
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(request))), request...))
	}
	eventually(t, func() bool { return up[0].Queries.Load() > 0 })
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > exchangeTime { // and not forwardTimeout
		t.Errorf("took %v to end", took)
	}
	if _, err := net.Dial("tcp", to); err == nil {
		t.Error("still listening")
	}
}

func TestListenTwice(t *testing.T) {
	sockets, to := listen(t, "127.0.0.1:0", 1)
	defer sockets.Close()
	if _, err := Listen(t.Context(), netip.MustParseAddrPort(to), 1); err == nil {
		t.Error("a second server on the same port was not noticed")
	}
}
