package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"weave/nameserver/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is time that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// exchangeTime is more than a busy machine takes.
const exchangeTime = 30 * time.Second

// newForwarder makes a Forwarder that takes nobody for silent within a test's exchange, so
// that what it asks can be counted.
func newForwarder(t testing.TB, servers ...*dnstest.Server) (*Forwarder, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1e9, 0)}
	port := uint16(53)
	if len(servers) > 0 {
		port = servers[0].Addr.Port()
	}
	f := New(Config{ResolvConf: dnstest.ResolvConf(t, servers...), Port: port, Now: c.now})
	f.hedge, f.again = 2*exchangeTime, 2*exchangeTime
	return f, c
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

func exchange(t testing.TB, f *Forwarder, q *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), exchangeTime)
	defer cancel()
	return f.Exchange(ctx, q)
}

func TestReplyIsTheAskers(t *testing.T) {
	up := dnstest.Start(t, 1, func(q *dns.Msg, _ bool) *dns.Msg {
		r := dnstest.Reply("%s 60 IN CNAME other.example.", "other.example. 60 IN A 192.0.2.1")(q, false)
		r.Authoritative, r.AuthenticatedData, r.RecursionAvailable = true, true, false
		r.SetEdns0(4096, false)
		return r
	})
	f, _ := newForwarder(t, up...)
	for range 2 { // the second one from the cache
		q := question("WWW.Example.", dns.TypeA)
		q.RecursionDesired, q.CheckingDisabled = false, true
		m, err := exchange(t, f, q)
		if err != nil {
			t.Fatal(err)
		}
		if m.Id != q.Id || m.Question[0] != q.Question[0] || m.Authoritative || m.AuthenticatedData ||
			!m.RecursionAvailable || m.RecursionDesired || !m.CheckingDisabled || m.IsEdns0() != nil || len(m.Answer) != 2 {
			t.Errorf("%s", m)
		}
		if got := m.Answer[0].Header().Name; got != "WWW.Example." {
			t.Errorf("answer is about %s", got)
		}
	}
	if n := up[0].Queries.Load(); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

// A server that fails is passed over at once: hedge is longer than the asker waits. One
// that is silent costs the first question one hedge, and is asked last from then on.
func TestFailover(t *testing.T) {
	good := dnstest.Reply("%s 0 IN A 192.0.2.1")
	atOnce, afterHedge := Stats{Asked: 4}, Stats{Asked: 3, Silent: 1} // by two questions
	if got := New(Config{}).hedge; got <= 0 || got > time.Second {
		t.Errorf("a silent server costs %v", got)
	}
	check := func(t *testing.T, first dnstest.Handler, want Stats) {
		t.Parallel()
		up := dnstest.Start(t, 2, good)
		if first == nil {
			up[0].Stop()
		} else {
			up[0].Handle(first)
		}
		f, _ := newForwarder(t, up...)
		patient := f.hedge
		if want == afterHedge {
			f.hedge = hedge
		}
		for i := range 2 {
			m, err := exchange(t, f, question(fmt.Sprintf("%d.example.", i), dns.TypeA))
			if err != nil || len(m.Answer) != 1 {
				t.Fatal(m, err)
			}
			f.hedge = patient
		}
		if diff := cmp.Diff(want, f.Stats()); diff != "" || up[1].Queries.Load() != 2 {
			t.Errorf("the second server was asked %d times; (-want +got):\n%s", up[1].Queries.Load(), diff)
		}
	}
	t.Run("silent", func(t *testing.T) { check(t, dnstest.Silent, afterHedge) })
	t.Run("closed port", func(t *testing.T) { check(t, nil, atOnce) })
	t.Run("SERVFAIL", func(t *testing.T) { check(t, dnstest.Code(dns.RcodeServerFailure), atOnce) })
	t.Run("REFUSED", func(t *testing.T) { check(t, dnstest.Code(dns.RcodeRefused), atOnce) })
	t.Run("slow", func(t *testing.T) {
		over := make(chan struct{})
		defer close(over) // before the server ends, which waits for its handlers
		check(t, func(q *dns.Msg, tcp bool) *dns.Msg { <-over; return good(q, tcp) }, afterHedge)
	})
	t.Run("all fail", func(t *testing.T) {
		up := dnstest.Start(t, 2, dnstest.Code(dns.RcodeServerFailure))
		f, _ := newForwarder(t, up...)
		if _, err := exchange(t, f, question("a.example.", dns.TypeA)); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
	})
	t.Run("a lost datagram", func(t *testing.T) {
		var n atomic.Int32
		up := dnstest.Start(t, 1, func(q *dns.Msg, tcp bool) *dns.Msg {
			if n.Add(1) == 1 {
				return nil
			}
			return good(q, tcp)
		})
		f, _ := newForwarder(t, up...)
		f.again = again
		if _, err := exchange(t, f, question("a.example.", dns.TypeA)); err != nil {
			t.Error(err)
		}
	})
}

func TestTCP(t *testing.T) {
	var tcp atomic.Int32
	big := func(q *dns.Msg, overTCP bool) *dns.Msg {
		r := dnstest.Reply()(q, overTCP)
		if overTCP {
			tcp.Add(1)
			for i := range 200 {
				r.Answer = append(r.Answer, dnstest.RR(fmt.Sprintf("%s 60 IN A 192.0.2.%d", q.Question[0].Name, i), ""))
			}
		} else {
			r.Truncated = true
		}
		return r
	}
	up := dnstest.Start(t, 1, big)
	f, _ := newForwarder(t, up...)
	m, err := exchange(t, f, question("big.example.", dns.TypeA))
	if err != nil || len(m.Answer) != 200 || m.Truncated || tcp.Load() != 1 {
		t.Errorf("%v: %d over TCP", err, tcp.Load())
	}
	// A server that does not keep the case is asked over TCP, where nobody can guess.
	up[0].Handle(func(q *dns.Msg, overTCP bool) *dns.Msg {
		q.Question[0].Name = strings.ToLower(q.Question[0].Name)
		if overTCP {
			tcp.Add(1)
		}
		return dnstest.Reply("%s 60 IN A 192.0.2.1")(q, overTCP)
	})
	m, err = exchange(t, f, question("case-is-not-kept.example.", dns.TypeA))
	if err != nil || len(m.Answer) != 1 || tcp.Load() != 2 {
		t.Errorf("%v: %d over TCP", err, tcp.Load())
	}
}

func TestServerWithoutEDNS(t *testing.T) {
	up := dnstest.Start(t, 1, func(q *dns.Msg, tcp bool) *dns.Msg {
		if q.IsEdns0() != nil {
			return dnstest.Code(dns.RcodeFormatError)(q, tcp)
		}
		return dnstest.Reply("%s 60 IN A 192.0.2.1")(q, tcp)
	})
	f, _ := newForwarder(t, up...)
	for i := range 3 {
		if m, err := exchange(t, f, question(fmt.Sprintf("%d.example.", i), dns.TypeA)); err != nil || len(m.Answer) != 1 {
			t.Fatal(m, err)
		}
	}
	if n := up[0].Queries.Load(); n != 4 { // tried once
		t.Errorf("%d queries, want 4", n)
	}
}

func TestStats(t *testing.T) {
	up := dnstest.Start(t, 1, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	f, _ := newForwarder(t, up...)
	for range 3 {
		exchange(t, f, question("a.example.", dns.TypeA))
	}
	if diff := cmp.Diff(Stats{Asked: 1, Cached: 2}, f.Stats()); diff != "" {
		t.Error(diff)
	}
}
