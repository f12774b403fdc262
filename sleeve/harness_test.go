package sleeve

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/crypto/session/sessiontest"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve/udp"
)

// direct is two ends of one link without goroutines between: what a sends lies in
// slots until receive hands them to b's worker, on the test's goroutine.
type direct struct {
	a, b   *Link // a's Send, b's receiving side
	ov     *Overlay
	worker *rxWorker // of b
	slots  []udp.Slot
	bufs   [][]byte // one for each slot
	reply  udp.Endpoint
	rxKeys *session.RxKeys
}

// captured is the Network of one end: Sender.Send puts the train into d.slots.
type captured struct{ d *direct }

func (c captured) Lanes() int           { return 1 }
func (c captured) Port() uint16         { return 6783 }
func (c captured) Socket(int) Socket    { return nil }
func (c captured) NewSender(int) Sender { return c }
func (c captured) MTU(netip.Addr) int   { return 1500 }
func (c captured) Offloads() string     { return "" }

func (c captured) Send(_ *udp.Endpoint, buf []byte, seg int) error {
	d := c.d
	i := len(d.slots)
	if i == len(d.bufs) {
		d.bufs = append(d.bufs, make([]byte, 1<<16))
	}
	n := copy(d.bufs[i], buf)
	d.slots = append(d.slots, udp.Slot{Data: d.bufs[i][:n], SegSize: seg, Reply: d.reply})
	return nil
}

// newDirect makes the two ends, with datagrams of limit bytes.
func newDirect(t testing.TB, c session.Cipher, limit int, to Receiver) *direct {
	t.Helper()
	d := &direct{}
	var err error
	d.ov, err = New(Config{Network: captured{d}, Receiver: to, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d.worker = d.ov.workers[0]
	names := [2]peer.Name{peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1}), peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2})}
	addr := netip.MustParseAddrPort("192.0.2.1:6783")
	d.reply, err = udp.NewEndpoint(addr, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	tx, rx := sessiontest.Pair(t, c, allLanes()...)
	link := func(local, remote peer.Name) *Link {
		p := overlay.Params{
			Local: local, Remote: remote, RemoteAddr: addr,
			Agreement: overlay.Agreement{Cipher: c, Lanes: 1},
			Secret:    session.SecretFromBytes([session.SecretLen]byte{1}),
			Permit:    policy.Decide(policy.Stance{}, policy.Stance{}),
			Send:      func([]byte) error { return nil },
			Notify:    func(overlay.Event) {},
		}
		l, err := d.ov.prepare(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	d.a, d.b = link(names[0], names[1]), link(names[1], names[0])
	d.a.sending.Store(&sending{keys: tx.Tx, limit: limit})
	d.b.sending.Store(&sending{keys: rx.Tx, limit: limit})
	d.rxKeys = rx.Rx
	d.ov.arm(&rxEntry{link: d.b, keys: rx.Rx})
	d.ov.arm(&rxEntry{link: d.a, keys: tx.Rx})
	return d
}

// send gives frames to a's lane 0 and flushes.
func (d *direct) send(sfs ...*ether.Superframe) {
	for _, sf := range sfs {
		d.a.Send(0, d.a.route, sf)
	}
	d.ov.Flush(0)
}

// receive hands what was sent to b, as one batch.
func (d *direct) receive() {
	d.worker.batch(d.slots, time.Unix(0, 0))
	d.slots = d.slots[:0]
}

// datagrams takes the datagrams that were sent, in copies.
func (d *direct) datagrams() (out [][]byte) {
	for i := range d.slots {
		for p := d.slots[i].Next(); p != nil; p = d.slots[i].Next() {
			out = append(out, append([]byte(nil), p...))
		}
	}
	d.slots = d.slots[:0]
	return out
}

// give hands datagrams to b as one batch; they are overwritten.
func (d *direct) give(datagrams ...[]byte) {
	slots := make([]udp.Slot, len(datagrams))
	for i, p := range datagrams {
		slots[i] = udp.Slot{Data: p, Reply: d.reply}
	}
	d.worker.batch(slots, time.Unix(0, 0))
}

// counting is a Receiver that counts and, if keep is set, keeps the frames.
type counting struct {
	calls, bytes int
	keep         bool
	frames       [][]byte
	offs         []ether.Offload
}

func (c *counting) Receive(_ int, _ peer.Name, _ peer.Route, off ether.Offload, bufs [][]byte) {
	c.calls++
	var frame []byte
	for _, b := range bufs {
		c.bytes += len(b)
		if c.keep {
			frame = append(frame, b...)
		}
	}
	if c.keep {
		c.frames = append(c.frames, frame)
		c.offs = append(c.offs, off)
	}
}

// refill makes sf the frame and offload again after Send overwrote it.
func refill(sf *ether.Superframe, frame []byte, off ether.Offload) {
	sf.Head = ether.Headroom
	sf.Buf = append(sf.Buf[:ether.Headroom], frame...)
	sf.Offload = off
}
