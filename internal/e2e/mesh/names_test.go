package mesh_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

const (
	stolen    = "02:00:00:00:00:aa"
	nameLimit = time.Minute // two copies have to disagree a few times, and no more often than is good
)

// A second host with the name of a first one is refused by who knows that one, and named
// on both ends; a copy of its disk is told from an impostor. The first goes on to work.
// The same holds for who never met the first and only heard of it; a copy, which has the
// key of the first, is let in there, and named by both copies.
func TestOneName(t *testing.T) {
	for _, tt := range []struct {
		name, refusal string
		steal         func(t *testing.T, from, to *harness.Site)
	}{
		{"impostor", "peer name " + stolen + " already used by a", func(*testing.T, *harness.Site, *harness.Site) {}},
		{"clone", "peer name " + stolen + " and its key already used by a", func(t *testing.T, from, to *harness.Site) {
			if err := os.MkdirAll(to.StateDir(), 0o700); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cp", "-a", from.StateDir()+"/.", to.StateDir()).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, sites := harness.NewSites(t, 4)
			a, b, c, x := sites[0], sites[1], sites[2], sites[3]
			pw := harness.PasswordFile(t, harness.Password)
			a.Launch("--no-discovery", "--password-file", pw, "--name", stolen)
			b.Launch("--no-discovery", "--password-file", pw, a.IP6.String())
			c.Launch("--no-discovery", "--password-file", pw, b.IP6.String())
			harness.Meet(t, startLimit, a, b, c)
			tt.steal(t, a, x)
			x.Start("--no-discovery", "--password-file", pw, "--name", stolen, b.IP6.String())
			refused := func(by *harness.Site) {
				t.Helper()
				for _, end := range []struct{ at, other *harness.Site }{{x, by}, {by, x}} {
					took := harness.Within(t, nameLimit, "the refusal on "+end.at.Label, func() bool {
						return harness.HasLine(end.at.Weave("status", "connections").Stdout, end.other.IP6.String(), "failed", tt.refusal)
					})
					t.Logf("named on %s after %v", end.at.Label, took)
				}
			}
			refused(b)
			x.Daemon.MustWeave("connect", "--replace", c.IP6.String())
			if tt.name == "impostor" {
				refused(c)
			} else {
				for _, end := range []*harness.Site{x, a} {
					took := harness.Within(t, nameLimit, "the copy's name on "+end.Label, func() bool {
						return strings.Contains(end.Weave("status").Stdout, "and its key are also used by another host")
					})
					t.Logf("a copy far away is named on %s after %v", end.Label, took)
				}
			}
			harness.MustPing(t, b.Box, a.In4)
			harness.MustPing(t, c.Box, b.In4)
		})
	}
}
