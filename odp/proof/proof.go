// Package proof decides whether a kernel path carries traffic, from heartbeats that
// travel on that very path.
//
// Its one idea: a path is up only while full-size requests on it are answered. Each
// end sends requests and answers those of the other; a reply to a request of the
// full MTU proves both directions, the size, and that the peer is on the path. What
// the machine says (up or down) steers traffic; what the control connection thinks
// of the peer does not.
//
// # States
//
//	Probing   not proven yet            ── Needed replies in a row ──▶ Up
//	Up        carries traffic           ── no reply for Timeout ─────▶ Down
//	            (after Suspect without one it is asked much more often)
//	Down      failed after it was up    ── back-off over, then Hysteresis replies
//	                                       in a row ────────────────▶ Up
//
// The back-off doubles with each failure and starts again when the path held long
// enough, so that a path that flaps is left alone for longer and longer while one
// that was repaired is back within 30 s.
//
// # Wire format
//
// A heartbeat is an Ethernet frame (integers big-endian):
//
//	0    6  destination: the peer's probe MAC
//	6    6  source: our probe MAC
//	12   2  ethertype 0x88b5 (IEEE 802 local experimental 1)
//	14   1  version, 1
//	15   1  type: 1 request, 2 reply
//	16   2  length of the request as it was received, in a reply; else 0
//	18   4  number of the request
//	22   8  sender's clock in nanoseconds, returned unchanged in the reply
//	30   8  connection UID
//	38  16  keyed BLAKE2s-128 over bytes 14..37, by the key of the sender's direction
//	54      zeros up to the size that is proved (requests)
//
// # Concurrency
//
// The package is pure; a Machine belongs to one goroutine, time is an argument.
package proof

import (
	"time"
)

// Timing of a Machine. The zero value of a field means the default.
type Timing struct {
	Interval   time.Duration // between requests; 500 ms
	First      time.Duration // between the first ones, until FirstCount of them; 100 ms
	FirstCount int           // 10
	Suspect    time.Duration // without a reply until an Up path is asked every First; 600 ms
	Timeout    time.Duration // without a reply until an Up path is Down; 1.2 s
	Needed     int           // replies in a row for the first Up; 3
	Hysteresis int           // replies in a row for Up after a failure; 10
	BackoffMin time.Duration // after the first failure; 10 s
	BackoffMax time.Duration // 5 min
	Settled    time.Duration // Up for so long forgives earlier failures; 1 min
}

func (t *Timing) fill() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Interval, 500*time.Millisecond)
	def(&t.First, 100*time.Millisecond)
	def(&t.Suspect, 600*time.Millisecond)
	// TCP tries again 1.4 s after something was lost for the first time, and then not
	// before 3 s: by then the traffic has to have moved.
	def(&t.Timeout, 1200*time.Millisecond)
	def(&t.BackoffMin, 10*time.Second)
	def(&t.BackoffMax, 5*time.Minute)
	def(&t.Settled, time.Minute)
	if t.Needed == 0 {
		t.Needed = 3
	}
	if t.FirstCount == 0 {
		t.FirstCount = 10
	}
	if t.Hysteresis == 0 {
		t.Hysteresis = 10
	}
}

// State of a path.
type State uint8

const (
	Probing State = iota // never proven; leaves with Needed replies in a row
	Up                   // proven; leaves when Timeout goes by without a reply
	Down                 // failed; leaves after the back-off with Hysteresis replies in a row
)

// String is the state's name in status.
func (s State) String() string { return [...]string{"probing", "up", "down"}[s] }

// Machine is the state of one path to one peer.
type Machine struct {
	timing Timing

	state     State
	since     time.Time // entered state
	sent      time.Time // of the last request
	seq       uint32    // of that request
	replied   uint32    // highest request answered
	lastReply time.Time
	row       int           // replies in a row; a lost request ends it
	failures  int           // since the path last settled
	until     time.Time     // end of the back-off
	rtt       time.Duration // smoothed
}

