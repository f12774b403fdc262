package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// ping is one of the ping command's runs: quick, and patient for the last answer.
func ping(from *testnet.Namespace, to netip.Addr, n int, args ...string) testnet.Result {
	args = append([]string{"-n", "-i", "0.05", "-c", fmt.Sprint(n), "-W", "1"}, args...)
	return from.Try("ping", append(args, to.String())...)
}

// mustPing fails the test if any of a few pings is lost.
func mustPing(t *testing.T, from *testnet.Namespace, to netip.Addr, args ...string) {
	t.Helper()
	if r := ping(from, to, 5, args...); r.Code != 0 || !bytes.Contains([]byte(r.Stdout), []byte(" 0% packet loss")) {
		t.Errorf("ping %v %q: exit %d\n%s%s", to, args, r.Code, r.Stdout, r.Stderr)
	}
}

// reaches reports whether a ping is answered.
func reaches(from *testnet.Namespace, to netip.Addr) bool { return ping(from, to, 1).Code == 0 }

// listenUDP opens a socket inside a namespace.
func listenUDP(t *testing.T, in *testnet.Namespace, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := in.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echo answers datagrams in a namespace until the test ends.
func echo(t *testing.T, in *testnet.Namespace, addr netip.AddrPort) {
	t.Helper()
	c := listenUDP(t, in, addr)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

// probe sends small datagrams to an echo at a steady rate and remembers which were
// answered.
type probe struct {
	conn *net.UDPConn
	to   netip.AddrPort
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time
	answered []time.Duration // round trip by number; 0: none
}

const probeEvery = 20 * time.Millisecond

// startProbe probes until Stop or the end of the test.
func startProbe(t *testing.T, from *testnet.Namespace, to netip.AddrPort) *probe {
	t.Helper()
	p := &probe{to: to, stop: make(chan struct{})}
	p.conn = listenUDP(t, from, netip.AddrPort{})
	p.done.Go(p.send)
	p.done.Go(p.receive)
	t.Cleanup(p.Stop)
	return p
}

func (p *probe) send() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		n := len(p.sent)
		p.sent, p.answered = append(p.sent, time.Now()), append(p.answered, 0)
		p.mu.Unlock()
		p.conn.WriteToUDPAddrPort(fmt.Appendf(nil, "probe %d", n), p.to)
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

func (p *probe) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var i int
		if err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(buf[:n]), "probe %d", &i); err != nil {
			continue
		}
		p.mu.Lock()
		if i >= 0 && i < len(p.sent) && p.answered[i] == 0 {
			p.answered[i] = time.Since(p.sent[i])
		}
		p.mu.Unlock()
	}
}

// Stop ends the probing. It is idempotent.
func (p *probe) Stop() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	p.conn.Close()
	p.done.Wait()
}

// gap is the longest time since start in which what was sent got no answer, and
// how many probes were lost in all. What was sent after the last answer counts
// once it is half a second old.
func (p *probe) gap(start time.Time) (longest time.Duration, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.sent) - 1
	for last >= 0 && p.answered[last] == 0 {
		last--
	}
	var since time.Time // of the first unanswered one
	for i, at := range p.sent {
		switch {
		case at.Before(start):
		case p.answered[i] != 0:
			since = time.Time{}
		case i > last && time.Since(at) < 500*time.Millisecond:
			return longest, lost
		default:
			lost++
			if since.IsZero() {
				since = at
			}
			longest = max(longest, at.Sub(since)+probeEvery)
		}
	}
	return longest, lost
}

// answeredSince reports whether a probe sent after t was answered.
func (p *probe) answeredSince(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.sent) - 1; i >= 0 && p.sent[i].After(t); i-- {
		if p.answered[i] != 0 {
			return true
		}
	}
	return false
}

// transfer is what became of a TCP stream.
type transfer struct {
	size    int
	took    time.Duration
	retrans uint32 // segments sent again, tcpi_total_retrans
	segs    uint32 // segments sent, tcpi_segs_out
}

func (r transfer) mbps() float64 { return float64(r.size) * 8 / 1e6 / r.took.Seconds() }

// stream sends random bytes from one namespace to another over TCP and fails the
// test if they do not arrive as they were sent, within limit.
func stream(t *testing.T, from *testnet.Namespace, to *testnet.Namespace, addr netip.Addr, size int, limit time.Duration) transfer {
	t.Helper()
	r, err := tryStream(from, to, addr, size, limit)
	if err != nil {
		t.Fatalf("TCP to %v: %v", addr, err)
	}
	return r
}

func tryStream(from, to *testnet.Namespace, addr netip.Addr, size int, limit time.Duration) (r transfer, err error) {
	deadline := time.Now().Add(limit)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var lis net.Listener
	if err := to.Do(func() (err error) {
		lis, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	}); err != nil {
		return r, err
	}
	defer lis.Close()
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer stop()
	received := make(chan error, 1)
	sum := make(chan []byte, 1)
	go func() {
		c, err := lis.Accept()
		if err != nil {
			received <- err
			return
		}
		defer c.Close()
		c.SetDeadline(deadline)
		h := sha256.New()
		_, err = io.Copy(h, c)
		sum <- h.Sum(nil)
		received <- err
	}()
	// The socket has to be made inside the namespace; connecting may be done from
	// anywhere, but a Dialer does both.
	var c net.Conn
	if err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", lis.Addr().String(), limit/2)
		return err
	}); err != nil {
		return r, err
	}
	defer c.Close()
	c.SetDeadline(deadline)
	h := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{7}), int64(size))
	start := time.Now()
	if _, err := io.CopyBuffer(onlyWriter{io.MultiWriter(c, h)}, source, make([]byte, 256<<10)); err != nil {
		return r, err
	}
	c.(*net.TCPConn).CloseWrite()
	if err := <-received; err != nil {
		return r, fmt.Errorf("receiving: %w", err)
	}
	r = transfer{size: size, took: time.Since(start)}
	if got := <-sum; !bytes.Equal(got, h.Sum(nil)) {
		return r, errors.New("other bytes arrived than were sent")
	}
	return r, r.fill(c.(*net.TCPConn))
}

// onlyWriter hides ReadFrom.
type onlyWriter struct{ io.Writer }

// fill reads the kernel's counters of the connection.
func (r *transfer) fill(c *net.TCPConn) error {
	return control(c, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			r.retrans, r.segs = info.Total_retrans, info.Segs_out
		}
		return err
	})
}

// control calls fn with a socket's file descriptor.
func control(c syscall.Conn, fn func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
