package names_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Who is neither a container nor the host gets no reply at all, not even a refusal, over
// either transport and family, and is counted.
func TestNoOpenResolver(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	a, stranger := sites[0], sites[1]
	a.Start("--ipalloc-init=consensus=1", "--dns-listen-address="+a.IP4.String())
	box, addr := a.NewBox("box", "--name", "box")
	host := a.Expose()
	box.Exec("ip", "route", "add", "default", "via", host.String())
	for name, from := range map[string]*testnet.Namespace{"the host": a.Namespace, "a container": box} {
		for _, network := range []string{"udp", "tcp"} {
			if got := answer(t, from, network, a.IP4, "box.weave.local.", dns.TypeA); got != addr.String() {
				t.Errorf("%s, %s: %s", name, network, got)
			}
		}
	}
	// A stranger may route to the container network through the host; nothing comes back.
	stranger.Exec("ip", "route", "add", "10.32.0.0/12", "via", a.IP4.String())
	for _, to := range []netip.Addr{a.IP4, host} {
		for _, network := range []string{"udp", "tcp"} {
			for _, name := range []string{"box.weave.local.", "example.", "version.bind."} {
				if m, _ := ask(t, stranger.Namespace, network, to, name, dns.TypeA, 200*time.Millisecond); m != nil {
					t.Errorf("a stranger is answered over %s at %v: %v", network, to, m)
				}
			}
		}
	}
	if n := harness.ScrapeMetrics(t, a).Sum(`weave_dns_drops_total{reason="source"}`); n < 6 {
		t.Errorf("%v questions of strangers were counted, want 6 or more", n)
	}
}

// Questions that nobody has a use for are refused or ignored, and counted by what is
// wrong with them.
func TestHostileQuestions(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 1)
	a := sites[0]
	a.Start("--ipalloc-init=consensus=1")
	server := a.Expose()
	box, _ := a.NewBox("box", "--name", "box")
	var c net.Conn
	if err := box.Do(func() (err error) { c, err = net.Dial("udp", server.String()+":53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := make([]byte, 5000)
	for _, b := range [][]byte{{}, {1, 2, 3}, long, []byte("\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x03box\x00\x00\x01\x00\x01")} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"AXFR weave.local": "", "-c CH TXT version.bind": "", "-c ANY A box.weave.local": "", "+opcode=update A box.weave.local": "", "+opcode=notify A box.weave.local": "",
		"ANY box.weave.local": "10.32.0.2", "TYPE65280 box.weave.local": "", "A bOx.WEAVE.local": "10.32.0.2",
	} {
		if got := dig(box, server, strings.Fields(args)...); got != want && !(want == "" && got != "10.32.0.2") {
			t.Errorf("dig %s: %q, want %q", args, got, want)
		}
	}
	m := harness.ScrapeMetrics(t, a)
	for reason, want := range map[string]float64{"short": 2, "long": 1, "response": 1} {
		if got := m.Sum(fmt.Sprintf("weave_dns_drops_total{reason=%q}", reason)); got != want {
			t.Errorf("%v questions were dropped as %s, want %v", got, reason, want)
		}
	}
	if n := m.Sum(`weave_dns_questions_total{result="refused"}`); n < 5 { // dig tries some twice
		t.Errorf("%v questions were counted as refused, want 5 or more", n)
	}
}

// A thousand idle connections and more keep nobody from asking, over either transport.
func TestIdleTCP(t *testing.T) {
	const n = 1000
	_, sites := harness.NewNodes(t, 1)
	a := sites[0]
	a.Start("--ipalloc-init=consensus=1")
	server := a.Expose()
	box, addr := a.NewBox("box", "--name", "box")
	before := harness.ScrapeMetrics(t, a)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	if err := box.Do(func() error {
		for range n + 20 {
			c, err := net.DialTimeout("tcp", server.String()+":53", 5*time.Second)
			if err != nil {
				return err
			}
			idle = append(idle, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		m, took := ask(t, box, network, server, "box.weave.local.", dns.TypeA, 5*time.Second)
		if got := answers(m); got != addr.String() || took > time.Second {
			t.Errorf("%s: %s after %v", network, got, took)
		}
	}
	after := harness.ScrapeMetrics(t, a)
	if after.Sum(`weave_dns_drops_total{reason="conn"}`) == 0 {
		t.Error("no connection made room")
	}
	rss := func(m harness.Metrics) float64 { return m.Sum("process_resident_memory_bytes") / (1 << 20) }
	t.Logf("resident before %.0f MiB, with %d idle connections %.0f MiB", rss(before), n, rss(after))
}
