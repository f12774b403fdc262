package session

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world runs two ends over virtual time with random delays.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	queue  events
	serial int
	ends   [2]*testEnd
	net    network

	ordered [2]time.Time // arrival of the last control message to each end
	datagrams, refused,
	rekeys, stops int
}

// network says what the way between the ends does to messages. Datagrams arrive
// in any order; the control connection is in order unless it is unreliable.
type network struct {
	controlDelay, dataDelay time.Duration // at most
	dataEvery               time.Duration
	loss, twice             float64 // of control messages, as no TCP would
	down                    func(time.Duration) bool
}

type event struct {
	at     time.Time
	serial int
	do     func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].serial < q[j].serial
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newWorld(t *testing.T, seed uint64, c Cipher, n network) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: at(0), net: n}
	random := func(c *ExchangeConfig) { c.Rand = rngReader{w.rng} }
	w.ends = [2]*testEnd{newTestEnd(t, true, c, random), newTestEnd(t, false, c, random)}
	return w
}

type rngReader struct{ *rand.Rand }

func (r rngReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

func (w *world) after(d time.Duration, do func()) time.Time {
	w.serial++
	at := w.now.Add(d)
	heap.Push(&w.queue, event{at, w.serial, do})
	return at
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) }

func (w *world) isDown() bool { return w.net.down != nil && w.net.down(w.now.Sub(at(0))) }

// act applies what end i was told and sends its messages.
func (w *world) act(i int, before uint32, sent [][]byte) {
	end := w.ends[i]
	if e := epochOf(end.tx); e != before {
		if e == 0 {
			w.stops++
		} else if i == 0 {
			w.rekeys++
		}
	}
	for _, m := range sent {
		w.carry(1-i, m)
	}
	if !end.next.IsZero() {
		next := end.next
		w.after(max(0, next.Sub(w.now)), func() {
			if end.next.Equal(next) {
				w.act(i, epochOf(end.tx), end.tick(w.now))
			}
		})
	}
}

// carry brings a control message to end i.
func (w *world) carry(i int, m []byte) {
	if w.isDown() || w.rng.Float64() < w.net.loss {
		return
	}
	copies := 1
	if w.rng.Float64() < w.net.twice {
		copies = 2
	}
	for range copies {
		d := w.upTo(w.net.controlDelay)
		if w.net.loss+w.net.twice == 0 {
			d = max(d, w.ordered[i].Sub(w.now))
			w.ordered[i] = w.now.Add(d)
		}
		w.after(d, func() { w.act(i, epochOf(w.ends[i].tx), w.ends[i].control(m, w.now)) })
	}
}

// traffic sends a datagram from end i every now and then, for ever.
func (w *world) traffic(i int) {
	w.after(w.upTo(2*w.net.dataEvery), func() {
		w.traffic(i)
		lane := testLanes[w.rng.IntN(len(testLanes))]
		d := w.ends[i].send(lane)
		if d == nil || w.isDown() {
			return
		}
		w.after(w.upTo(w.net.dataDelay), func() { w.arrive(1-i, d) })
	})
}

func (w *world) arrive(i int, d []byte) {
	w.datagrams++
	before := epochOf(w.ends[i].tx)
	sent, err := w.ends[i].receive(d, w.now)
	if err != nil {
		w.refused++
		return
	}
	w.act(i, before, sent)
}

func (w *world) run(d time.Duration, each func()) {
	end := at(d)
	w.act(0, 0, w.ends[0].start(w.now))
	w.act(1, 0, w.ends[1].start(w.now))
	w.traffic(0)
	w.traffic(1)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		if each != nil {
			each()
		}
	}
}

