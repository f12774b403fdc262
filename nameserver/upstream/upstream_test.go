package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
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

func newForwarder(t testing.TB, servers ...*dnstest.Server) (*Forwarder, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1e9, 0)}
	port := uint16(53)
	if len(servers) > 0 {
		port = servers[0].Addr.Port()
	}
	return New(Config{ResolvConf: dnstest.ResolvConf(t, servers...), Port: port, Now: c.now}), c
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

func exchange(t testing.TB, f *Forwarder, q *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return f.Exchange(ctx, q)
}

func TestParseConf(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "[192.0.2.1 2001:db8::1]"},
		{"comments, options, search", "# nameserver 192.0.2.9\n; x\noptions ndots:5 timeout:1\nsearch a b\n  nameserver\t192.0.2.1 # x\r\n", "[192.0.2.1]"},
		{"twice", "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver ::ffff:192.0.2.1", "[192.0.2.1]"},
		{"zone", "nameserver fe80::1%eth0", "[fe80::1%eth0]"},
		{"unspecified", "nameserver 0.0.0.0", "[127.0.0.1]"},
		{"nonsense", "nameserver\nnameserver x\nnameserver 1.2.3\nnameserver 224.0.0.1\nnameserverx 192.0.2.1", "[]"},
		{"many", strings.Repeat("nameserver 192.0.2.1\n", 3) + "nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver 192.0.2.5\nnameserver 192.0.2.6\nnameserver 192.0.2.7",
			"[192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6]"},
		{"empty", "", "[]"},
	} {
		if got := fmt.Sprint(parseConf([]byte(tt.text))); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestConfIsReadAgain(t *testing.T) {
	up := dnstest.Start(t, 2, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	path := dnstest.ResolvConf(t, up[0])
	c := &clock{t: time.Unix(1e9, 0)}
	f := New(Config{ResolvConf: path, Port: up[0].Addr.Port(), Now: c.now,
		Own: func(a netip.AddrPort) bool { return a.Addr() == netip.MustParseAddr("127.0.1.9") }})
	check := func(want ...*dnstest.Server) {
		t.Helper()
		var addrs []netip.AddrPort
		for _, s := range want {
			addrs = append(addrs, s.Addr)
		}
		if got := f.Servers(); !slices.Equal(got, addrs) {
			t.Errorf("servers %v, want %v", got, addrs)
		}
	}
	check(up[0])
	if _, err := exchange(t, f, question("a.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	dnstest.WriteResolvConf(t, path, up[1])
	check(up[0]) // not looked at more than once a second
	c.add(recheck)
	check(up[1])
	if _, err := exchange(t, f, question("a.example.", dns.TypeA)); err != nil || up[1].Queries.Load() == 0 {
		t.Errorf("%v: answers of another server were kept", err)
	}
	os.Remove(path)
	c.add(recheck)
	check(up[1]) // while there is no file the last servers stay
	if err := os.WriteFile(path, []byte("nameserver 127.0.1.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.add(recheck)
	check() // our own address is never used
	if _, err := exchange(t, f, question("b.example.", dns.TypeA)); !errors.Is(err, ErrNoServers) {
		t.Errorf("got %v, want ErrNoServers", err)
	}
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

// Numbers, ports and case are different each time.
func TestQuestionsCannotBeGuessed(t *testing.T) {
	var mu sync.Mutex
	ids, names := map[uint16]int{}, map[string]int{}
	up := dnstest.Start(t, 1, func(q *dns.Msg, _ bool) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		ids[q.Id]++
		names[q.Question[0].Name[:20]]++
		return dnstest.Reply()(q, false)
	})
	ports := map[string]int{}
	f, _ := newForwarder(t, up...)
	for i := range 200 {
		if _, err := exchange(t, f, question(fmt.Sprintf("abcdefghijklmnopqrst%d.example.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		c, done, err := dial(t.Context(), "udp", up[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		ports[c.LocalAddr().String()]++
		done()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 190 || len(names) < 195 || len(ports) < 150 {
		t.Errorf("of 200: %d numbers, %d spellings, %d ports", len(ids), len(names), len(ports))
	}
}

func TestFailover(t *testing.T) {
	good := dnstest.Reply("%s 0 IN A 192.0.2.1")
	for _, tt := range []struct {
		name  string
		first dnstest.Handler // nil: nobody listens
		limit time.Duration
		again time.Duration // the next question
	}{
		{"silent", dnstest.Silent, time.Second, 200 * time.Millisecond},
		{"closed port", nil, 200 * time.Millisecond, 200 * time.Millisecond},
		{"SERVFAIL", dnstest.Code(dns.RcodeServerFailure), 200 * time.Millisecond, 200 * time.Millisecond},
		{"REFUSED", dnstest.Code(dns.RcodeRefused), 200 * time.Millisecond, 200 * time.Millisecond},
		{"slow", func(q *dns.Msg, tcp bool) *dns.Msg { time.Sleep(2 * time.Second); return good(q, tcp) }, time.Second, 200 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := dnstest.Start(t, 2, good)
			if tt.first == nil {
				up[0].Stop()
			} else {
				up[0].Handle(tt.first)
			}
			f, _ := newForwarder(t, up...)
			for i, limit := range []time.Duration{tt.limit, tt.again} {
				began := time.Now()
				m, err := exchange(t, f, question(fmt.Sprintf("%d.example.", i), dns.TypeA))
				if err != nil || len(m.Answer) != 1 {
					t.Fatal(m, err)
				}
				if took := time.Since(began); took > limit {
					t.Errorf("question %d took %v, want %v", i, took, limit)
				}
			}
		})
	}
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
			name := []byte("same.example.")
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
	for f.Stats().Joined < n-1 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if got := up[0].Queries.Load(); got != 1 {
		t.Errorf("%d queries, want 1", got)
	}
}

// A forwarding loop ends after one round: through servers that pass only our mark
// on, and through such that only keep the name as it is spelled.
func TestLoopEndsAfterOneRound(t *testing.T) {
	for _, keepsMark := range []bool{true, false} {
		up := dnstest.Start(t, 1, nil)
		f, _ := newForwarder(t, up...)
		var rounds atomic.Int32
		var looped atomic.Int32
		up[0].Handle(func(q *dns.Msg, tcp bool) *dns.Msg { // forwards to whom it heard it from
			rounds.Add(1)
			back := q.Copy()
			if keepsMark {
				back.Question[0].Name = strings.ToLower(back.Question[0].Name)
			} else {
				back.Extra = nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := f.Exchange(ctx, back); errors.Is(err, ErrLoop) {
				looped.Add(1)
			} else {
				t.Errorf("the question that came back: %v", err)
			}
			return dnstest.Code(dns.RcodeServerFailure)(q, tcp)
		})
		began := time.Now()
		if _, err := exchange(t, f, question("loop-it-is.example.", dns.TypeA)); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
		if rounds.Load() != 1 || looped.Load() != 1 || time.Since(began) > 500*time.Millisecond {
			t.Errorf("mark kept %v: %d rounds, %d seen, %v", keepsMark, rounds.Load(), looped.Load(), time.Since(began))
		}
	}
}

// A circle of several forwarders ends too.
func TestCircleOfForwarders(t *testing.T) {
	up := dnstest.Start(t, 3, nil)
	var fs []*Forwarder
	for i := range up {
		f, _ := newForwarder(t, up[(i+1)%len(up)])
		fs = append(fs, f)
	}
	var asked atomic.Int32
	for i, s := range up {
		s.Handle(func(q *dns.Msg, tcp bool) *dns.Msg {
			asked.Add(1)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			m, err := fs[i].Exchange(ctx, q)
			if err != nil {
				return dnstest.Code(dns.RcodeServerFailure)(q, tcp)
			}
			return m
		})
	}
	if _, err := exchange(t, fs[0], question("circle.example.", dns.TypeA)); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("%d questions in a circle of three", n)
	}
}

// spoofs are replies that a forger who knows everything but number and case would send.
func spoof(rng *rand.Rand, a *asked, m *dns.Msg) []byte {
	b := slices.Clone(m0(m))
	binary.BigEndian.PutUint16(b, uint16(rng.Uint32()))
	for i := dnsHeader; i < dnsHeader+len(a.question)-4; i++ { // another guess at the case
		if c := lower(b[i]); 'a' <= c && c <= 'z' {
			b[i] = c &^ (byte(rng.Uint32()) & 0x20)
		}
	}
	return b
}

func m0(m *dns.Msg) []byte { b, _ := m.Pack(); return b }

// 1,000,000 forged replies: over loopback from the very address and port of the server,
// as long as the test may take, and the rest through the check itself. None is taken.
func TestSpoofedReplies(t *testing.T) {
	const total = 1_000_000
	const budget = 5 * time.Second
	var sent atomic.Int64
	up := dnstest.Start(t, 1, dnstest.Reply("%s 0 IN A 192.0.2.1")) // TCP tells the truth
	up[0].HandleRaw(func(q []byte, reply func([]byte)) {
		m := new(dns.Msg)
		if m.Unpack(q) != nil {
			return
		}
		rng := rand.New(rand.NewPCG(uint64(m.Id), 1))
		evil := dnstest.Reply("%s 3600 IN A 203.0.113.66")(m, false)
		packed := m0(evil)
		for range 64 {
			b := slices.Clone(packed)
			for ok := false; !ok; {
				id := uint16(rng.Uint32())
				binary.BigEndian.PutUint16(b, id)
				ok = id != m.Id // the forger has bad luck: what else would the test show
			}
			sent.Add(1)
			reply(b)
		}
	})
	f, _ := newForwarder(t, up...)
	check := func(m *dns.Msg) {
		for _, r := range m.Answer {
			if r.(*dns.A).A.String() != "192.0.2.1" {
				t.Fatal("a forged reply was taken")
			}
		}
	}
	for i, began := 0, time.Now(); time.Since(began) < budget && sent.Load() < total; i++ {
		m, err := exchange(t, f, question(fmt.Sprintf("victim%d.example.", i), dns.TypeA))
		if err != nil {
			t.Fatal(err)
		}
		check(m)
	}
	overWire := min(sent.Load(), total-300_000) // some must have the number right by chance
	rng := rand.New(rand.NewPCG(1, 2))
	loosely, accepted := 0, 0
	for n := overWire; n < total; {
		a, err := newAsked(mixCase("victim.with.letters.example."), key{name: "x", qtype: dns.TypeA}, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := new(dns.Msg)
		if err := q.Unpack(a.wire); err != nil {
			t.Fatal(err)
		}
		evil := dnstest.Reply("%s 3600 IN A 203.0.113.66")(q, false)
		for range 1000 {
			n++
			switch a.match(spoof(rng, a, evil)) {
			case exact:
				accepted++
			case loose:
				loosely++ // the number was guessed: asked again over TCP
			}
		}
	}
	st := f.Stats()
	t.Logf("%d over loopback (%d seen as forged, %d questions moved to TCP), %d through the check: %d with the number right, %d taken",
		overWire, st.Forged, st.Suspect, total-overWire, loosely, accepted)
	if accepted != 0 {
		t.Errorf("%d forged replies were taken", accepted)
	}
	if loosely > 60 { // 2^-16 of them
		t.Errorf("%d guessed the number", loosely)
	}
}

// Replies from another address never reach the socket.
func TestForeignAddress(t *testing.T) {
	up := dnstest.Start(t, 2, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a, err := newAsked("a.example.", key{name: "a.example.", qtype: dns.TypeA}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, done, err := dial(t.Context(), "udp", up[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	q := new(dns.Msg)
	q.Unpack(a.wire)
	forged := m0(dnstest.Reply("%s 60 IN A 203.0.113.66")(q, false))
	to := c.LocalAddr().(*net.UDPAddr)
	for range 10 {
		other.WriteToUDP(forged, to)
	}
	c.Write(a.wire)
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil || slices.Equal(buf[:n], forged) {
		t.Errorf("%v: heard another address", err)
	}
}

// What a server may answer: the cases that must not count as its answer.
func TestHostileReplies(t *testing.T) {
	good := dnstest.Reply("%s 60 IN A 192.0.2.1")
	for _, tt := range []struct {
		name   string
		change func(m *dns.Msg) []byte
	}{
		{"another number", func(m *dns.Msg) []byte { m.Id++; return m0(m) }},
		{"a question, not a reply", func(m *dns.Msg) []byte { m.Response = false; return m0(m) }},
		{"another opcode", func(m *dns.Msg) []byte { m.Opcode = dns.OpcodeUpdate; return m0(m) }},
		{"another name", func(m *dns.Msg) []byte { m.Question[0].Name = "other.example."; return m0(m) }},
		{"another type", func(m *dns.Msg) []byte { m.Question[0].Qtype = dns.TypeTXT; return m0(m) }},
		{"another class", func(m *dns.Msg) []byte { m.Question[0].Qclass = dns.ClassCHAOS; return m0(m) }},
		{"no question", func(m *dns.Msg) []byte { m.Question = nil; return m0(m) }},
		{"two questions", func(m *dns.Msg) []byte { m.Question = append(m.Question, m.Question[0]); return m0(m) }},
		{"cut", func(m *dns.Msg) []byte { b := m0(m); return b[:len(b)-5] }},
		{"nothing", func(m *dns.Msg) []byte { return nil }},
		{"header only", func(m *dns.Msg) []byte { return m0(m)[:12] }},
		{"answer points to itself", func(m *dns.Msg) []byte {
			m.Answer = nil
			b := m0(m)
			b[7] = 1
			at := len(b)
			return append(b, 0xc0|byte(at>>8), byte(at), 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := dnstest.Start(t, 1, good)
			up[0].HandleRaw(func(q []byte, reply func([]byte)) {
				m := new(dns.Msg)
				m.Unpack(q)
				r := good(m, false)
				r.Answer[0].(*dns.A).A = net.IPv4(203, 0, 113, 66)
				for range 3 {
					reply(tt.change(r.Copy()))
				}
				reply(m0(good(m, false)))
			})
			f, _ := newForwarder(t, up...)
			m, err := exchange(t, f, question("victim.example.", dns.TypeA))
			if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
				t.Errorf("%v: %v", err, m)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	a, err := newAsked("wWw.eXample.", key{name: "www.example.", qtype: dns.TypeA}, true, make([]byte, 8))
	if err != nil {
		f.Fatal(err)
	}
	a.id = 0x1234
	q := new(dns.Msg)
	q.Unpack(a.wire)
	q.Id = a.id
	for _, m := range []*dns.Msg{
		dnstest.Reply("%s 60 IN A 192.0.2.1", "%s 60 IN CNAME b.example.")(q, false),
		dnstest.Code(dns.RcodeNameError)(q, false),
		dnstest.Reply("%s 60 IN TXT \"x\"", "example. 9 IN SOA a. b. 1 2 3 4 5", "%s 1 IN SVCB 1 . alpn=h2")(q, false),
	} {
		f.Add(m0(m))
	}
	cache := newCache()
	f.Fuzz(func(t *testing.T, b []byte) {
		if a.match(b) != exact {
			return
		}
		r, err := a.parse(b)
		if err != nil {
			return
		}
		k := key{name: "www.example.", qtype: dns.TypeA}
		now := time.Unix(1e9, 0)
		cache.put(k, r.msg, r.size, now)
		if m := cache.get(k, now.Add(time.Second)); m != nil {
			request := question("www.example.", dns.TypeA)
			out := finish(m, request)
			out.Truncate(1232)
			if _, err := out.Pack(); err != nil {
				t.Skip() // the server says SERVFAIL then
			}
		}
	})
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\noptions x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := parseConf(b); len(s) > maxServers {
			t.Fatal(s)
		}
	})
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
