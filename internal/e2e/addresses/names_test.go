package addresses_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/testnet"
)

// dig asks a name server from inside a namespace and returns what it printed.
func dig(from *testnet.Namespace, server netip.Addr, args ...string) string {
	r := from.Try("dig", append([]string{"@" + server.String(), "+time=1", "+tries=1", "+short"}, args...)...)
	lines := strings.Fields(r.Stdout)
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// Names of containers are known on all hosts as soon as they have an address, and
// nowhere when they are gone.
func TestNames(t *testing.T) {
	_, sites := newSites(t, 2)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	launchAll(t, sites)
	a, b := sites[0], sites[1]
	serverA := addrs(t, a.weave("expose", "-h", "host-a"))[0]
	serverB := addrs(t, b.weave("expose"))[0]
	client, _ := b.container("client")
	web1, web1Addr := a.container("web1", "--name", "web", "-h", "web1.weave.local")
	known := func(name, want string) time.Duration {
		t.Helper()
		var got string
		start := time.Now()
		for got = dig(client, serverB, name); got != want && time.Since(start) < 3*time.Second; got = dig(client, serverB, name) {
			time.Sleep(pollEvery)
		}
		if got != want {
			t.Fatalf("%s is %q at b, want %q", name, got, want)
		}
		return time.Since(start).Round(time.Millisecond)
	}
	t.Logf("known on the other host after %v", known("web.weave.local", web1Addr.String()))
	known("web1.weave.local", web1Addr.String())
	known("host-a.weave.local", serverA.String())
	if got := dig(client, serverB, "WEB"); got != web1Addr.String() {
		t.Errorf("one label, other case: %q", got)
	}
	if got := dig(client, serverB, "-x", web1Addr.String()); got != "web.weave.local." {
		t.Errorf("reverse: %q", got)
	}
	if got := dig(client, serverB, "+tcp", "web.weave.local"); got != web1Addr.String() {
		t.Errorf("TCP: %q", got)
	}
	if got := dig(a.Namespace, serverA, "web.weave.local"); got != web1Addr.String() {
		t.Errorf("the host itself: %q", got)
	}
	// One name, many containers.
	_, web2Addr := b.container("web2", "--name", "web")
	both := []string{web1Addr.String(), web2Addr.String()}
	slices.Sort(both)
	known("web.weave.local", strings.Join(both, " "))
	// A further address of a container gets its name too.
	more := a.attach(web1, "net:10.35.0.0/16")[0]
	known("web1.weave.local", strings.Join(sorted(web1Addr, more), " "))
	a.weave("detach", "net:10.35.0.0/16", web1.Ref())
	known("web1.weave.local", web1Addr.String())

	wantLine(t, b.weave("status", "dns"), "web1 ", web1Addr.String(), web1.Ref(), "02:00:00:00:00:01")
	wantLine(t, b.weave("status"), "Entries: 4")
	if got := b.weave("dns-lookup", "web"); strings.Join(sorted(addrs(t, got)...), " ") != strings.Join(both, " ") {
		t.Errorf("dns-lookup: %q", got)
	}
	if got, want := b.weave("dns-args"), "--dns="+serverB.String()+" --dns-search=weave.local."; got != want {
		t.Errorf("dns-args: %q, want %q", got, want)
	}

	// A restart of the daemon brings the names back.
	a.d.Stop()
	known("web.weave.local", web2Addr.String())
	a.launch(ips(sites)...)
	known("web.weave.local", strings.Join(both, " "))
	known("host-a.weave.local", serverA.String())

	a.weave("detach", web1.Ref())
	t.Logf("gone after %v", known("web.weave.local", web2Addr.String()))
	known("web1.weave.local", "")
	a.weave("hide")
	known("host-a.weave.local", "")
	if got := dig(a.Namespace, serverA, "web.weave.local"); got == web2Addr.String() {
		t.Error("still served at an address that is hidden")
	}
	b.refuses(exitNotFound, "no such name", "dns-lookup", "web1")

	after, err := os.ReadFile("/etc/resolv.conf")
	if err != nil || string(after) != string(before) {
		t.Errorf("resolv.conf changed: %v", err)
	}
}

func sorted(as ...netip.Addr) (out []string) {
	for _, a := range as {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return out
}

// Names may be made by hand, for containers and for anything else.
func TestDNSAdd(t *testing.T) {
	_, sites := newSites(t, 2)
	launchAll(t, sites, "--dns-domain=example.test", "--dns-listen-address=127.0.0.1:5353")
	a, b := sites[0], sites[1]
	box, boxAddr := a.container("box")
	lookup := func(s *site, name string) string {
		r := s.Weave(s.bin, "dns-lookup", name)
		if r.Code == exitNotFound {
			return ""
		}
		return strings.Join(strings.Fields(r.Stdout), " ")
	}
	known := func(name, want string) {
		t.Helper()
		within(t, 3*time.Second, name+" is "+want, func() bool { return lookup(b, name) == want })
	}
	a.weave("dns-add", box.Ref(), "-h", "one")
	a.weave("dns-add", "10.9.9.9", box.Ref(), "-h", "two.example.test")
	a.weave("dns-add", "192.0.2.1", "2001:db8::1", "--name=three")
	known("one", boxAddr.String())
	known("two", "10.9.9.9")
	known("three.example.test.", "192.0.2.1 2001:db8::1")
	loop := netip.MustParseAddr("127.0.0.1")
	if got := dig(b.Namespace, loop, "-p", "5353", "three.example.test", "AAAA"); got != "2001:db8::1" {
		t.Errorf("dig: %q", got)
	}
	// Names of addresses that are no container's outlive the daemon as well.
	a.d.Kill9()
	a.launch(append([]string{"--dns-domain=example.test", "--dns-listen-address=127.0.0.1:5353"}, ips(sites)...)...)
	known("three", "192.0.2.1 2001:db8::1")
	known("one", boxAddr.String())
	a.weave("dns-remove", "192.0.2.1", "-h", "three")
	known("three", "2001:db8::1")
	a.weave("dns-remove", "2001:db8::1")
	known("three", "")
	a.weave("dns-remove", box.Ref(), "-h", "one")
	known("one", "")
	known("two", "10.9.9.9")
	box.Delete()
	known("two", "")
	a.refuses(2, "not in the DNS domain example.test.", "dns-add", "192.0.2.1", "-h", "a.weave.local")
	a.refuses(2, "not in the DNS domain", "attach", "--name", "a.weave.local", a.Container("other").Ref())
	a.refuses(exitNotFound, "is not attached", "dns-add", a.Container("lone").Ref(), "-h", "lone")
}

// Who is neither a container nor the host gets no answer, and without DNS nobody does.
func TestNoOpenResolver(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	a.launch("--ipalloc-init=consensus=1", "--dns-listen-address="+a.IP4.String())
	box, _ := a.container("box", "--name", "box")
	a.weave("expose")
	box.Exec("ip", "route", "add", "default", "via", strings.Fields(a.weave("expose"))[0])
	if got := dig(a.Namespace, a.IP4, "box.weave.local"); got == "" {
		t.Error("the host is not answered")
	}
	if got := dig(box, a.IP4, "box.weave.local"); got == "" {
		t.Error("a container is not answered")
	}
	if got := dig(b.Namespace, a.IP4, "box.weave.local"); got != "" && !strings.Contains(got, "timed") && !strings.Contains(got, "no") {
		t.Errorf("a stranger is answered: %q", got)
	}
}

// A host that serves no names has some nevertheless.
func TestNoDNS(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	a.launch(ips(sites)...)
	b.launch(append(ips(sites), "--no-dns")...)
	joined(t, sites...)
	b.weave("expose")
	_, addr := b.container("box", "--name", "box")
	if out := b.weave("dns-args"); out != "" {
		t.Errorf("dns-args without DNS: %q", out)
	}
	if b.status().DNS != nil || strings.Contains(b.weave("status"), "dns") {
		t.Error("status has dns")
	}
	within(t, 3*time.Second, "the name on the other host", func() bool { return a.Weave(a.bin, "dns-lookup", "box").Stdout == addr.String()+"\n" })
	wantLine(t, b.weave("status", "dns"), "box", addr.String())
}

// The address of the name server may be another's already.
func TestDNSPortInUse(t *testing.T) {
	_, sites := newSites(t, 1)
	a := sites[0]
	l := serveTCP(t, a.Namespace, "0.0.0.0:53")
	d := a.LaunchWeave(t, a.bin, "--nickname", "a", "--dns-listen-address="+a.IP4.String())
	if code := d.Wait(5 * time.Second); code != exitConflict {
		t.Errorf("exit %d", code)
	}
	wantLine(t, d.Log(), "--dns-listen-address", "another name server has the port")
	// An exposed host is exposed all the same, and the name server comes when it can.
	a.launch("--ipalloc-init=consensus=1")
	a.weave("expose", "-h", "host-a")
	wantLine(t, a.weave("status"), "Warning: ", "another name server has the port")
	a.refuses(exitConflict, "no address to listen on", "dns-args")
	l.Close()
	within(t, 15*time.Second, "listening", func() bool { return a.Weave(a.bin, "dns-args").Code == 0 })
}
