package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// masquerade is a router as people have them at home: what leaves has its address, with
// the port that it had if that is free; what comes uninvited is dropped.
const masquerade = `
table ip home {
 chain translate { type nat hook postrouting priority 100; oifname "eth0" masquerade; }
 chain inward { type filter hook input priority 0; policy drop; ct state established,related accept; iifname != "eth0" accept; }
 chain through { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "lan" accept; }
}`

// behind takes a host off the underlay and puts it behind a router of its own.
func behind(t *testing.T, lab *testnet.Lab, s *harness.Site, n int) {
	t.Helper()
	router := lab.Host(s.Label + "r")
	s.Exec("ip", "link", "del", testnet.Uplink)
	router.Exec("ip", "link", "add", "lan", "type", "veth", "peer", "name", testnet.Uplink, "netns", s.Name)
	net := fmt.Sprintf("192.168.%d.", n)
	router.Exec("ip", "addr", "add", net+"1/24", "dev", "lan")
	router.Exec("ip", "link", "set", "lan", "up")
	router.Exec("sysctl", "-qw", "net.ipv4.ip_forward=1")
	if r := router.Try("nft", masquerade); r.Code != 0 {
		t.Fatalf("making a NAT: %+v", r)
	}
	s.Exec("ip", "addr", "add", net+"2/24", "dev", testnet.Uplink)
	s.Exec("ip", "link", "set", testnet.Uplink, "up")
	s.Exec("ip", "route", "add", "default", "via", net+"1")
}

// Two hosts, each behind a NAT that lets nobody in, reach each other through a third at
// once, and directly a little later: it is not in the way any more, and may go.
func TestNAT(t *testing.T) {
	lab, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	behind(t, lab, a, 1)
	behind(t, lab, b, 2)
	pw := harness.PasswordFile(t, harness.Password)
	c.Launch("--password-file", pw)
	a.Launch("--password-file", pw, c.IP4.String())
	b.Launch("--password-file", pw, c.IP4.String())
	took := harness.Within(t, harness.JoinLimit, "a way through c", func() bool { return harness.Reaches(a.Box, b.In4) })
	t.Logf("relayed after %v", took.Round(time.Millisecond))
	probe := harness.ProbeOf(t, a, b)
	start := time.Now()
	took = harness.Within(t, 60*time.Second, "a direct connection", func() bool {
		_, ok := a.To(b)
		_, back := b.To(a)
		return ok && back
	})
	time.Sleep(time.Second)
	gap, lost := probe.Gap(start)
	t.Logf("direct after %v more; longest gap of traffic %v, %d probes lost", took.Round(time.Millisecond), gap.Round(time.Millisecond), lost)

	gone := time.Now()
	harness.MustSucceed(t, c.Weave("stop"))
	time.Sleep(2 * time.Second)
	if gap, _ := probe.Gap(gone); gap > time.Second {
		t.Errorf("without c traffic paused for %v", gap)
	}
	if _, ok := a.To(b); !ok {
		t.Errorf("a is not connected to b any more: %+v", a.Conns())
	}
}
