package harness

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A meeting asks every container from every other one until all have answered.
type meeting struct {
	t     testing.TB
	sites []*Site
	conns []*net.UDPConn

	mu   sync.Mutex
	open map[question]bool // not answered yet
}

// question is who asks, and the address asked.
type question struct {
	from int
	to   netip.Addr
}

const (
	meetingPort  = 7102
	meetingEvery = 100 * time.Millisecond
)

func newMeeting(t testing.TB, sites []*Site) *meeting {
	t.Helper()
	m := &meeting{t: t, sites: sites, open: make(map[question]bool)}
	for i, s := range sites {
		var c *net.UDPConn
		if err := s.Box.Do(func() (err error) {
			c, err = net.ListenUDP("udp", &net.UDPAddr{Port: meetingPort})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		m.conns = append(m.conns, c)
		for _, o := range sites {
			if o != s {
				m.open[question{i, o.In4}], m.open[question{i, o.In6}] = true, true
			}
		}
	}
	return m
}

// all runs the meeting.
func (m *meeting) all(limit time.Duration) time.Duration {
	m.t.Helper()
	var readers sync.WaitGroup
	defer readers.Wait()
	for i, c := range m.conns {
		defer c.Close()
		readers.Go(func() { m.listen(i, c) })
	}
	start := time.Now()
	for {
		left := m.ask()
		took := time.Since(start).Round(time.Millisecond)
		if len(left) == 0 {
			return took
		}
		if took > limit {
			m.t.Errorf("%d of %d ways do not work after %v, such as from %s to %v",
				len(left), 2*len(m.sites)*(len(m.sites)-1), limit, m.sites[left[0].from].Label, left[0].to)
			return took
		}
		time.Sleep(meetingEvery)
	}
}

// ask sends what is not answered yet, and returns it.
func (m *meeting) ask() (left []question) {
	m.mu.Lock()
	for q := range m.open {
		left = append(left, q)
	}
	m.mu.Unlock()
	for _, q := range left {
		m.conns[q.from].WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(q.to, meetingPort))
	}
	return left
}

func (m *meeting) listen(i int, c *net.UDPConn) {
	buf := make([]byte, 16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		switch {
		case err != nil: // an answer of ICMP's
		case string(buf[:n]) == "?":
			c.WriteToUDPAddrPort([]byte("!"), from)
		default:
			m.mu.Lock()
			delete(m.open, question{i, from.Addr().Unmap()})
			m.mu.Unlock()
		}
	}
}