// New makes a Machine that starts probing at now.
func New(t Timing, now time.Time) *Machine {
	t.fill()
	return &Machine{timing: t, since: now}
}

// State returns where the path stands and since when.
func (m *Machine) State() (State, time.Time) { return m.state, m.since }

// RTT is the smoothed round trip, 0 before the first reply.
func (m *Machine) RTT() time.Duration { return m.rtt }

// Failures counts how often the path went down since it last settled; Retry is when
// the back-off of a Down path ends.
func (m *Machine) Failures() (n int, retry time.Time) { return m.failures, m.until }

// Wake is when Tick has to be called at the latest.
func (m *Machine) Wake() time.Time {
	due := m.due()
	if m.state == Up {
		if t := m.lastReply.Add(m.timing.Timeout); t.Before(due) {
			return t
		}
	}
	return due
}

// due is when the next request is.
func (m *Machine) due() time.Time {
	soon, usual := m.sent.Add(m.timing.First), m.sent.Add(m.timing.Interval)
	switch {
	case m.seq == 0:
		return m.since
	case m.state == Probing && int(m.seq) <= m.timing.FirstCount:
		return soon
	case m.state != Up:
		return usual
	}
	if doubt := m.lastReply.Add(m.timing.Suspect); doubt.After(soon) {
		soon = doubt
	}
	if soon.Before(usual) {
		return soon
	}
	return usual
}

// Tick moves time on. send asks for a request with number seq now; changed says that
// the state did. A Tick that comes a whole interval late says that this host was held
// up: nothing was asked in that time, so that no answer does not tell against the path.
func (m *Machine) Tick(now time.Time) (send bool, seq uint32, changed bool) {
	if late := now.Sub(m.due()); m.state == Up && late >= m.timing.Interval {
		if m.lastReply = m.lastReply.Add(late); m.lastReply.After(now) {
			m.lastReply = now
		}
	}
	if m.state == Up && now.Sub(m.lastReply) >= m.timing.Timeout {
		m.fail(now)
		changed = true
	}
	if now.Before(m.due()) {
		return false, 0, changed
	}
	if m.seq != m.replied {
		m.row = 0 // the last request was lost, or is late
	}
	m.seq++
	m.sent = now
	return true, m.seq, changed
}

// Reply takes the reply to request seq, which was sent sent ago. It reports whether
// the state changed. Replies to requests that were never sent, and repeated ones, do
// nothing.
func (m *Machine) Reply(seq uint32, sent time.Duration, now time.Time) (changed bool) {
	if seq == 0 || seq > m.seq || seq <= m.replied {
		return false
	}
	m.replied, m.lastReply = seq, now
	m.row++
	m.smooth(sent)
	switch m.state {
	case Probing:
		if m.row < m.timing.Needed {
			return false
		}
	case Down:
		if m.row < m.timing.Hysteresis || now.Before(m.until) {
			return false
		}
	case Up:
		if m.failures > 0 && now.Sub(m.since) >= m.timing.Settled {
			m.failures = 0
		}
		return false
	}
	m.state, m.since = Up, now
	return true
}

// Refuse takes the path down because of something other than heartbeats: a device
// that is gone, a send that failed for good.
func (m *Machine) Refuse(now time.Time) (changed bool) {
	m.row = 0
	if m.state != Up {
		return false
	}
	m.fail(now)
	return true
}

func (m *Machine) fail(now time.Time) {
	m.state, m.since, m.row = Down, now, 0
	m.until = now.Add(m.backoff(m.failures))
	m.failures++
}

// backoff is how long a path is left alone after it failed n times before.
func (m *Machine) backoff(n int) time.Duration {
	d := m.timing.BackoffMin
	for range n {
		if d >= m.timing.BackoffMax/2 {
			return m.timing.BackoffMax
		}
		d *= 2
	}
	return d
}

func (m *Machine) smooth(sample time.Duration) {
	switch {
	case sample <= 0:
	case m.rtt == 0:
		m.rtt = sample
	default:
		m.rtt += (sample - m.rtt) / 8 // RFC 6298 section 2
	}
}
