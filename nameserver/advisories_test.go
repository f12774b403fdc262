package nameserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"weave/nameserver/dnstest"
)

// The published advisories of the library that we stand on and of a well-known server
// built on it, each as what it would mean here.
func TestAdvisories(t *testing.T) {
	for _, tt := range []struct {
		id, story string
		test      func(t *testing.T)
	}{
		{"CVE-2017-15133", "an idle TCP connection blocks the others", idleTCPDoesNotBlock},
		{"CVE-2018-17419", "text that the zone parser chokes on: names come as text from users", namesAsText},
		{"CVE-2019-19794", "the numbers of questions can be predicted", numbersAreRandom},
		{"CVE-2022-2837", "a question for an inner name is led outside", innerNamesStayInside},
		{"CVE-2023-28452", "malformed replies make the forwarder give up before the true one comes", malformedRepliesAreSkipped},
		{"CVE-2023-30464", "many equal questions at one time help a forger", equalQuestionsAreOne},
		{"CVE-2024-0874", "an answer for CD or DO is given to who did not ask for it", cacheKeepsFlagsApart},
		{"CVE-2025-47950", "one connection may have any number of questions under way", pendingIsBounded},
		{"CVE-2025-58063", "an internal number is taken for a TTL", ttlIsTheConfigured},
		{"CVE-2025-68151", "any number of connections, messages of any length", longMessagesAreRefused},
		{"GO-2026-4630", "a check of the source is undone by a later rewrite", sourceIsCheckedFirst},
		{"GO-2026-4635", "a guessed loop probe ends the process", guessedLoopMarkIsHarmless},
		{"GO-2026-4969", "work waits in a queue without end", waitingIsBounded},
		{"GO-2026-5164", "an oversized request costs before it is judged", oversizedRequestsAreCheap},
		{"GO-2026-5417", "the rule of another zone lets a transfer through", noTransferAnywhere},
		{"GO-2026-5583", "a signature nobody checked counts as good", signedQuestionsAreRefused(false)},
		{"GO-2026-5667", "the same on other transports", signedQuestionsAreRefused(true)},
	} {
		t.Run(tt.id+" "+tt.story, tt.test)
	}
}

func idleTCPDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, nil)
		s.mustAdd(t, "c", "a", "10.0.0.1")
		l := newPipes()
		serve(t, s, Sockets{Stream: []net.Listener{l}})
		idle := l.dial()
		defer idle.Close()
		began := time.Now()
		c := &dns.Conn{Conn: l.dial()}
		defer c.Close()
		if err := c.WriteMsg(newQuestion("a.weave.local.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 || time.Since(began) != 0 {
			t.Errorf("%v, %v after %v", m, err, time.Since(began))
		}
	})
}

