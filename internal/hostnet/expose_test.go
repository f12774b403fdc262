package hostnet_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"weave/internal/hostnet"
	"weave/internal/testnet"
)

// reaches pings once.
func reaches(from *testnet.Namespace, to string) bool {
	return from.Try("ping", "-c1", "-W0.5", to).Code == 0
}

// reachesSoon is reaches with a few tries, for a busy machine.
func reachesSoon(from *testnet.Namespace, to string) bool {
	for range 5 {
		if reaches(from, to) {
			return true
		}
	}
	return false
}

func (w *world) expose(t *testing.T, addrs ...string) {
	t.Helper()
	if err := w.host.Expose(t.Context(), bridge, prefixes(addrs...)); err != nil {
		t.Fatalf("expose: %v", err)
	}
}

func (w *world) setRules(t *testing.T, es ...hostnet.Exposure) bool {
	t.Helper()
	changed, err := w.host.SetRules(bridge, es)
	if err != nil {
		t.Fatalf("rules: %v", err)
	}
	return changed
}

func exposures(masquerade bool, addrs ...string) (out []hostnet.Exposure) {
	for _, p := range prefixes(addrs...) {
		out = append(out, hostnet.Exposure{Addr: p, Masquerade: masquerade})
	}
	return out
}

// An exposed host takes part in the subnets it was given addresses of, and in no other.
func TestExpose(t *testing.T) {
	w := newBridged(t)
	c1, ref1 := w.container(t, "c1")
	c2, ref2 := w.container(t, "c2")
	w.attach(t, ref1, "10.2.1.1/24", "fd02:1::1/64")
	w.attach(t, ref2, "10.2.2.1/24")
	for range 2 {
		w.expose(t, "10.2.1.9/24", "10.2.1.8/24", "fd02:1::9/64")
		got, err := w.host.Exposed(bridge)
		if diff := cmp.Diff(prefixes("10.2.1.8/24", "10.2.1.9/24", "fd02:1::9/64"), got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
			t.Fatalf("exposed: %v\n%s", err, diff)
		}
	}
	for _, to := range []string{"10.2.1.1", "fd02:1::1"} {
		if !reachesSoon(w.Namespace, to) {
			t.Errorf("the host does not reach %s", to)
		}
	}
	for _, to := range []string{"10.2.1.8", "10.2.1.9", "fd02:1::9"} {
		if !reachesSoon(c1, to) {
			t.Errorf("a container does not reach the host at %s", to)
		}
	}
	if reaches(w.Namespace, "10.2.2.1") || reaches(c2, "10.2.1.9") {
		t.Error("the host takes part in another subnet")
	}
	// The second address of a subnet outlives the first.
	gone, err := w.host.Hide(t.Context(), bridge, prefixes("10.2.1.9/24", "10.2.3.1/24"))
	if err != nil || !slices.Equal(gone, prefixes("10.2.1.9/24")) || !reachesSoon(c1, "10.2.1.8") || reaches(c1, "10.2.1.9") {
		t.Errorf("hide took %v, %v", gone, err)
	}
	gone, err = w.host.Hide(t.Context(), bridge, prefixes("10.2.1.8/24", "10.2.1.9/24", "fd02:1::9/64"))
	if left, _ := w.host.Exposed(bridge); err != nil || len(gone) != 2 || len(left) != 0 || reaches(w.Namespace, "10.2.1.1") {
		t.Errorf("hide took %v, %v, left %v", gone, err, left)
	}
}

