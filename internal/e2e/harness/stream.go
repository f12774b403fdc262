package harness

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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// Transfer is what became of a TCP stream.
type Transfer struct {
	Size     int           // bytes
	Took     time.Duration // from the first write to the last read
	Resent   uint32        // segments sent again, tcpi_total_retrans
	Segments uint32        // segments sent, tcpi_segs_out
}

// Mbps is the speed in megabits per second.
func (r Transfer) Mbps() float64 { return float64(r.Size) * 8 / 1e6 / r.Took.Seconds() }

// Stream sends random bytes from one namespace to another over TCP and fails the
// test if they do not arrive as they were sent, within limit.
func Stream(t testing.TB, from *testnet.Namespace, to *testnet.Namespace, addr netip.Addr, size int, limit time.Duration) Transfer {
	t.Helper()
	r, err := TryStream(from, to, addr, size, limit)
	if err != nil {
		t.Fatalf("TCP to %v: %v", addr, err)
	}
	return r
}

// TryStream is Stream for transfers that may fail.
func TryStream(from, to *testnet.Namespace, addr netip.Addr, size int, limit time.Duration) (r Transfer, err error) {
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
	r = Transfer{Size: size, Took: time.Since(start)}
	if got := <-sum; !bytes.Equal(got, h.Sum(nil)) {
		return r, errors.New("other bytes arrived than were sent")
	}
	return r, r.fill(c.(*net.TCPConn))
}

// onlyWriter hides ReadFrom.
type onlyWriter struct{ io.Writer }

// fill reads the kernel's counters of the connection.
func (r *Transfer) fill(c *net.TCPConn) error {
	return control(c, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			r.Resent, r.Segments = info.Total_retrans, info.Segs_out
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
