package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// flow is one direction of one lane of one link, with all that was ever sealed
// and opened on it: the model that the real code is compared with.
type flow struct {
	sealer *Sealer
	opener *Opener
	sealed [][]byte // by counter
	plain  [][]byte // by counter
	window slowWindow
	unsent int // the counter that goes out next in order
}

type flowID struct {
	index uint32
	lane  Lane
}

// adversary has seen everything on the wire of two links and may send anything.
type adversary struct {
	t     *testing.T
	rng   *rand.Rand
	flows map[flowID]*flow
	ids   []flowID

	delivered, replays, forgeries int
}

func newAdversary(t *testing.T, c Cipher, seed uint64) *adversary {
	v := &adversary{t: t, rng: rand.New(rand.NewPCG(seed, 0)), flows: map[flowID]*flow{}}
	for link := range uint32(2) {
		a, b := newTestEnd(t, true, c), newTestEnd(t, false, c)
		a.last, b.last = 100*(link+1), 100*(link+1)+50
		settle(a, b, nil, a.start(at(0)), at(0))
		for _, l := range testLanes {
			v.add(a, b, l)
			v.add(b, a, l)
		}
	}
	return v
}

func (v *adversary) add(from, to *testEnd, l Lane) {
	id := flowID{from.tx.Index, l}
	v.ids = append(v.ids, id)
	v.flows[id] = &flow{
		sealer: from.tx.Sealer(l),
		opener: to.rx[id.index].Opener(l),
		window: slowWindow{seen: map[uint64]bool{}},
	}
}

func (v *adversary) pick() *flow { return v.flows[v.ids[v.rng.IntN(len(v.ids))]] }

// seal makes one more genuine datagram.
func (v *adversary) seal(f *flow) {
	plain := make([]byte, v.rng.IntN(64))
	if v.rng.IntN(64) == 0 {
		plain = make([]byte, 1400)
	}
	for i := range plain {
		plain[i] = byte(v.rng.Uint32())
	}
	d, err := f.sealer.Seal(nil, uint16(v.rng.Uint32()), plain)
	if err != nil {
		v.t.Fatal(err)
	}
	f.sealed, f.plain = append(f.sealed, d), append(f.plain, plain)
}

// genuine is a datagram seen before, more likely a late one.
func (v *adversary) genuine(f *flow) []byte {
	if len(f.sealed) == 0 {
		v.seal(f)
	}
	n := len(f.sealed)
	if v.rng.IntN(2) == 0 {
		n = min(n, 1+v.rng.IntN(100))
	} else if v.rng.IntN(4) == 0 {
		n = min(n, windowSize-50+v.rng.IntN(100)) // about the end of the window
	}
	return bytes.Clone(f.sealed[len(f.sealed)-1-v.rng.IntN(n)])
}

// next is what the adversary puts on the wire now.
func (v *adversary) next() []byte {
	f := v.pick()
	switch v.rng.IntN(16) {
	case 0, 1, 2, 3: // in order, with a gap now and then
		if f.unsent >= len(f.sealed) {
			f.unsent = len(f.sealed)
			v.seal(f)
		}
		if v.rng.IntN(16) == 0 {
			v.seal(f)
		}
		f.unsent++
		return bytes.Clone(f.sealed[f.unsent-1])
	case 4, 5: // replay, or late
		return v.genuine(f)
	}
	d := v.genuine(f)
	for range 1 + v.rng.IntN(2) {
		d = v.mutate(d)
	}
	return d
}

// mutate forges; some results are no forgeries, which the model finds out.
func (v *adversary) mutate(d []byte) []byte {
	if len(d) < HeaderLen {
		return d
	}
	counter := func(c uint64) []byte { binary.LittleEndian.PutUint64(d[offCounter:], c); return d }
	switch v.rng.IntN(13) {
	case 0: // bit flip anywhere
		d[v.rng.IntN(len(d))] ^= 1 << v.rng.IntN(8)
	case 1: // bit flip in the header
		d[v.rng.IntN(HeaderLen)] ^= 1 << v.rng.IntN(8)
	case 2: // bit flip in the tag
		d[len(d)-1-v.rng.IntN(min(len(d), TagLen))] ^= 1 << v.rng.IntN(8)
	case 3: // truncation
		return d[:v.rng.IntN(len(d))]
	case 4: // extension
		return append(d, make([]byte, 1+v.rng.IntN(40))...)
	case 5: // splice: this header, another body
		return append(d[:HeaderLen:HeaderLen], v.genuine(v.pick())[HeaderLen:]...)
	case 6: // another tag
		other := v.genuine(v.pick())
		return append(d[:max(HeaderLen, len(d)-TagLen)], other[len(other)-TagLen:]...)
	case 7: // reflection, another link: the same bytes to whom they were not for
		binary.LittleEndian.PutUint32(d[offIndex:], v.ids[v.rng.IntN(len(v.ids))].index)
	case 8: // another lane
		d[offLane] = byte(testLanes[v.rng.IntN(len(testLanes))])
	case 9: // counter ahead
		return counter(binary.LittleEndian.Uint64(d[offCounter:]) + v.rng.Uint64N(1<<14))
	case 10: // counter far ahead
		jumps := []uint64{1<<64 - 1, 1<<63 - 1, 1 << 60, 1<<60 - 1, 1 << 34, 1<<34 - 1, 1 << 32}
		return counter(jumps[v.rng.IntN(len(jumps))])
	case 11: // type confusion
		d[offType] = byte(v.rng.Uint32())
	case 12: // nothing of it is left
		for i := range d[HeaderLen:] {
			d[HeaderLen+i] = byte(v.rng.Uint32())
		}
	}
	return d
}

