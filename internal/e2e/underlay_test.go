package e2e_test

import (
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// The uplink is pulled out and plugged in again.
func TestUnplugged(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, a, b)
	p := harness.ProbeOf(t, a, b)
	b.Unplug()
	time.Sleep(3 * time.Second)
	b.Plug()
	plugged := time.Now()
	harness.Within(t, backLimit, "traffic again", func() bool { return p.AnsweredSince(plugged) })
	t.Logf("unplugged for 3 s: traffic flows %v after plugging in", time.Since(plugged).Round(time.Millisecond))
	harness.Joined(t, a, b)
}