// TestNothingIsDropped: whatever the delays, no datagram arrives at an end that
// has no keys for it, no key is older than it may be, and no end is ever without.
func TestNothingIsDropped(t *testing.T) {
	seeds := uint64(5)
	if testing.Short() || raceEnabled {
		seeds = 1
	}
	for _, tt := range []struct {
		name string
		net  network
	}{
		{"local", network{controlDelay: time.Millisecond, dataDelay: time.Millisecond, dataEvery: 500 * time.Millisecond}},
		{"far", network{controlDelay: 300 * time.Millisecond, dataDelay: 300 * time.Millisecond, dataEvery: 100 * time.Millisecond}},
		{"slow control", network{controlDelay: 20 * time.Second, dataDelay: time.Second, dataEvery: time.Second}},
		{"slow data", network{controlDelay: time.Second, dataDelay: 10 * time.Second, dataEvery: time.Second}},
		{"silent", network{controlDelay: time.Second, dataDelay: time.Second, dataEvery: 100 * time.Second}},
		{"control lost and twice", network{controlDelay: 2 * time.Second, dataDelay: time.Second, dataEvery: time.Second, loss: .3, twice: .3}},
	} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/seed=%d", tt.name, seed), func(t *testing.T) {
				w := newWorld(t, seed, CipherChaCha, tt.net)
				w.run(3*time.Hour, func() {
					for i, end := range w.ends {
						if end.tx != nil && w.now.Sub(end.tx.Created) > DefaultRejectAfter {
							t.Fatalf("end %d has keys of age %v", i, w.now.Sub(end.tx.Created))
						}
						if w.now.Sub(at(0)) > 3*time.Minute && end.tx == nil {
							t.Fatalf("end %d has no keys at %v", i, w.now.Sub(at(0)))
						}
					}
				})
				if w.refused > 0 || w.stops > 0 {
					t.Errorf("%d of %d datagrams refused, %d stops", w.refused, w.datagrams, w.stops)
				}
				if w.rekeys < 60 || w.rekeys > 110 {
					t.Errorf("%d rekeys in 3 hours", w.rekeys)
				}
			})
		}
	}
}

// TestOutage: without a control connection both ends fall silent in time and hold
// no keys; when it is back they go on by themselves.
func TestOutage(t *testing.T) {
	const start, end = 10 * time.Minute, 25 * time.Minute
	for seed := range uint64(10) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := newWorld(t, seed, CipherAES, network{
				controlDelay: time.Second, dataDelay: time.Second, dataEvery: time.Second,
				down: func(d time.Duration) bool { return d > start && d < end },
			})
			w.run(40*time.Minute, func() {
				now := w.now.Sub(at(0))
				for i, e := range w.ends {
					switch {
					case now > start+DefaultRejectAfter+2*time.Second && now < end:
						if e.tx != nil || len(e.rx) > 0 {
							t.Fatalf("end %d: keys at %v, long after the connection was lost", i, now)
						}
					case now > end+DefaultRejectAfter:
						if e.tx == nil || len(e.rx) == 0 {
							t.Fatalf("end %d: no keys at %v, long after the connection is back", i, now)
						}
					}
				}
			})
			if w.stops != 2 || w.refused > 0 {
				t.Errorf("%d stops, %d datagrams refused", w.stops, w.refused)
			}
		})
	}
}

// pair names one use of a key: the key by what it makes of a fixed block, so that
// two keys that came about differently but are equal are found out.
type pair struct {
	key     [16]byte
	counter uint64
}

// TestNoncesAreUnique runs rekeys and restarts and records every (key, nonce).
func TestNoncesAreUnique(t *testing.T) {
	t.Parallel()
	rekeys := 100_000
	if testing.Short() || raceEnabled {
		rekeys = 3_000
	}
	const restartEvery = 50
	seen := make(map[pair]bool, rekeys*4)
	record := func(end *testEnd, l Lane) {
		s := end.tx.Sealer(l)
		p := pair{counter: s.next}
		copy(p.key[:], s.aead.Seal(nil, make([]byte, nonceLen), make([]byte, 16), []byte("name of the key")))
		if seen[p] {
			t.Fatalf("key and nonce %d of lane %d used twice", p.counter, l)
		}
		seen[p] = true
		end.send(l)
	}
	var a, b *testEnd
	now := at(0)
	for i := range rekeys {
		if i%restartEvery == 0 { // a new link under the same secret
			a, b = newTestEnd(t, true, CipherAES), newTestEnd(t, false, CipherAES)
			settle(a, b, nil, a.start(now), now)
		} else {
			now = now.Add(140 * time.Second)
			settle(a, b, nil, a.tick(now), now)
		}
		if want := uint32(i%restartEvery + 1); a.tx.Epoch != want || b.tx.Epoch != want {
			t.Fatalf("epochs %d and %d, want %d", a.tx.Epoch, b.tx.Epoch, want)
		}
		for _, end := range []*testEnd{a, b} {
			for _, l := range testLanes {
				record(end, l)
			}
			record(end, 0)
		}
	}
	if want := rekeys * 2 * (len(testLanes) + 1); len(seen) != want {
		t.Errorf("%d pairs recorded, want %d", len(seen), want)
	}
}

