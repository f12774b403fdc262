package mesh_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
)

// soakEnv names the variable that says how long TestSoak takes, soakResultEnv the one
// with a file for what it found.
const (
	soakEnv       = "WEAVE_SOAK"
	soakResultEnv = "WEAVE_SOAK_RESULT"
)

// A bad wire costs packets, and nothing else: none arrives twice, none changed.
func TestSoak(t *testing.T) {
	t.Parallel()
	long := 10 * time.Second
	if text := os.Getenv(soakEnv); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for via, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record(t, "Two hosts with a password, for %v, over a wire of %s that loses 5 %% of the datagrams,\n"+
				"delays 5 %% by up to 20 ms, repeats 2 %% and changes a bit in 1 %%:\n%s", long, name, soak(t, via, long))
		})
	}
}

// soak is one network, whose wire is of the family via says to [harness.Site.Via].
func soak(t *testing.T, via int, long time.Duration) (out string) {
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	middle := harness.SiteOn(t, lab.Host("wire"), 3)
	cut(lab, a, b)
	wire := lay(t, middle.Host, netip.MustParseAddr(a.Via(via)), faults{loss: 0.05, duplicate: 0.02, reorder: 0.05, corrupt: 0.01})
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--no-fastdp", "--password-file", pw)
	b.Launch("--no-fastdp", "--password-file", pw, middle.Via(via))
	harness.Meet(t, startLimit, a, b)

	ways := []*numbered{number(t, a, b, a.In4, b.In4), number(t, b, a, b.In6, a.In6)}
	end := time.Now().Add(long)
	transfers, resent := 0, 0
	for time.Now().Before(end) {
		r := harness.Stream(t, a.Box, b.Box, b.In4, 1<<20, 60*time.Second)
		transfers, resent = transfers+1, resent+int(r.Resent)
	}
	out += fmt.Sprintf("wire: %d datagrams: %d lost, %d late, %d twice, %d changed\n",
		wire.passed.Load(), wire.lost.Load(), wire.reordered.Load(), wire.duplicated.Load(), wire.corrupted.Load())
	for _, w := range ways {
		sent, got, twice, changed := w.finish()
		out += fmt.Sprintf("packets %s: %d sent, %d arrived (%.2f %%), %d of them twice, %d changed\n",
			w.name, sent, got, 100*float64(got)/float64(sent), twice, changed)
		if twice > 0 || changed > 0 {
			t.Errorf("%s: %d packets arrived twice, %d changed", w.name, twice, changed)
		}
		if got < sent*8/10 {
			t.Errorf("%s: %d of %d packets arrived", w.name, got, sent)
		}
	}
	out += fmt.Sprintf("TCP: %d transfers of 1 MiB, all whole; %d segments sent again\n", transfers, resent)
	out += fmt.Sprintf("connections at the end: %d and %d", a.Established(), b.Established())
	if wire.lost.Load() == 0 || wire.duplicated.Load() == 0 || wire.corrupted.Load() == 0 {
		t.Error("the wire did nothing: the test shows nothing")
	}
	if n := a.Established(); n != 1 {
		t.Errorf("%d connections", n)
	}
	return out
}

// numbered sends packets of many sizes whose bytes follow from their number, without a
// checksum of UDP's, which would hide a change from the receiver.
type numbered struct {
	name   string
	tx, rx *net.UDPConn
	to     netip.AddrPort
	stop   chan struct{}
	done   sync.WaitGroup

	sent    int
	times   []uint8 // by number
	changed int
}

func number(t *testing.T, from, to *harness.Site, src, dst netip.Addr) *numbered {
	t.Helper()
	n := &numbered{name: fmt.Sprintf("%s to %s, %v", from.Label, to.Label, dst), stop: make(chan struct{})}
	n.rx = harness.ListenUDP(t, to.Box, netip.AddrPortFrom(dst, 0))
	n.tx = harness.ListenUDP(t, from.Box, netip.AddrPortFrom(src, 0))
	n.to = n.rx.LocalAddr().(*net.UDPAddr).AddrPort()
	n.rx.SetReadBuffer(8 << 20)
	raw, err := n.tx.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if dst.Is4() {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
	}
	n.done.Go(n.receive)
	n.done.Go(n.send)
	t.Cleanup(func() { n.finish() })
	return n
}

// content makes packet i.
func content(buf []byte, i uint32) []byte {
	b := binary.BigEndian.AppendUint32(buf[:0], i)
	sum := sha256.Sum256(b)
	size := 4 + int(binary.BigEndian.Uint16(sum[:]))%1344
	for len(b) < size {
		b = append(b, sum[:min(len(sum), size-len(b))]...)
	}
	return b
}

func (n *numbered) send() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 2048)
	for {
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
		for range 4 {
			n.tx.WriteToUDPAddrPort(content(buf, uint32(n.sent)), n.to)
			n.sent++
		}
	}
}

func (n *numbered) receive() {
	buf, want := make([]byte, 64<<10), make([]byte, 2048)
	for {
		k, _, err := n.rx.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			continue
		}
		i := uint32(0)
		if k >= 4 {
			i = binary.BigEndian.Uint32(buf)
		}
		if k < 4 || i > 1<<28 || !bytes.Equal(buf[:k], content(want, i)) {
			n.changed++
			continue
		}
		for int(i) >= len(n.times) {
			n.times = append(n.times, 0)
		}
		n.times[i]++
	}
}

// finish ends the sending and counts what arrived. It is idempotent.
func (n *numbered) finish() (sent, got, twice, changed int) {
	select {
	case <-n.stop:
	default:
		close(n.stop)
		n.rx.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // for those on the way
	}
	n.done.Wait()
	for _, k := range n.times {
		if k > 0 {
			got++
		}
		if k > 1 {
			twice++
		}
	}
	return n.sent, got, twice, n.changed
}
