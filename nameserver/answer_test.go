package nameserver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"weave/internal/peer"
	"weave/nameserver/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	host1  = peer.NameFromBytes([peer.NameLen]byte{2, 0, 0, 0, 0, 1})
	host2  = peer.NameFromBytes([peer.NameLen]byte{2, 0, 0, 0, 0, 2})
	anyone = func(netip.Addr) bool { return true }
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newServer(t testing.TB, change func(*Config)) *Server {
	t.Helper()
	seed := rand.New(rand.NewPCG(1, 2))
	c := Config{Name: host1, UID: 7, Allow: anyone, Rand: seed.Uint64, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.forwardTimeout = 2 * exchangeTime // it must not end what a test waits for
	return s
}

func (s *Server) mustAdd(t testing.TB, container, name, a string) {
	t.Helper()
	if err := s.Add(container, name, addr(a)); err != nil {
		t.Fatal(err)
	}
}

// reply runs a request through the whole server, but for sockets.
func (s *Server) reply(request []byte, udp bool) []byte {
	sc := s.newScratch()
	if b, ok := s.quick(nil, request, sc, &s.shared, udp); ok {
		return b
	}
	return s.respond(context.Background(), request, sc, udp)
}

func (s *Server) ask(t testing.TB, q *dns.Msg, udp bool) *dns.Msg {
	t.Helper()
	request, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	b := s.reply(request, udp)
	if b == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("reply does not unpack: %v: %x", err, b)
	}
	return m
}

func newQuestion(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

// text is a reply as a test writes it: the code, the flags, then records by section.
func text(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	flags := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionAvailable, "ra"}} {
		if f.on {
			flags += " " + f.name
		}
	}
	out[0] += flags
	section := func(title string, records []dns.RR) {
		var lines []string
		for _, r := range records {
			if r.Header().Rrtype != dns.TypeOPT {
				lines = append(lines, title+" "+strings.Join(strings.Fields(r.String()), " "))
			}
		}
		slices.Sort(lines) // they are shuffled
		out = append(out, lines...)
	}
	section("answer", m.Answer)
	section("authority", m.Ns)
	section("additional", m.Extra)
	return strings.Join(out, "\n")
}

const soa = "authority weave.local. 1 IN SOA weave.local. hostmaster.weave.local. 1 3600 600 86400 1"

