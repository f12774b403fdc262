package upstream

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/nameserver/dnstest"
)

func TestCache(t *testing.T) {
	up := dnstest.Start(t, 1, func(q *dns.Msg, tcp bool) *dns.Msg {
		r := dnstest.Reply("%s 300 IN A 192.0.2.1", "%s 60 IN A 192.0.2.2")(q, tcp)
		soa := dnstest.RR("example. 900 IN SOA ns.example. h.example. 1 2 3 4 30", "")
		switch name := strings.ToLower(q.Question[0].Name); name {
		case "none.example.":
			r = dnstest.Code(dns.RcodeNameError)(q, tcp)
			r.Ns = []dns.RR{soa}
		case "nodata.example.":
			r.Answer = nil
			r.Ns = []dns.RR{soa}
		case "nosoa.example.":
			r = dnstest.Code(dns.RcodeNameError)(q, tcp)
		case "fresh.example.":
			r.Answer[1].Header().Ttl = 0
		case "huge.example.":
			r.Answer[0].Header().Ttl, r.Answer[1].Header().Ttl = 1<<31-1, 1<<31-1
		case "odd.example.":
			r.Answer[0].Header().Ttl = 1 << 31
		}
		return r
	})
	for _, tt := range []struct {
		name string
		kept time.Duration
		ttls string // a second before the end
	}{
		{"plain.example.", 60 * time.Second, "[241 1]"},
		{"none.example.", 30 * time.Second, "[871]"}, // as a whole it lives for the minimum
		{"nodata.example.", 30 * time.Second, "[871]"},
		{"nosoa.example.", 0, ""},
		{"fresh.example.", 0, ""},
		{"odd.example.", 0, ""},
		{"huge.example.", time.Hour, "[2147480048 2147480048]"},
	} {
		f, c := newForwarder(t, up...)
		asks := func() (*dns.Msg, bool) {
			t.Helper()
			before := up[0].Queries.Load()
			m, err := exchange(t, f, question(tt.name, dns.TypeA))
			if err != nil {
				t.Fatal(err)
			}
			return m, up[0].Queries.Load() != before
		}
		asks()
		if tt.kept > 0 {
			c.add(tt.kept - time.Second)
			m, asked := asks()
			var ttls []uint32
			for _, r := range append(m.Answer, m.Ns...) {
				ttls = append(ttls, r.Header().Ttl)
			}
			if asked || fmt.Sprint(ttls) != tt.ttls {
				t.Errorf("%s after %v: asked %v, TTLs %v, want %s", tt.name, tt.kept-time.Second, asked, ttls, tt.ttls)
			}
			c.add(time.Second)
		}
		if _, asked := asks(); !asked {
			t.Errorf("%s was kept for longer than %v", tt.name, tt.kept)
		}
	}
}

// Questions that differ in DO, CD, type or class of answer do not share an answer
// (CoreDNS CVE-2024-0874).
func TestCacheTellsQuestionsApart(t *testing.T) {
	up := dnstest.Start(t, 1, dnstest.Reply("%s 300 IN A 192.0.2.1"))
	f, _ := newForwarder(t, up...)
	n := int64(0)
	for _, change := range []func(*dns.Msg){
		func(*dns.Msg) {},
		func(q *dns.Msg) { q.CheckingDisabled = true },
		func(q *dns.Msg) { q.SetEdns0(1232, true) },
		func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAAAA },
		func(q *dns.Msg) { q.Question[0].Name = "b.example." },
	} {
		for range 2 {
			q := question("a.example.", dns.TypeA)
			change(q)
			if _, err := exchange(t, f, q); err != nil {
				t.Fatal(err)
			}
		}
		if n++; up[0].Queries.Load() != n {
			t.Errorf("%d queries after %d different questions", up[0].Queries.Load(), n)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	now := time.Unix(1e9, 0)
	r := question("a.", dns.TypeA)
	r.Answer = []dns.RR{dnstest.RR("a. 60 IN A 192.0.2.1", "")}
	for i := range 3 * maxAnswers {
		c.put(key{name: fmt.Sprint(i)}, r, 100, now)
	}
	if c.used.Len() != maxAnswers || len(c.byKey) != maxAnswers || c.bytes != 100*maxAnswers {
		t.Errorf("%d answers, %d bytes", c.used.Len(), c.bytes)
	}
	for i := range 1000 {
		c.put(key{name: fmt.Sprint(i)}, r, 60000, now)
	}
	if c.bytes > maxBytes || c.bytes < maxBytes/2 {
		t.Errorf("%d bytes, at most %d", c.bytes, maxBytes)
	}
	c.put(key{name: "x"}, r, 100, now)
	if c.get(key{name: "x"}, now.Add(-time.Hour)) != nil {
		t.Error("the clock went back and the answer still lives")
	}
}

// Many askers of one name at one time are one question (a birthday attack needs many).
func TestEqualQuestionsShareAFlight(t *testing.T) {
	release := make(chan struct{})
	up := dnstest.Start(t, 1, func(q *dns.Msg, tcp bool) *dns.Msg {
		<-release
		return dnstest.Reply("%s 0 IN A 192.0.2.1")(q, tcp)
	})
	f, _ := newForwarder(t, up...)
	const n = 50
	var wg sync.WaitGroup
	var spellings sync.Map
	for i := range n {
		wg.Go(func() {
			name := []byte("same." + strings.Repeat("x", 40) + ".example.") // none is spelled like the one upstream: a loop
			for j := range 4 {
				if i>>j&1 == 1 {
					name[j] -= 'a' - 'A'
				}
			}
			m, err := exchange(t, f, question(string(name), dns.TypeA))
			if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Name != string(name) {
				t.Error(m, err)
			}
			spellings.Store(string(name), true)
		})
	}
	for f.Stats().Joined < n-1 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if got := up[0].Queries.Load(); got != 1 {
		t.Errorf("%d queries, want 1", got)
	}
}
