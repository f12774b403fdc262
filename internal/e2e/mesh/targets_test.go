package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// Targets may be names, which are looked up at each try; the host that answers may have
// moved in between, from IPv4 to IPv6 as well.
func TestHostnameTargets(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	dir := t.TempDir()
	hosts, script := filepath.Join(dir, "hosts"), filepath.Join(dir, "weave")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(hosts, a.IP4.String()+" gateway.example\n", 0o644)
	// The daemon's host has a table of names of its own.
	write(script, fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s /etc/hosts && exec %s \"$@\"' weave \"$@\"\n", hosts, b.Bin), 0o755)
	b.DaemonBin = script
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--no-discovery", "--password-file", pw)
	c.Launch("--no-discovery", "--password-file", pw)
	b.Launch("--no-discovery", "--password-file", pw, "gateway.example")
	harness.Joined(t, a, b)
	harness.Meet(t, startLimit, a, b)
	write(hosts, c.IP6.String()+" gateway.example\n", 0o644)
	a.Daemon.Stop()
	harness.Joined(t, c, b)
	harness.Meet(t, startLimit, c, b)
	if got := b.Daemon.MustWeave("status", "targets"); got != "gateway.example\n" {
		t.Errorf("targets: %q", got)
	}
}

// When one family of addresses dies without a word between two hosts that know one
// another by both, the other takes over while the old connection is not given up yet.
func TestOtherFamily(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second // less than the silence after which a connection is closed
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.Via(0), a.Via(1))
	harness.Meet(t, startLimit, sites...)
	probe := harness.ProbeOf(t, b, a)
	for range 2 { // from the one to the other, and back
		// An attempt under way may yet take the connection's place.
		harness.Within(t, limit, "one connection and no attempt", func() bool { return len(b.Conns()) == 1 && b.Established() == 1 })
		before, _ := b.To(a)
		family, other := "ip", a.IP6
		if !strings.HasPrefix(before.Address, a.IP4.String()) {
			family, other = "ip6", a.IP4
		}
		b.Exec("nft", "add table "+family+" dead; add chain "+family+" dead in { type filter hook input priority 0; policy drop; }; "+
			"add chain "+family+" dead out { type filter hook output priority 0; policy drop; }")
		cut := time.Now()
		took := harness.Within(t, limit, "another connection", func() bool {
			now, ok := b.To(a)
			return ok && strings.Contains(now.Address, other.String())
		})
		harness.Within(t, time.Second, "traffic", func() bool { return probe.AnsweredSince(cut.Add(took)) })
		gap, _ := probe.Gap(cut)
		t.Logf("%s dead: another connection after %v, no traffic for %v", family, took, gap)
		b.Exec("nft", "delete table "+family+" dead")
	}
}

// Eight hosts that may have three connections each are one network nevertheless, and
// nothing is wrong with those of their targets that they have no connection to.
func TestConnLimit(t *testing.T) {
	_, sites := harness.NewSites(t, 8)
	pw := harness.PasswordFile(t, harness.Password)
	const limit = 3
	harness.LaunchAll(t, sites, func(s *harness.Site) []string {
		// All have the same list, with their own address in it.
		return append([]string{"--conn-limit", fmt.Sprint(limit), "--password-file", pw}, harness.Underlays(sites...)...)
	})
	t.Logf("all meet after %v", harness.Meet(t, startLimit, sites...))
	for _, s := range sites {
		harness.Within(t, startLimit, "a status without faults", func() bool { return s.Weave("status", "--check").Code == 0 })
	}
	once(t, sites)
	for range 5 {
		for _, s := range sites {
			if n := s.Established(); n < 1 || n > limit {
				t.Errorf("%s has %d connections, want %d at most\n%s", s.Label, n, limit, s.Weave("status", "connections").Stdout)
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	s := sites[0]
	status := s.Daemon.MustWeave("status", "connections")
	if own := s.IP4.String() + " "; harness.HasLine(status, own) && !harness.HasLine(status, own, "own") {
		t.Errorf("the own address is a fault:\n%s", status)
	}
}

// Targets come and go with the commands, and stay over a restart with --resume: without
// discovery a host dials them and nobody else. The own addresses among them do no harm.
func TestTargets(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 4)
	a, b, c, d := sites[0], sites[1], sites[2], sites[3]
	flags := []string{"--no-discovery", "--password-file", harness.PasswordFile(t, harness.Password)}
	for _, s := range []*harness.Site{a, c, d} {
		s.Begin(flags...)
	}
	own := []string{b.Via(0), b.Via(1)}
	b.Begin(append(flags, append(own, a.Via(0))...)...)
	for _, s := range sites {
		harness.Within(t, startLimit, "an answer of "+s.Label, s.Ready)
		s.Attach()
	}
	harness.Joined(t, a, b)
	harness.Meet(t, startLimit, a, b)
	check := func(when string) {
		t.Helper()
		harness.Within(t, startLimit, when+": own addresses are known", func() bool {
			text := b.MustWeave("status", "connections")
			return strings.Count(text, "this host's own, retry: never") == 2
		})
		b.MustWeave("status", "--check")
	}
	check("after launch")

	b.MustWeave("connect", c.Via(1))
	harness.Joined(t, b, c)
	harness.Meet(t, startLimit, a, b, c)
	targets := b.MustWeave("status", "targets")

	for _, end := range []func(){func() { b.Daemon.Stop() }, func() { b.Daemon.Kill9() }} {
		end()
		b.Start(append(flags, "--resume")...)
		if got := b.MustWeave("status", "targets"); got != targets {
			t.Errorf("targets after --resume:\n%swant:\n%s", got, targets)
		}
		t.Logf("--resume: all meet after %v", harness.Meet(t, startLimit, a, b, c))
		check("after --resume")
	}

	b.MustWeave("connect", "--replace", d.Via(0), own[1])
	harness.Joined(t, b, d)
	harness.Meet(t, startLimit, sites...)
	b.Daemon.Stop()
	b.Start(append(flags, "--resume")...)
	harness.Joined(t, b, d)
	harness.Meet(t, startLimit, b, d)
	stays := func(where string, others ...*harness.Site) {
		t.Helper()
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(harness.PollEvery) {
			for _, o := range others {
				if _, ok := b.To(o); ok {
					t.Fatalf("b connects to %s again, which is no target %s", o.Label, where)
				}
			}
		}
	}
	stays("since it was replaced", a, c)

	// What is forgotten is not dialed when it is back.
	b.MustWeave("forget", d.Via(0))
	d.Daemon.Stop()
	d.Start(flags...)
	stays("since it was forgotten", d)
	if got, want := b.MustWeave("status", "targets"), own[1]+"\n"; got != want {
		t.Errorf("targets %q, want %q", got, want)
	}
	// And a launch without --resume begins anew.
	b.Daemon.Stop()
	b.Start(append(flags, a.Via(1))...)
	harness.Meet(t, startLimit, a, b)
	if got, want := b.MustWeave("status", "targets"), a.Via(1)+"\n"; got != want {
		t.Errorf("targets %q, want %q", got, want)
	}
}
