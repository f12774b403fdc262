package mesh_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// Somebody plugs a cable between the bridges of two hosts: what would go round for ever
// is dropped and counted, and containers go on to talk, with the loop and without.
func TestLoop(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := harness.PasswordFile(t, harness.Password)
	harness.LaunchAll(t, sites, func(s *harness.Site) []string {
		return append([]string{"--password-file", pw}, harness.Earlier(s, sites)...)
	})
	harness.Meet(t, startLimit, sites...)
	harness.Joined(t, sites...)
	time.Sleep(settled)
	count := func(metric string) (sum float64) {
		for _, s := range sites {
			sum += harness.ScrapeMetrics(t, s).Sum(metric)
		}
		return sum
	}
	const frames, drops = "weave_switch_frames_total", `weave_switch_drops_total{reason="loop"}`
	before := count(frames)
	p := harness.ProbeOf(t, c, a)
	a.Exec("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b.Name)
	for _, s := range []*harness.Site{a, b} {
		s.Exec("ip", "link", "set", "cable", "master", "weave", "up")
	}
	for _, s := range []*harness.Site{a, b} {
		harness.Within(t, startLimit, "the cable's port", func() bool {
			return strings.Contains(s.Exec("bridge", "link", "show", "dev", "cable"), "state forwarding")
		})
	}
	plugged := time.Now()
	for time.Since(plugged) < 3*time.Second {
		harness.Ping(a.Box, b.In4, 3, "-W", "0.2")
		harness.Ping(c.Box, b.In6, 3, "-W", "0.2")
		for _, s := range sites {
			harness.Shout(t, s, harness.Broadcast4, 10)
		}
	}
	n, dropped := count(frames)-before, count(drops)
	gap, lost := p.Gap(plugged)
	t.Logf("%v with a loop: %.0f frames, %.0f dropped; %d of %d probes lost, longest gap %v",
		time.Since(plugged).Round(time.Millisecond), n, dropped, lost, p.Sent(), gap.Round(time.Millisecond))
	if n > 30_000 {
		t.Errorf("%.0f frames, of which few were sent: they circulate", n)
	}
	if dropped == 0 {
		t.Error("no frame was counted as the sign of a loop")
	}
	if log := a.Daemon.Log() + b.Daemon.Log(); !strings.Contains(log, "frames go in circles") {
		t.Error("nobody says that there is a loop")
	}
	a.Exec("ip", "link", "del", "cable")
	t.Logf("all meet %v after the cable was pulled out", harness.Meet(t, startLimit, sites...))
}