// FuzzExchange lets the input choose what happens to two ends: time passes,
// messages arrive, get lost, come twice or out of order, datagrams too.
func FuzzExchange(f *testing.F) {
	f.Add([]byte{0, 8, 9, 8, 9, 2, 3})
	f.Add([]byte{0, 8, 8, 9, 9, 8, 40, 1, 8, 9, 8, 200, 1, 2, 3})
	f.Add([]byte{0, 8, 9, 250, 1, 250, 1, 5, 8, 9, 8, 4, 16, 17, 6, 7})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 200 {
			return
		}
		w := newExchangeFuzz(t)
		for _, op := range ops {
			w.step(op)
		}
	})
}

type exchangeFuzz struct {
	ends  [2]*testEnd
	queue [2][][]byte // messages to each end
	now   time.Time
}

func newExchangeFuzz(t *testing.T) *exchangeFuzz {
	random := func(seed uint64) func(*ExchangeConfig) {
		return func(c *ExchangeConfig) { c.Rand = rngReader{rand.New(rand.NewPCG(seed, 1))} }
	}
	return &exchangeFuzz{
		ends: [2]*testEnd{newTestEnd(t, true, CipherChaCha, random(1)), newTestEnd(t, false, CipherChaCha, random(2))},
		now:  at(0),
	}
}

// step does what op says to the end that its lowest bit names; from 32 on, op is
// time that passes.
func (w *exchangeFuzz) step(op byte) {
	if op >= 32 {
		w.now = w.now.Add(time.Duration(op-31) * time.Second)
		return
	}
	i := int(op & 1)
	end, q := w.ends[i], &w.queue[i]
	var sent [][]byte
	switch op >> 1 {
	case 0:
		sent = end.start(w.now)
	case 1:
		if d := end.send(0); d != nil {
			sent, _ := w.ends[1-i].receive(d, w.now)
			w.queue[i] = append(w.queue[i], sent...)
		}
	case 2:
		sent = end.apply(end.e.Rekey(w.now))
	case 3:
		sent = end.tick(w.now)
	case 4, 5: // first in, first out
		if len(*q) > 0 {
			m := (*q)[0]
			*q = (*q)[1:]
			sent = w.control(i, m)
		}
	case 6: // twice
		if len(*q) > 0 {
			sent = w.control(i, (*q)[0])
		}
	case 7: // out of order
		if n := len(*q); n > 1 {
			(*q)[0], (*q)[n-1] = (*q)[n-1], (*q)[0]
		}
	case 8: // lost
		if len(*q) > 0 {
			*q = (*q)[1:]
		}
	case 9:
		sent = w.control(i, []byte("garbage"))
	case 10:
		sent = w.control(i, respTo(1))
	case 11:
		sent = w.control(i, keyMessageFor(CipherChaCha, msgInit, 3))
	case 12:
		sent = end.apply(end.e.Authenticated(uint32(op), w.now))
	case 13:
		end.noIndex = !end.noIndex
	case 14:
		for len(w.queue[0])+len(w.queue[1]) > 0 {
			w.step(8)
			w.step(9)
		}
	case 15:
		sent = end.apply(end.e.Close())
	}
	if len(w.queue[1-i])+len(sent) < 64 {
		w.queue[1-i] = append(w.queue[1-i], sent...)
	}
}

func (w *exchangeFuzz) control(i int, m []byte) [][]byte {
	o, _ := w.ends[i].e.Control(m, w.now)
	return w.ends[i].apply(o)
}

func keyMessageFor(c Cipher, kind messageType, epoch uint32) []byte {
	m := keyMessage(kind)
	m.cipher, m.epoch = c, epoch
	return m.append(nil)
}
