package sleeve

import (
	"fmt"
	"net/netip"
	"testing"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

var ciphers = []session.Cipher{session.CipherNone, session.CipherChaCha, session.CipherAES}

// bulk is a superframe as an iperf stream makes them: 45 segments, timestamps.
func bulk() ([]byte, ether.Offload) {
	p := ethertest.Packet{Flags: ether.ACK | ether.PSH, TCPOptions: make([]byte, 12), Payload: make([]byte, 45*1324)}
	return p.Superframe(1324)
}

// small is a 64-byte UDP payload.
func small() ([]byte, ether.Offload) {
	return ethertest.Packet{UDP: true, Payload: make([]byte, 64)}.Superframe(0)
}

// joinable is small in a packet that a run of such can be joined of.
func joinable() ([]byte, ether.Offload) {
	a, b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	return ethertest.Packet{UDP: true, SrcIP: a, DstIP: b, Payload: make([]byte, 64)}.Superframe(0)
}

func TestNoAllocs(t *testing.T) {
	for _, c := range ciphers {
		t.Run(c.String(), func(t *testing.T) {
			rx := &counting{}
			d := newDirect(t, c, 1430, rx)
			sf := ether.NewSuperframe()
			big, bigOff := bulk()
			little, littleOff := small()
			flow, flowOff := joinable()
			udp := ethertest.Packet{UDP: true, Payload: make([]byte, 4000)}.Frame()
			round := func() {
				refill(sf, big, bigOff)
				d.a.Send(0, d.a.route, sf)
				for range 10 {
					refill(sf, little, littleOff)
					d.a.Send(0, d.a.route, sf)
				}
				for range 10 {
					refill(sf, flow, flowOff)
					d.a.Send(0, d.a.route, sf)
				}
				refill(sf, udp, ether.Offload{})
				d.a.Send(0, d.a.route, sf)
				d.ov.Flush(0)
				d.receive()
			}
			round() // makes the lanes
			rx.calls = 0
			if n := testing.AllocsPerRun(100, round); n != 0 {
				t.Errorf("%v allocations in a round of 22 frames, want none", n)
			}
			if want := 101 * 13; rx.calls != want {
				t.Errorf("%d frames delivered, want %d", rx.calls, want)
			}
		})
	}
}

// TestNoAllocsUnderLoss: the way of what has to wait for the end of the batch.
func TestNoAllocsUnderLoss(t *testing.T) {
	rx := &counting{}
	d := newDirect(t, session.CipherAES, 1430, rx)
	sf := ether.NewSuperframe()
	big, off := bulk()
	round := func() {
		refill(sf, big, off)
		d.a.Send(0, d.a.route, sf)
		d.ov.Flush(0)
		d.slots[0].Data = d.slots[0].Data[1430*3:] // the first three are lost
		d.receive()
	}
	round()
	rx.bytes = 0
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations in a round with a lost datagram, want none", n)
	}
	if rx.bytes == 0 {
		t.Error("nothing delivered")
	}
}

func BenchmarkPath(b *testing.B) {
	for _, c := range ciphers {
		for _, limit := range []int{1472, 8972} {
			b.Run(fmt.Sprintf("tcp/%v/datagram=%d", c, limit), func(b *testing.B) {
				frame, off := bulk()
				benchmark(b, c, limit, 1, frame, off)
			})
		}
		b.Run(fmt.Sprintf("udp64/%v", c), func(b *testing.B) {
			frame, off := small()
			benchmark(b, c, 1472, 64, frame, off)
		})
		b.Run(fmt.Sprintf("udp64-flow/%v", c), func(b *testing.B) {
			frame, off := joinable()
			benchmark(b, c, 1472, 64, frame, off)
		})
		b.Run(fmt.Sprintf("udp1400/%v", c), func(b *testing.B) {
			frame, off := ethertest.Packet{UDP: true, Payload: make([]byte, 1300)}.Superframe(0)
			benchmark(b, c, 1472, 32, frame, off)
		})
	}
}

// benchmark runs batches of frames from Send to Receive; the copy that stands for
// the kernel's is part of it.
func benchmark(b *testing.B, c session.Cipher, limit, batch int, frame []byte, off ether.Offload) {
	rx := &counting{}
	d := newDirect(b, c, limit, rx)
	sf := ether.NewSuperframe()
	b.SetBytes(int64(batch * len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		for range batch {
			refill(sf, frame, off)
			d.a.Send(0, d.a.route, sf)
		}
		d.ov.Flush(0)
		d.receive()
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	if want := batch * b.N * (len(frame) - 62); rx.bytes < want { // headers may be joined
		b.Errorf("%d bytes delivered, want %d at least", rx.bytes, want)
	}
}
