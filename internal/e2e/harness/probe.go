package harness

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weave/internal/testnet"
)

// ProbeOf starts echoes at both addresses of one site's container, probes them from
// another's, and returns when the first probe was answered.
func ProbeOf(t testing.TB, from, to *Site) *Probe {
	t.Helper()
	p := StartProbe(t, from.Box, Echo(t, to.Box, to.In4), Echo(t, to.Box, to.In6))
	Within(t, JoinLimit, "the first probe's answer", func() bool { return p.AnsweredSince(time.Time{}) })
	return p
}

// Probe sends small datagrams to echoes at a steady rate, one to each at a time, and
// remembers which were answered: by all.
type Probe struct {
	conn *net.UDPConn
	to   []netip.AddrPort
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time
	silent   []uint8         // by number: a bit for each echo that has not answered
	answered []time.Duration // round trip by number, of the last answer; 0: one lacks
}

// ProbeEvery is the time between two probes.
const ProbeEvery = 20 * time.Millisecond

// StartProbe probes until Stop or the end of the test; to are eight at most.
func StartProbe(t testing.TB, from *testnet.Namespace, to ...netip.AddrPort) *Probe {
	t.Helper()
	p := &Probe{to: to, stop: make(chan struct{})}
	p.conn = ListenUDP(t, from, netip.AddrPort{})
	p.done.Go(p.send)
	p.done.Go(p.receive)
	t.Cleanup(p.Stop)
	return p
}

func (p *Probe) send() {
	tick := time.NewTicker(ProbeEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		n := len(p.sent)
		p.sent, p.answered = append(p.sent, time.Now()), append(p.answered, 0)
		p.silent = append(p.silent, 1<<len(p.to)-1)
		p.mu.Unlock()
		for i, to := range p.to {
			p.conn.WriteToUDPAddrPort(fmt.Appendf(nil, "probe %d %d", n, i), to)
		}
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

func (p *Probe) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var i, echo int
		if err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(buf[:n]), "probe %d %d", &i, &echo); err != nil {
			continue
		}
		p.mu.Lock()
		if i >= 0 && i < len(p.sent) && p.answered[i] == 0 {
			if p.silent[i] &^= 1 << echo; p.silent[i] == 0 {
				p.answered[i] = time.Since(p.sent[i])
			}
		}
		p.mu.Unlock()
	}
}

// Stop ends the probing. It is idempotent.
func (p *Probe) Stop() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	p.conn.Close()
	p.done.Wait()
}

// Sent is how many probes were sent until now.
func (p *Probe) Sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// Gap is the longest time since start in which what was sent got no answer, and
// how many probes were lost in all. What was sent after the last answer counts
// once it is half a second old.
func (p *Probe) Gap(start time.Time) (longest time.Duration, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.sent) - 1
	for last >= 0 && p.answered[last] == 0 {
		last--
	}
	var since time.Time // of the first unanswered one
	for i, at := range p.sent {
		switch {
		case at.Before(start):
		case p.answered[i] != 0:
			since = time.Time{}
		case i > last && time.Since(at) < 500*time.Millisecond:
			return longest, lost
		default:
			lost++
			if since.IsZero() {
				since = at
			}
			longest = max(longest, at.Sub(since)+ProbeEvery)
		}
	}
	return longest, lost
}

// AnsweredSince reports whether a probe sent after t was answered.
func (p *Probe) AnsweredSince(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.sent) - 1; i >= 0 && p.sent[i].After(t); i-- {
		if p.answered[i] != 0 {
			return true
		}
	}
	return false
}