func TestExposeRefused(t *testing.T) {
	w := newBridged(t)
	w.Exec("ip", "link", "add", "eth0", "type", "bridge")
	w.Exec("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	w.expose(t, "10.2.1.9/24")
	for addr, want := range map[string]error{
		"192.0.2.1/32":  hostnet.ErrAddressInUse,
		"192.0.2.7/24":  hostnet.ErrAddressInUse, // two ways to one network
		"10.2.1.9/16":   hostnet.ErrAddressInUse, // another length
		"10.2.1.0/24":   hostnet.ErrBadAddress,
		"10.2.1.255/24": hostnet.ErrBadAddress,
		"127.0.0.2/8":   hostnet.ErrBadAddress,
	} {
		err := w.host.Expose(t.Context(), bridge, prefixes("10.2.7.7/24", addr))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
	}
	if err := w.host.Expose(t.Context(), "nope", prefixes("10.2.7.7/24")); !errors.Is(err, hostnet.ErrNoBridge) {
		t.Errorf("without a bridge: %v", err)
	}
	if got, _ := w.host.Exposed(bridge); !slices.Equal(got, prefixes("10.2.1.9/24")) {
		t.Errorf("left over: %v", got)
	}
}

// ruleset is what is in our tables, as nft shows it.
func ruleset(w *world) string { return w.Exec("nft", "-n", "list", "ruleset") }

func TestRules(t *testing.T) {
	w := newBridged(t)
	want := exposures(true, "10.2.1.9/24", "10.2.1.8/24", "fd02:1::9/64")
	want = append(want, exposures(false, "10.3.0.1/16")...)
	if !w.setRules(t, want...) || w.setRules(t, want...) {
		t.Error("rules are not set once and for all")
	}
	text := ruleset(w)
	for _, line := range []string{
		"table ip weave {", "table ip6 weave {",
		"type nat hook postrouting priority 100; policy accept;",
		"ip saddr 10.2.1.0/24 ip daddr 224.0.0.0/4 return",
		`ip saddr 10.2.1.0/24 ip daddr != 10.2.1.0/24 oifname != "weave" masquerade`,
		`ip saddr != 10.2.1.0/24 ip daddr 10.2.1.0/24 oifname "weave" masquerade`,
		`ip6 saddr fd02:1::/64 ip6 daddr != fd02:1::/64 oifname != "weave" masquerade`,
		`iifname "weave" oifname "weave" ip saddr 10.3.0.0/16 ip daddr 10.2.1.0/24 drop`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in:\n%s", line, text)
		}
	}
	if strings.Count(text, "masquerade") != 4 || strings.Count(text, "drop") != 2 {
		t.Errorf("more or less than wanted:\n%s", text)
	}
	// Whatever somebody does to them, they are made anew, and nothing else is touched.
	w.Exec("nft", "add", "table", "ip", "other")
	w.Exec("nft", "add", "chain", "ip", "weave", "theirs")
	tables := func() string {
		return w.Exec("nft", "list", "table", "ip", "weave") + w.Exec("nft", "list", "table", "ip6", "weave")
	}
	before := tables()
	for _, damage := range []string{"flush table ip weave", "flush chain ip weave expose-nat", "delete table ip6 weave", "add rule ip weave expose-nat accept"} {
		w.Exec("nft", strings.Fields(damage)...)
		if !w.setRules(t, want...) || tables() != before {
			t.Errorf("%s: not mended:\n%s", damage, ruleset(w))
		}
	}
	if !w.setRules(t) || w.setRules(t) || strings.Contains(ruleset(w), "expose") || strings.Contains(ruleset(w), "ip6 weave") || !strings.Contains(ruleset(w), "theirs") {
		t.Errorf("rules stay, or others' go:\n%s", ruleset(w))
	}
	if err := w.host.Reset(bridge); err != nil || strings.Contains(ruleset(w), "weave") || !strings.Contains(ruleset(w), "other") {
		t.Errorf("reset: %v\n%s", err, ruleset(w))
	}
}

func TestWatchRules(t *testing.T) {
	w := newBridged(t)
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan struct{}, 100)
	var g errgroup.Group
	g.Go(func() error { return w.host.WatchRules(ctx, func() { calls <- struct{}{} }) })
	<-calls // the first is at once
	w.Exec("nft", "add", "table", "ip", "other")
	<-calls
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWatchHost(t *testing.T) {
	w := newBridged(t)
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan struct{}, 1000)
	var g errgroup.Group
	g.Go(func() error { return w.host.WatchHost(ctx, func() { calls <- struct{}{} }) })
	<-calls
	c, ref := w.container(t, "c")
	w.attach(t, ref, "10.2.1.1/24")
	<-calls
	for len(calls) > 0 {
		<-calls
	}
	c.Delete()
	<-calls
	for len(calls) > 0 {
		<-calls
	}
	w.expose(t, "10.2.1.9/24")
	<-calls
	cancel()
	g.Wait()
}

