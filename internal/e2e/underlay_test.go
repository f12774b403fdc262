package e2e_test

import (
	"testing"
	"time"
)

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
