package names_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// By when a name is nowhere any more.
const (
	goneLimit = 3 * time.Second // of a container that ended: some of it the kernel's, to take a namespace down
	diedLimit = 3 * time.Second // of a host whose daemon died: the mesh forgets it after one second
	cutLimit  = 30 * time.Second
)

// A container that ends takes its names with it, on all hosts at once, however it ends.
func containerDies(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	harness.StartAll(t, sites)
	a, c := sites[0], sites[2]
	server := c.Expose()
	client, _ := c.NewBox("client")
	_, other := sites[1].NewBox("other", "--name", "web")
	for _, how := range []struct {
		name string
		end  func(n *testnet.Namespace)
	}{
		{"namespace deleted", func(n *testnet.Namespace) { n.Delete() }},
		{"interface deleted", func(n *testnet.Namespace) { n.Exec("ip", "link", "del", "ethwe") }},
		{"detached", func(n *testnet.Namespace) { a.MustWeave("detach", n.Ref()) }},
	} {
		box, addr := a.NewBox("box", "--name", "web")
		both := strings.Join(sorted(addr, other), " ")
		knows(t, 3*time.Second, "web", orderOf(addr, other), sites...)
		if got := answer(t, client, "udp", server, "web.weave.local.", dns.TypeA); got != both {
			t.Errorf("%s: before %s, want %s", how.name, got, both)
		}
		how.end(box)
		took := knows(t, goneLimit, "web", other.String(), sites...)
		t.Logf("%s: gone everywhere after %v", how.name, took)
		if got := answer(t, client, "udp", server, "web.weave.local.", dns.TypeA); got != other.String() {
			t.Errorf("%s: after %s, want %v", how.name, got, other)
		}
		if got := answer(t, client, "udp", server, reverse(t, addr.String()), dns.TypePTR); got == "web.weave.local." {
			t.Errorf("%s: %v still has a name", how.name, addr)
		}
	}
	time.Sleep(2 * time.Second) // what comes late must not bring it back
	knows(t, 0, "web", other.String(), sites...)
}

// orderOf is the order of dns-lookup: by address.
func orderOf(a, b netip.Addr) string {
	if b.Less(a) {
		a, b = b, a
	}
	return a.String() + " " + b.String()
}

// The names of a host go when the host does: at once when its daemon dies, and when
// others find it unreachable if it is cut off. They come back with it, and what changed
// meanwhile shows on both sides.
func hostLost(t *testing.T, lab *testnet.Lab, sites []*harness.Node) {
	harness.StartAll(t, sites)
	a, b, c := sites[0], sites[1], sites[2]
	server := c.Expose()
	client, _ := c.NewBox("client")
	boxB, addrB := b.NewBox("box", "--name", "b1")
	_, addrA := a.NewBox("box", "--name", "a1")
	b.MustWeave("dns-add", "192.0.2.200", "-h", "b2")
	knows(t, 3*time.Second, "b1", addrB.String(), sites...)
	knows(t, 3*time.Second, "b2", "192.0.2.200", sites...)

	b.Daemon.Kill9()
	took := knows(t, diedLimit, "b1", "", a, c)
	knows(t, diedLimit, "b2", "", a, c)
	t.Logf("daemon killed: names gone after %v", took)
	if got := answer(t, client, "udp", server, "b1.weave.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("b1: %s", got)
	}
	b.Start(harness.Underlays(sites...)...)
	harness.Joined(t, sites...)
	took = knows(t, 3*time.Second, "b1", addrB.String(), sites...)
	knows(t, 3*time.Second, "b2", "192.0.2.200", sites...)
	t.Logf("daemon back: names back %v after the connections", took)

	// A partition: b is alone. Each side answers for what it can reach.
	for _, o := range []*harness.Node{a, c} {
		lab.Cut(b.Host, o.Host)
		lab.Cut(o.Host, b.Host)
	}
	start := time.Now()
	harness.Within(t, cutLimit, "b's names gone", func() bool { return lookup(a, "b1") == "" && lookup(c, "b1") == "" && lookup(b, "a1") == "" })
	t.Logf("host cut off: names gone after %v", time.Since(start).Round(time.Millisecond))
	if got := lookup(b, "b1"); got != addrB.String() {
		t.Errorf("b's own name at b: %q", got)
	}
	knows(t, 0, "a1", addrA.String(), a, c)
	boxB.Delete()
	knows(t, goneLimit, "b1", "", b)
	_, addrNew := a.NewBox("new", "--name", "a2")
	knows(t, goneLimit, "a2", addrNew.String(), a, c)
	_, addrB3 := b.NewBox("new", "--name", "b3")

	for _, o := range []*harness.Node{a, c} {
		lab.Heal(b.Host, o.Host)
	}
	b.MustWeave("connect", a.IP4.String()) // rather than wait for the next try
	start = time.Now()
	harness.Joined(t, a, b)
	t.Logf("healed: connected after %v", time.Since(start).Round(time.Millisecond))
	took = knows(t, 3*time.Second, "b3", addrB3.String(), sites...)
	took += knows(t, 3*time.Second, "a2", addrNew.String(), sites...)
	took += knows(t, 3*time.Second, "b2", "192.0.2.200", sites...)
	t.Logf("healed: names right %v later", took)
	for range 20 { // a removal while apart stays
		knows(t, 0, "b1", "", sites...)
		time.Sleep(50 * time.Millisecond)
	}
	harness.Joined(t, sites...)
}
