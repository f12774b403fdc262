package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Addresses of the socket families a train must cross.
var families = []struct {
	name   string
	listen netip.Addr // of both ends
	dst    string
}{
	{"IPv4", netip.IPv4Unspecified(), "10.77.0.2"},
	{"IPv6", netip.IPv6Unspecified(), "fd77::2"},
	{"IPv4 on dual stack", netip.Addr{}, "10.77.0.2"},
	{"IPv6 on dual stack", netip.Addr{}, "fd77::2"},
}

func TestTrain(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, f := range families {
		for _, tail := range []int{0, 700} {
			t.Run(fmt.Sprintf("%s/tail %d", f.name, tail), func(t *testing.T) {
				ga := a.listen(t, Config{Addr: f.listen})
				gb := b.listen(t, Config{Addr: f.listen})
				in := newInbox(t, gb.Sockets()[0])

				sent := train(0, 45, 1430, tail)
				ep := endpoint(t, f.dst, gb.Port(), "")
				if err := ga.Sockets()[0].NewSender().Send(ep, sent, 1430); err != nil {
					t.Fatal(err)
				}
				want := cut(sent, 1430)
				got, seg, slots := in.read(t, len(want))
				same(t, want, got)
				if seg != 1430 || slots != 1 {
					t.Errorf("got %d slots, segment size %d, want one slot of 1430", slots, seg)
				}
				tx, rx := ga.Stats(), gb.Stats()
				wantTx := Stats{TxDatagrams: uint64(len(want)), TxBytes: uint64(len(sent)), TxCalls: 1, TxTrains: 1}
				wantRx := Stats{RxDatagrams: uint64(len(want)), RxBytes: uint64(len(sent)), RxSlots: 1}
				if tx != wantTx || rx != wantRx {
					t.Errorf("stats\n got %+v\n     %+v\nwant %+v\n     %+v", tx, rx, wantTx, wantRx)
				}
			})
		}
	}
}

// A veth without checksum offload: older kernels answer a train with EIO, newer ones
// sum it up in software. It arrives either way.
func TestTrainWithoutChecksumOffload(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, h := range []host{a, b} {
		run(t, "ip netns exec "+h.name+" ethtool -K w0 tx off")
	}
	ga, gb := a.listen(t, Config{}), b.listen(t, Config{})
	sent := train(0, 20, 1430, 99)
	if err := ga.Sockets()[0].NewSender().Send(endpoint(t, "10.77.0.2", gb.Port(), ""), sent, 1430); err != nil {
		t.Fatal(err)
	}
	got, _, _ := newInbox(t, gb.Sockets()[0]).read(t, 21)
	same(t, cut(sent, 1430), got)
}

func TestTrainSplits(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name          string
		n, size, tail int
		calls, trains uint64
	}{
		{"one datagram", 1, 1200, 0, 1, 0},
		{"one short datagram", 0, 1200, 7, 1, 0},
		{"64 segments", 64, 100, 0, 1, 1},
		{"64 segments and a tail", 64, 100, 7, 2, 1},
		{"130 segments", 130, 100, 0, 3, 3},
		{"full bytes", 45, 1455, 0, 1, 1},
		{"one too many for the bytes", 46, 1455, 0, 2, 1},
		{"large segments", 7, 8900, 0, 1, 1},
		{"larger segments", 8, 8900, 100, 2, 2},
		{"jumbo", 3, 40000, 0, 3, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := h.listen(t, Config{})
			sent := train(0, tt.n, tt.size, tt.tail)
			ep := endpoint(t, "127.0.0.1", g.Port(), "")
			if err := g.Sockets()[0].NewSender().Send(ep, sent, tt.size); err != nil {
				t.Fatal(err)
			}
			want := cut(sent, tt.size)
			got, _, _ := newInbox(t, g.Sockets()[0]).read(t, len(want))
			same(t, want, got)
			if s := g.Stats(); s.TxCalls != tt.calls || s.TxTrains != tt.trains {
				t.Errorf("got %d calls, %d trains, want %d, %d", s.TxCalls, s.TxTrains, tt.calls, tt.trains)
			}
		})
	}
}

