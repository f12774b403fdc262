package e2e_test

import (
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// Two hosts that know a third one only talk through it: TCP's superframes cross it
// whole, and a broadcast reaches every container once.
func TestRelay(t *testing.T) {
	_, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := harness.PasswordFile(t, harness.Password)
	c.Launch("--no-discovery", "--password-file", pw)
	a.Launch("--no-discovery", "--password-file", pw, c.IP4.String())
	b.Launch("--no-discovery", "--password-file", pw, c.IP4.String())
	harness.Joined(t, a, c)
	harness.Joined(t, b, c)
	harness.Within(t, harness.JoinLimit, "a way through c", func() bool { return harness.Reaches(a.Box, b.In4) })
	harness.MustPing(t, a.Box, b.In6)

	before := carried(t, c)
	r := harness.Stream(t, a.Box, b.Box, b.In4, 64<<20, 20*time.Second)
	after := carried(t, c)
	size := (after.bytes - before.bytes) / (after.frames - before.frames)
	t.Logf("%.0f Mb/s through c, in frames of %.0f bytes on average", r.Mbps(), size)
	if _, direct := a.To(b); direct {
		t.Error("a and b are connected")
	}
	if after.bytes-before.bytes < 64<<20 {
		t.Errorf("%.0f bytes went through c", after.bytes-before.bytes)
	}
	if size < 8000 { // acknowledgements on the way back count as well
		t.Errorf("c relayed frames of %.0f bytes on average: superframes do not stay whole", size)
	}

	ears := map[*harness.Site]*harness.Ear{b: harness.Hear(t, b.Box), c: harness.Hear(t, c.Box)}
	const broadcasts = 500
	harness.Shout(t, a, harness.Broadcast4, broadcasts)
	for s, ear := range ears {
		harness.Within(t, 5*time.Second, "broadcasts at "+s.Label, func() bool { n, _ := ear.Count(); return n == broadcasts })
	}
	time.Sleep(200 * time.Millisecond) // for copies that should not come
	for s, ear := range ears {
		if _, again := ear.Count(); again > 0 {
			t.Errorf("%s heard %d broadcasts again", s.Label, again)
		}
	}
}

type carriedBy struct{ frames, bytes float64 }

// carried is what a site's links have sent.
func carried(t *testing.T, s *harness.Site) carriedBy {
	t.Helper()
	m := harness.ScrapeMetrics(t, s)
	return carriedBy{m.Sum(`weave_frames_total{direction="out"`), m.Sum(`weave_bytes_total{direction="out"`)}
}