// Every row of what is answered, in RR text.
func TestAnswers(t *testing.T) {
	up := dnstest.Start(t, 1, func(q *dns.Msg, tcp bool) *dns.Msg {
		if q.Question[0].Qtype == dns.TypeTXT && strings.EqualFold(q.Question[0].Name, "none.example.") {
			return dnstest.Code(dns.RcodeNameError)(q, tcp)
		}
		return dnstest.Reply("%s 300 IN TXT upstream")(q, tcp)
	})
	s := newServer(t, func(c *Config) {
		c.ResolvConf, c.UpstreamPort = dnstest.ResolvConf(t, up[0]), up[0].Addr.Port()
	})
	s.mustAdd(t, "c1", "one.weave.local", "10.32.0.1")
	s.mustAdd(t, "c2", "two.weave.local.", "10.32.0.2")
	s.mustAdd(t, "c3", "Two.Weave.Local", "10.32.0.3")
	s.mustAdd(t, "c4", "two.weave.local", "fd00::4")
	s.mustAdd(t, "c5", "twice.weave.local", "10.32.0.5")
	s.mustAdd(t, "c6", "twice.weave.local", "10.32.0.5")
	s.mustAdd(t, "c7", "six", "fd00::7") // one label: in the domain
	s.mustAdd(t, "c8", "a.deep.weave.local", "10.32.0.8")
	s.mustAdd(t, "c9", "aaa.weave.local", "10.32.0.2")
	const upstream = "NOERROR ra\nanswer %s 300 IN TXT \"upstream\""
	for _, tt := range []struct {
		what, name string
		qtype      uint16
		want       string
	}{
		{"address", "one.weave.local.", dns.TypeA, "NOERROR aa ra\nanswer one.weave.local. 1 IN A 10.32.0.1"},
		{"all addresses of a name in any case", "two.weave.local.", dns.TypeA,
			"NOERROR aa ra\nanswer two.weave.local. 1 IN A 10.32.0.2\nanswer two.weave.local. 1 IN A 10.32.0.3"},
		{"the question's case comes back", "TWO.Weave.LOCAL.", dns.TypeA,
			"NOERROR aa ra\nanswer TWO.Weave.LOCAL. 1 IN A 10.32.0.2\nanswer TWO.Weave.LOCAL. 1 IN A 10.32.0.3"},
		{"IPv6 address", "two.weave.local.", dns.TypeAAAA, "NOERROR aa ra\nanswer two.weave.local. 1 IN AAAA fd00::4"},
		{"both", "two.weave.local.", dns.TypeANY,
			"NOERROR aa ra\nanswer two.weave.local. 1 IN A 10.32.0.2\nanswer two.weave.local. 1 IN A 10.32.0.3\nanswer two.weave.local. 1 IN AAAA fd00::4"},
		{"an address once", "twice.weave.local.", dns.TypeA, "NOERROR aa ra\nanswer twice.weave.local. 1 IN A 10.32.0.5"},
		{"no IPv6 address: not NXDOMAIN, RFC 4074", "one.weave.local.", dns.TypeAAAA, "NOERROR aa ra\n" + soa},
		{"no IPv4 address", "six.weave.local.", dns.TypeA, "NOERROR aa ra\n" + soa},
		{"other type of a known name", "one.weave.local.", dns.TypeMX, "NOERROR aa ra\n" + soa},
		{"unknown type of a known name", "one.weave.local.", 65280, "NOERROR aa ra\n" + soa},
		{"one label", "one.", dns.TypeA, "NOERROR aa ra\nanswer one. 1 IN A 10.32.0.1"},
		{"one label, registered so", "Six.", dns.TypeAAAA, "NOERROR aa ra\nanswer Six. 1 IN AAAA fd00::7"},
		{"one label, other type", "one.", dns.TypeMX, "NOERROR aa ra"},
		{"one label, unknown", "nope.", dns.TypeA, "NXDOMAIN aa ra"},
		{"unknown name: never asked upstream", "nope.weave.local.", dns.TypeA, "NXDOMAIN aa ra\n" + soa},
		{"unknown name, other type", "nope.weave.local.", dns.TypeMX, "NXDOMAIN aa ra\n" + soa},
		{"below a name", "below.one.weave.local.", dns.TypeA, "NXDOMAIN aa ra\n" + soa},
		{"name that only has names below it, RFC 8020", "deep.weave.local.", dns.TypeA, "NOERROR aa ra\n" + soa},
		{"name of a sub-domain", "a.deep.weave.local.", dns.TypeA, "NOERROR aa ra\nanswer a.deep.weave.local. 1 IN A 10.32.0.8"},
		{"the domain", "weave.local.", dns.TypeA, "NOERROR aa ra\n" + soa},
		{"the domain's SOA", "weave.local.", dns.TypeSOA, "NOERROR aa ra\n" + strings.Replace(soa, "authority", "answer", 1)},
		{"a byte that no name has", `on\.e.weave.local.`, dns.TypeA, "NXDOMAIN aa ra\n" + soa},
		{"like the domain", "one.xweave.local.", dns.TypeA, fmt.Sprintf(upstream, "one.xweave.local.")},
		{"reverse", "1.0.32.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa ra\nanswer 1.0.32.10.in-addr.arpa. 1 IN PTR one.weave.local."},
		{"reverse in any case", "1.0.32.10.IN-ADDR.arpa.", dns.TypePTR, "NOERROR aa ra\nanswer 1.0.32.10.IN-ADDR.arpa. 1 IN PTR one.weave.local."},
		{"reverse: first name in order", "2.0.32.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa ra\nanswer 2.0.32.10.in-addr.arpa. 1 IN PTR aaa.weave.local."},
		{"reverse of IPv6", "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR,
			"NOERROR aa ra\nanswer 4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 1 IN PTR two.weave.local."},
		{"reverse, other type", "1.0.32.10.in-addr.arpa.", dns.TypeMX, "NOERROR aa ra"},
		{"reverse, unknown address", "9.9.32.10.in-addr.arpa.", dns.TypePTR, fmt.Sprintf(upstream, "9.9.32.10.in-addr.arpa.")},
		{"reverse of a network", "32.10.in-addr.arpa.", dns.TypeNS, fmt.Sprintf(upstream, "32.10.in-addr.arpa.")},
		{"reverse, not an address", "x.0.32.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN ra"},
		{"reverse, too long", "1.1.0.32.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN ra"},
		{"reverse, octet of 256", "256.0.32.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN ra"},
		{"foreign", "www.Example.", dns.TypeMX, fmt.Sprintf(upstream, "www.Example.")},
		{"foreign, unknown", "none.example.", dns.TypeTXT, "NXDOMAIN ra"},
		{"the root", ".", dns.TypeNS, fmt.Sprintf(upstream, ".")},
	} {
		for _, edns := range []bool{false, true} {
			q := newQuestion(tt.name, tt.qtype)
			if edns {
				q.SetEdns0(4096, true)
			}
			m := s.ask(t, q, true)
			if diff := cmp.Diff(tt.want, text(m)); diff != "" {
				t.Errorf("%s (EDNS %v) (-want +got):\n%s", tt.what, edns, diff)
				continue
			}
			if m.Id != q.Id || len(m.Question) != 1 || m.Question[0] != q.Question[0] || !m.RecursionDesired {
				t.Errorf("%s: head %+v, question %v", tt.what, m.MsgHdr, m.Question)
			}
			opt := m.IsEdns0()
			if (opt != nil) != edns || opt != nil && (opt.UDPSize() != maxUDP || !opt.Do() || opt.Version() != 0) {
				t.Errorf("%s (EDNS %v): OPT %v", tt.what, edns, opt)
			}
		}
	}
}