func TestOffloadOff(t *testing.T) {
	a, b := newPair(t, 1500)
	sent := train(0, 70, 600, 99)
	want := cut(sent, 600)
	for _, cfg := range []Config{{NoGSO: true}, {NoGRO: true}, {NoGSO: true, NoGRO: true}} {
		t.Run(fmt.Sprintf("NoGSO %v NoGRO %v", cfg.NoGSO, cfg.NoGRO), func(t *testing.T) {
			ga, gb := a.listen(t, cfg), b.listen(t, cfg)
			if f := ga.Features(); f.GSO == cfg.NoGSO || f.GRO == cfg.NoGRO {
				t.Errorf("got features %+v", f)
			}
			if err := ga.Sockets()[0].NewSender().Send(endpoint(t, "fd77::2", gb.Port(), ""), sent, 600); err != nil {
				t.Fatal(err)
			}
			got, seg, slots := newInbox(t, gb.Sockets()[0]).read(t, len(want))
			same(t, want, got)
			if seg != 0 || slots != len(want) {
				t.Errorf("got %d slots, segment size %d, want single datagrams", slots, seg)
			}
			if s := ga.Stats(); cfg.NoGSO && (s.TxCalls != 2 || s.TxTrains != 0) {
				t.Errorf("got %d calls, %d trains, want two sendmmsg and no train", s.TxCalls, s.TxTrains)
			}
		})
	}
}

func TestTooBig(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			ga := a.listen(t, Config{Addr: f.listen})
			gb := b.listen(t, Config{Addr: f.listen})
			in := newInbox(t, gb.Sockets()[0])
			s := ga.Sockets()[0].NewSender()
			ep := endpoint(t, f.dst, gb.Port(), "")

			sent := train(0, 5, 1600, 300)
			if err := s.Send(ep, sent, 1600); err != ErrTooBig {
				t.Errorf("Send above the MTU: got %v, want ErrTooBig", err)
			}
			got, _, _ := in.read(t, 1)
			if diff := cmp.Diff([][]byte{sent[5*1600:]}, got); diff != "" {
				t.Errorf("the tail fits but did not arrive:\n%s", diff)
			}
			in.empty(t)
			if err := s.Send(ep, sent[:1600], 0); err != ErrTooBig {
				t.Errorf("Send of one: got %v, want ErrTooBig", err)
			}
			if st := ga.Stats(); st.TxTooBig != 6 || st.TxDatagrams != 1 || st.TxPlain != 1 {
				t.Errorf("got %+v", st)
			}
			if !ga.Features().GSO {
				t.Error("a segment above the MTU turned GSO off")
			}
			// A path that is too small leaves the Sender usable.
			if err := s.Send(ep, train(0, 3, 1400, 0), 1400); err != nil {
				t.Error(err)
			}
			in.read(t, 3)
		})
	}
}

