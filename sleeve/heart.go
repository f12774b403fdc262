package sleeve

import (
	"slices"
	"time"
)

// Times and counts of the heartbeat.
const (
	beatInterval = 500 * time.Millisecond
	beatFast     = 100 * time.Millisecond // while a path is being proved
	fastBeats    = 10                     // so many, then beatInterval
	proofs       = 3                      // echoes that prove a size
	maxMisses    = 3                      // unanswered requests that end a link
	settleBeats  = 2                      // what a larger size gets to catch up with a smaller one
	raiseFirst   = 10 * time.Second       // until larger sizes are tried again; doubles
	raiseMax     = 5 * time.Minute
	maxEchoDelay = 10 * time.Second // older echoes say nothing of now
)

// phase is a heart's state.
type phase uint8

const (
	phaseIdle    phase = iota // no keys to send with; begin leaves it
	phaseProving              // requests of all sizes go out; enough echoes leave it
	phaseUp                   // requests of the proven size; silence leaves it
)

func (p phase) String() string { return [...]string{"idle", "proving", "up"}[p] }

// heart proves a path and watches it. It is pure: time comes in, what is to be sent
// and what changed goes out.
//
// Its own requests prove the way to the peer, at the size that they have; the peer's
// requests prove that the peer is sending. A link is up when the peer answered
// three requests of one size and was heard to ask itself.
type heart struct {
	need int // datagram size that carries the overlay's MTU

	phase   phase
	sizes   []int // to try, largest first
	got     []int // echoes of each since the last reset
	limit   int   // size in use: proven when up, else the least
	number  uint32
	clock   time.Time // zero of the stamps
	next    time.Time // of the next request
	beats   int       // requests since this phase began
	settled int       // beats since a size was proven, while proving
	heard   bool      // the peer asked since this phase began
	misses  int       // requests of size limit since the last echo of one
	rtt     time.Duration

	raiseAt   time.Time // when larger sizes are tried again; zero: there are none
	raiseWait time.Duration
	raising   int // beats left in the trial of larger sizes
}

// beats is what a heart wants sent, and what happened to it.
type beats struct {
	send   []beat
	up     bool   // the link came up
	down   string // reason; the link went down
	resize bool   // limit changed
}

func newHeart(need int, egress int, ipv6 bool, now time.Time) heart {
	h := heart{need: need, clock: now}
	h.setSizes(egress, ipv6)
	h.limit = h.sizes[len(h.sizes)-1]
	return h
}

func (h *heart) setSizes(egress int, ipv6 bool) {
	h.sizes = probeSizes(egress, ipv6, h.need)
	h.got = make([]int, len(h.sizes))
}

// begin starts proving, after there are keys.
func (h *heart) begin(now time.Time) {
	if h.phase == phaseIdle {
		h.prove(now)
	}
}

func (h *heart) prove(now time.Time) {
	h.phase, h.next = phaseProving, now
	h.beats, h.settled, h.misses, h.raising, h.heard = 0, 0, 0, 0, false
	clear(h.got)
}

// stop ends all activity: there are no keys.
func (h *heart) stop(reason string) (o beats) {
	if h.phase == phaseUp {
		o.down = reason
	}
	h.phase = phaseIdle
	return o
}

// egress tells how large packets may leave this host now.
func (h *heart) egress(mtu int, ipv6 bool, now time.Time) (o beats) {
	old := h.sizes
	h.setSizes(mtu, ipv6)
	if slices.Equal(old, h.sizes) {
		return o
	}
	h.raising = 0
	if h.limit > h.sizes[0] || !slices.Contains(h.sizes, h.limit) {
		h.resize(h.fitting(), &o)
	}
	h.raiseFrom(now)
	return o
}

// fitting returns the largest size not above limit.
func (h *heart) fitting() int {
	for _, s := range h.sizes {
		if s <= h.limit {
			return s
		}
	}
	return h.sizes[len(h.sizes)-1]
}

func (h *heart) resize(limit int, o *beats) {
	o.resize = o.resize || limit != h.limit
	h.limit, h.misses = limit, 0
	clear(h.got)
}

func (h *heart) raiseFrom(now time.Time) {
	h.raiseWait, h.raiseAt = raiseFirst, time.Time{}
	if h.limit < h.sizes[0] {
		h.raiseAt = now.Add(h.raiseWait)
	}
}

