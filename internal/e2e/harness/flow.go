package harness

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Flow is a TCP stream of at most 16 MB/s that goes on until the test ends.
type Flow struct {
	Bytes atomic.Int64 // received until now

	last atomic.Int64 // Unix nanoseconds
	gap  atomic.Int64 // longest time without bytes since Reset, nanoseconds
	stop atomic.Bool
}

// StartFlow starts a stream from a to b, whose container has the address to.
func StartFlow(t testing.TB, a, b *Site, to netip.Addr) *Flow {
	t.Helper()
	var l net.Listener
	if err := b.Box.Do(func() (err error) { l, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String()); return err }); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	if err := a.Box.Do(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	f := &Flow{}
	f.last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { f.receive(l) })
	wg.Go(func() {
		for block := make([]byte, 64<<10); !f.stop.Load(); time.Sleep(4 * time.Millisecond) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		f.stop.Store(true)
		c.Close()
		l.Close()
		wg.Wait()
	})
	return f
}

func (f *Flow) receive(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		now := time.Now().UnixNano()
		f.gap.Store(max(f.gap.Load(), now-f.last.Load()))
		f.last.Store(now)
		f.Bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// Reset forgets the longest silence.
func (f *Flow) Reset() { f.gap.Store(0) }

// Longest returns the longest silence since Reset, the present one included.
func (f *Flow) Longest() time.Duration {
	return time.Duration(max(f.gap.Load(), time.Now().UnixNano()-f.last.Load()))
}
