package addresses_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Containers get addresses on every host, all different, that work everywhere, and
// keep them when daemons restart.
func TestAllocate(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 3)
	harness.StartAll(t, sites)
	if got := sites[0].MustWeave("status", "ipam"); got != "" {
		t.Errorf("shares before anybody asked: %s", got)
	}
	harness.WantLine(t, "output", sites[0].MustWeave("status"), "Status: idle")
	var boxes []*testnet.Namespace
	var got []netip.Addr
	for _, s := range sites {
		start := time.Now()
		n, a := s.NewBox("box")
		t.Logf("%s gets %v in %v", s.Label, a, time.Since(start).Round(time.Millisecond))
		if !netip.MustParsePrefix("10.32.0.0/12").Contains(a) || slices.Contains(got, a) {
			t.Errorf("%v after %v", a, got)
		}
		if again := s.AttachBox(n); len(again) != 1 || again[0] != a {
			t.Errorf("attached again: %v, want %v", again, a)
		}
		boxes, got = append(boxes, n), append(got, a)
	}
	for i := range sites {
		for j := range sites {
			mustReach(t, boxes[i], got[j])
		}
	}
	text := sites[0].MustWeave("status", "ipam")
	harness.WantLine(t, "output", text, "02:00:00:00:00:01(a)", "IPs (", "% of total) (1 active)")
	harness.WantLine(t, "output", text, "02:00:00:00:00:02(b)", "IPs (")
	if strings.Contains(text, "unreachable") {
		t.Error(text)
	}
	harness.WantLine(t, "output", sites[0].MustWeave("status"), "Status: ready")
	st := sites[0].Status()
	if st.IPAM == nil || st.IPAM.ActiveIPs != 1 || st.IPAM.RangeNumIPs != 1<<20 || st.IPAM.Shares != nil {
		t.Errorf("status %+v", st.IPAM)
	}

	// Another daemon, another run: the same addresses, and nobody gets them twice.
	b := sites[1]
	for _, stop := range []func(){func() { b.Daemon.Stop() }, func() { b.Daemon.Kill9() }} {
		stop()
		b.Start(harness.Underlays(sites...)...)
		start := time.Now()
		harness.Joined(t, sites...)
		t.Logf("joined again in %v", time.Since(start).Round(time.Millisecond))
		mustReach(t, boxes[0], got[1])
		if again := b.AttachBox(boxes[1]); again[0] != got[1] {
			t.Errorf("after a restart %v, want %v", again, got[1])
		}
		n, a := b.NewBox("more")
		t.Logf("another address %v after the start", time.Since(start).Round(time.Millisecond))
		if slices.Contains(got, a) {
			t.Errorf("%v was given twice", a)
		}
		got = append(got, a)
		mustReach(t, boxes[2], a)
		boxes = append(boxes, n)
	}

	// An address that was detached is free at once.
	if gone := harness.ParseAddrs(t, b.MustWeave("detach", boxes[1].Ref())); gone[0] != got[1] {
		t.Errorf("detached %v, want %v", gone, got[1])
	}
	if _, a := b.NewBox("next"); a != got[1] {
		t.Errorf("next address %v, want %v", a, got[1])
	}
}

// Addresses may be given, also of another host's share, but not twice.
func TestClaim(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites)
	a, b := sites[0], sites[1]
	box, first := a.NewBox("box")
	other := b.Container("other")
	b.Refuses(harness.ExitConflict, first.String(), "attach", first.String()+"/12", other.Ref())
	far, _ := netip.ParseAddr("10.47.255.1")
	near, _ := netip.ParseAddr("10.32.255.1")
	if got := b.AttachBox(other, far.String()+"/12", near.String()+"/12", "10.55.0.2/24", "fd55::2/64"); !slices.Equal(got, []netip.Addr{far, near, netip.MustParseAddr("10.55.0.2"), netip.MustParseAddr("fd55::2")}) {
		t.Errorf("attached %v", got)
	}
	for _, to := range []netip.Addr{far, near} {
		mustReach(t, box, to)
		a.Refuses(harness.ExitConflict, to.String(), "attach", to.String()+"/12", a.Container("late").Ref())
	}
	// What is outside the range is not managed, but kept from others on this host.
	b.Refuses(harness.ExitConflict, "10.55.0.2", "attach", "10.55.0.2/24", b.Container("third").Ref())
	if got := harness.ParseAddrs(t, b.MustWeave("detach", "10.55.0.2/24", other.Ref())); len(got) != 1 {
		t.Errorf("detached %v", got)
	}
	if got := harness.ParseAddrs(t, b.MustWeave("detach", other.Ref())); len(got) != 3 {
		t.Errorf("detached %v", got)
	}
	last := a.Container("last")
	if got := a.AttachBox(last, near.String()+"/12"); got[0] != near { // though the last claim was refused a moment ago
		t.Errorf("attached %v, want %v", got, near)
	}
}

