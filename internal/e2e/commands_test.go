package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/api"

	"weave/internal/e2e/harness"
)

// What the commands print while all is well, as text and as JSON.
func TestCommands(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, sites...)
	// What a says of itself comes by gossip.
	harness.Within(t, harness.JoinLimit, "both ends' word for the connection", func() bool {
		return strings.Contains(b.Daemon.MustWeave("status"), "Peers: 2 (with 2 established connections)")
	})

	for _, cmd := range []struct {
		args  []string
		lines [][]string // words of a line each
	}{
		{[]string{"status"}, [][]string{{"Encryption: enabled"}, {"Name: 02:00:00:00:00:02(b)"}, {"Connections: 1 (1 established)"}, {"MTU: 1376"}}},
		{[]string{"status", "connections"}, [][]string{{"-> " + a.IP4.String() + ":6783", "established", "sleeve", "encrypted", "02:00:00:00:00:01(a)", "mtu=", "rtt=", "cipher="}}},
		{[]string{"status", "peers"}, [][]string{{"02:00:00:00:00:02(b)"}, {"-> " + a.IP4.String(), "02:00:00:00:00:01(a)", "established"}}},
		{[]string{"status", "targets"}, [][]string{{a.IP4.String()}}},
		{[]string{"ps"}, [][]string{{"weave:expose"}, {b.Box.Ref(), b.In4.String() + "/24", b.In6.String() + "/64"}}},
		{[]string{"version"}, [][]string{{"weave"}}},
	} {
		text := b.Daemon.MustWeave(cmd.args...)
		for _, words := range cmd.lines {
			harness.WantLine(t, strings.Join(cmd.args, " "), text, words...)
		}
		if cmd.args[0] == "version" {
			continue
		}
		var got struct {
			Schema string `json:"schema"`
		}
		raw := b.Daemon.MustWeave(append(cmd.args, "--json")...)
		if err := json.Unmarshal([]byte(raw), &got); err != nil || got.Schema != api.Schema {
			t.Errorf("%q --json: schema %q, %v:\n%s", cmd.args, got.Schema, err, raw)
		}
	}
	if got, want := b.Daemon.MustWeave("report", "-f", "{{.Router.Name}} {{len .Connections}} {{.Router.Encryption}}"), "02:00:00:00:00:02 1 true\n"; got != want {
		t.Errorf("report -f printed %q, want %q", got, want)
	}
	b.Daemon.MustWeave("status", "--check")

	// Attaching again, with the same or more addresses, changes nothing else.
	before := b.Daemon.MustWeave("ps")
	b.Attach()
	if after := b.Daemon.MustWeave("ps"); after != before {
		t.Errorf("ps after attaching again:\n%swant:\n%s", after, before)
	}
	if got := b.Daemon.MustWeave("attach", "10.55.0.200/24", b.Box.Ref()); got != "10.55.0.200\n" {
		t.Errorf("attach printed %q", got)
	}
	harness.MustPing(t, a.Box, b.In4)
	harness.MustPing(t, a.Box, addr("10.55.0.200"))

	// Detaching takes what was asked for, then the rest; again is harmless.
	for _, step := range []struct{ args, want string }{
		{"10.55.0.200/24", "10.55.0.200"},
		{"10.55.0.200/24", ""},
		{"", b.In4.String() + " " + b.In6.String()},
		{"", ""},
	} {
		got := b.Daemon.MustWeave(append(append([]string{"detach"}, strings.Fields(step.args)...), b.Box.Ref())...)
		if strings.TrimSpace(got) != step.want {
			t.Errorf("detach %s printed %q, want %q", step.args, got, step.want)
		}
	}
	if links := b.Box.Exec("ip", "-br", "link"); strings.Contains(links, "ethwe") {
		t.Errorf("the interface is still there:\n%s", links)
	}
	if harness.Reaches(a.Box, b.In4) {
		t.Error("an answer from a detached container")
	}
	if after := b.Daemon.MustWeave("ps"); strings.Contains(after, b.Box.Ref()) {
		t.Errorf("ps after detach:\n%s", after)
	}
	b.Attach()
	harness.Within(t, 2*time.Second, "its new hardware address", func() bool { return harness.Reaches(a.Box, b.In4) })
	harness.MustPing(t, a.Box, b.In4)

	// Targets come and go.
	b.Daemon.MustWeave("connect", "192.0.2.77")
	harness.WantLine(t, "targets", b.Daemon.MustWeave("status", "targets"), "192.0.2.77")
	b.Daemon.MustWeave("forget", "192.0.2.77")
	if got := b.Daemon.MustWeave("status", "targets"); strings.Contains(got, "192.0.2.77") {
		t.Errorf("targets after forget:\n%s", got)
	}
	b.Daemon.MustWeave("connect", "--replace", b.IP4.String())
	if got, want := b.Daemon.MustWeave("status", "targets"), b.IP4.String()+"\n"; got != want {
		t.Errorf("targets %q, want %q", got, want)
	}
	// A host may name itself; that is no fault.
	harness.Within(t, harness.JoinLimit, "the target that is ourselves", func() bool {
		return strings.Contains(b.Weave("status", "connections").Stdout, "the address is this host's own, retry: never")
	})
	b.Daemon.MustWeave("status", "--check")
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Metrics can be read by Prometheus and say why packets were dropped; --check
// tells a degraded network.
func TestMetricsAndCheck(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, sites...)
	harness.MustPing(t, a.Box, b.In4)
	// Datagrams that are none of ours are counted by reason.
	stray := harness.ListenUDP(t, b.Namespace, netip.AddrPort{})
	to := netip.AddrPortFrom(a.IP4, 6783)
	forged := make([]byte, 200)
	forged[0], forged[4] = 0x14, 0x77 // data, for a receiver that does not exist
	for _, datagram := range [][]byte{[]byte("hello"), forged} {
		stray.WriteToUDPAddrPort(datagram, to)
	}
	harness.Within(t, 2*time.Second, "strays counted", func() bool { return harness.ScrapeMetrics(t, a).Sum("weave_drops_total") >= 2 })

	m := harness.ScrapeMetrics(t, a)
	for _, name := range []string{"weave_build_info", "weave_macs", "weave_connections", "weave_switch_frames_total", "weave_key_exchanges_total", "process_resident_memory_bytes", "go_goroutines"} {
		if m.Sum(name) == 0 {
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
		if !strings.Contains(m.Text, sample+"\n") {
			t.Errorf("no sample %s", sample)
		}
	}
	for _, reason := range []string{"short", "unknown_index"} {
		if !strings.Contains(m.Text, fmt.Sprintf("weave_drops_total{reason=%q} ", reason)) {
			t.Errorf("no drop reason %q", reason)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(m.Text) {
			if strings.HasPrefix(line, "weave_") {
				t.Log(line)
			}
		}
	}

	a.Daemon.MustWeave("status", "--check")
	b.Daemon.Kill9()
	took := harness.Within(t, 20*time.Second, "status --check saying degraded", func() bool { return b.Weave("status").Code == harness.ExitNotRunning && a.Established() == 0 })
	t.Logf("a dead peer is noticed after %v", took.Round(time.Millisecond))
	c := "192.0.2.66" // of nobody
	a.Daemon.MustWeave("connect", c)
	harness.Within(t, harness.JoinLimit, "exit 4", func() bool { return a.Weave("status", "--check").Code == harness.ExitDegraded })
	if r := a.Weave("status", "--check"); !strings.Contains(r.Stderr, "degraded: connection to "+c) || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("status --check wrote %q", r.Stderr)
	}
}