func namesAsText(t *testing.T) {
	s := newServer(t, nil)
	for _, name := range []string{
		"a TA", "a\tIN TA", "$INCLUDE /etc/passwd", "$GENERATE 1-9 a$", "a\n.weave.local.", "a;b", `a\000`, `a\`, "\"a", "(", "a..b.weave.local",
		strings.Repeat("a.", 5000), "\x00", "\xff", "@",
	} {
		if err := s.Add("c", name, addr("10.0.0.1")); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if n := s.Status().Entries; n != 0 {
		t.Errorf("%d entries", n)
	}
}

// withUpstream is a Server with a fake server above it.
func withUpstream(t *testing.T, h dnstest.Handler) (*Server, *dnstest.Server) {
	up := dnstest.Start(t, 1, h)
	return newServer(t, func(c *Config) {
		c.ResolvConf, c.UpstreamPort = dnstest.ResolvConf(t, up[0]), up[0].Addr.Port()
	}), up[0]
}

func numbersAreRandom(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint16]bool{}
	s, _ := withUpstream(t, func(q *dns.Msg, tcp bool) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		seen[q.Id] = true
		return dnstest.Reply("%s 0 IN A 192.0.2.1")(q, tcp)
	})
	for i := range 100 {
		q := newQuestion(fmt.Sprintf("%d.example.", i), dns.TypeA)
		q.Id = 42 // that of the asker does not show above
		if m := s.ask(t, q, true); m.Id != 42 {
			t.Fatal(m)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 95 {
		t.Errorf("%d different numbers of 100", len(seen))
	}
}

func innerNamesStayInside(t *testing.T) {
	s, up := withUpstream(t, dnstest.Reply("%s 60 IN A 203.0.113.66"))
	for _, name := range []string{"nope.weave.local.", "NOPE.Weave.Local.", "a.b.c.weave.local.", "nope.", "weave.local.", `x\.y.weave.local.`, `\000.weave.local.`} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeANY, dns.TypeTXT, dns.TypeDS, dns.TypeNS} {
			for _, udp := range []bool{true, false} {
				q := newQuestion(name, qtype)
				q.SetEdns0(1232, true)
				if m := s.ask(t, q, udp); m == nil || m.Rcode == dns.RcodeServerFailure {
					t.Errorf("%s: %v", name, m)
				}
			}
		}
	}
	if n := up.Queries.Load(); n != 0 {
		t.Errorf("%d questions about inner names went upstream", n)
	}
}

func malformedRepliesAreSkipped(t *testing.T) {
	s, up := withUpstream(t, nil)
	up.HandleRaw(func(q []byte, reply func([]byte)) {
		m := new(dns.Msg)
		m.Unpack(q)
		good, _ := dnstest.Reply("%s 60 IN A 192.0.2.1")(m, false).Pack()
		bad := append([]byte(nil), good...)
		bad[1]++
		reply(bad)
		reply(good[:len(good)-3])
		reply([]byte{0})
		reply(q)
		reply(good)
	})
	if m := s.ask(t, newQuestion("a.example.", dns.TypeA), true); len(m.Answer) != 1 {
		t.Error(m)
	}
}

func equalQuestionsAreOne(t *testing.T) {
	release := make(chan struct{})
	s, _ := withUpstream(t, func(q *dns.Msg, tcp bool) *dns.Msg {
		<-release
		return dnstest.Reply("%s 0 IN A 192.0.2.1")(q, tcp)
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { s.ask(t, newQuestion("a.example.", dns.TypeA), true) })
	}
	eventually(t, func() bool { return s.up.Stats().Joined == 99 })
	close(release)
	wg.Wait()
	if st := s.up.Stats(); st.Asked > 1+st.Silent { // on a busy machine it was asked again
		t.Errorf("more than 1 question upstream: %+v", st)
	}
}

func cacheKeepsFlagsApart(t *testing.T) {
	s, _ := withUpstream(t, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	for i := range 8 {
		q := newQuestion("a.example.", dns.TypeA)
		q.CheckingDisabled = i&1 != 0
		if i&2 != 0 {
			q.SetEdns0(1232, true)
		}
		if m := s.ask(t, q, true); len(m.Answer) != 1 || m.CheckingDisabled != q.CheckingDisabled {
			t.Error(m)
		}
	}
	if n := s.up.Stats().Cached; n != 4 { // not Asked: a busy machine asks again
		t.Errorf("%d of 8 answers from the cache, want 4", n)
	}
}

func pendingIsBounded(t *testing.T) {
	s, _ := withUpstream(t, dnstest.Silent)
	sockets, to := listen(t, "127.0.0.1:0", 1)
	serve(t, s, sockets)
	c, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := runtime.NumGoroutine()
	go func() {
		for i := range 5000 {
			request, _ := newQuestion(fmt.Sprintf("%d.example.", i), dns.TypeA).Pack()
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(request))), request...)); err != nil {
				return
			}
		}
	}()
	eventually(t, func() bool { return len(s.slots) >= maxPending })
	time.Sleep(100 * time.Millisecond)
	if n := len(s.slots); n != maxPending { // not Queries: silence is asked again
		t.Errorf("%d questions of one connection under way, want %d", n, maxPending)
	}
	if n := runtime.NumGoroutine() - before; n > 6*maxPending {
		t.Errorf("%d goroutines for one connection", n)
	}
}

func ttlIsTheConfigured(t *testing.T) {
	ttl := uint32(7)
	s := newServer(t, func(c *Config) { c.TTL = &ttl })
	for i := range 3000 { // the entry's own number grows
		s.mustAdd(t, "c", "a", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())
		s.ContainerGone("c")
	}
	s.mustAdd(t, "c", "a", "10.9.9.9")
	for _, q := range []*dns.Msg{newQuestion("a.weave.local.", dns.TypeA), newQuestion("9.9.9.10.in-addr.arpa.", dns.TypePTR)} {
		if m := s.ask(t, q, true); len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 7 {
			t.Error(m)
		}
	}
}

func longMessagesAreRefused(t *testing.T) {
	s := newServer(t, nil)
	sockets, to := listen(t, "127.0.0.1:0", 1)
	serve(t, s, sockets)
	c, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte{0xff, 0xff})
	c.SetReadDeadline(time.Now().Add(exchangeTime))
	if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("a message of 64 KiB is waited for")
	}
	u, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write(make([]byte, 60000))
	eventually(t, func() bool { return s.Counts().Drops["long"] == 2 })
}

func sourceIsCheckedFirst(t *testing.T) {
	asked := 0
	s := newServer(t, func(c *Config) { c.Allow = func(netip.Addr) bool { asked++; return false } })
	c := s.newCounters()
	if s.mayAsk(addr("192.0.2.1"), maxRequest+1, c) || asked != 1 || c.drops[DropSource].Load() != 1 || c.drops[DropLong].Load() != 0 {
		t.Error("something is judged before the source is")
	}
}

func guessedLoopMarkIsHarmless(t *testing.T) {
	s, _ := withUpstream(t, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	for n := range 80 { // marks of any length and number
		q := newQuestion("a.example.", dns.TypeA)
		q.SetEdns0(1232, false)
		opt := q.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: 65313, Data: make([]byte, n)})
		m := s.ask(t, q, true)
		if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeRefused {
			t.Errorf("%d bytes of marks: %s", n, dns.RcodeToString[m.Rcode])
		}
	}
	if m := s.ask(t, newQuestion("b.example.", dns.TypeA), true); len(m.Answer) != 1 {
		t.Error(m)
	}
}

func waitingIsBounded(t *testing.T) {
	release := make(chan struct{})
	s, _ := withUpstream(t, func(q *dns.Msg, tcp bool) *dns.Msg { <-release; return dnstest.Reply()(q, tcp) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for len(s.slots) < maxWaiting {
		wg.Go(func() {
			request, _ := newQuestion("same.example.", dns.TypeA).Pack()
			sc := s.newScratch()
			sc.q.judge(request)
			s.respond(ctx, request, sc, true)
		})
		runtime.Gosched()
	}
	began := time.Now()
	if m := s.ask(t, newQuestion("one-more.example.", dns.TypeA), true); m.Rcode != dns.RcodeServerFailure || time.Since(began) > exchangeTime {
		t.Errorf("%v after %v", m, time.Since(began))
	}
	cancel()
	close(release)
	wg.Wait()
}

func oversizedRequestsAreCheap(t *testing.T) {
	s := newServer(t, nil)
	request := append(hostile[len(hostile)-2].request(), make([]byte, maxRequest)...)[:maxRequest]
	sc := s.newScratch()
	out := make([]byte, 0, maxUDP)
	if n := testing.AllocsPerRun(100, func() { s.quick(out, request, sc, &s.shared, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func noTransferAnywhere(t *testing.T) {
	s, up := withUpstream(t, dnstest.Reply())
	for _, name := range []string{"weave.local.", "sub.weave.local.", "example.org.", ".", "10.in-addr.arpa.", "local."} {
		for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
			for _, udp := range []bool{true, false} {
				if m := s.ask(t, newQuestion(name, qtype), udp); m.Rcode != dns.RcodeRefused || len(m.Answer) != 0 {
					t.Errorf("%s: %v", name, m)
				}
			}
		}
	}
	if n := up.Queries.Load(); n != 0 {
		t.Errorf("%d transfers went upstream", n)
	}
}

func signedQuestionsAreRefused(tcp bool) func(t *testing.T) {
	return func(t *testing.T) {
		s := newServer(t, nil)
		s.mustAdd(t, "c", "a", "10.0.0.1")
		q := newQuestion("a.weave.local.", dns.TypeA)
		q.SetTsig("key.", dns.HmacSHA256, 300, time.Now().Unix())
		request, _, err := dns.TsigGenerate(q, "c2VjcmV0", "", false)
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(s.reply(request, !tcp)); err != nil || m.Rcode != dns.RcodeFormatError || len(m.Answer) != 0 || m.IsTsig() != nil {
			t.Errorf("%v: %v", err, m)
		}
	}
}
