package upstream

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/nameserver/dnstest"
)

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
