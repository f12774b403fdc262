package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// links lists the interfaces in a namespace.
func links(n *testnet.Namespace) (names []string) {
	for line := range strings.Lines(n.Exec("ip", "-o", "link")) {
		_, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, ":")
		name, _, _ = strings.Cut(name, "@")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// files lists what is in directories, and below; nothing for those that do not
// exist.
func files(dirs ...string) (out []string) {
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				out = append(out, path)
			}
			return nil
		})
	}
	return out
}

// clean fails the test if weave left anything on the host.
func clean(t *testing.T, s *harness.Site) {
	t.Helper()
	if got, want := links(s.Namespace), []string{testnet.Uplink, "lo"}; !slices.Equal(got, want) {
		t.Errorf("links on %s: %q, want %q", s.Label, got, want)
	}
	if got, want := links(s.Box), []string{"lo"}; !slices.Equal(got, want) {
		t.Errorf("links in the container: %q, want %q", got, want)
	}
	if got := files(s.RunDir(), s.StateDir()); len(got) > 0 {
		t.Errorf("files left: %q", got)
	}
	if got := s.Exec("nft", "list", "tables"); got != "" {
		t.Errorf("nftables: %s", got)
	}
}

// A reset leaves nothing behind, whatever state the daemon is in, and the host
// can join again as if it were new.
func TestReset(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	join := func() {
		b.Launch("--password-file", pw, a.IP4.String())
		harness.Joined(t, a, b)
		// Its neighbours remember the MAC address that the container had before.
		took := harness.Within(t, 2*time.Second, "traffic", func() bool { return harness.Ping(a.Box, b.In4, 1, "-W", "0.1").Code == 0 })
		t.Logf("traffic %v after joining", took.Round(time.Millisecond))
	}
	for _, tt := range []struct {
		name   string
		before func()
		args   []string
	}{
		{"running", func() {}, []string{"reset"}},
		{"stopped", func() { b.Daemon.MustWeave("stop") }, []string{"reset"}},
		{"crashed", func() { b.Daemon.Kill9() }, []string{"reset"}},
		{"frozen", func() { unix.Kill(b.Daemon.Pid(), unix.SIGSTOP) }, []string{"reset", "--force", "--timeout", "3s"}},
	} {
		join()
		tt.before()
		start := time.Now()
		if r := b.Weave(tt.args...); r.Code != 0 {
			t.Errorf("%s: reset: exit %d\n%s", tt.name, r.Code, r.Stderr)
		}
		t.Logf("%s: reset in %v", tt.name, time.Since(start).Round(time.Millisecond))
		b.Daemon.Wait(time.Second)
		clean(t, b)
		if r := b.Weave("reset"); r.Code != 0 {
			t.Errorf("%s: second reset: exit %d\n%s", tt.name, r.Code, r.Stderr)
		}
		clean(t, b)
		if t.Failed() {
			return
		}
		// A new static key under the old name is taken for a reinstalled host.
	}
	join()
	harness.WantLine(t, "the peer's log", a.Daemon.Log(), "new static key")
}

// What somebody else breaks is mended, and containers talk again.
func TestMended(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	second := b.Container("second")
	b.Daemon.MustWeave("attach", "10.55.0.102/24", second.Ref())
	harness.Joined(t, a, b)
	before := b.Daemon.MustWeave("ps")
	p := harness.ProbeOf(t, a, b)
	for _, tt := range []struct {
		name  string
		args  []string
		limit time.Duration
	}{
		{"the bridge deleted", []string{"link", "del", "weave"}, 5 * time.Second},
		{"the bridge down", []string{"link", "set", "weave", "down"}, 5 * time.Second},
		{"the router's port taken off", []string{"link", "set", "weavetap", "nomaster"}, 5 * time.Second},
		{"the router's port down", []string{"link", "set", "weavetap", "down"}, 5 * time.Second},
	} {
		b.Exec("ip", tt.args...)
		broken := time.Now()
		harness.Within(t, tt.limit, "traffic after "+tt.name, func() bool { return p.AnsweredSince(broken.Add(100 * time.Millisecond)) })
		harness.Within(t, tt.limit, "the other container after "+tt.name, func() bool { return harness.Reaches(second, b.In4) && harness.Reaches(a.Box, addr("10.55.0.102")) })
		gap, _ := p.Gap(broken)
		t.Logf("%s: traffic paused for %v", tt.name, gap.Round(time.Millisecond))
		if after := b.Daemon.MustWeave("ps"); after != before {
			t.Errorf("%s: ps:\n%swant:\n%s", tt.name, after, before)
		}
	}

	// Without its TAP device the daemon has nothing to work with: it ends, says so,
	// and takes up where it was when it is launched again.
	b.Exec("ip", "link", "del", "weavetap")
	if code := b.Daemon.Wait(5 * time.Second); code != harness.ExitFailure {
		t.Errorf("exit %d without a TAP device", code)
	}
	harness.WantLine(t, "log", b.Daemon.Log(), "weave: ", "TAP device is gone")
	b.Start("--password-file", pw, a.IP4.String())
	harness.Joined(t, a, b)
	harness.Within(t, backLimit, "traffic", func() bool { return harness.Reaches(a.Box, addr("10.55.0.102")) })
	if after := b.Daemon.MustWeave("ps"); after != before {
		t.Errorf("ps:\n%swant:\n%s", after, before)
	}
}
