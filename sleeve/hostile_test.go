package sleeve

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
)

// TestHostileDatagrams: what an attacker on the way can make of honest datagrams is
// never delivered and does no harm to the link.
func TestHostileDatagrams(t *testing.T) {
	rounds := 1_000_000
	if testing.Short() {
		rounds = 10_000
	}
	for _, c := range []session.Cipher{session.CipherChaCha, session.CipherAES} {
		t.Run(c.String(), func(t *testing.T) {
			rx := &counting{}
			d := newDirect(t, c, 600, rx)
			other := newDirect(t, c, 600, &counting{})
			honest := sampleDatagrams(d)
			foreign := sampleDatagrams(other)
			// What b itself would send, reflected to b.
			sf := ether.NewSuperframe()
			frame, off := bulk()
			refill(sf, frame[:2000], off)
			d.b.Send(0, d.b.route, sf)
			d.ov.Flush(0)
			reflected := d.datagrams()
			for _, p := range reflected {
				binary.LittleEndian.PutUint32(p[4:], d.rxKeys.Index)
			}
			d.give(clone(honest)...)
			rx.calls = 0

			rng := rand.New(rand.NewPCG(1, uint64(c)))
			batch := make([][]byte, 0, 256)
			for n := range rounds / 2 { // two ciphers
				var p []byte
				switch n % 8 {
				case 0: // replayed as it was
					p = pick(rng, honest)
				case 1:
					p = pick(rng, foreign)
					binary.LittleEndian.PutUint32(p[4:], d.rxKeys.Index)
				case 2:
					p = pick(rng, reflected)
				default:
					p = mutate(rng, pick(rng, honest))
				}
				batch = append(batch, p)
				if len(batch) == cap(batch) {
					d.give(batch...)
					batch = batch[:0]
				}
			}
			if rx.calls != 0 {
				t.Fatalf("%d hostile frames delivered", rx.calls)
			}
			drops := d.b.Status().Counters.Drops
			if drops["replay"] == 0 || drops["auth"] == 0 {
				t.Errorf("drops %v, want some for replay and auth", drops)
			}
			// The link has not lost its place.
			after := sampleDatagrams(d)
			d.give(after...)
			if rx.calls == 0 {
				t.Error("the link does not work afterwards")
			}
		})
	}
}

// sampleDatagrams are one of each kind and a superframe.
func sampleDatagrams(d *direct) [][]byte {
	sf := ether.NewSuperframe()
	frame, off := bulk()
	refill(sf, frame[:5000], off)
	d.send(sf)
	for range 3 {
		frame, off := small()
		refill(sf, frame, off)
		d.a.Send(0, d.a.route, sf)
	}
	refill(sf, ethertest.Packet{UDP: true, Payload: make([]byte, 1500)}.Frame(), ether.Offload{})
	d.a.Send(0, d.a.route, sf)
	d.ov.Flush(0)
	return d.datagrams()
}

func clone(list [][]byte) (out [][]byte) {
	for _, p := range list {
		out = append(out, append([]byte(nil), p...))
	}
	return out
}

func pick(rng *rand.Rand, list [][]byte) []byte {
	return append([]byte(nil), list[rng.IntN(len(list))]...)
}

func mutate(rng *rand.Rand, p []byte) []byte {
	switch rng.IntN(4) {
	case 0:
		return p[:rng.IntN(len(p))]
	case 1:
		return append(p, byte(rng.Uint32()))
	}
	for range 1 + rng.IntN(3) {
		i := rng.IntN(len(p))
		if rng.IntN(3) == 0 {
			i = rng.IntN(session.HeaderLen)
		}
		p[i] ^= byte(1 + rng.IntN(255))
	}
	return p
}

// TestUnknownIndex: counted, nothing more.
func TestUnknownIndex(t *testing.T) {
	d := newDirect(t, session.CipherAES, 1430, &counting{})
	p := sampleDatagrams(d)[0]
	binary.LittleEndian.PutUint32(p[4:], 12345)
	d.give(p, []byte{0x14, 0}, nil, make([]byte, 100))
	want := "map[short:1 unknown_index:1]" // nil and what begins with zero are left out by the slot
	if got := fmt.Sprint(d.ov.Drops()); got != want {
		t.Errorf("drops %v, want %v", got, want)
	}
}

// FuzzReceive seals any plaintext with real keys: whatever an authentic but broken
// peer sends, the receiving path stays within its buffers and what it delivers is
// sound.
func FuzzReceive(f *testing.F) {
	for _, g := range golden {
		f.Add(byte(0), uint16(0), unhex(g.hex), unhex(g.hex))
	}
	route := []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8}
	f.Add(byte(32), uint16(1), append(route, unhex(golden[2].hex)...), append(route, unhex(golden[3].hex)...))
	f.Add(byte(63), uint16(0), unhex(golden[7].hex), unhex(golden[0].hex))
	f.Fuzz(func(t *testing.T, lane byte, flags uint16, first, second []byte) {
		to := &sound{t: t}
		d := newDirect(t, session.CipherNone, 1430, to)
		sealer := d.a.sending.Load().keys.Sealer(session.Lane(lane))
		if sealer == nil {
			return
		}
		var batch [][]byte
		for _, p := range [][]byte{first, second, first} {
			b, err := sealer.Seal(nil, flags, p)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, b)
		}
		batch[1], batch[2] = batch[2], batch[1]
		d.give(batch...)
		sum := uint64(0)
		for _, n := range d.b.counters().Drops {
			sum += n
		}
		if to.calls == 0 && sum == 0 && lane != byte(session.LaneControl) && len(first) > metaLen && first[0]>>4 != byte(kindFrag) {
			t.Error("datagrams neither delivered nor counted")
		}
	})
}

// sound checks what every Receiver may rely on.
type sound struct {
	t     *testing.T
	calls int
}

func (s *sound) Receive(_ int, _ peer.Name, _ peer.Route, off ether.Offload, bufs [][]byte) {
	s.calls++
	size := 0
	for _, b := range bufs {
		size += len(b)
	}
	if len(bufs) == 0 || len(bufs[0]) < ether.HeaderLen || size > ether.MaxSuperframe {
		s.t.Fatalf("%d pieces, %d bytes", len(bufs), size)
	}
	if off.GSO == ether.GSONone && (len(bufs) > 2 || off.Size != 0) {
		s.t.Fatalf("one packet in %d pieces, offload %+v", len(bufs), off)
	}
	if off.GSO != ether.GSONone && (off.Size == 0 || len(bufs) < 2 || !off.NeedsCsum) {
		s.t.Fatalf("superframe in %d pieces, offload %+v", len(bufs), off)
	}
	if off.NeedsCsum && int(off.CsumStart)+int(off.CsumOff)+2 > size {
		s.t.Fatalf("checksum outside of %d bytes: %+v", size, off)
	}
}
