package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
)

// What the commands print while all is well, as text and as JSON.
func TestCommands(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	joined(t, sites...)
	// What a says of itself comes by gossip.
	within(t, joinLimit, "both ends' word for the connection", func() bool {
		return strings.Contains(b.d.MustWeave("status"), "Peers: 2 (with 2 established connections)")
	})

	for _, cmd := range []struct {
		args  []string
		lines [][]string // words of a line each
	}{
		{[]string{"status"}, [][]string{{"Encryption: enabled"}, {"Name: 02:00:00:00:00:02(b)"}, {"Connections: 1 (1 established)"}, {"MTU: 1376"}}},
		{[]string{"status", "connections"}, [][]string{{"-> " + a.IP4.String() + ":6783", "established", "sleeve", "encrypted", "02:00:00:00:00:01(a)", "mtu=", "rtt=", "cipher="}}},
		{[]string{"status", "peers"}, [][]string{{"02:00:00:00:00:02(b)"}, {"-> " + a.IP4.String(), "02:00:00:00:00:01(a)", "established"}}},
		{[]string{"status", "targets"}, [][]string{{a.IP4.String()}}},
		{[]string{"ps"}, [][]string{{"weave:expose"}, {b.box.Ref(), b.in4.String() + "/24", b.in6.String() + "/64"}}},
		{[]string{"version"}, [][]string{{"weave"}}},
	} {
		text := b.d.MustWeave(cmd.args...)
		for _, words := range cmd.lines {
			wantLine(t, strings.Join(cmd.args, " "), text, words...)
		}
		if cmd.args[0] == "version" {
			continue
		}
		var got struct {
			Schema string `json:"schema"`
		}
		raw := b.d.MustWeave(append(cmd.args, "--json")...)
		if err := json.Unmarshal([]byte(raw), &got); err != nil || got.Schema != api.Schema {
			t.Errorf("%q --json: schema %q, %v:\n%s", cmd.args, got.Schema, err, raw)
		}
	}
	if got, want := b.d.MustWeave("report", "-f", "{{.Router.Name}} {{len .Connections}} {{.Router.Encryption}}"), "02:00:00:00:00:02 1 true\n"; got != want {
		t.Errorf("report -f printed %q, want %q", got, want)
	}
	b.d.MustWeave("status", "--check")

	// Attaching again, with the same or more addresses, changes nothing else.
	before := b.d.MustWeave("ps")
	b.attach()
	if after := b.d.MustWeave("ps"); after != before {
		t.Errorf("ps after attaching again:\n%swant:\n%s", after, before)
	}
	if got := b.d.MustWeave("attach", "10.55.0.200/24", b.box.Ref()); got != "10.55.0.200\n" {
		t.Errorf("attach printed %q", got)
	}
	mustPing(t, a.box, b.in4)
	mustPing(t, a.box, addr("10.55.0.200"))

	// Detaching takes what was asked for, then the rest; again is harmless.
	for _, step := range []struct{ args, want string }{
		{"10.55.0.200/24", "10.55.0.200"},
		{"10.55.0.200/24", ""},
		{"", b.in4.String() + " " + b.in6.String()},
		{"", ""},
	} {
		got := b.d.MustWeave(append(append([]string{"detach"}, strings.Fields(step.args)...), b.box.Ref())...)
		if strings.TrimSpace(got) != step.want {
			t.Errorf("detach %s printed %q, want %q", step.args, got, step.want)
		}
	}
	if links := b.box.Exec("ip", "-br", "link"); strings.Contains(links, "ethwe") {
		t.Errorf("the interface is still there:\n%s", links)
	}
	if reaches(a.box, b.in4) {
		t.Error("an answer from a detached container")
	}
	if after := b.d.MustWeave("ps"); strings.Contains(after, b.box.Ref()) {
		t.Errorf("ps after detach:\n%s", after)
	}
	b.attach()
	mustPing(t, a.box, b.in4)

	// Targets come and go.
	b.d.MustWeave("connect", "192.0.2.77")
	wantLine(t, "targets", b.d.MustWeave("status", "targets"), "192.0.2.77")
	b.d.MustWeave("forget", "192.0.2.77")
	if got := b.d.MustWeave("status", "targets"); strings.Contains(got, "192.0.2.77") {
		t.Errorf("targets after forget:\n%s", got)
	}
	b.d.MustWeave("connect", "--replace", b.IP4.String())
	if got, want := b.d.MustWeave("status", "targets"), b.IP4.String()+"\n"; got != want {
		t.Errorf("targets %q, want %q", got, want)
	}
	// A host may name itself; that is no fault.
	within(t, joinLimit, "the target that is ourselves", func() bool {
		return strings.Contains(b.weave("status", "connections").Stdout, "the address is this host's own, retry: never")
	})
	b.d.MustWeave("status", "--check")
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Metrics can be read by Prometheus and say why packets were dropped; --check
// tells a degraded network.
func TestMetricsAndCheck(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	joined(t, sites...)
	mustPing(t, a.box, b.in4)
	// Datagrams that are none of ours are counted by reason.
	stray := listenUDP(t, b.Namespace, netip.AddrPort{})
	to := netip.AddrPortFrom(a.IP4, 6783)
	forged := make([]byte, 200)
	forged[0], forged[4] = 0x14, 0x77 // data, for a receiver that does not exist
	for _, datagram := range [][]byte{[]byte("hello"), forged} {
		stray.WriteToUDPAddrPort(datagram, to)
	}
	within(t, 2*time.Second, "strays counted", func() bool { return metrics(t, a).sum("weave_drops_total") >= 2 })

	m := metrics(t, a)
	for _, name := range []string{"weave_build_info", "weave_macs", "weave_connections", "weave_switch_frames_total", "weave_key_exchanges_total", "process_resident_memory_bytes", "go_goroutines"} {
		if m.sum(name) == 0 {
			t.Errorf("metric %s is missing or 0", name)
		}
	}
	for _, sample := range []string{
		`weave_connections{encryption="yes",state="established",type="sleeve"} 1`,
		`weave_connection_up{path="sleeve",peer="02:00:00:00:00:02"} 1`,
		// What has not happened yet can be alerted on.
		`weave_switch_drops_total{reason="loop"} 0`,
		`weave_drops_total{reason="auth"} 0`,
		`weave_connections_refused_total{reason="wrong password"} 0`,
	} {
		if !strings.Contains(m.text, sample+"\n") {
			t.Errorf("no sample %s", sample)
		}
	}
	for _, reason := range []string{"short", "unknown_index"} {
		if !strings.Contains(m.text, fmt.Sprintf("weave_drops_total{reason=%q} ", reason)) {
			t.Errorf("no drop reason %q", reason)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(m.text) {
			if strings.HasPrefix(line, "weave_") {
				t.Log(line)
			}
		}
	}

	a.d.MustWeave("status", "--check")
	b.d.Kill9()
	took := within(t, 20*time.Second, "status --check saying degraded", func() bool { return b.weave("status").Code == 3 && a.established() == 0 })
	t.Logf("a dead peer is noticed after %v", took.Round(time.Millisecond))
	c := "192.0.2.66" // of nobody
	a.d.MustWeave("connect", c)
	within(t, joinLimit, "exit 4", func() bool { return a.weave("status", "--check").Code == 4 })
	if r := a.weave("status", "--check"); !strings.Contains(r.Stderr, "degraded: connection to "+c) || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("status --check wrote %q", r.Stderr)
	}
}

// exposition is a page of metrics.
type exposition struct{ text string }

// sampleLine is a sample in Prometheus's text format.
var sampleLine = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\.)*",?)*\})? [-+0-9.eEInfNa]+$`)

// metrics scrapes a daemon and checks the format of all lines.
func metrics(t *testing.T, s *site) exposition {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			err = s.Do(func() error {
				c, err = net.DialTimeout(network, addr, time.Second)
				return err
			})
			return c, err
		},
	}}
	resp, err := client.Get("http://127.0.0.1:6782/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# HELP ") || strings.HasPrefix(line, "# TYPE ") {
			continue
		}
		series, _, _ := strings.Cut(line, "} ")
		if !sampleLine.MatchString(line) || seen[series] {
			t.Errorf("bad or repeated sample: %s", line)
		}
		seen[series] = true
	}
	return exposition{string(raw)}
}

// sum adds the samples of a metric; the name may go on with labels, from the first
// on.
func (e exposition) sum(name string) (sum float64) {
	for line := range strings.Lines(e.text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.Contains(name, "{") && rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		v, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
		sum += v
	}
	return sum
}
