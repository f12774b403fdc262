package harness

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weave/internal/testnet"
)

// Flow is a TCP stream that goes on until the test ends.
type Flow struct {
	Bytes atomic.Int64 // received until now

	last atomic.Int64 // Unix nanoseconds
	gap  atomic.Int64 // longest time without bytes since Reset, nanoseconds
	stop atomic.Bool
	end  func()
}

// StartFlow starts a stream of at most 16 MB/s from a to b, whose container has the
// address to.
func StartFlow(t testing.TB, a, b *Site, to netip.Addr) *Flow {
	t.Helper()
	return FlowBetween(t, a.Box, b.Box, to, 64<<10, 4*time.Millisecond)
}

// FlowBetween starts a stream from a namespace to another that has the address to: at
// most block bytes in each interval.
func FlowBetween(t testing.TB, from, in *testnet.Namespace, to netip.Addr, block int, every time.Duration) *Flow {
	t.Helper()
	var l net.Listener
	if err := in.Do(func() (err error) { l, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String()); return err }); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	if err := from.Do(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	f := &Flow{}
	f.last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { f.receive(l) })
	wg.Go(func() {
		for block := make([]byte, block); !f.stop.Load(); time.Sleep(every) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	f.end = sync.OnceFunc(func() {
		f.stop.Store(true)
		c.Close()
		l.Close()
		wg.Wait()
	})
	t.Cleanup(f.end)
	return f
}

// Stop ends the stream before the test ends.
func (f *Flow) Stop() { f.end() }

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
