package sleeve

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/sleeve/udp"
)

// TestOrderInBatch: whatever order the datagrams of one batch come in, what is
// delivered is in the order of sending, and a whole superframe is whole.
func TestOrderInBatch(t *testing.T) {
	rx := &counting{keep: true}
	d := newDirect(t, session.CipherAES, 1430, rx)
	rng := rand.New(rand.NewPCG(1, 1))
	for round := range 200 {
		want := sendMixed(d)
		batch := d.datagrams()
		rng.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		rx.frames, rx.offs = nil, nil
		d.give(batch...)
		if got := fmt.Sprintf("%x", rx.frames); got != fmt.Sprintf("%x", want) {
			t.Fatalf("round %d: %d frames delivered, want %d in order", round, len(rx.frames), len(want))
		}
	}
}

// sendMixed queues a superframe between single frames.
func sendMixed(d *direct) (want [][]byte) {
	sf := ether.NewSuperframe()
	for i := range 3 {
		frame, off := ethertest.Packet{UDP: true, ID: uint16(7 * i), Payload: make([]byte, 700)}.Superframe(0)
		want = append(want, frame)
		refill(sf, frame, off)
		d.a.Send(0, d.a.route, sf)
		if i == 1 {
			frame, off := bulk()
			want = append(want, frame)
			refill(sf, frame, off)
			d.a.Send(0, d.a.route, sf)
		}
	}
	d.ov.Flush(0)
	return want
}

// TestLateDatagrams: what comes a batch too late is delivered at once, by itself.
func TestLateDatagrams(t *testing.T) {
	rx := &counting{keep: true}
	d := newDirect(t, session.CipherAES, 1430, rx)
	sendMixed(d)
	batch := d.datagrams()
	late := batch[0]
	d.give(batch[1:]...)
	before := rx.calls
	d.give(late)
	if before != 3 || rx.calls != 4 {
		t.Errorf("%d frames, then %d, want 3, then 4", before, rx.calls)
	}
}

// TestRunsOfManyLanes: interleaved lanes don't tear each other's superframes.
func TestRunsOfManyLanes(t *testing.T) {
	rx := &counting{}
	d := newDirect(t, session.CipherAES, 1430, rx)
	var lanes [][][]byte
	sf := ether.NewSuperframe()
	frame, off := bulk()
	const n = 16
	for lane := range n {
		var tl txLane
		d.ov.initLane(&tl, 0, 0, session.Lane(lane), captured{d})
		d.a.tx[0].Store(nil)
		refill(sf, frame, off)
		tl.send(d.a, d.a.route, sf.Offload, sf.Buf, sf.Head)
		tl.flush()
		lanes = append(lanes, d.datagrams())
	}
	var batch [][]byte
	for i := range lanes[0] {
		for _, l := range lanes {
			batch = append(batch, l[i])
		}
	}
	d.give(batch...)
	if rx.calls != n || rx.bytes != n*len(frame) {
		t.Errorf("%d superframes of %d bytes in all, want %d of %d", rx.calls, rx.bytes, n, n*len(frame))
	}
}

// TestStrays: a datagram that came by another worker's socket reaches its own.
func TestStrays(t *testing.T) {
	rx := &counting{}
	d := newDirect(t, session.CipherAES, 1430, rx)
	other := newRxWorker(d.ov, 1, nil, rx)
	woken := new(wakes)
	d.worker.sock = wakeOnly{woken}
	d.ov.workers = append(d.ov.workers, other) // lane 0 stays worker 0's
	d.ov.relays = append(d.ov.relays, txLane{})
	d.b.rx = make([]traffic, 2)
	sendMixed(d)
	for _, s := range d.slots {
		other.batch(append(d.slots[:0:0], s), d.worker.now)
	}
	if rx.calls != 0 || *woken == 0 {
		t.Errorf("%d frames by the wrong worker, %d wakes", rx.calls, *woken)
	}
	d.worker.housekeep(d.worker.now)
	if rx.calls != 4 {
		t.Errorf("%d frames delivered, want 4", rx.calls)
	}
}

type wakes int

type wakeOnly struct{ w *wakes }

func (s wakeOnly) Recv() ([]udp.Slot, error) { return nil, udp.ErrWouldBlock }
func (s wakeOnly) Wait(time.Duration) error  { return nil }
func (s wakeOnly) Wake()                     { *s.w++ }

// TestRelayLeavesBuffers: the Receiver may still write what it relays.
func TestRelayLeavesBuffers(t *testing.T) {
	d := newDirect(t, session.CipherAES, 1430, &counting{})
	frame, off := bulk()
	bufs := [][]byte{append([]byte(nil), frame[:66]...), append([]byte(nil), frame[66:30001]...), append([]byte(nil), frame[30001:]...)}
	d.a.Relay(0, d.a.back, off, bufs)
	d.ov.relays[0].flush()
	var all []byte
	for _, b := range bufs {
		all = append(all, b...)
	}
	if string(all) != string(frame) {
		t.Error("Relay changed the pieces")
	}
}

// TestTrainsAreEqual: all datagrams of a Send but the last have the same size, and
// the kernel's limits hold.
func TestTrainsAreEqual(t *testing.T) {
	for _, c := range ciphers {
		d := newDirect(t, c, 1430, &counting{})
		rng := rand.New(rand.NewPCG(1, 1))
		sf := ether.NewSuperframe()
		for range 500 {
			n := 1 + rng.IntN(60000)
			p := ethertest.Packet{Payload: make([]byte, n)}
			frame, off := p.Superframe(0)
			switch {
			case n > 1300:
				frame, off = p.Superframe(1 + rng.IntN(1300))
			case n < 10:
				d.ov.Flush(0)
			}
			refill(sf, frame, off)
			d.a.Send(0, d.a.route, sf)
			for _, s := range d.slots {
				k := (len(s.Data) + s.SegSize - 1) / s.SegSize
				if len(s.Data) > maxSendLen || k > maxTrain || s.SegSize > 1430 {
					t.Fatalf("%v: a train of %d datagrams, %d bytes, segments of %d", c, k, len(s.Data), s.SegSize)
				}
				for at := 0; at < len(s.Data); at += s.SegSize {
					if h, ok := session.ParseHeader(s.Data[at:]); !ok || h.Index != d.rxKeys.Index {
						t.Fatalf("%v: no datagram at %d of a train with segments of %d: %x", c, at, s.SegSize, binary.BigEndian.Uint64(s.Data[at:]))
					}
				}
			}
			d.slots = d.slots[:0]
		}
	}
}
