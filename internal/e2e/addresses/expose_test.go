package addresses_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// An exposed host reaches the containers of its subnets, on all hosts, and they it;
// hidden again, it does not.
func TestExpose(t *testing.T) {
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites, "--ipalloc-range=10.2.0.0/16", "--ipalloc-default-subnet=10.2.1.0/24")
	a, b := sites[0], sites[1]
	here, hereAddr := a.NewBox("here")
	there, thereAddr := b.NewBox("there")
	_, otherAddr := b.NewBox("other", "net:10.2.2.0/24")
	if harness.Reaches(a.Namespace, thereAddr) {
		t.Fatal("the host is on the network before")
	}
	start := time.Now()
	host := a.Expose("--name", "host-a")
	t.Logf("exposed at %v in %v", host, time.Since(start).Round(time.Millisecond))
	if again := harness.ParseAddrs(t, a.MustWeave("expose")); again[0] != host {
		t.Errorf("exposed again at %v", again)
	}
	mustReach(t, a.Namespace, hereAddr)
	mustReach(t, a.Namespace, thereAddr)
	mustReach(t, here, host)
	mustReach(t, there, host)
	if harness.Reaches(a.Namespace, otherAddr) {
		t.Error("the host reaches another subnet")
	}
	harness.WantLine(t, "output", a.MustWeave("ps"), "weave:expose", host.String()+"/24")

	// Whatever somebody does to rules and bridge, it is made good.
	rules := a.Exec("nft", "list", "table", "ip", "weave")
	for what, cmd := range map[string]string{"rules flushed": "nft flush ruleset", "table deleted": "nft delete table ip weave",
		"address taken": "ip addr flush dev weave", "bridge deleted": "ip link del weave"} {
		a.Exec(strings.Fields(cmd)[0], strings.Fields(cmd)[1:]...)
		limit := 2 * time.Second
		if what == "bridge deleted" {
			limit = 5 * time.Second
		}
		took := harness.Within(t, limit, what, func() bool {
			r := a.Try("nft", "list", "table", "ip", "weave")
			return r.Code == 0 && r.Stdout == rules && strings.Contains(a.MustWeave("ps"), host.String())
		})
		t.Logf("%s: mended in %v", what, took)
		harness.Within(t, 3*time.Second, "reaching after "+what, func() bool { return harness.Reaches(a.Namespace, thereAddr) })
	}

	// Remembered over restarts, with what was said of masquerading.
	second := a.Expose("--without-masquerade", "net:10.2.2.0/24")
	mustReach(t, a.Namespace, otherAddr)
	check := func() {
		t.Helper()
		text := a.Exec("nft", "list", "table", "ip", "weave")
		if !strings.Contains(text, "ip saddr 10.2.1.0/24 ip daddr != 10.2.1.0/24") || strings.Contains(text, "10.2.2.0/24 ip daddr != 10.2.2.0/24") || !strings.Contains(text, "drop") {
			t.Errorf("rules:\n%s", text)
		}
	}
	check()
	a.Daemon.Stop()
	a.Exec("nft", "flush", "ruleset")
	a.Exec("ip", "addr", "flush", "dev", "weave")
	a.Start(append([]string{"--ipalloc-range=10.2.0.0/16", "--ipalloc-default-subnet=10.2.1.0/24"}, harness.Underlays(sites...)...)...)
	check()
	harness.Joined(t, sites...)
	mustReach(t, a.Namespace, thereAddr)
	mustReach(t, a.Namespace, otherAddr)
	if again := harness.ParseAddrs(t, a.MustWeave("expose", "net:10.2.2.0/24", "net:default", "--without-masquerade")); again[0] != second || again[1] != host {
		t.Errorf("exposed at %v, want %v and %v", again, second, host)
	}

	if gone := harness.ParseAddrs(t, a.MustWeave("hide", "net:10.2.2.0/24")); len(gone) != 1 || gone[0] != second {
		t.Errorf("hid %v", gone)
	}
	if harness.Reaches(a.Namespace, otherAddr) {
		t.Error("hidden, and yet it reaches")
	}
	mustReach(t, a.Namespace, thereAddr)
	if gone := harness.ParseAddrs(t, a.MustWeave("hide")); len(gone) != 1 || gone[0] != host {
		t.Errorf("hid %v", gone)
	}
	if out := a.MustWeave("hide"); out != "" {
		t.Errorf("hid twice: %s", out)
	}
	if harness.Reaches(a.Namespace, thereAddr) || strings.Contains(a.Exec("nft", "list", "ruleset"), "weave") {
		t.Error("something is left of expose")
	}
	// The address is free again.
	if _, next := a.NewBox("next"); next != host {
		t.Errorf("next address %v, want %v", next, host)
	}
}

// The host may be exposed at IPv6 addresses as well, and names are served there.
func TestExposeIPv6(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites)
	a, b := sites[0], sites[1]
	host := a.Expose("-h", "host-a", "fd55::9/64")
	box := b.Container("box")
	at := b.AttachBox(box, "--name", "box", "fd55::2/64")[0]
	mustReach(t, a.Namespace, at)
	mustReach(t, box, host)
	harness.Within(t, 3*time.Second, "the name", func() bool {
		return strings.TrimSpace(box.Try("dig", "@"+host.String(), "+short", "+time=1", "+tries=1", "host-a.weave.local", "AAAA").Stdout) == host.String()
	})
	harness.WantLine(t, "output", a.Exec("nft", "list", "table", "ip6", "weave"), "ip6 saddr fd55::/64", "masquerade")
	// Said differently, it is changed; and an address of another interface is refused.
	a.MustWeave("expose", "--without-masquerade", "fd55::9/64")
	if text := a.Exec("nft", "list", "ruleset"); strings.Contains(text, "masquerade") {
		t.Errorf("rules:\n%s", text)
	}
	a.Refuses(harness.ExitConflict, "eth0", "expose", a.IP4.String()+"/16")
	if gone := harness.ParseAddrs(t, a.MustWeave("hide")); len(gone) != 1 || gone[0] != host {
		t.Errorf("hid %v", gone)
	}
}
