package mesh_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weave/internal/testnet"
)

// faults say what a badWire does to datagrams, each a probability.
type faults struct {
	loss, duplicate, reorder, corrupt float64
}

// badWire forwards weave's port between two hosts, at a third one: TCP as it is,
// datagrams with faults. To the dialing end it is the other host.
type badWire struct {
	faults
	udp [2]*net.UDPConn // to the end that dials, to the dialed one
	tcp *net.TCPListener
	at  *testnet.Host
	to  netip.AddrPort

	dialer atomic.Pointer[netip.AddrPort] // of the datagrams of the end that dials

	passed, lost, duplicated, reordered, corrupted atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

// lay makes host at a wire to the daemon at to, until the test ends.
func lay(t *testing.T, at *testnet.Host, to netip.Addr, f faults) *badWire {
	t.Helper()
	w := &badWire{faults: f, at: at, to: netip.AddrPortFrom(to, 6783)}
	if err := at.Do(func() (err error) {
		if w.tcp, err = net.ListenTCP("tcp", &net.TCPAddr{Port: 6783}); err != nil {
			return err
		}
		if w.udp[0], err = net.ListenUDP("udp", &net.UDPAddr{Port: 6783}); err != nil {
			return err
		}
		w.udp[1], err = net.ListenUDP("udp", nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(w.accept)
	done.Go(func() { w.carry(0) })
	done.Go(func() { w.carry(1) })
	t.Cleanup(func() {
		w.tcp.Close()
		w.udp[0].Close()
		w.udp[1].Close()
		w.mu.Lock()
		for _, c := range w.conns {
			c.Close()
		}
		w.mu.Unlock()
		done.Wait()
	})
	return w
}

func (w *badWire) accept() {
	for {
		in, err := w.tcp.Accept()
		if err != nil {
			return
		}
		var out net.Conn
		if w.at.Do(func() (err error) { out, err = net.DialTimeout("tcp", w.to.String(), time.Second); return err }) != nil {
			in.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, in, out)
		w.mu.Unlock()
		go pipe(in, out)
		go pipe(out, in)
	}
}

func pipe(from, to net.Conn) {
	io.Copy(to, from)
	from.Close()
	to.Close()
}

// carry takes datagrams from one side to the other.
func (w *badWire) carry(side int) {
	in, out := w.udp[side], w.udp[1-side]
	in.SetReadBuffer(8 << 20)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := in.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		to := w.to
		if side == 0 {
			w.dialer.Store(&from)
		} else if d := w.dialer.Load(); d != nil {
			to = *d
		} else {
			continue
		}
		w.pass(out, buf[:n], to)
	}
}

// pass sends one datagram, or does to it what the wire does.
func (w *badWire) pass(out *net.UDPConn, b []byte, to netip.AddrPort) {
	later := func(most time.Duration) {
		kept := append([]byte(nil), b...)
		time.AfterFunc(rand.N(most), func() { out.WriteToUDPAddrPort(kept, to) })
	}
	w.passed.Add(1)
	if rand.Float64() < w.duplicate {
		w.duplicated.Add(1)
		later(50 * time.Millisecond)
	}
	switch x := rand.Float64(); {
	case x < w.loss:
		w.lost.Add(1)
	case x < w.loss+w.reorder:
		w.reordered.Add(1)
		later(20 * time.Millisecond)
	case x < w.loss+w.reorder+w.corrupt:
		w.corrupted.Add(1)
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
		fallthrough
	default:
		out.WriteToUDPAddrPort(b, to)
	}
}
