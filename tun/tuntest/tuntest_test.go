package tuntest_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/rawio"
	"weave/tun"
	"weave/tun/tuntest"
)

// port is the interface that consumers of package tun declare.
type port interface {
	Read(*ether.Superframe) error
	Write(ether.Offload, [][]byte) error
	FD() int
}

var _, _ port = (*tuntest.Queue)(nil), (*tun.Queue)(nil)

func newQueue(t *testing.T, depth int) *tuntest.Queue {
	t.Helper()
	q, err := tuntest.NewQueue(depth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// A worker that reads one frame per poll sees every frame that others push.
func TestQueueReadLevelTriggered(t *testing.T) {
	const n = 2000
	q := newQueue(t, n)
	p, err := rawio.NewPoller(q.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	go func() {
		for i := range n {
			q.Push(tuntest.Frame{Offload: ether.Offload{Size: uint16(i)}, Data: fmt.Append(nil, i)})
		}
	}()
	sf := ether.NewSuperframe()
	for i := 0; i < n; {
		if _, err := p.Wait(10_000); err != nil {
			t.Fatal(err)
		}
		err := q.Read(sf)
		if err == rawio.ErrWouldBlock {
			continue
		}
		if err != nil || string(sf.Frame()) != fmt.Sprint(i) || sf.Size != uint16(i) {
			t.Fatalf("frame %d: %q, size %d, %v", i, sf.Frame(), sf.Size, err)
		}
		i++
	}
	for range 2 {
		if err := q.Read(sf); err != rawio.ErrWouldBlock {
			t.Errorf("empty: %v, want ErrWouldBlock", err)
		}
	}
}

func TestQueueWrite(t *testing.T) {
	q := newQueue(t, 1)
	off := ether.Offload{GSO: ether.GSOUDPL4, Size: 2}
	for range 2 {
		if err := q.Write(off, [][]byte{[]byte("head"), nil, []byte("tail")}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(tuntest.Frame{Offload: off, Data: []byte("headtail")}, <-q.Written()); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	if q.Lost() != 1 {
		t.Errorf("lost %d, want the one that found the queue full", q.Lost())
	}
}

func TestQueueFullAndClosed(t *testing.T) {
	q := newQueue(t, 1)
	if !q.Push(tuntest.Frame{}) || q.Push(tuntest.Frame{}) {
		t.Error("want the first frame in and the second one lost")
	}
	q.Close()
	if err := q.Read(ether.NewSuperframe()); err != tun.ErrClosed {
		t.Errorf("Read after Close: %v", err)
	}
	if err := q.Write(ether.Offload{}, nil); err != tun.ErrClosed {
		t.Errorf("Write after Close: %v", err)
	}
}