// A failed attach gives back what it had got.
func TestFailedAttach(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 1)
	a := sites[0]
	a.Start("--ipalloc-init=consensus=1")
	taken := a.Container("taken")
	taken.Exec("ip", "link", "add", "eth9", "type", "bridge")
	taken.Exec("ip", "addr", "add", "10.32.0.200/12", "dev", "eth9")
	a.Refuses(harness.ExitConflict, "eth9", "attach", taken.Ref())
	a.Refuses(harness.ExitNotFound, "is the container running?", "attach", "netns:nothing-there")
	if n := a.Status().IPAM.ActiveIPs; n != 0 {
		t.Errorf("%d addresses are in use", n)
	}
	if _, got := a.NewBox("box"); got.String() != "10.32.0.1" {
		t.Errorf("the first address is %v", got)
	}
}

// The address of a container that is gone is kept for half a minute, whether the
// daemon saw it go or not, and then given to the next.
func TestVanished(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites, "--ipalloc-range=10.40.0.0/28")
	var addrs []netip.Addr
	for _, s := range sites {
		n, a := s.NewBox("box", "--name", "box-"+s.Label)
		if s.Label == "b" {
			s.Daemon.Stop()
		}
		n.Delete()
		if s.Label == "b" {
			s.Start(harness.Underlays(sites...)[0], "--ipalloc-range=10.40.0.0/28")
			harness.Joined(t, sites...)
		}
		addrs = append(addrs, a)
	}
	for i, s := range sites {
		// A name says where something is that is there: it goes at once.
		harness.Within(t, 2*time.Second, "the name going", func() bool { return s.Weave("dns-lookup", "box-"+s.Label).Code == harness.ExitNotFound })
		if _, a := s.NewBox("soon"); a == addrs[i] {
			t.Errorf("%v was given again at once", a)
		}
	}
	for i, s := range sites {
		took := harness.Within(t, time.Minute, "its address being free", func() bool { return s.Status().IPAM.ActiveIPs == 1 })
		t.Logf("%s: free after %v more", s.Label, took)
		if _, a := s.NewBox("later"); a != addrs[i] {
			t.Errorf("%s gives %v, want %v, which nobody has", s.Label, a, addrs[i])
		}
	}
}

// Containers of different subnets do not see each other, of the same they do.
func TestSubnets(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites, "--ipalloc-range=10.2.0.0/16", "--ipalloc-default-subnet=10.2.3.0/24")
	a, b := sites[0], sites[1]
	red1, _ := a.NewBox("red1", "net:10.2.1.0/24")
	_, red2Addr := b.NewBox("red2", "net:10.2.1.0/24")
	blue1, blue1Addr := a.NewBox("blue1", "net:10.2.2.0/24")
	_, defAddr := b.NewBox("default")
	mustReach(t, red1, red2Addr)
	for _, to := range []netip.Addr{blue1Addr, defAddr} {
		if harness.Reaches(red1, to) {
			t.Errorf("red reaches %v", to)
		}
	}
	if !netip.MustParsePrefix("10.2.3.0/24").Contains(defAddr) || !netip.MustParsePrefix("10.2.2.0/24").Contains(blue1Addr) {
		t.Errorf("default %v, blue %v", defAddr, blue1Addr)
	}
	// One container may be in several, in the order in which they were asked for.
	both := a.Container("both")
	got := a.AttachBox(both, "net:10.2.2.0/24", "net:default", "ip:10.2.1.99/24")
	if len(got) != 3 || got[2].String() != "10.2.1.99" || !netip.MustParsePrefix("10.2.2.0/24").Contains(got[0]) || !netip.MustParsePrefix("10.2.3.0/24").Contains(got[1]) {
		t.Errorf("attached %v", got)
	}
	mustReach(t, both, red2Addr)
	mustReach(t, both, blue1Addr)
	mustReach(t, blue1, got[0])
	if gone := harness.ParseAddrs(t, a.MustWeave("detach", "net:10.2.1.0/24", both.Ref())); len(gone) != 1 || gone[0] != got[2] {
		t.Errorf("detached %v", gone)
	}
	if out := a.MustWeave("detach", "net:10.2.1.0/24", both.Ref()); out != "" {
		t.Errorf("detached twice: %s", out)
	}
	if harness.Reaches(both, red2Addr) {
		t.Error("still in a subnet that it was detached from")
	}
	mustReach(t, both, blue1Addr)
	for arg, want := range map[string]string{"net:10.2.1.1/24": "net:10.2.1.0/24", "net:10.2.1.0/31": "too small", "net:10.9.0.0/16": "outside"} {
		a.Refuses(2, want, "attach", arg, both.Ref())
	}
}
