package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
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

// Eight hosts that may have three connections each are one network nevertheless.
func TestConnLimit(t *testing.T) {
	_, sites := harness.NewSites(t, 8)
	pw := harness.PasswordFile(t, harness.Password)
	const limit = 3
	harness.LaunchAll(t, sites, func(s *harness.Site) []string {
		// All have the same list, with the first one's own address in it.
		return append([]string{"--conn-limit", fmt.Sprint(limit), "--password-file", pw}, harness.Underlays(sites[:2]...)...)
	})
	t.Logf("all meet after %v", harness.Meet(t, startLimit, sites...))
	for range 5 {
		for _, s := range sites {
			if n := s.Established(); n < 1 || n > limit {
				t.Errorf("%s has %d connections, want %d at most\n%s", s.Label, n, limit, s.Weave("status", "connections").Stdout)
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	once(t, sites)
	s := sites[0]
	status := s.Daemon.MustWeave("status", "connections")
	if own := s.IP4.String() + " "; harness.HasLine(status, own) && !harness.HasLine(status, own, "own") {
		t.Errorf("the own address is a fault:\n%s", status)
	}
}
