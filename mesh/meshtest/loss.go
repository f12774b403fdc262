package meshtest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// TCP's timers in a lossy network, as Linux has them for a stream with few packets
// under way and TCP_THIN_LINEAR_TIMEOUTS, which mesh.SystemNet sets.
const (
	retransmitFirst  = 200 * time.Millisecond
	retransmitLinear = 6 // repetitions until the wait doubles
	retransmitMost   = 120 * time.Second
)

// loss decides how long packets take, and which are lost.
type loss struct {
	mu      sync.Mutex
	latency time.Duration // at most
	rng     *rand.Rand    // nil: none is lost
	rate    float64
	most    int
	row     int // lost since the last that was not
}

// SetLatency makes each packet take a time of its own from now on, up to most.
func (n *Net) SetLatency(most time.Duration) {
	n.loss.mu.Lock()
	defer n.loss.mu.Unlock()
	n.loss.latency = most
}

// SetLoss makes the network lose packets from now on, as the seed says, at most so
// many in a row. TCP repeats what is lost, and what is damaged on the way, so a stream
// is only late.
func (n *Net) SetLoss(seed uint64, rate float64, most int) {
	n.loss.mu.Lock()
	defer n.loss.mu.Unlock()
	n.loss.rng, n.loss.rate, n.loss.most = rand.New(rand.NewPCG(seed, 0x1055)), rate, most
}

func (l *loss) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rng == nil || l.row >= l.most || l.rng.Float64() >= l.rate {
		l.row = 0
		return false
	}
	l.row++
	return true
}

// delay is how long a segment takes with all its repetitions.
func (l *loss) delay() time.Duration {
	l.mu.Lock()
	d := rand.N(l.latency + 1)
	l.mu.Unlock()
	wait := retransmitFirst
	for tries := 1; l.lost(); tries++ {
		d += wait
		if tries >= retransmitLinear {
			wait = min(2*wait, retransmitMost)
		}
	}
	return d
}

// late are bytes of a stream on their way to one end.
type late struct {
	bytes int
	at    time.Time // the last of them arrive
}

// arriveLocked takes bytes that the other end wrote, in order.
func (c *conn) arriveLocked(b []byte) {
	at := time.Now().Add(c.net.loss.delay())
	if at.Before(c.late.at) {
		at = c.late.at
	}
	wait := time.Until(at)
	if wait <= 0 && c.late.bytes == 0 {
		c.in = append(c.in, b...)
		return
	}
	b = append([]byte(nil), b...)
	c.late.at = at.Add(1) // timers of one time fire in any order
	c.late.bytes += len(b)
	time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.late.bytes -= len(b)
		c.in = append(c.in, b...)
		c.cond.Broadcast()
	})
}
