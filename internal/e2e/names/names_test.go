package names_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// What mostly waits, or asserts no time but an upper bound with room, happens side by
// side, in networks that share nothing but the machine.
func TestSideBySide(t *testing.T) {
	lab := testnet.New(t)
	for i, story := range []struct {
		name  string
		sites int
		tell  func(t *testing.T, lab *testnet.Lab, sites []*harness.Node)
	}{
		{"host lost", 3, hostLost}, {"loop through a stub", 1, loopThroughStub}, {"upstream", 2, upstream}, {"dns-add", 2, dnsAdd},
		{"come and go", 2, comeAndGo}, {"container dies", 3, containerDies}, {"loop", 2, loop}, {"no DNS", 2, noDNS}, {"port in use", 1, portInUse}, {"many addresses", 1, manyAddresses}, {"families", 2, families},
	} {
		t.Run(story.name, func(t *testing.T) {
			sites := harness.NodesIn(t, lab, string(rune('p'+i)), story.sites)
			t.Parallel()
			story.tell(t, lab, sites)
		})
	}
}

// Names of containers are known on all hosts as soon as they have an address, and
// nowhere when they are gone.
func comeAndGo(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	untouched := watchResolvConf(t)
	harness.StartAll(t, sites)
	a, b := sites[0], sites[1]
	serverA, serverB := a.Expose("-h", "host-a"), b.Expose()
	client, _ := b.NewBox("client")
	web1, web1Addr := a.NewBox("web1", "--name", "web", "-h", "web1.weave.local")
	known := func(name, want string) time.Duration {
		t.Helper()
		var got string
		start := time.Now()
		for got = dig(client, serverB, name); got != want && time.Since(start) < 3*time.Second; got = dig(client, serverB, name) {
			time.Sleep(harness.PollEvery)
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
	if got := dig(a.Namespace, serverA, "web.weave.local"); got != web1Addr.String() {
		t.Errorf("the host itself: %q", got)
	}
	// One name, many containers.
	_, web2Addr := b.NewBox("web2", "--name", "web")
	both := strings.Join(sorted(web1Addr, web2Addr), " ")
	known("web.weave.local", both)
	// A further address of a container gets its name too.
	more := harness.ParseAddrs(t, a.MustWeave("attach", "net:10.35.0.0/16", web1.Ref()))[0]
	known("web1.weave.local", strings.Join(sorted(web1Addr, more), " "))
	a.MustWeave("detach", "net:10.35.0.0/16", web1.Ref())
	known("web1.weave.local", web1Addr.String())

	harness.WantLine(t, "output", b.MustWeave("status", "dns"), "web1 ", web1Addr.String(), web1.Ref(), "("+a.Label+")")
	harness.WantLine(t, "output", b.MustWeave("status"), "Entries: 4")
	if got := strings.Join(sorted(harness.ParseAddrs(t, b.MustWeave("dns-lookup", "web"))...), " "); got != both {
		t.Errorf("dns-lookup: %q", got)
	}
	if got, want := b.MustWeave("dns-args"), "--dns="+serverB.String()+" --dns-search=weave.local."; got != want {
		t.Errorf("dns-args: %q, want %q", got, want)
	}

	// A restart of the daemon brings the names back.
	a.Daemon.Stop()
	known("web.weave.local", web2Addr.String())
	a.Start(harness.Underlays(sites...)...)
	known("web.weave.local", both)
	known("host-a.weave.local", serverA.String())

	a.MustWeave("detach", web1.Ref())
	t.Logf("gone after %v", known("web.weave.local", web2Addr.String()))
	known("web1.weave.local", "")
	a.MustWeave("hide")
	known("host-a.weave.local", "")
	if got := dig(a.Namespace, serverA, "web.weave.local"); got == web2Addr.String() {
		t.Error("still served at an address that is hidden")
	}
	b.Refuses(harness.ExitNotFound, "no such name", "dns-lookup", "web1")
	untouched()
}

// watchResolvConf returns a function that fails the test if the host's resolv.conf was
// written, replaced or touched meanwhile.
func watchResolvConf(t *testing.T) (check func()) {
	t.Helper()
	const path = "/etc/resolv.conf"
	look := func() string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		return fmt.Sprintf("%s %d %v %v %o\n%s", path, sys.Ino, sys.Mtim, sys.Ctim, st.Mode(), text)
	}
	before := look()
	return func() {
		t.Helper()
		if after := look(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
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
func dnsAdd(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	settings := []string{"--dns-domain=example.test", "--dns-listen-address=127.0.0.1:5353"}
	harness.StartAll(t, sites, settings...)
	a, b := sites[0], sites[1]
	box, boxAddr := a.NewBox("box")
	known := func(name, want string) {
		t.Helper()
		knows(t, 3*time.Second, name, want, b)
	}
	a.MustWeave("dns-add", box.Ref(), "-h", "one")
	a.MustWeave("dns-add", "10.9.9.9", box.Ref(), "-h", "two.example.test")
	a.MustWeave("dns-add", "192.0.2.1", "2001:db8::1", "--name=three")
	known("one", boxAddr.String())
	known("two", "10.9.9.9")
	known("three.example.test.", "192.0.2.1 2001:db8::1")
	if got := b.MustWeave("dns-lookup", "three"); got != "192.0.2.1\n2001:db8::1\n" {
		t.Errorf("dns-lookup: %q", got)
	}
	loop := netip.MustParseAddr("127.0.0.1")
	if got := dig(b.Namespace, loop, "-p", "5353", "three.example.test", "AAAA"); got != "2001:db8::1" {
		t.Errorf("dig: %q", got)
	}
	a.Refuses(harness.ExitConflict, "containers cannot ask", "dns-args")
	// Names of addresses that are no container's outlive the daemon as well.
	a.Daemon.Kill9()
	a.Start(append(settings, harness.Underlays(sites...)...)...)
	known("three", "192.0.2.1 2001:db8::1")
	known("one", boxAddr.String())
	a.MustWeave("dns-remove", "192.0.2.1", "-h", "three")
	known("three", "2001:db8::1")
	a.MustWeave("dns-remove", "2001:db8::1")
	known("three", "")
	a.MustWeave("dns-remove", box.Ref(), "-h", "one")
	known("one", "")
	known("two", "10.9.9.9")
	box.Delete()
	known("two", "")
	a.Refuses(harness.ExitUsage, "not in the DNS domain example.test.", "dns-add", "192.0.2.1", "-h", "a.weave.local")
	a.Refuses(harness.ExitUsage, "not in the DNS domain", "attach", "--name", "a.weave.local", a.Container("other").Ref())
	a.Refuses(harness.ExitNotFound, "is not attached", "dns-add", a.Container("lone").Ref(), "-h", "lone")
}

// A host that serves no names has some nevertheless.
func noDNS(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a, b := sites[0], sites[1]
	a.Start(harness.Underlays(sites...)...)
	b.Start(append(harness.Underlays(sites...), "--no-dns")...)
	harness.Joined(t, sites...)
	server := b.Expose()
	box, addr := b.NewBox("box", "--name", "box")
	if out := b.MustWeave("dns-args"); out != "" {
		t.Errorf("dns-args without DNS: %q", out)
	}
	if harness.Ask(b.Host, (*api.Client).Status).DNS != nil || strings.Contains(b.MustWeave("status"), "dns") {
		t.Error("status has dns")
	}
	knows(t, 3*time.Second, "box", addr.String(), a)
	harness.WantLine(t, "output", b.MustWeave("status", "dns"), "box", addr.String())
	for _, network := range []string{"udp", "tcp"} {
		if m, _ := ask(t, box, network, server, "box.weave.local.", dns.TypeA, time.Second); m != nil {
			t.Errorf("%s: %v", network, m)
		}
	}
}

// The address of the name server may be another's already.
func portInUse(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a := sites[0]
	var l net.Listener
	if err := a.Do(func() (err error) { l, err = net.Listen("tcp4", "0.0.0.0:53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := a.LaunchWeave(t, a.Bin, "--nickname", a.Label, "--dns-listen-address="+a.IP4.String())
	if code := d.Wait(5 * time.Second); code != harness.ExitConflict {
		t.Errorf("exit %d", code)
	}
	harness.WantLine(t, "output", d.Log(), "--dns-listen-address", "another name server has the port")
	// An exposed host is exposed all the same, and the name server comes when it can.
	a.Start("--ipalloc-init=consensus=1")
	a.Expose("-h", "host-a")
	harness.WantLine(t, "output", a.MustWeave("status"), "Warning: ", "another name server has the port")
	a.Refuses(harness.ExitConflict, "no address to listen on", "dns-args")
	l.Close()
	took := harness.Within(t, 15*time.Second, "listening", func() bool { return len(harness.Ask(a.Host, (*api.Client).Status).DNS.Listening) > 0 })
	t.Logf("listening %v after the port was free", took)
}

// A container in two subnets, of which a name has both addresses, and a name that is
// given twice is still one.
func manyAddresses(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	a := sites[0]
	a.Start("--ipalloc-init=consensus=1", "--dns-ttl=30", "--dns-domain=Test.Example.")
	server := a.Expose()
	client, _ := a.NewBox("client")
	// More addresses than a datagram of 512 bytes holds; all are had over TCP.
	var args []string
	for i := range 50 {
		args = append(args, fmt.Sprintf("10.9.0.%d", i+1))
	}
	a.MustWeave(append(append([]string{"dns-add"}, args...), "-h", "many")...)
	slices.Sort(args)
	want := strings.Join(args, " ")
	for _, opts := range [][]string{{}, {"+tcp"}, {"+bufsize=700"}, {"+noedns"}, {"+bufsize=4096"}} {
		if got := dig(client, server, append(opts, "many.test.example")...); got != want {
			t.Errorf("dig %v: %q", opts, got)
		}
	}
	m, _ := ask(t, client, "udp", server, "MANY.test.EXAMPLE.", dns.TypeA, time.Second)
	if m == nil || len(m.Answer) != 50 || m.Answer[0].Header().Ttl != 30 || m.Answer[0].Header().Name != "MANY.test.EXAMPLE." || !m.Authoritative || m.IsEdns0() == nil {
		t.Errorf("reply %v", m)
	}
	first := map[string]bool{}
	for range 20 {
		if m, _ := ask(t, client, "udp", server, "many.", dns.TypeA, time.Second); m != nil && len(m.Answer) > 0 {
			first[m.Answer[0].String()] = true
		}
	}
	if len(first) < 5 {
		t.Errorf("%d of 20 replies began with another address", len(first))
	}
	if got := a.MustWeave("dns-args"); got != "--dns="+server.String()+" --dns-search=test.example." {
		t.Errorf("dns-args: %q", got)
	}
	if got := a.MustWeave("dns-args", "--json"); !strings.Contains(got, `"`+server.String()+`"`) || !strings.Contains(got, `"test.example."`) {
		t.Errorf("dns-args --json: %s", got)
	}
	if got := a.MustWeave("dns-lookup", "--json", "many"); !strings.Contains(got, `"10.9.0.50"`) {
		t.Errorf("dns-lookup --json: %s", got)
	}
	if got := a.MustWeave("status", "dns", "--json"); !strings.Contains(got, `"short_name": "many"`) || !strings.Contains(got, `"container": "weave:extern"`) {
		t.Errorf("status dns --json: %s", got)
	}
}

// Each combination of transport and family is answered, and reverse names are.
func families(t *testing.T, _ *testnet.Lab, sites []*harness.Node) {
	harness.StartAll(t, sites)
	a, b := sites[0], sites[1]
	four := a.Expose()
	six := a.Expose("fd55::9/64")
	client := b.Container("client")
	b.MustWeave("attach", "net:default", "fd55::2/64", "--name", "two", client.Ref())
	harness.Within(t, harness.JoinLimit, "the network", func() bool { return client.Try("ping", "-c1", "-W1", six.String()).Code == 0 })
	harness.Within(t, 3*time.Second, "both addresses of two", func() bool { return len(strings.Fields(lookup(a, "two"))) == 2 })
	in4 := answer(t, client, "udp", four, "two.weave.local.", dns.TypeA)
	for _, server := range []netip.Addr{four, six} {
		for _, network := range []string{"udp", "tcp"} {
			for _, q := range []struct {
				name  string
				qtype uint16
				want  string
			}{
				{"two.weave.local.", dns.TypeA, in4}, {"two.weave.local.", dns.TypeAAAA, "fd55::2"}, {"TWO.", dns.TypeAAAA, "fd55::2"},
				{reverse(t, "fd55::2"), dns.TypePTR, "two.weave.local."}, {reverse(t, in4), dns.TypePTR, "two.weave.local."},
				{"two.weave.local.", dns.TypeMX, "NOERROR"}, {"nobody.weave.local.", dns.TypeA, "NXDOMAIN"}, {"nobody.", dns.TypeAAAA, "NXDOMAIN"},
			} {
				if got := answer(t, client, network, server, q.name, q.qtype); got != q.want {
					t.Errorf("%s to %v: %s %d: %s, want %s", network, server, q.name, q.qtype, got, q.want)
				}
			}
		}
	}
	knows(t, 3*time.Second, "two", in4+" fd55::2", a, b)
}

// answer asks once and tells the data of the answers.
func answer(t *testing.T, from *testnet.Namespace, network string, server netip.Addr, name string, qtype uint16) string {
	t.Helper()
	m, _ := ask(t, from, network, server, name, qtype, 2*time.Second)
	return answers(m)
}

func reverse(t *testing.T, addr string) string {
	t.Helper()
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return name
}