// tick does what is due at now.
func (h *heart) tick(now time.Time) (o beats) {
	if h.phase == phaseIdle || now.Before(h.next) {
		return o
	}
	if h.phase == phaseProving {
		h.tickProving(now, &o)
	} else {
		h.tickUp(now, &o)
	}
	return o
}

func (h *heart) tickProving(now time.Time, o *beats) {
	if h.proven(now, o); o.up {
		return
	}
	for _, s := range h.sizes {
		h.ask(s, now, o)
	}
	h.beats++
	h.next = now.Add(beatFast)
	if h.beats >= fastBeats {
		h.next = now.Add(beatInterval)
	}
}

// proven goes up if a size is proven. A larger one that has not been yet gets
// settleBeats to catch up.
func (h *heart) proven(now time.Time, o *beats) {
	best := h.best(proofs)
	if best < 0 || !h.heard {
		return
	}
	if best > 0 && h.settled < settleBeats {
		if !now.Before(h.next) {
			h.settled++
		}
		return
	}
	h.phase, h.next = phaseUp, now.Add(beatInterval)
	h.resize(h.sizes[best], o)
	h.raiseFrom(now)
	o.up = true
}

// best returns the index of the largest size with n echoes, or -1.
func (h *heart) best(n int) int {
	return slices.IndexFunc(h.got, func(got int) bool { return got >= n })
}

func (h *heart) tickUp(now time.Time, o *beats) {
	if h.misses >= maxMisses {
		i := h.smaller()
		if i < 0 {
			o.down = "timeout"
			h.prove(now)
			h.tickProving(now, o)
			return
		}
		h.resize(h.sizes[i], o)
		h.raiseFrom(now)
	}
	h.raise(now, o)
	h.ask(h.limit, now, o)
	if h.misses > 0 { // is it the size that does not pass?
		for _, s := range h.sizes {
			if s < h.limit {
				h.ask(s, now, o)
			}
		}
	}
	h.misses++
	h.next = now.Add(beatInterval)
}

// smaller returns the index of the largest size below limit that was echoed, or -1.
func (h *heart) smaller() int {
	for i, got := range h.got {
		if got > 0 && h.sizes[i] < h.limit {
			return i
		}
	}
	return -1
}

// raise tries larger sizes now and then.
func (h *heart) raise(now time.Time, o *beats) {
	switch {
	case h.raising == 0 && (h.raiseAt.IsZero() || now.Before(h.raiseAt)):
		return
	case h.raising == 0:
		clear(h.got)
		h.raising = proofs + 1
	}
	if h.raising--; h.raising > 0 {
		for _, s := range h.sizes {
			if s > h.limit {
				h.ask(s, now, o)
			}
		}
		return
	}
	if i := h.best(proofs); i >= 0 && h.sizes[i] > h.limit {
		h.resize(h.sizes[i], o)
	}
	h.raiseWait = min(2*h.raiseWait, raiseMax)
	h.raiseAt = time.Time{}
	if h.limit < h.sizes[0] {
		h.raiseAt = now.Add(h.raiseWait)
	}
}

// ask sends a request of a size.
func (h *heart) ask(size int, now time.Time, o *beats) {
	h.number++
	o.send = append(o.send, beat{kind: beatRequest, size: uint16(size), number: h.number, stamp: now.Sub(h.clock)})
}

// receive takes a heartbeat that came in a datagram of size bytes.
func (h *heart) receive(b beat, size int, now time.Time) (o beats) {
	if h.phase == phaseIdle {
		return o
	}
	switch b.kind {
	case beatRequest:
		h.heard = true
		b.kind, b.size = beatReply, uint16(size)
		o.send = append(o.send, b)
	case beatReply:
		h.echo(b, now)
	}
	if h.phase == phaseProving {
		h.proven(now, &o)
	}
	return o
}

func (h *heart) echo(b beat, now time.Time) {
	i := slices.Index(h.sizes, int(b.size))
	delay := now.Sub(h.clock) - b.stamp
	if i < 0 || b.stamp < 0 || delay < 0 || delay > maxEchoDelay {
		return
	}
	h.got[i]++
	if h.rtt == 0 {
		h.rtt = delay
	}
	h.rtt += (delay - h.rtt) / 8
	if h.phase == phaseUp && int(b.size) == h.limit {
		h.misses = 0
		if h.raising == 0 {
			clear(h.got)
		}
	}
}
