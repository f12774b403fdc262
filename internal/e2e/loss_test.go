package e2e_test

import (
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// On a lossy underlay TCP keeps going, and a lost datagram costs the segment that
// was in it, not the superframe that the segment was part of.
func TestLoss(t *testing.T) {
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, a, b)
	sound := harness.Stream(t, a.Box, b.Box, b.In4, 32<<20, 20*time.Second)
	const permille = 10
	lab.Loss(a.Host, b.Host, permille)
	lab.Loss(b.Host, a.Host, permille)
	for _, to := range []*harness.Site{b, a} {
		from := other(to, a, b)
		before := datagrams(t, from, to)
		r := harness.Stream(t, from.Box, to.Box, to.In4, 32<<20, 40*time.Second)
		sent, lost := since(t, before, from, to)
		t.Logf("%s to %s: %.0f Mb/s (%.0f without loss); %.0f of %.0f datagrams lost (%.2f %%), %d of %d segments sent again",
			from.Label, to.Label, r.Mbps(), sound.Mbps(), lost, sent, 100*lost/sent, r.Resent, r.Segments)
		if lost < sent*permille/1000/3 {
			t.Errorf("only %.0f of %.0f datagrams were lost: the test shows nothing", lost, sent)
		}
		// About one each, and a window now and then when TCP's timer goes off; a
		// superframe each would be forty times as many.
		if float64(r.Resent) > 5*lost {
			t.Errorf("%d segments sent again for %.0f lost datagrams", r.Resent, lost)
		}
		if r.Mbps() < 20 {
			t.Errorf("%.1f Mb/s", r.Mbps())
		}
	}
	if n := a.Established(); n != 1 {
		t.Errorf("%d connections", n)
	}
	lab.Heal(a.Host, b.Host)
	harness.MustPing(t, a.Box, b.In4, "-s", "20000")
}

// counted holds how many datagrams one end sent and the other received.
type counted struct{ sent, received float64 }

func datagrams(t *testing.T, from, to *harness.Site) counted {
	t.Helper()
	return counted{
		harness.ScrapeMetrics(t, from).Sum(`weave_datagrams_total{direction="out"`),
		harness.ScrapeMetrics(t, to).Sum(`weave_datagrams_total{direction="in"`),
	}
}

func since(t *testing.T, before counted, from, to *harness.Site) (sent, lost float64) {
	t.Helper()
	now := datagrams(t, from, to)
	sent = now.sent - before.sent
	return sent, sent - (now.received - before.received)
}
