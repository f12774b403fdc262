package names_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
	"weave/nameserver/dnstest"
)

// upstreamAt runs a server on a host of the underlay that answers every A question
// with the given address.
func upstreamAt(t *testing.T, h *testnet.Namespace, at netip.Addr, says string) *dnstest.Server {
	t.Helper()
	return dnstest.StartAt(t, h.Do, netip.AddrPortFrom(at, 53), dnstest.Reply("%s 60 IN A "+says))
}

// resolvConf replaces a resolv.conf, as DHCP clients do: by rename.
func resolvConf(t *testing.T, path string, servers ...netip.Addr) {
	t.Helper()
	text := "# made by a test\nsearch example.org\noptions ndots:5\n"
	for _, s := range servers {
		text += "nameserver " + s.String() + "\n"
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Other names are asked of the servers in resolv.conf, whichever they are at the
// moment; one that is silent or refuses costs less than a second, and once.
func upstream(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a, net := sites[0], sites[1] // no daemon runs on net
	one := upstreamAt(t, net.Namespace, net.IP4, "203.0.113.1")
	two := upstreamAt(t, net.Namespace, net.IP6, "203.0.113.2")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	resolvConf(t, conf, net.IP4)
	a.Start("--ipalloc-init=consensus=1", "--resolv-conf="+conf, "--dns-listen-address="+a.IP4.String())
	box, boxAddr := a.NewBox("box", "--name", "box")
	a.Expose()
	box.Exec("ip", "route", "add", "default", "via", a.Expose().String())
	n := 0
	resolve := func(network string, limit time.Duration) (string, time.Duration) {
		t.Helper()
		n++ // another name each time: answers are kept
		m, took := ask(t, box, network, a.IP4, fmt.Sprintf("host%d.example.", n), dns.TypeA, 5*time.Second)
		if took > limit {
			t.Errorf("question %d took %v, at most %v", n, took, limit)
		}
		return answers(m), took
	}
	for _, network := range []string{"udp", "tcp"} {
		if got, _ := resolve(network, time.Second); got != "203.0.113.1" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if got := answer(t, box, "udp", a.IP4, "host1.example.", dns.TypeA); got != "203.0.113.1" || one.Queries.Load() != 2 {
		t.Errorf("again: %s, %d questions upstream", got, one.Queries.Load())
	}
	// Names of the domain stay here, whatever there is upstream.
	if got := answer(t, box, "udp", a.IP4, "nobody.weave.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("nobody: %s", got)
	}
	if got := answer(t, box, "udp", a.IP4, reverse(t, boxAddr.String()), dns.TypePTR); got != "box.weave.local." || one.Queries.Load() != 2 {
		t.Errorf("reverse: %s, %d questions upstream", got, one.Queries.Load())
	}

	// Another file: another server, and no answer of the first one.
	resolvConf(t, conf, net.IP6)
	took := harness.Within(t, 3*time.Second, "the new file", func() bool { got, _ := resolve("udp", 2*time.Second); return got == "203.0.113.2" })
	t.Logf("the new resolv.conf is used after %v", took)
	if got := answer(t, box, "udp", a.IP4, "host1.example.", dns.TypeA); got != "203.0.113.2" {
		t.Errorf("an answer of the old server: %s", got)
	}
	harness.WantLine(t, "output", a.MustWeave("status"), "Upstream: ", net.IP6.String())

	// A server that is silent, one that refuses, one that is not there.
	silent, closed := netip.MustParseAddr("192.0.2.77"), a.IP6
	net.Exec("ip", "addr", "add", silent.String()+"/32", "dev", testnet.Uplink)
	a.Exec("ip", "route", "add", silent.String()+"/32", "via", net.IP4.String())
	mute := dnstest.StartAt(t, net.Do, netip.AddrPortFrom(silent, 53), dnstest.Silent)
	for _, tt := range []struct {
		name  string
		first netip.Addr
		set   func()
	}{
		{"silent", silent, func() {}},
		{"SERVFAIL", silent, func() { mute.Handle(dnstest.Code(dns.RcodeServerFailure)) }},
		{"nobody listens", closed, func() {}},
	} {
		tt.set()
		resolvConf(t, conf, tt.first, net.IP4)
		harness.Within(t, 3*time.Second, tt.name, func() bool {
			return strings.HasPrefix(strings.Join(upstreamOf(a), " "), tt.first.String())
		})
		got, took := resolve("udp", 2*time.Second)
		again, tookAgain := resolve("udp", 500*time.Millisecond)
		t.Logf("first server %s: %v, then %v", tt.name, took.Round(time.Millisecond), tookAgain.Round(time.Millisecond))
		if got != "203.0.113.1" || again != got {
			t.Errorf("%s: %s, then %s", tt.name, got, again)
		}
	}
	if asked := two.Queries.Load(); asked == 0 {
		t.Error("nobody asked over IPv6")
	}

	// Nobody answers: the asker is told so while it still waits.
	one.Handle(dnstest.Code(dns.RcodeRefused))
	mute.Handle(dnstest.Code(dns.RcodeRefused))
	if got, _ := resolve("udp", 3*time.Second); got != "SERVFAIL" {
		t.Errorf("nobody upstream: %s", got)
	}
	m := harness.ScrapeMetrics(t, a)
	for _, name := range []string{`weave_dns_questions_total{result="forwarded"}`, `weave_dns_questions_total{result="failed"}`,
		`weave_dns_upstream_total{event="asked"}`, `weave_dns_upstream_total{event="cached"}`, `weave_dns_upstream_total{event="silent"}`} {
		if m.Sum(name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
}

// upstreamOf lists the servers that a daemon would ask, in their order.
func upstreamOf(s *harness.Node) (out []string) {
	d := harness.Ask(s.Host, (*api.Client).DNS)
	for _, u := range d.Upstream {
		out = append(out, u.Addr().String())
	}
	return out
}

// A daemon never asks itself, whichever of its addresses the file has; and where
// daemons ask one another in a circle, a question goes round once.
func loop(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a, b := sites[0], sites[1]
	dir := t.TempDir()
	conf := func(s *harness.Node) string { return filepath.Join(dir, s.Label) }
	for _, s := range sites {
		resolvConf(t, conf(s))
		s.Start(append(harness.Underlays(sites...), "--resolv-conf="+conf(s))...)
	}
	harness.Joined(t, sites...)
	serverA, serverB := a.Expose(), b.Expose()
	box, _ := a.NewBox("box")
	harness.Within(t, harness.JoinLimit, "the network", func() bool {
		return dig(a.Namespace, serverB, "+norecurse", "nobody.weave.local", "SOA") == "" && dig(a.Namespace, serverB, "weave.local", "SOA") != ""
	})

	// Itself only: there is nobody to ask.
	resolvConf(t, conf(a), serverA)
	harness.Within(t, 3*time.Second, "the new file", func() bool {
		m, _ := ask(t, box, "udp", serverA, "self.example.", dns.TypeA, 2*time.Second)
		return answers(m) == "SERVFAIL" && len(upstreamOf(a)) == 0
	})

	// A circle of two.
	resolvConf(t, conf(a), serverB)
	resolvConf(t, conf(b), serverA)
	harness.Within(t, 3*time.Second, "the new files", func() bool { return len(upstreamOf(a)) == 1 && len(upstreamOf(b)) == 1 })
	m, took := ask(t, box, "udp", serverA, "circle.example.", dns.TypeA, 5*time.Second)
	if got := answers(m); got != "SERVFAIL" || took > time.Second {
		t.Errorf("the circle: %s after %v", got, took)
	}
	if got := harness.ScrapeMetrics(t, a).Sum(`weave_dns_questions_total{result="looped"}`); got != 1 {
		t.Errorf("%v questions of our own came back, want 1", got)
	}
	if got := harness.ScrapeMetrics(t, b).Sum(`weave_dns_upstream_total{event="asked"}`); got != 1 {
		t.Errorf("b asked %v times, want 1", got)
	}
	t.Logf("a circle of two ends after %v", took.Round(time.Millisecond))
}

// A circle through a forwarder that passes on neither our mark nor the spelling, as the
// host's own stub may be, ends as well.
func loopThroughStub(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a := sites[0]
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	loopback := netip.MustParseAddr("127.0.0.53")
	resolvConf(t, conf, loopback)
	a.Start("--ipalloc-init=consensus=1", "--resolv-conf="+conf)
	server := a.Expose()
	stub := dnstest.StartAt(t, a.Do, netip.AddrPortFrom(loopback, 53), func(q *dns.Msg, _ bool) *dns.Msg {
		m, _ := ask(t, a.Namespace, "udp", server, strings.ToLower(q.Question[0].Name), q.Question[0].Qtype, 10*time.Second)
		if m == nil {
			return nil
		}
		r := new(dns.Msg)
		return r.SetRcode(q, m.Rcode)
	})
	m, took := ask(t, a.Namespace, "udp", server, "through-the-stub.example.", dns.TypeA, 10*time.Second)
	if got := answers(m); got != "SERVFAIL" || took > 6*time.Second {
		t.Errorf("%s after %v", got, took)
	}
	t.Logf("ended after %v, the stub was asked %d times", took.Round(time.Millisecond), stub.Queries.Load())
	if n := stub.Queries.Load(); n > 6 {
		t.Errorf("the stub was asked %d times", n)
	}
	// Names of the domain never go round.
	if got := answer(t, a.Namespace, "udp", server, "nobody.weave.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("nobody: %s", got)
	}
}