func TestDomainAndTTL(t *testing.T) {
	ttl := uint32(30)
	for _, domain := range []string{"foo.bar", "foo.bar.", "Foo.BAR."} {
		s := newServer(t, func(c *Config) { c.Domain, c.TTL = domain, &ttl })
		s.mustAdd(t, "c", "x.foo.bar", "10.0.0.1")
		got := text(s.ask(t, newQuestion("x.foo.bar.", dns.TypeA), true))
		if want := "NOERROR aa ra\nanswer x.foo.bar. 30 IN A 10.0.0.1"; got != want {
			t.Errorf("domain %q: %s", domain, got)
		}
		if got := text(s.ask(t, newQuestion("x.weave.local.", dns.TypeA), true)); got != "SERVFAIL ra" {
			t.Errorf("other domain without upstream: %s", got)
		}
	}
	s := newServer(t, func(c *Config) { c.Domain = "corp" })
	s.mustAdd(t, "c", "x", "10.0.0.1")
	for name, want := range map[string]string{
		"x.corp.": "NOERROR aa ra\nanswer x.corp. 1 IN A 10.0.0.1",
		"x.":      "NOERROR aa ra\nanswer x. 1 IN A 10.0.0.1",
		"corp.":   "NOERROR aa ra\nauthority corp. 1 IN SOA corp. hostmaster.corp. 1 3600 600 86400 1",
	} {
		if got := text(s.ask(t, newQuestion(name, dns.TypeA), true)); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, bad := range []string{".", "a b", strings.Repeat("a.", 130)} {
		if _, err := New(Config{Name: host1, UID: 1, Allow: anyone, Domain: bad}); err == nil {
			t.Errorf("domain %q was accepted", bad)
		}
	}
}

// All addresses come first equally often.
func TestAnswersAreShuffled(t *testing.T) {
	s := newServer(t, nil)
	const n, rounds = 8, 8000
	for i := range n {
		s.mustAdd(t, "c", "lb.weave.local", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	request, _ := newQuestion("lb.weave.local.", dns.TypeA).Pack()
	first := map[string]int{}
	sc := s.newScratch()
	for range rounds {
		b, _ := s.quick(nil, request, sc, &s.shared, true)
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil || len(m.Answer) != n {
			t.Fatal(err, m)
		}
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	for a, count := range first {
		if count < rounds/n*7/10 || count > rounds/n*13/10 {
			t.Errorf("%s was first %d times of %d", a, count, rounds)
		}
	}
	if len(first) != n {
		t.Errorf("%d of %d addresses were first", len(first), n)
	}
}

// Whatever does not fit is cut: the largest prefix, TC, never over the limit.
func TestTruncation(t *testing.T) {
	s := newServer(t, nil)
	for _, n := range []int{1, 2, 29, 30, 31, 50, 75, 76, 90, 300} {
		for i := range n {
			s.mustAdd(t, "c", fmt.Sprintf("n%d", n), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String())
		}
	}
	for size := 0; size < 1500; size += 37 {
		for _, n := range []int{1, 2, 29, 30, 31, 50, 75, 76, 90, 300} {
			name := fmt.Sprintf("n%d", n)
			for _, udp := range []bool{true, false} {
				q := newQuestion(name+".weave.local.", dns.TypeA)
				limit := 512
				if size > 0 {
					q.SetEdns0(uint16(size), false)
					limit = min(max(size, 512), 1232)
				}
				if !udp {
					limit = maxTCP
				}
				request, _ := q.Pack()
				b := s.reply(request, udp)
				m := new(dns.Msg)
				if err := m.Unpack(b); err != nil {
					t.Fatal(err)
				}
				fits := min((limit-len(request))/16, n) // a reply without answers is as long as its request
				if len(b) > limit || len(m.Answer) != fits || m.Truncated != (fits < n) {
					t.Fatalf("%d addresses, EDNS %d, UDP %v: %d bytes, %d answers, TC %v; want %d answers",
						n, size, udp, len(b), len(m.Answer), m.Truncated, fits)
				}
				seen := map[string]bool{}
				for _, r := range m.Answer {
					seen[r.String()] = true
				}
				if len(seen) != fits {
					t.Fatalf("%d different answers of %d", len(seen), fits)
				}
			}
		}
	}
}

// twin answers from the registry with the library's types only: slow, and by another
// hand than the quick path.
func (s *Server) twin(q *dns.Msg) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative, r.RecursionAvailable = true, true
	r.CheckingDisabled = q.CheckingDisabled
	asked := q.Question[0]
	full := strings.ToLower(asked.Name)
	inside := dns.IsSubDomain(s.Domain(), full)
	if !inside {
		full += s.Domain()
	}
	var hdr = func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: asked.Name, Rrtype: t, Class: dns.ClassINET, Ttl: 1}
	}
	exists := full == s.Domain()
	seen := map[netip.Addr]bool{}
	for _, e := range s.Entries() {
		name := strings.ToLower(e.Name)
		exists = exists || dns.IsSubDomain(full, name)
		if name != full || seen[e.Address] {
			continue
		}
		seen[e.Address] = true
		if e.Address.Is4() && (asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeANY) {
			r.Answer = append(r.Answer, &dns.A{Hdr: hdr(dns.TypeA), A: e.Address.AsSlice()})
		}
		if e.Address.Is6() && (asked.Qtype == dns.TypeAAAA || asked.Qtype == dns.TypeANY) {
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: hdr(dns.TypeAAAA), AAAA: e.Address.AsSlice()})
		}
	}
	if !exists {
		r.Rcode = dns.RcodeNameError
	}
	if len(r.Answer) == 0 && inside {
		own := asked.Name[len(asked.Name)-len(s.Domain()):]
		rr := &dns.SOA{Hdr: dns.RR_Header{Name: own, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
			Ns: own, Mbox: "hostmaster." + own, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 1}
		if asked.Qtype == dns.TypeSOA && full == s.Domain() {
			r.Answer = append(r.Answer, rr)
		} else {
			r.Ns = append(r.Ns, rr)
		}
	}
	return r
}

