package fastdp_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// The Open vSwitch datapath at one end, a vxlan device at the other: a connection does
// not care, a crash loses nothing, what others delete is made again, reset leaves
// nothing.
func TestOVS(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	_, a, b := newSites(t)
	a.Start("--fastdp=ovs")
	b.Start("--fastdp=vxlan", a.IP4.String())
	a.Attach()
	b.Attach()
	on(t, "fastdp", time.Minute, a, b)
	onDatapath := func() bool { return strings.Contains(a.Try("ip", "link", "show", "weave-ovs").Stdout, "master weave") }
	if !onDatapath() {
		t.Error("the datapath is not a port of the bridge")
	}
	if out := a.MustWeave("why", "b"); !strings.Contains(out, "ovs") {
		t.Errorf("why does not tell of ovs:\n%s", out)
	}
	harness.Within(t, time.Minute, "full-size pings", func() bool { return a.pings(b, 5, "0.2") == 0 })

	// Nobody is there to answer a miss while the daemon is dead; the peer gives the path
	// up after 1.75 s, which is soon on a slow machine.
	a.Daemon.Kill9()
	if lost := a.pings(b, 5, "0.02"); lost == 5 {
		t.Error("all pings lost without a daemon")
	}
	a.Start("--fastdp=ovs")
	on(t, "fastdp", time.Minute, a, b)

	a.Exec("ip", "link", "del", "weave-ovsvx")
	harness.Within(t, time.Minute, "device, and traffic", func() bool {
		return a.Try("ip", "link", "show", "weave-ovsvx").Code == 0 && a.pings(b, 2, "0.2") == 0
	})

	a.MustWeave("reset")
	if out := a.Exec("ip", "-br", "link"); strings.Contains(out, "weave-ovs") {
		t.Errorf("reset left:\n%s", out)
	}
}
