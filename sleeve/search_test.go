package sleeve

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestSearchFindsTheSize: for any path the search ends within searchStep of the
// largest size that passes, in a bounded number of rounds, and never above it.
func TestSearchFindsTheSize(t *testing.T) {
	for _, egress := range []int{1280, 1500, 4000, 9000, 9216} {
		table := probeSizes(egress, false, testNeed)
		for pass := table[len(table)-1]; pass <= egress+100; pass++ {
			// Begin where a doubt would leave us: at the largest usual size that passes.
			lo := table[slices.IndexFunc(table, func(n int) bool { return n <= pass })]
			var s search
			ask, rounds := s.begin(lo, table), 0
			for ; s.active; rounds++ {
				if len(ask) > searchWidth+2 {
					t.Fatalf("egress %d, %d passes: a round of %d sizes", egress, pass, len(ask))
				}
				for _, n := range ask {
					if n <= pass {
						s.echo(n)
					}
				}
				ask = s.next()
			}
			want := min(pass, egress-28)
			if s.lo > want || s.lo < want-searchStep {
				t.Fatalf("egress %d, %d passes: found %d, want %d", egress, pass, s.lo, want)
			}
			if limit := maxProbes * 6; rounds > limit {
				t.Fatalf("egress %d, %d passes: %d rounds, want %d at most", egress, pass, rounds, limit)
			}
		}
	}
}

// TestSearchIgnoresStrangers: only sizes of the round count.
func TestSearchIgnoresStrangers(t *testing.T) {
	var s search
	s.begin(548, []int{1472, 1372, 548})
	for _, n := range []int{0, 547, 548, 549, 1471, 1473, 65535} {
		if s.echo(n) {
			t.Errorf("echo of %d ended the round", n)
		}
	}
	if s.next(); s.lo != 548 {
		t.Errorf("lo is %d, want 548", s.lo)
	}
}

// path is a network for one heart: what is larger than mtu is lost, some of the rest
// as well, and echoes take their time.
type path struct {
	mtu  int // datagram size
	loss float64
	rtt  time.Duration
	rng  *rand.Rand
	echo []timedBeat
}

func (p *path) take(o beats, now time.Time) {
	for _, b := range o.send {
		if b.kind != beatRequest || int(b.size) > p.mtu || p.rng.Float64() < p.loss {
			continue
		}
		p.echo = append(p.echo, timedBeat{b: beat{kind: beatReply, size: b.size, number: b.number, stamp: b.stamp}, at: now.Add(p.rtt)})
	}
}

// run lets time pass until end; it calls seen after each step.
func (p *path) run(h *heart, end time.Time, seen func(time.Time, beats)) {
	for {
		now := h.due()
		if len(p.echo) > 0 && p.echo[0].at.Before(now) {
			now = p.echo[0].at
		}
		if now.After(end) {
			return
		}
		var o beats
		if len(p.echo) > 0 && !p.echo[0].at.After(now) {
			b := p.echo[0].b
			p.echo = p.echo[1:]
			o = h.receive(b, 60, now)
		} else {
			o = h.tick(now)
		}
		p.take(o, now)
		seen(now, o)
	}
}

// TestNarrowPath: whatever a path's MTU becomes, within 1.5 s nothing larger is
// sent, within 4 s the largest that passes is, and the link never goes down.
func TestNarrowPath(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		egress := []int{1500, 9000}[rng.IntN(2)]
		p := &path{mtu: egress - 28, rtt: time.Duration(rng.Int64N(int64(60 * time.Millisecond))), rng: rng}
		h, now := risen(t, p, egress)
		if h.limit != p.mtu {
			t.Fatalf("limit %d on a path of %d", h.limit, p.mtu)
		}
		p.mtu = 548 + rng.IntN(egress-28-548)
		var lowered, found time.Duration
		p.run(&h, now.Add(30*time.Second), func(at time.Time, o beats) {
			if o.down != "" {
				t.Fatalf("down: %s", o.down)
			}
			if h.limit > p.mtu {
				lowered = at.Sub(now)
			}
			if h.limit > p.mtu || h.limit < p.mtu-searchStep {
				found = at.Sub(now)
			}
		})
		if lowered > 1500*time.Millisecond || found > 4*time.Second {
			t.Fatalf("path of %d, %v: lowered after %v, found after %v, want 1.5s and 4s", p.mtu, p.rtt, lowered, found)
		}
	}
}

// risen is a heart that is up on a path.
func risen(t *testing.T, p *path, egress int) (heart, time.Time) {
	t.Helper()
	now := time.Unix(1000, 0).Add(time.Duration(p.rng.Int64N(1e9)))
	h := newHeart(testNeed, egress, false, now)
	h.begin(now)
	h.receive(beat{kind: beatRequest}, 60, now)
	up := now
	p.run(&h, now.Add(20*time.Second+time.Duration(p.rng.Int64N(1e9))), func(at time.Time, o beats) { up = at })
	if h.phase != phaseUp {
		t.Fatalf("path of %d: %v", p.mtu, h.phase)
	}
	return h, up
}

// TestLossyPath: random loss alone neither ends a link nor keeps its size down.
func TestLossyPath(t *testing.T) {
	for _, loss := range []float64{0.01, 0.05, 0.2} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			p := &path{mtu: 1472, loss: loss, rtt: 5 * time.Millisecond, rng: rand.New(rand.NewPCG(3, 4))}
			h, now := risen(t, p, 1500)
			var downs int
			var narrow time.Duration
			last, small := now, h.limit < testNeed
			const hour = time.Hour
			p.run(&h, now.Add(hour), func(at time.Time, o beats) {
				if o.down != "" {
					downs++
					p.take(h.receive(beat{kind: beatRequest}, 60, at), at)
				}
				if small {
					narrow += at.Sub(last)
				}
				last, small = at, h.limit < testNeed
			})
			t.Logf("%d times down, %v too small in an hour", downs, narrow)
			if downs > 0 || narrow > hour/50 {
				t.Errorf("%d times down, want none; %v of %v smaller than needed, want 2%% at most", downs, narrow, hour)
			}
		})
	}
}
