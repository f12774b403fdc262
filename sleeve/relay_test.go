package sleeve

import (
	"fmt"
	"net/netip"
	"testing"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve/udp"
)

// onward is a Receiver that relays all it gets by one link.
type onward struct {
	to     *Link
	rt     peer.Route
	frames int
	offs   map[ether.Offload]int
}

func (o *onward) Receive(lane int, _ peer.Name, _ peer.Route, off ether.Offload, bufs [][]byte) {
	o.frames++
	o.offs[off]++
	o.to.Relay(lane, o.rt, off, bufs)
}

// chain is a sender, a relay and the last of three peers: what the sender sends is
// opened by the relay, sealed again, and opened by the last.
type chain struct {
	*direct // sender and relay
	relay   *onward
	far     *direct // its b is the last
	slots   []udp.Slot
	bufs    [][]byte
}

func newChain(t testing.TB, c session.Cipher, limit int, last Receiver) *chain {
	t.Helper()
	relay := &onward{offs: map[ether.Offload]int{}}
	ch := &chain{direct: newDirect(t, c, limit, relay), far: newDirect(t, c, limit, last), relay: relay}
	name := peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 3})
	l, err := ch.ov.prepare(overlay.Params{
		Local: ch.a.p.Remote, Remote: name, RemoteAddr: netip.MustParseAddrPort("192.0.2.3:6783"),
		Agreement: overlay.Agreement{Cipher: c, Lanes: 1},
		Secret:    session.SecretFromBytes([session.SecretLen]byte{2}),
		Permit:    policy.Decide(policy.Stance{}, policy.Stance{}),
		Send:      func([]byte) error { return nil },
		Notify:    func(overlay.Event) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	l.sending.Store(ch.far.a.sending.Load())
	relay.to, relay.rt = l, peer.Route{Origin: ch.a.p.Local, Dest: name}
	return ch
}

// pass lets the relay work on what was sent; what it sends lies in slots then.
func (ch *chain) pass() {
	d := ch.direct
	in, inBufs := d.slots, d.bufs
	d.slots, d.bufs = ch.slots[:0], ch.bufs
	d.worker.batch(in, d.worker.now)
	ch.slots, ch.bufs = d.slots, d.bufs
	d.slots, d.bufs = in[:0], inBufs
}

// arrive hands what the relay sent to the last.
func (ch *chain) arrive() {
	ch.far.worker.batch(ch.slots, ch.far.worker.now)
	ch.slots = ch.slots[:0]
}

// TestRelayKeepsSuperframes: a superframe crosses a relay as one, in as many
// datagrams as it came in, with its offload; so does what was joined.
func TestRelayKeepsSuperframes(t *testing.T) {
	for _, limit := range []int{1472, 8972} {
		rx := &counting{keep: true}
		ch := newChain(t, session.CipherAES, limit, rx)
		sf := ether.NewSuperframe()
		frame, off := bulk()
		refill(sf, frame, off)
		ch.a.Send(0, ch.relay.rt, sf)
		ch.ov.Flush(0)
		came := countDatagrams(ch.direct.slots)
		ch.pass()
		went := countDatagrams(ch.slots)
		ch.arrive()
		if ch.relay.frames != 1 || rx.calls != 1 || came != went {
			t.Errorf("limit %d: %d frames at the relay, %d at the end; %d datagrams in, %d out", limit, ch.relay.frames, rx.calls, came, went)
		}
		if rx.calls > 0 && (string(rx.frames[0]) != string(frame) || rx.offs[0] != off) {
			t.Errorf("limit %d: superframe changed on its way", limit)
		}
		little, littleOff := joinable()
		for range 20 {
			refill(sf, little, littleOff)
			ch.a.Send(0, ch.relay.rt, sf)
		}
		ch.ov.Flush(0)
		ch.pass()
		ch.arrive()
		if ch.relay.frames != 2 || rx.calls != 2 {
			t.Errorf("limit %d: joined datagrams: %d frames at the relay, %d at the end", limit, ch.relay.frames-1, rx.calls-1)
		}
	}
}

func countDatagrams(slots []udp.Slot) (n int) {
	for _, s := range slots { // copies: Next moves
		for s.Next() != nil {
			n++
		}
	}
	return n
}

// TestRelayNoAllocs: relaying allocates nothing per packet.
func TestRelayNoAllocs(t *testing.T) {
	ch := newChain(t, session.CipherAES, 1472, &counting{})
	sf := ether.NewSuperframe()
	big, bigOff := bulk()
	little, littleOff := small()
	round := func() {
		refill(sf, big, bigOff)
		ch.a.Send(0, ch.relay.rt, sf)
		refill(sf, little, littleOff)
		ch.a.Send(0, ch.relay.rt, sf)
		ch.ov.Flush(0)
		ch.pass()
		ch.arrive()
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations in a round, want none", n)
	}
}

// BenchmarkRelay is what one relay does, without system calls: from the datagrams of
// one peer to those for the next. Compare it with BenchmarkPath/tcp, which is what
// the two ends do together.
func BenchmarkRelay(b *testing.B) {
	for _, c := range ciphers {
		for _, limit := range []int{1472, 8972} {
			b.Run(fmt.Sprintf("tcp/%v/datagram=%d", c, limit), func(b *testing.B) {
				frame, off := bulk()
				benchmarkRelay(b, c, limit, 1, frame, off)
			})
		}
		b.Run(fmt.Sprintf("udp64/%v", c), func(b *testing.B) {
			frame, off := small()
			benchmarkRelay(b, c, 1472, 64, frame, off)
		})
	}
}

func benchmarkRelay(b *testing.B, c session.Cipher, limit, batch int, frame []byte, off ether.Offload) {
	ch := newChain(b, c, limit, &counting{})
	sf := ether.NewSuperframe()
	b.SetBytes(int64(batch * len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range batch {
			refill(sf, frame, off)
			ch.a.Send(0, ch.relay.rt, sf)
		}
		ch.ov.Flush(0)
		b.StartTimer()
		ch.pass()
		ch.slots = ch.slots[:0]
	}
	if ch.relay.frames < b.N {
		b.Errorf("%d frames relayed, want %d at least", ch.relay.frames, b.N)
	}
}
