package e2e_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// roamLimit is how long traffic may pause when an underlay address changes.
const roamLimit = 2 * time.Second

// Underlay addresses change: traffic follows at once, and the control connection
// is made anew while it flows. In one pair the end that dials moves, in the other
// the end that is dialed.
func TestRoaming(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 4)
	pw := harness.PasswordFile(t, harness.Password)
	pairs := []struct {
		what         string
		dialed, site *harness.Site
		mover        *harness.Site
		probe        *harness.Probe
		moved        time.Time
	}{
		{what: "the end that dials", dialed: sites[0], site: sites[1], mover: sites[1]},
		{what: "the end that is dialed", dialed: sites[2], site: sites[3], mover: sites[2]},
	}
	for i := range pairs {
		p := &pairs[i]
		p.dialed.Launch("--password-file", pw)
		p.site.Launch("--password-file", pw, p.dialed.IP4.String())
		harness.Joined(t, p.dialed, p.site)
		p.probe = harness.ProbeOf(t, p.dialed, p.site)
	}
	for i := range pairs {
		p := &pairs[i]
		p.mover.Move()
		p.moved = time.Now()
		took := harness.Within(t, roamLimit, "traffic again", func() bool { return p.probe.AnsweredSince(p.moved.Add(harness.ProbeEvery)) })
		t.Logf("%s moved; traffic flows after %v", p.what, took.Round(time.Millisecond))
	}
	// The control connections live for 15 s without an answer.
	for _, p := range pairs {
		took := harness.Within(t, 25*time.Second, p.what+": a control connection to the new address", func() bool {
			for _, s := range []*harness.Site{p.dialed, p.site} {
				c, _ := s.To(other(s, p.dialed, p.site))
				if s != p.mover && !strings.HasPrefix(c.Address, p.mover.IP4.String()+":") {
					return false
				}
			}
			return true
		})
		t.Logf("%s: control connection from the new address after %v more", p.what, took.Round(time.Millisecond))
	}
	time.Sleep(time.Second)
	for _, p := range pairs {
		gap, lost := p.probe.Gap(p.moved)
		t.Logf("%s: longest gap %v, %d of %d probes lost", p.what, gap.Round(time.Millisecond), lost, time.Since(p.moved)/harness.ProbeEvery)
		if gap > roamLimit {
			t.Errorf("%s moved: traffic paused for %v", p.what, gap)
		}
		harness.Joined(t, p.dialed, p.site)
	}
}

// other returns that of a and b that s is not.
func other(s, a, b *harness.Site) *harness.Site {
	if s == a {
		return b
	}
	return a
}