func twinServer(t testing.TB) *Server {
	s := newServer(t, nil)
	for i := range 40 {
		s.mustAdd(t, "c", "many.weave.local", netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}).String())
	}
	s.mustAdd(t, "c", "a.weave.local", "10.0.0.1")
	s.mustAdd(t, "c", "a.weave.local", "fd00::1")
	s.mustAdd(t, "c", "A.b.weave.local", "10.0.0.2")
	s.mustAdd(t, "c", "x-1.c.b.weave.local", "fd00::2")
	return s
}

// compareTwin checks a reply of the quick path.
func compareTwin(t testing.TB, s *Server, request, reply []byte, udp bool) {
	t.Helper()
	q, got := new(dns.Msg), new(dns.Msg)
	if err := got.Unpack(reply); err != nil {
		t.Fatalf("reply does not unpack: %v\nrequest %x\nreply %x", err, request, reply)
	}
	if err := q.Unpack(request); err != nil || len(q.Question) != 1 {
		return // the library is stricter with what comes after the question
	}
	want := s.twin(q)
	limit := maxTCP
	if udp {
		limit = plainSize
		if opt := q.IsEdns0(); opt != nil {
			limit = min(max(int(opt.UDPSize()), plainSize), maxUDP)
		}
	}
	if len(reply) > limit {
		t.Fatalf("%d bytes, limit %d", len(reply), limit)
	}
	if got.Truncated {
		if len(got.Answer) >= len(want.Answer) {
			t.Fatalf("TC with %d of %d answers", len(got.Answer), len(want.Answer))
		}
		return
	}
	if diff := cmp.Diff(text(want), text(got)); diff != "" || got.Id != q.Id || got.Question[0] != q.Question[0] ||
		got.CheckingDisabled != q.CheckingDisabled || got.RecursionDesired != q.RecursionDesired {
		t.Fatalf("request %x (-twin +quick):\n%s\n%s\n%s", request, diff, want, got)
	}
}

