package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"weave/internal/testnet"
)

// The underlay's MTU shrinks while containers talk, with a sign of it (the uplink
// itself shrinks) and without (a black hole on the way drops what is too large).
func TestUnderlayMTU(t *testing.T) {
	lab, sites := newSites(t, 4)
	pw := passwordFile(t, password)
	pairs := [][]*site{sites[:2], sites[2:]}
	for _, p := range pairs {
		p[0].launch("--password-file", pw)
		p[1].launch("--password-file", pw, p[0].IP4.String())
		joined(t, p...)
		mustPing(t, p[0].box, p[1].in4)
	}
	works := func(what string, p []*site) {
		t.Helper()
		took := within(t, 10*time.Second, what+": large pings", func() bool {
			return ping(p[0].box, p[1].in4, 1, "-s", "1348", "-W", "0.3").Code == 0 && ping(p[1].box, p[0].in6, 1, "-s", "1328", "-W", "0.3").Code == 0
		})
		r := stream(t, p[0].box, p[1].box, p[1].in4, 8<<20, 15*time.Second)
		back := stream(t, p[1].box, p[0].box, p[0].in6, 8<<20, 15*time.Second)
		c, _ := p[0].to(p[1])
		t.Logf("%s: large pings after %v, TCP %.0f and %.0f Mb/s, mtu=%d", what, took.Round(time.Millisecond), r.mbps(), back.mbps(), c.MTU)
		if c.MTU > 1300 {
			t.Errorf("%s: mtu=%d", what, c.MTU)
		}
	}
	for _, s := range pairs[0] {
		s.SetMTU(1300)
	}
	works("uplinks of 1300", pairs[0])

	hole(t, lab, 1300)
	for _, s := range pairs[1] { // trains must not hide the size of their packets
		s.Exec("ip", "link", "set", testnet.Uplink, "gso_max_segs", "1")
	}
	works("a black hole at 1300", pairs[1])
}

// hole makes the switch drop IP packets longer than size without a word.
func hole(t *testing.T, lab *testnet.Lab, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nft := lab.Switch().Command(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(fmt.Sprintf(
		"table bridge hole { chain forward { type filter hook forward priority 0; meta length > %d drop; }; }\n", size))
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// The uplink is pulled out and plugged in again.
func TestUnplugged(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	joined(t, a, b)
	p := probeOf(t, a, b)
	b.Unplug()
	time.Sleep(3 * time.Second)
	b.Plug()
	plugged := time.Now()
	within(t, backLimit, "traffic again", func() bool { return p.answeredSince(plugged) })
	t.Logf("unplugged for 3 s: traffic flows %v after plugging in", time.Since(plugged).Round(time.Millisecond))
	joined(t, a, b)
}