func TestSendBatch(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoGSO %v", noGSO), func(t *testing.T) {
			ga, g1, g2 := a.listen(t, Config{NoGSO: noGSO}), b.listen(t, Config{}), b.listen(t, Config{})
			in1, in2 := newInbox(t, g1.Sockets()[0]), newInbox(t, g2.Sockets()[0])
			v4, v6 := endpoint(t, "10.77.0.2", g1.Port(), ""), endpoint(t, "fd77::2", g2.Port(), "")
			bad := endpoint(t, "10.99.0.1", 9, "")

			var msgs []Message
			var want1, want2 [][]byte
			add := func(ep *Endpoint, buf []byte, seg int) {
				msgs = append(msgs, Message{To: ep, Buf: buf, SegSize: seg, Err: errors.New("stale")})
				if ep == v4 {
					want1 = append(want1, cut(buf, seg)...)
				} else if ep == v6 {
					want2 = append(want2, cut(buf, seg)...)
				}
			}
			for i := range 100 {
				add(v4, train(1, 1, 60+i, 0), 60+i)
				add(v6, train(2, 2, 300+i, 7), 300+i)
			}
			// Failures, in the middle and at the start, stop nobody else.
			tooBig := train(3, 2, 1600, 100)
			msgs = append(msgs[:90:90], append([]Message{
				{To: v4, Buf: tooBig, SegSize: 1600},
				{To: bad, Buf: train(3, 3, 100, 0), SegSize: 100},
				{To: v6, Buf: nil},
			}, msgs[90:]...)...)
			want1 = append(want1[:45:45], append([][]byte{tooBig[3200:]}, want1[45:]...)...)
			msgs = append([]Message{{To: v4, Buf: train(3, 5, 1600, 0), SegSize: 1600}}, msgs...)

			if err := ga.Sockets()[0].NewSender().SendBatch(msgs); err != ErrTooBig {
				t.Errorf("got %v, want ErrTooBig, the first error", err)
			}
			for i, m := range msgs {
				want := map[int]error{0: ErrTooBig, 91: ErrTooBig, 92: ErrUnreachable}[i]
				if m.Err != want {
					t.Errorf("message %d: got %v, want %v", i, m.Err, want)
				}
			}
			got1, _, _ := in1.read(t, len(want1))
			got2, _, _ := in2.read(t, len(want2))
			if diff := cmp.Diff(want1, got1); diff != "" {
				t.Errorf("IPv4 datagrams differ:\n%s", diff)
			}
			if diff := cmp.Diff(want2, got2); diff != "" {
				t.Errorf("IPv6 datagrams differ:\n%s", diff)
			}
			in1.empty(t)
			in2.empty(t)
			st := ga.Stats()
			if st.TxDatagrams != uint64(len(want1)+len(want2)) || st.TxTooBig != 7 || st.TxUnreachable != 3 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// The kernel steers a joined train by its first datagram: a receiver must take
// datagrams of any lane. A train of mixed lanes stands for what a device's GRO makes
// of the datagrams of several senders, which all have the same addresses and ports.
// A kernel that refuses the steering program leaves one socket, for all lanes.
func TestAddresses(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, f := range families {
		for _, dst := range []string{f.dst, f.dst + "2"} { // .2 and .22
			t.Run(f.name+" "+dst, func(t *testing.T) {
				ga := a.listen(t, Config{Addr: f.listen})
				gb := b.listen(t, Config{Addr: f.listen})
				ina, inb := newInbox(t, ga.Sockets()[0]), newInbox(t, gb.Sockets()[0])
				ep := endpoint(t, dst, gb.Port(), "")
				if err := ga.Sockets()[0].NewSender().Send(ep, train(0, 2, 100, 0), 100); err != nil {
					t.Fatal(err)
				}
				slot := inb.next(t)[0]
				wantFrom := "10.77.0.1"
				if strings.Contains(dst, ":") {
					wantFrom = "fd77::1"
				}
				if got, want := slot.From, netip.AddrPortFrom(netip.MustParseAddr(wantFrom), ga.Port()); got != want {
					t.Errorf("From: got %v, want %v", got, want)
				}
				if got := slot.To.String(); got != dst {
					t.Errorf("To: got %v, want %v", got, dst)
				}
				if got, want := slot.Reply, *endpoint(t, wantFrom, ga.Port(), dst); got != want {
					t.Errorf("Reply: got %v, want %v", got, want)
				}
				// The answer comes from the address that was asked.
				if err := gb.Sockets()[0].NewSender().Send(&slot.Reply, train(0, 2, 100, 0), 100); err != nil {
					t.Fatal(err)
				}
				back := ina.next(t)[0]
				if got, want := back.From, netip.AddrPortFrom(netip.MustParseAddr(dst), gb.Port()); got != want {
					t.Errorf("answer from: got %v, want %v", got, want)
				}
			})
		}
	}
}

// One sender writes to two local addresses in turn.
func TestAddressChanges(t *testing.T) {
	a, b := newPair(t, 1500)
	ga, gb := a.listen(t, Config{}), b.listen(t, Config{})
	s, in := ga.Sockets()[0].NewSender(), newInbox(t, gb.Sockets()[0])
	dsts := []string{"10.77.0.2", "10.77.0.22", "fd77::2", "10.77.0.2", "fd77::22"}
	for _, dst := range dsts { // later ones must not wait for a neighbour's address
		if err := s.Send(endpoint(t, dst, gb.Port(), ""), train(0, 1, 100, 0), 0); err != nil {
			t.Fatal(err)
		}
		in.read(t, 1)
	}
	for _, dst := range dsts {
		if err := s.Send(endpoint(t, dst, gb.Port(), ""), train(0, 1, 100, 0), 0); err != nil {
			t.Fatal(err)
		}
	}
	slots := in.next(t)
	if len(slots) != len(dsts) {
		t.Fatalf("got %d slots, want %d", len(slots), len(dsts))
	}
	for i, slot := range slots {
		if slot.To.String() != dsts[i] || slot.Reply.Source() != slot.To {
			t.Errorf("slot %d: got To %v, Reply from %v, want %s", i, slot.To, slot.Reply.Source(), dsts[i])
		}
	}
}

func TestLinkLocal(t *testing.T) {
	a, b := newPair(t, 1500)
	// A link-local address of its own, that needs no duplicate detection.
	run(t, "ip -n "+a.name+" addr add fe80::a/64 dev w0 nodad")
	run(t, "ip -n "+b.name+" addr add fe80::b/64 dev w0 nodad")
	ga, gb := a.listen(t, Config{}), b.listen(t, Config{})
	in := newInbox(t, gb.Sockets()[0])
	var ep Endpoint
	var err error
	a.in(t, func() {
		ep, err = NewEndpoint(netip.AddrPortFrom(netip.MustParseAddr("fe80::b%w0"), gb.Port()), netip.MustParseAddr("fe80::a"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ga.Sockets()[0].NewSender().Send(&ep, train(0, 1, 100, 0), 0); err != nil {
		t.Fatal(err)
	}
	slot := in.next(t)[0]
	if got := slot.From.Addr().WithZone(""); got != netip.MustParseAddr("fe80::a") || slot.From.Addr().Zone() == "" {
		t.Errorf("From: got %v, want fe80::a with a zone", slot.From)
	}
	if err := gb.Sockets()[0].NewSender().Send(&slot.Reply, train(0, 1, 100, 0), 0); err != nil {
		t.Fatal(err)
	}
	newInbox(t, ga.Sockets()[0]).next(t)
}

func TestSourceGone(t *testing.T) {
	a, b := newPair(t, 1500)
	ga, gb := a.listen(t, Config{}), b.listen(t, Config{})
	s := ga.Sockets()[0].NewSender()
	for _, ep := range []*Endpoint{
		endpoint(t, "10.77.0.2", gb.Port(), "10.77.0.99"),
		endpoint(t, "fd77::2", gb.Port(), "fd77::99"),
	} {
		if err := s.Send(ep, train(0, 3, 100, 0), 100); err != ErrSource {
			t.Errorf("from %v: got %v, want ErrSource", ep.Source(), err)
		}
	}
	if got := ga.Stats().TxSource; got != 6 {
		t.Errorf("got %d datagrams counted, want 6", got)
	}
	if !ga.Features().GSO {
		t.Error("a wrong source turned GSO off")
	}
}

func TestUnreachable(t *testing.T) {
	a, b := newPair(t, 1500)
	v4 := a.listen(t, Config{Addr: netip.IPv4Unspecified()})
	dual := a.listen(t, Config{})
	run(t, "ip -n "+a.name+" route add prohibit 10.88.0.0/16")
	run(t, "ip -n "+a.name+" route add unreachable 10.89.0.0/16")
	tests := []struct {
		name string
		g    *Group
		dst  string
	}{
		{"no IPv4 route", dual, "10.99.0.1"},
		{"no IPv6 route", dual, "fd99::1"},
		{"prohibited", dual, "10.88.0.1"},
		{"unreachable", dual, "10.89.0.1"},
		{"other family", v4, "fd77::2"},
	}
	for _, tt := range tests {
		before := tt.g.Stats().TxUnreachable
		if err := tt.g.Sockets()[0].NewSender().Send(endpoint(t, tt.dst, 9, ""), train(0, 100, 1000, 0), 1000); err != ErrUnreachable {
			t.Errorf("%s: got %v, want ErrUnreachable", tt.name, err)
		}
		if got := tt.g.Stats().TxUnreachable - before; got != 100 {
			t.Errorf("%s: got %d datagrams counted, want 100", tt.name, got)
		}
	}

	// A closed port at the other end answers with ICMP. Nothing of it is seen here,
	// neither by sends nor by receives.
	gb := b.listen(t, Config{})
	s, in := dual.Sockets()[0].NewSender(), newInbox(t, dual.Sockets()[0])
	for range 20 {
		for _, dst := range []string{"10.77.0.2", "fd77::2"} {
			if err := s.Send(endpoint(t, dst, 9, ""), train(0, 3, 100, 0), 100); err != nil {
				t.Errorf("to a closed port: %v", err)
			}
		}
		in.empty(t)
	}
	if err := s.Send(endpoint(t, "10.77.0.2", gb.Port(), ""), train(0, 3, 100, 0), 100); err != nil {
		t.Error(err)
	}
	newInbox(t, gb.Sockets()[0]).read(t, 3)
	if got := dual.Stats().RxErrors; got != 0 {
		t.Errorf("got %d socket errors, want 0", got)
	}
}

// A neighbour that never answers keeps datagrams queued, and so fills a small
// buffer: Send must come back, and soon.
func TestCongested(t *testing.T) {
	a, _ := newPair(t, 1500)
	g := a.listen(t, Config{SndBuf: 8 << 10})
	s := g.Sockets()[0].NewSender()
	ep := endpoint(t, "10.77.0.77", 9, "")
	buf := train(0, 40, 1400, 0)
	for range 20 {
		start := time.Now()
		err := s.Send(ep, buf, 1400)
		if d := time.Since(start); d > time.Second {
			t.Fatalf("Send took %v", d)
		}
		if err == ErrCongested {
			if st := g.Stats(); st.TxCongested != 40 || st.TxWaits != sendWaits {
				t.Errorf("got %+v, want 40 datagrams dropped after %d waits", st, sendWaits)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the buffer never filled")
}

func TestOverflow(t *testing.T) {
	a, b := newPair(t, 1500)
	ga := a.listen(t, Config{NoGSO: true})
	gb := b.listen(t, Config{NoGRO: true, RcvBuf: 16 << 10})
	s, in := ga.Sockets()[0].NewSender(), newInbox(t, gb.Sockets()[0])
	ep := endpoint(t, "10.77.0.2", gb.Port(), "")
	send := func(n int) {
		if err := s.Send(ep, train(0, n, 1000, 0), 1000); err != nil {
			t.Fatal(err)
		}
	}
	drain := func() (n int) {
		for {
			slots, err := in.Recv()
			if err != nil {
				return n
			}
			n += len(slots)
		}
	}
	want := 0
	for range 3 {
		send(500)
		got := drain()
		if got == 0 || got == 500 {
			t.Fatalf("got %d of 500: the test needs loss", got)
		}
		want += 500 - got
		send(1) // the count comes with the next datagram
		in.next(t)
		if lost := gb.Stats().RxOverflow; lost != uint64(want) {
			t.Errorf("got %d lost, want %d", lost, want)
		}
	}
}

func TestTruncated(t *testing.T) {
	h := newHost(t)
	g := h.listen(t, Config{})
	in := newInbox(t, g.Sockets()[0])
	s := g.Sockets()[0].NewSender()
	ep := endpoint(t, "127.0.0.1", g.Port(), "")
	in.iovs[0].SetLen(50)
	for range 3 {
		if err := s.Send(ep, train(0, 4, 100, 0), 100); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, slots := in.read(t, 8); slots != 2 || len(got) != 8 {
		t.Errorf("got %d datagrams in %d slots, want the 8 of the whole slots", len(got), slots)
	}
	if got := g.Stats().RxTruncated; got != 1 {
		t.Errorf("got %d counted, want 1", got)
	}
}

func TestClosed(t *testing.T) {
	h := newHost(t)
	g := h.listen(t, Config{})
	s, r := g.Sockets()[0].NewSender(), g.Sockets()[0].NewReceiver(0)
	ep := endpoint(t, "127.0.0.1", g.Port(), "")
	// A descriptor that is surely not open, not one that others may get.
	g.Close()
	g.Sockets()[0].fd = 1 << 20
	if err := s.Send(ep, train(0, 3, 100, 0), 100); err != ErrClosed {
		t.Errorf("Send: got %v, want ErrClosed", err)
	}
	if _, err := r.Recv(); err != ErrClosed {
		t.Errorf("Recv: got %v, want ErrClosed", err)
	}
}

// The probe needs no loopback device, and without IPv6 addresses a
// dual-stack socket still carries IPv4.
// An unprivileged process gets small buffers and is told which sysctl to raise.
func TestNoAllocs(t *testing.T) {
	h := newHost(t)
	for _, dst := range []string{"127.0.0.1", "::1"} {
		g := h.listen(t, Config{})
		s, r := g.Sockets()[0].NewSender(), g.Sockets()[0].NewReceiver(0)
		ep := endpoint(t, dst, g.Port(), dst)
		buf := train(0, 40, 1400, 33)
		msgs := make([]Message, 10)
		for i := range msgs {
			msgs[i] = Message{To: ep, Buf: train(0, 3, 100+i, 0), SegSize: 100 + i}
		}
		n := 0
		allocs := testing.AllocsPerRun(100, func() {
			if s.Send(ep, buf, 1400) != nil || s.SendBatch(msgs) != nil {
				t.Error("send fails")
			}
			for {
				slots, err := r.Recv()
				if err != nil {
					return
				}
				for i := range slots {
					for d := slots[i].Next(); d != nil; d = slots[i].Next() {
						n++
					}
					if slots[i].Reply != *ep {
						t.Error("endpoint differs")
					}
				}
			}
		})
		if allocs != 0 || n != 101*(41+30) {
			t.Errorf("%s: got %v allocations for %d datagrams, want 0", dst, allocs, n)
		}
	}
}
