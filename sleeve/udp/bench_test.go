package udp

import (
	"fmt"
	"testing"
)

// BenchmarkVeth sends and receives over a veth pair, in one goroutine: the kernel
// delivers inside the send. Its figure is both ends' cost per byte; allocations
// must be none.
func BenchmarkVeth(b *testing.B) {
	h1, h2 := newPair(b, 1500)
	for _, f := range families {
		for _, plain := range []bool{false, true} {
			for _, n := range []int{1, 8, 45} {
				b.Run(fmt.Sprintf("%s/plain=%v/datagrams=%d", f.name, plain, n), func(b *testing.B) {
					cfg := Config{Addr: f.listen, NoGSO: plain, NoGRO: plain}
					benchSend(b, h1.listen(b, cfg), h2.listen(b, cfg), f.dst, train(0, n, 1430, 0))
				})
			}
		}
	}
}

// BenchmarkSmall sends 64 datagrams of a different size each, as a burst of small
// frames is.
func BenchmarkSmall(b *testing.B) {
	h1, h2 := newPair(b, 1500)
	g1, g2 := h1.listen(b, Config{}), h2.listen(b, Config{})
	s, r := g1.Sockets()[0].NewSender(), g2.Sockets()[0].NewReceiver(0)
	ep := endpoint(b, "10.77.0.2", g2.Port(), "")
	msgs := make([]Message, 64)
	for i := range msgs {
		msgs[i] = Message{To: ep, Buf: train(0, 1, 64+i, 0)}
	}
	b.Run("Send", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := range msgs {
				if err := s.Send(ep, msgs[i].Buf, 0); err != nil {
					b.Fatal(err)
				}
			}
			drain(b, r)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(msgs)), "ns/datagram")
	})
	b.Run("SendBatch", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.SendBatch(msgs); err != nil {
				b.Fatal(err)
			}
			drain(b, r)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(msgs)), "ns/datagram")
	})
}

func benchSend(b *testing.B, from, to *Group, dst string, buf []byte) {
	s, r := from.Sockets()[0].NewSender(), to.Sockets()[0].NewReceiver(0)
	ep := endpoint(b, dst, to.Port(), "")
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	got := 0
	for b.Loop() {
		if err := s.Send(ep, buf, 1430); err != nil {
			b.Fatal(err)
		}
		got += drain(b, r)
	}
	b.ReportMetric(1-float64(got)/float64(b.N*len(buf)), "loss")
}

// drain receives all there is and returns the bytes.
func drain(b *testing.B, r *Receiver) (n int) {
	for {
		slots, err := r.Recv()
		if err == ErrWouldBlock {
			return n
		}
		if err != nil {
			b.Fatal(err)
		}
		for i := range slots {
			for d := slots[i].Next(); d != nil; d = slots[i].Next() {
				n += len(d)
			}
		}
	}
}
