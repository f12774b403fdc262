package mesh_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const joinLimit = 2 * 3 * time.Second // as rerouteLimit: from the start of a daemon to the first ping of its container

// Sixteen hosts, and then one more, that were told one address, one half an IPv4 and one
// an IPv6 address, find each other, and stay together whatever happens.
func TestFull(t *testing.T) {
	const n = 17
	lab, sites := harness.NewSites(t, n)
	pw := harness.PasswordFile(t, harness.Password)
	flags := func(s *harness.Site) []string {
		i := slices.Index(sites, s)
		if i == 0 {
			return []string{"--password-file", pw, sites[1].Via(0)}
		}
		return []string{"--password-file", pw, sites[0].Via(i)}
	}
	first := sites[:n-1]
	start := time.Now()
	harness.LaunchAll(t, first, flags)
	t.Logf("%d daemons up after %v", n-1, time.Since(start).Round(time.Millisecond))
	t.Logf("all containers meet after %v more", harness.Meet(t, startLimit, first...))
	harness.Within(t, startLimit, "connections of all with all", func() bool { return fully(first) })

	t.Run("one more joins", func(t *testing.T) {
		s := sites[n-1]
		begun := time.Now()
		since := func() time.Duration { return time.Since(begun).Round(time.Millisecond) }
		harness.LaunchAll(t, sites[n-1:], flags)
		attached := since()
		for _, to := range []netip.Addr{sites[9].In4, sites[9].In6} {
			harness.Within(t, joinLimit, "a ping", func() bool { return harness.Ping(s.Box, to, 1, "-W", "0.1").Code == 0 })
		}
		t.Logf("%v after its start: attached; %v: pings of both families answered", attached, since())
		if took := since(); took > joinLimit {
			t.Errorf("the first pings are answered after %v, want %v at most", took, joinLimit)
		}
		harness.Within(t, startLimit, "connections of all with all", func() bool { return fully(sites) })
		v4, v6 := harness.Families(sites...)
		t.Logf("connected to all %v after the start; %d connections over IPv4, %d over IPv6", since(), v4, v6)
		if v4 < n || v6 < n {
			t.Errorf("%d connections over IPv4, %d over IPv6, want at least %d of each", v4, v6, n)
		}
	})
	t.Run("audience", func(t *testing.T) { once(t, sites) })
	t.Run("a way is lost, then the host that helps out", func(t *testing.T) {
		a, b := sites[3], sites[11]
		p := harness.ProbeOf(t, a, b)
		cut(lab, a, b)
		event := time.Now()
		harness.Within(t, rerouteLimit, "another way", func() bool { return p.AnsweredSince(event.Add(100 * time.Millisecond)) })
		helper := relayOf(t, sites, a, b)
		t.Logf("relayed by %s", helper.Label)
		unix.Kill(helper.Daemon.Pid(), unix.SIGSTOP)
		rerouted(t, p, time.Now())
		unix.Kill(helper.Daemon.Pid(), unix.SIGCONT)
		lab.Heal(a.Host, b.Host)
		harness.Within(t, startLimit, "a direct link", func() bool { _, ok := a.To(b); return ok })
		t.Logf("all meet after %v", harness.Meet(t, healLimit, sites...))
	})
	t.Run("two networks", func(t *testing.T) {
		split := func(do func(a, b *testnet.Host)) {
			for _, a := range sites[:n/2] {
				for _, b := range sites[n/2:] {
					do(a.Host, b.Host)
				}
			}
		}
		lab.Together(func() { split(func(a, b *testnet.Host) { lab.Cut(a, b); lab.Cut(b, a) }) })
		for s, others := range map[*harness.Site]int{sites[0]: n/2 - 1, sites[n-1]: n - n/2 - 1} {
			harness.Within(t, 30*time.Second, "the other half forgotten", func() bool { return s.Established() == others })
		}
		lab.Together(func() { split(lab.Heal) })
		t.Logf("all meet %v after the halves can", harness.Meet(t, healLimit, sites...))
	})
	t.Run("all are restarted, one after the other", func(t *testing.T) { rolling(t, sites, flags) })
}

// fully reports whether each site has established connections to all others.
func fully(sites []*harness.Site) bool {
	for _, s := range sites {
		if s.Established() < len(sites)-1 {
			return false
		}
	}
	return true
}

// relayOf finds the site that carries what a and b send one another.
func relayOf(t *testing.T, sites []*harness.Site, a, b *harness.Site) *harness.Site {
	t.Helper()
	before := make(map[*harness.Site]float64)
	sent := func(s *harness.Site) float64 {
		return harness.ScrapeMetrics(t, s).Sum(`weave_frames_total{direction="out"`)
	}
	for _, s := range sites {
		before[s] = sent(s)
	}
	harness.Ping(a.Box, b.In4, 20)
	var most *harness.Site
	for _, s := range sites {
		before[s] = sent(s) - before[s]
		if s != a && s != b && (most == nil || before[s] > before[most]) {
			most = s
		}
	}
	return most
}

// rolling restarts every daemon but those of two hosts whose containers talk all the
// time, then these.
func rolling(t *testing.T, sites []*harness.Site, flags func(*harness.Site) []string) {
	a, b := sites[1], sites[len(sites)-2]
	p := harness.ProbeOf(t, a, b)
	start := time.Now()
	for _, s := range sites {
		if s == a || s == b {
			continue
		}
		if code := s.Daemon.Stop(); code != 0 {
			t.Errorf("%s: exit %d", s.Label, code)
		}
		s.Start(flags(s)...)
	}
	gap, lost := p.Gap(start)
	t.Logf("restarts of others: %d of %d probes lost, longest gap %v", lost, p.Sent(), gap.Round(time.Millisecond))
	if gap > time.Second {
		t.Errorf("traffic paused for %v while others were restarted", gap)
	}
	start = time.Now()
	for _, s := range []*harness.Site{a, b} {
		s.Daemon.Stop()
		s.Start(flags(s)...)
		up := time.Now()
		harness.Within(t, healLimit, "traffic after a restart of "+s.Label, func() bool { return p.AnsweredSince(up) })
	}
	gap, _ = p.Gap(start)
	t.Logf("restarts of their own: longest gap %v", gap.Round(time.Millisecond))
	t.Logf("all meet after %v", harness.Meet(t, healLimit, sites...))
	harness.Within(t, startLimit, fmt.Sprintf("connections of all %d", len(sites)), func() bool { return fully(sites) })
}