// outside is a machine beyond the host, which routes.
func (w *world) outside(t *testing.T) *testnet.Namespace {
	t.Helper()
	out := w.lab.Namespace("outside")
	w.Exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", out.Name)
	w.Exec("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	w.Exec("ip", "link", "set", "eth0", "up")
	out.Exec("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
	out.Exec("ip", "link", "set", "eth0", "up")
	out.Exec("ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1")
	setSysctl(t, w.Namespace, "net/ipv4/ip_forward", "1")
	return out
}

// With masquerade, machines beyond the host reach containers that have no route to
// them; without, only those that have.
func TestMasquerade(t *testing.T) {
	w := newBridged(t)
	out := w.outside(t)
	c, ref := w.container(t, "c")
	w.attach(t, ref, "10.2.1.1/24")
	w.expose(t, "10.2.1.9/24")
	if reaches(out, "10.2.1.1") {
		t.Fatal("no rules are needed?")
	}
	w.setRules(t, exposures(true, "10.2.1.9/24")...)
	if !reachesSoon(out, "10.2.1.1") {
		t.Errorf("not reached from beyond the host:\n%s", ruleset(w))
	}
	c.Exec("ip", "route", "add", "default", "via", "10.2.1.9")
	out.Exec("ip", "route", "del", "10.2.0.0/16")
	if !reachesSoon(c, "192.0.2.2") {
		t.Error("a container does not reach beyond the host")
	}
	w.setRules(t, exposures(false, "10.2.1.9/24")...)
	if reaches(c, "192.0.2.2") {
		t.Error("reached without masquerade")
	}
}

// A host that takes part in two subnets does not join them.
func TestExposedSubnetsStayApart(t *testing.T) {
	w := newBridged(t)
	setSysctl(t, w.Namespace, "net/ipv4/ip_forward", "1")
	c1, ref1 := w.container(t, "c1")
	c2, ref2 := w.container(t, "c2")
	w.attach(t, ref1, "10.2.1.1/24")
	w.attach(t, ref2, "10.2.2.1/24")
	w.expose(t, "10.2.1.9/24", "10.2.2.9/24")
	c1.Exec("ip", "route", "add", "default", "via", "10.2.1.9")
	c2.Exec("ip", "route", "add", "default", "via", "10.2.2.9")
	if !reachesSoon(c1, "10.2.2.1") {
		t.Fatal("no rules are needed?")
	}
	w.setRules(t, exposures(false, "10.2.1.9/24", "10.2.2.9/24")...)
	if reaches(c1, "10.2.2.1") || reaches(c2, "10.2.1.1") || !reachesSoon(c1, "10.2.1.9") {
		t.Errorf("subnets are joined:\n%s", ruleset(w))
	}
}

func TestOverlaps(t *testing.T) {
	w := newBridged(t)
	w.Exec("ip", "link", "add", "eth0", "type", "bridge")
	w.Exec("ip", "link", "set", "eth0", "up")
	w.Exec("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	w.Exec("ip", "route", "add", "default", "via", "192.0.2.254")
	w.expose(t, "10.32.0.1/12")
	for p, want := range map[string]string{
		"10.32.0.0/12":  "", // leads to the bridge
		"192.0.0.0/16":  "192.0.2.0/24 dev eth0",
		"192.0.2.4/30":  "192.0.2.0/24 dev eth0",
		"172.16.0.0/12": "",
	} {
		if got, err := w.host.Overlaps(bridge, netip.MustParsePrefix(p)); got != want || err != nil {
			t.Errorf("%s overlaps %q, %v, want %q", p, got, err, want)
		}
	}
	w.Exec("ip", "route", "add", "10.0.0.0/8", "dev", "eth0")
	if got, _ := w.host.Overlaps(bridge, netip.MustParsePrefix("10.32.0.0/12")); got != "10.0.0.0/8 dev eth0" {
		t.Errorf("got %q", got)
	}
	addrs, err := w.host.Addresses()
	i := slices.IndexFunc(addrs, func(a hostnet.HostAddr) bool { return a.Prefix.String() == "10.32.0.1/12" })
	if err != nil || i < 0 || !addrs[i].Bridge || addrs[i].Interface != bridge {
		t.Errorf("addresses %v, %v", addrs, err)
	}
}

func TestForwardDropped(t *testing.T) {
	w := newBridged(t)
	if got := w.host.ForwardDropped(); got != "" {
		t.Errorf("got %q of nothing", got)
	}
	w.Exec("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	if got := w.host.ForwardDropped(); got != "ip filter FORWARD" {
		t.Errorf("got %q", got)
	}
}

func TestFind(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "c")
	if _, ok, err := w.host.Find(bridge, c); ok || err != nil {
		t.Errorf("found %v, %v before", ok, err)
	}
	w.attach(t, c, "10.2.1.1/24")
	// By whichever name, it is called what it was called first.
	att, ok, err := w.host.Find(bridge, ref(t, "netns:"+n.Path()))
	if !ok || err != nil || att.Container != c.String() || len(att.Addrs) != 1 {
		t.Errorf("found %+v %v, %v", att, ok, err)
	}
	n.Delete()
	eventually(t, "forgetting it", func() bool {
		_, ok, _ := w.host.Find(bridge, c)
		return !ok
	})
}
