package mesh_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

const stolen = "02:00:00:00:00:aa"

// A second host with the name of a first one is refused by who knows that one, and named
// on both ends; a copy of its disk is told from an impostor. The first goes on to work.
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
			_, sites := harness.NewSites(t, 3)
			a, b, x := sites[0], sites[1], sites[2]
			pw := harness.PasswordFile(t, harness.Password)
			a.Launch("--no-discovery", "--password-file", pw, "--name", stolen)
			b.Launch("--no-discovery", "--password-file", pw, a.IP6.String())
			harness.Meet(t, startLimit, a, b)
			tt.steal(t, a, x)
			x.Start("--no-discovery", "--password-file", pw, "--name", stolen, b.IP6.String())
			for _, end := range []struct{ at, other *harness.Site }{{x, b}, {b, x}} {
				took := harness.Within(t, 10*time.Second, "the refusal on "+end.at.Label, func() bool {
					return harness.HasLine(end.at.Weave("status", "connections").Stdout, end.other.IP6.String(), "failed", tt.refusal)
				})
				t.Logf("named on %s after %v", end.at.Label, took)
			}
			harness.MustPing(t, b.Box, a.In4)
		})
	}
}
