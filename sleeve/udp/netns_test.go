package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"weave/internal/rawio"
)

// host is a network namespace. Sockets made inside stay in it.
type host struct {
	name string
	ns   netns.NsHandle
}

// in runs f on a thread in the namespace.
func (h host) in(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(h.ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// listen is Listen inside the namespace, closed when the test ends.
func (h host) listen(t testing.TB, cfg Config) *Group {
	t.Helper()
	var g *Group
	var err error
	h.in(t, func() { g, err = Listen(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

var hosts atomic.Int32

// newHost makes a namespace with the loopback device up.
func newHost(t testing.TB) host {
	t.Helper()
	name := fmt.Sprintf("wudp%d-%d", os.Getpid(), hosts.Add(1))
	run(t, "ip netns add "+name)
	t.Cleanup(func() { run(t, "ip netns del "+name) })
	ns, err := netns.GetFromName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	run(t, "ip -n "+name+" link set lo up")
	return host{name: name, ns: ns}
}

// newPair makes hosts a (10.77.0.1, fd77::1) and b (.2, ::2) joined by a veth pair
// with the given MTU. b has a second address in each family, .22 and ::22.
func newPair(t testing.TB, mtu int) (a, b host) {
	t.Helper()
	a, b = newHost(t), newHost(t)
	run(t, fmt.Sprintf("ip link add w0 mtu %d netns %s type veth peer name w0 mtu %d netns %s", mtu, a.name, mtu, b.name))
	for _, s := range []string{a.name + " .1", b.name + " .2", b.name + " .22"} {
		name, last, _ := strings.Cut(s, " .")
		run(t, "ip -n "+name+" addr add 10.77.0."+last+"/24 dev w0")
		run(t, "ip -n "+name+" addr add fd77::"+last+"/64 dev w0 nodad")
		run(t, "ip -n "+name+" link set w0 up")
	}
	return a, b
}

func run(t testing.TB, cmd string) {
	t.Helper()
	args := strings.Fields(cmd)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// inbox collects what arrives on one socket.
type inbox struct {
	*Receiver
	poller *rawio.Poller
}

func newInbox(t testing.TB, s *Socket) *inbox {
	t.Helper()
	p, err := rawio.NewPoller(s.FDs()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return &inbox{Receiver: s.NewReceiver(0), poller: p}
}

// next returns the next slots, within three seconds.
func (in *inbox) next(t testing.TB) []Slot {
	t.Helper()
	for range 2 {
		slots, err := in.Recv()
		if err == nil {
			return slots
		}
		if !errors.Is(err, ErrWouldBlock) {
			t.Fatal(err)
		}
		if _, err := in.poller.Wait(3000); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("nothing received")
	return nil
}

// read returns copies of n datagrams, the segment size of the first slot, and the
// number of slots they came in.
func (in *inbox) read(t testing.TB, n int) (got [][]byte, seg, slots int) {
	t.Helper()
	for len(got) < n {
		for _, s := range in.next(t) {
			if slots++; slots == 1 {
				seg = s.SegSize
			}
			for d := s.Next(); d != nil; d = s.Next() {
				got = append(got, bytes.Clone(d))
			}
		}
	}
	return got, seg, slots
}

// empty fails the test when something is queued.
func (in *inbox) empty(t testing.TB) {
	t.Helper()
	if slots, err := in.Recv(); err != ErrWouldBlock {
		t.Errorf("got %d slots, err %v, want nothing queued", len(slots), err)
	}
}

// train makes n datagrams of size bytes and a tail of tail bytes. Each starts
// with 0x14, the lane, and its number; the rest differs from datagram to datagram.
func train(lane byte, n, size, tail int) []byte {
	var b []byte
	for i := 0; i < n || i == n && tail > 0; i++ {
		l := size
		if i == n {
			l = tail
		}
		d := make([]byte, l)
		for j := range d {
			d[j] = byte(i*7 + j)
		}
		copy(d, binary.BigEndian.AppendUint32([]byte{0x14, lane}, uint32(i)))
		b = append(b, d...)
	}
	return b
}

// cut returns the datagrams of a train.
func cut(b []byte, seg int) [][]byte {
	var ds [][]byte
	for len(b) > 0 {
		n := min(seg, len(b))
		ds = append(ds, b[:n])
		b = b[n:]
	}
	return ds
}

func endpoint(t testing.TB, addr string, port uint16, source string) *Endpoint {
	t.Helper()
	var from netip.Addr
	if source != "" {
		from = netip.MustParseAddr(source)
	}
	ep, err := NewEndpoint(netip.AddrPortFrom(netip.MustParseAddr(addr), port), from)
	if err != nil {
		t.Fatal(err)
	}
	return &ep
}

// same compares datagrams. cmp.Diff takes long on as many bytes, so it sees only the
// first that differs.
func same(t testing.TB, want, got [][]byte) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("got %d datagrams, want %d", len(got), len(want))
	}
	for i := range min(len(want), len(got)) {
		if !bytes.Equal(want[i], got[i]) {
			t.Errorf("datagram %d differs:\n%s", i, cmp.Diff(want[i], got[i]))
			return
		}
	}
}
