package sleeve

import (
	"slices"
	"time"
)

// Times and counts of the heartbeat.
const (
	beatInterval = 500 * time.Millisecond
	beatFast     = 50 * time.Millisecond // while a path is being proved
	fastBeats    = 20                    // so many after the last sign of the peer, then beatInterval
	proofs       = 3                     // echoes that prove a size
	settleBeats  = 4                     // what a larger size gets to catch up with a smaller one

	minWait      = 100 * time.Millisecond  // for an echo; twice the round trip time if that is more
	maxWait      = 2 * time.Second         // and never more than that
	maxSilence   = 1500 * time.Millisecond // without any echo, and the wait for one: the link is down
	doubts       = 3                       // unanswered requests of the size in use, the first and two to confirm
	smallerEchos = 2                       // of a smaller size meanwhile: it is the size that does not pass
	maxEchoDelay = 10 * time.Second        // older echoes say nothing of now

	raiseFirst = 10 * time.Second // until larger sizes are tried again; doubles
	raiseMax   = 5 * time.Minute
)

// phase is a heart's state.
type phase uint8

const (
	phaseIdle    phase = iota // no keys to send with; begin leaves it
	phaseProving              // requests of the usual sizes go out; enough echoes leave it
	phaseUp                   // requests of the size in use; silence leaves it
)

func (p phase) String() string { return [...]string{"idle", "proving", "up"}[p] }

// heart proves a path and watches it. It is pure: time comes in, what is to be sent
// and what changed goes out.
//
// Its own requests prove the way to the peer, at the size that they have; the peer's
// requests prove that the peer is sending. A link is up when the peer answered
// three requests of one size and was heard to ask itself.
//
// A request that is not answered in time raises a doubt: it is repeated at once
// together with smaller ones. If two repetitions are not answered either, but a
// smaller size is, the path has become too narrow, and what is left of it is
// searched for. If nothing is answered the link is down.
type heart struct {
	need int // datagram size that carries the overlay's MTU

	phase   phase
	sizes   []int // of common networks, largest first; the first is all that can leave this host
	got     []int // echoes of each since the last reset
	limit   int   // size in use: proven when up, else the least
	number  uint32
	clock   time.Time // zero of the stamps
	next    time.Time // of the next request, or of the doubt about the last
	beat    time.Time // of the last request that was not made in doubt
	echoed  time.Time // when the last echo of any size came
	beats   int       // rounds of requests since this phase began, or since a sign of the peer while proving
	settled int       // beats since a size was proven, while proving
	heard   bool      // the peer asked since this phase began
	misses  int       // requests of size limit since the last echo of one
	rtt     time.Duration

	search    search
	searchAt  time.Time // when it began: earlier requests do not count
	searchEnd time.Time // of the wait for its round
	raiseAt   time.Time // when larger sizes are tried again; zero: there are none
	raiseWait time.Duration
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
	h.beats, h.settled, h.misses, h.heard = 0, 0, 0, false
	h.search.active = false
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
	h.search.active = false
	if least := h.sizes[len(h.sizes)-1]; h.limit > h.sizes[0] || h.limit < least {
		h.resize(max(least, min(h.limit, h.sizes[0])), &o)
	}
	h.raiseSoon(now)
	return o
}

func (h *heart) resize(limit int, o *beats) {
	o.resize = o.resize || limit != h.limit
	h.limit, h.misses = limit, 0
	clear(h.got)
}

// raiseSoon has larger sizes tried at once, if there are any.
func (h *heart) raiseSoon(now time.Time) {
	h.raiseWait, h.raiseAt = raiseFirst, time.Time{}
	if h.limit < h.sizes[0] {
		h.raiseAt = now
	}
}

// due is when tick wants to be called.
func (h *heart) due() time.Time {
	due := h.next
	switch {
	case h.phase != phaseUp:
	case h.search.active && h.searchEnd.Before(due):
		due = h.searchEnd
	case !h.search.active && !h.raiseAt.IsZero() && h.raiseAt.Before(due):
		due = h.raiseAt
	}
	return due
}