// deliver gives d to the real code and to the model and compares.
func (v *adversary) deliver(d []byte) {
	h, ok := ParseHeader(d)
	if !ok {
		v.forgeries++
		return
	}
	f := v.flows[flowID{h.Index, h.Lane}]
	if f == nil {
		v.forgeries++
		return // no such keys
	}
	isGenuine := h.Counter < uint64(len(f.sealed)) && bytes.Equal(f.sealed[h.Counter], d)
	isFresh := f.window.fresh(h.Counter)
	plain, err := f.opener.Open(h, d)
	switch {
	case isGenuine && isFresh:
		if err != nil || !bytes.Equal(plain, f.plain[h.Counter]) {
			v.t.Fatalf("lost: counter %d of lane %d with last %d: %v", h.Counter, h.Lane, f.window.last, err)
		}
		f.window.commit(h.Counter)
		v.delivered++
	case isGenuine:
		if err != ErrReplay {
			v.t.Fatalf("replay delivered: counter %d of lane %d with last %d: %v", h.Counter, h.Lane, f.window.last, err)
		}
		v.replays++
	default:
		if err == nil {
			v.t.Fatalf("forgery accepted: %x", d)
		}
		v.forgeries++
	}
	if f.opener.Highest() != f.window.last {
		v.t.Fatalf("highest counter %d, want %d", f.opener.Highest(), f.window.last)
	}
}

// TestAdversary compares what two links accept with the model while somebody on
// the way does what he likes.
func TestAdversary(t *testing.T) {
	t.Parallel()
	steps := 1_000_000 // for each cipher
	if testing.Short() || raceEnabled {
		steps = 25_000
	}
	for _, c := range []Cipher{CipherChaCha, CipherAES} {
		const seed = 7
		t.Run(fmt.Sprintf("%v/seed=%d", c, seed), func(t *testing.T) {
			v := newAdversary(t, c, seed)
			for range steps {
				v.deliver(v.next())
			}
			// What never arrived so far and is in the window still can.
			for _, id := range v.ids {
				for _, d := range v.flows[id].sealed {
					v.deliver(bytes.Clone(d))
				}
			}
			t.Logf("%d delivered, %d replays, %d forgeries", v.delivered, v.replays, v.forgeries)
			if v.delivered < steps/8 || v.replays < steps/16 || v.forgeries < steps/4 {
				t.Errorf("%d delivered, %d replays, %d forgeries: too few of one kind", v.delivered, v.replays, v.forgeries)
			}
		})
	}
}

// TestEveryBitCounts flips each bit of a datagram of full size.
func TestEveryBitCounts(t *testing.T) {
	for _, c := range []Cipher{CipherChaCha, CipherAES} {
		tx, rx := fixedKeys(t, c, 0)
		o := rx.Opener(0)
		d, err := tx.Sealer(0).Seal(nil, 0, make([]byte, 1400))
		if err != nil {
			t.Fatal(err)
		}
		forged := make([]byte, len(d))
		for bit := range len(d) * 8 {
			copy(forged, d)
			forged[bit/8] ^= 1 << (bit % 8)
			h, ok := ParseHeader(forged)
			if !ok {
				continue
			}
			if _, err := o.Open(h, forged); err == nil {
				t.Fatalf("%v: opened with bit %d flipped", c, bit)
			}
		}
		h, _ := ParseHeader(d)
		if _, err := o.Open(h, d); err != nil {
			t.Errorf("%v: after %d forgeries: %v", c, len(d)*8, err)
		}
	}
}