func TestQuickAgreesWithTwin(t *testing.T) {
	s := twinServer(t)
	rng := rand.New(rand.NewPCG(3, 4))
	labels := []string{"a", "A", "b", "B", "c", "many", "x-1", "nope", "wEave", "Local", "weave", "local", `o\.x`, `\000`}
	ends := []string{"weave.local.", "WEAVE.Local.", "", "b.weave.local.", "many.weave.local."}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeMX, dns.TypeSOA, dns.TypeNS, dns.TypePTR, 4711}
	quick := 0
	for range 20000 {
		name := ""
		for range rng.IntN(3) {
			name += labels[rng.IntN(len(labels))] + "."
		}
		name += ends[rng.IntN(len(ends))]
		q := newQuestion(dns.Fqdn(name), types[rng.IntN(len(types))])
		q.RecursionDesired, q.CheckingDisabled = rng.IntN(2) == 0, rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			q.SetEdns0(uint16(rng.IntN(3000)), rng.IntN(2) == 0)
		}
		request, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		udp := rng.IntN(2) == 0
		if reply, ok := s.quick(nil, request, s.newScratch(), &s.shared, udp); ok {
			quick++
			compareTwin(t, s, request, reply, udp)
		}
	}
	if quick < 12000 {
		t.Errorf("only %d questions took the quick path", quick)
	}
}

// FuzzQuery: any bytes at all, over UDP and TCP.
func FuzzQuery(f *testing.F) {
	for _, h := range hostile {
		f.Add(h.request(), true)
	}
	for _, name := range []string{"a.weave.local.", "many.weave.local.", "one.", "1.0.0.10.in-addr.arpa.", "example.org."} {
		q := newQuestion(name, dns.TypeA)
		b, _ := q.Pack()
		f.Add(b, true)
		q.SetEdns0(4096, true)
		b, _ = q.Pack()
		f.Add(b, false)
	}
	s := twinServer(f)
	f.Fuzz(func(t *testing.T, request []byte, udp bool) {
		sc := s.newScratch()
		switch sc.q.judge(request) {
		case ignore:
			return
		case refuse:
			b := sc.q.appendRefusal(nil, request)
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil || len(b) > len(request) || !m.Response || m.Rcode == dns.RcodeSuccess {
				t.Fatalf("refusal of %d bytes to %d: %v %v", len(b), len(request), err, m)
			}
			return
		}
		reply, ok := s.quick(nil, request, sc, &s.shared, udp)
		if ok {
			compareTwin(t, s, request, reply, udp)
			return
		}
		b := s.respond(context.Background(), request, sc, udp)
		if len(b) == 0 || udp && len(b) > maxUDP {
			t.Fatalf("%d bytes", len(b))
		}
		if err := new(dns.Msg).Unpack(b); err != nil {
			t.Fatalf("reply does not unpack: %v", err)
		}
	})
}

func TestQuickDoesNotAllocate(t *testing.T) {
	s := twinServer(t)
	out := make([]byte, 0, maxUDP)
	sc := s.newScratch()
	for _, name := range []string{"a.weave.local.", "many.weave.local.", "nope.weave.local.", "a."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			q := newQuestion(name, qtype)
			q.SetEdns0(1232, false)
			request, _ := q.Pack()
			s.quick(out, request, sc, &s.shared, true) // grows the scratch
			if n := testing.AllocsPerRun(100, func() { s.quick(out, request, sc, &s.shared, true) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}

func BenchmarkQuick(b *testing.B) {
	s := twinServer(b)
	out := make([]byte, 0, maxUDP)
	sc := s.newScratch()
	for _, name := range []string{"a.weave.local.", "many.weave.local.", "nope.weave.local."} {
		request, _ := newQuestion(name, dns.TypeA).Pack()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.quick(out, request, sc, &s.shared, true)
			}
		})
	}
}

func TestNoPanicOnDamagedQuestions(t *testing.T) {
	s := twinServer(t)
	for _, h := range hostile {
		request := h.request()
		for i := range request {
			s.reply(request[:i], true)
			c := bytes.Clone(request)
			for bit := range 8 {
				c[i] ^= 1 << bit
				s.reply(c, true)
				c[i] ^= 1 << bit
			}
		}
	}
}