// tick does what is due at now.
func (h *heart) tick(now time.Time) (o beats) {
	if h.phase == phaseIdle {
		return o
	}
	if !now.Before(h.next) {
		if h.phase == phaseProving {
			h.tickProving(now, &o)
		} else {
			h.tickUp(now, &o)
		}
	}
	if h.phase == phaseUp {
		h.tickSearch(now, &o)
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
	h.phase, h.echoed = phaseUp, now
	h.beat, h.next = now, now.Add(beatInterval)
	h.resize(h.sizes[best], o)
	h.raiseSoon(now)
	o.up = true
}

// best returns the index of the largest size with n echoes, or -1.
func (h *heart) best(n int) int {
	return slices.IndexFunc(h.got, func(got int) bool { return got >= n })
}

func (h *heart) tickUp(now time.Time, o *beats) {
	if now.Sub(h.echoed) >= maxSilence+wait(h.rtt) {
		o.down = "timeout"
		h.prove(now)
		h.tickProving(now, o)
		return
	}
	if h.misses >= doubts {
		if i := h.smaller(); i >= 0 {
			h.resize(h.sizes[i], o)
			h.search.active = false
			h.raiseSoon(now)
		}
	}
	h.ask(h.limit, now, o)
	if h.misses == 0 {
		h.beat = now
	} else { // is it the size that does not pass?
		for _, s := range h.sizes {
			if s < h.limit {
				h.ask(s, now, o)
			}
		}
	}
	h.misses++
	h.next = now.Add(wait(h.rtt))
	if h.misses > doubts+smallerEchos { // nothing passes: no hurry
		h.next = now.Add(max(beatInterval/2, wait(h.rtt)))
	}
}

// smaller returns the index of the largest size below limit that was echoed often
// enough, or -1.
func (h *heart) smaller() int {
	for i, got := range h.got {
		if got >= smallerEchos && h.sizes[i] < h.limit {
			return i
		}
	}
	return -1
}

// tickSearch begins a search for a larger size when it is time, and drives it.
func (h *heart) tickSearch(now time.Time, o *beats) {
	switch {
	case h.search.active:
		if !now.Before(h.searchEnd) {
			h.searchNext(now, o)
		}
	case !h.raiseAt.IsZero() && !now.Before(h.raiseAt):
		h.searchAt = now
		h.searchAsk(h.search.begin(h.limit, h.sizes), now, o)
	}
}

// searchNext takes what the round has found and begins the next one.
func (h *heart) searchNext(now time.Time, o *beats) {
	ask := h.search.next()
	if h.search.lo > h.limit {
		h.resize(h.search.lo, o)
	}
	h.searchAsk(ask, now, o)
}

// searchAsk asks for a round's sizes, or ends the search.
func (h *heart) searchAsk(ask []int, now time.Time, o *beats) {
	for _, s := range ask {
		h.ask(s, now, o)
	}
	h.searchEnd = now.Add(wait(h.rtt))
	if h.search.active {
		return
	}
	if h.raiseAt = (time.Time{}); h.limit < h.sizes[0] {
		h.raiseAt = now.Add(h.raiseWait)
	}
	h.raiseWait = min(2*h.raiseWait, raiseMax)
}

// again asks for an echo of a size at once after the last one, for as long as it is not
// proven: a path that works is proven in as many round trips, whatever beatFast is.
func (h *heart) again(size int, now time.Time, o *beats) {
	h.beats = 0
	if i := slices.Index(h.sizes, size); i >= 0 && h.got[i] < proofs {
		h.ask(size, now, o)
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
		if !h.heard {
			h.heard, h.beats = true, 0
		}
		b.kind, b.size = beatReply, uint16(size)
		o.send = append(o.send, b)
	case beatReply:
		h.echo(b, now, &o)
	}
	if h.phase == phaseProving {
		h.proven(now, &o)
	}
	return o
}

func (h *heart) echo(b beat, now time.Time, o *beats) {
	size, delay := int(b.size), now.Sub(h.clock)-b.stamp
	if b.stamp < 0 || delay < 0 || delay > maxEchoDelay {
		return
	}
	h.echoed = now
	if i := slices.Index(h.sizes, size); i >= 0 {
		h.got[i]++
	}
	if h.rtt == 0 {
		h.rtt = delay
	}
	h.rtt += (delay - h.rtt) / 8
	if h.phase != phaseUp {
		h.again(size, now, o)
		return
	}
	if size >= h.limit {
		h.misses = 0
		clear(h.got)
		if next := h.beat.Add(beatInterval); h.next.Before(next) {
			h.next = next
		}
	}
	if b.stamp >= h.searchAt.Sub(h.clock) && h.search.echo(size) {
		h.searchNext(now, o)
	}
}
