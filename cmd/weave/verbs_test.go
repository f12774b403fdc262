package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"weave/internal/api"
	"weave/internal/api/apitest"
	"weave/internal/daemon"
	"weave/internal/peer"
)

func TestUsageErrors(t *testing.T) {
	c := newCLI(t)
	for _, tt := range []struct{ args, stderr string }{
		{"lanch", `unknown command "lanch": did you mean launch?`},
		{"frobnicate", `unknown command "frobnicate": see weave --help`},
		{"lanch --port 5", "did you mean launch?"},
		{"--nope", "unknown flag: --nope: see weave --help"},
		{"status --nope", "unknown flag: --nope: see weave status --help"},
		{"status nope", `unknown sub-command "nope"`},
		{"status connections extra", "got 1 arguments, want none"},
		{"stop now", "got 1 arguments"},
		{"version 2", "got 1 arguments"},
		{"report -f {{.Nope", "unclosed action"},
		{"report extra", "got 1 arguments"},
		{"--timeout 0s status", "--timeout 0s"},
		{"--timeout x status", "invalid argument"},
		{"--run-dir= status", "want a directory"},
		{"connect", "no peers"},
		{"connect host2:99999", `"host2:99999": not a peer`},
		{"connect a/b", "not a peer"},
		{"forget", "want PEER..."},
		{"topology --json --dot", "give one of them"},
		{"attach", "got 0 arguments"},
		{"attach net:10.2.0.1/16 netns:blue", "an address in the subnet net:10.2.0.0/16"},
		{"attach net:10.2.0.0/31 netns:blue", "too small"},
		{"attach net:nope netns:blue", "want net:CIDR"},
		{"attach net:default", "not a container"},
		{"attach --name a..b netns:blue", "not a DNS name"},
		{"expose 10.55.0.1", "want IP/LENGTH"},
		{"expose netns:blue", "not an address"},
		{"expose -h", "flag needs an argument"},
		{"hide net:", "want net:CIDR"},
		{"prime now", "got 1 arguments"},
		{"rmpeer", "want PEER..."},
		{"rmpeer a\nb", "want a peer's name"},
		{"dns-add netns:blue", "give -h NAME"},
		{"dns-add blue 10.2.0.1 -h a", "want an IP address"},
		{"dns-add 10.2.0.1/16 -h a", "not a container"},
		{"dns-add 0.0.0.0 -h a", "cannot have a name"},
		{"dns-add -h a", "got 0 arguments"},
		{"dns-lookup", "want NAME"},
		{"dns-lookup a b", "want NAME"},
		{"dns-args x", "got 1 arguments"},
		{"attach 10.55.0.1 netns:blue", "not an address: want IP/LENGTH"},
		{"attach 10.55.0.0/24 netns:blue", "the subnet, not an address in it"},
		{"attach 10.55.0.1/24", "not a container"},
		{"attach 10.55.0.1/24 blue", "names of Docker containers are not in this build yet"},
		{"attach netns:blue 10.55.0.1/24", "not an address"},
		{"detach 10.55.0.1/24 netns:../blue", "not a container"},
		{"ps /proc/1/ns/net", "not a container"},
		{"reset --bridge a/b", "want a device name"},
		{"daemon", "not for use by hand"},
		{"launch --port 0", "--port 0: want 1 to 65534"},
		{"launch --port 65535", "--port 65535"},
		{"launch --port http", "invalid argument"},
		{"launch --mtu 100", "--mtu 100: want 576"},
		{"launch --mtu 70000", "--mtu 70000"},
		{"launch --conn-limit -1", "--conn-limit -1"},
		{"launch --name xyz", "--name: "},
		{"launch --name ::", "all zeros is no name"},
		{"launch --nickname a\nb", "--nickname"},
		{"launch --bridge bridge-name-too-long", "--bridge"},
		{"launch --bridge .", "--bridge"},
		{"launch --host localhost", "--host \"localhost\""},
		{"launch --trusted-subnets 10.0.0.0", "--trusted-subnets \"10.0.0.0\""},
		{"launch --trusted-subnets 10.0.0.0/8,x", "--trusted-subnets \"x\""},
		{"launch --status-addr 6782", "--status-addr \"6782\""},
		{"launch --status-addr 127.0.0.1:http", "--status-addr"},
		{"launch --cipher des", `--cipher "des": want auto, aes or chacha`},
		{"launch --fastdp maybe", `--fastdp "maybe": want auto, vxlan, ovs or off`},
		{"launch --min-path=user", `--min-path "user": want sleeve, kernel, kernel,alert or kernel,refuse`},
		{"launch --fastdp=vxlan --no-fastdp", "contradict each other"},
		{"launch --log-level loud", "--log-level"},
		{"launch --log-format xml", "--log-format"},
		{"launch --ipalloc-range 10.32.0.1/12", "did you mean 10.32.0.0/12?"},
		{"launch --ipalloc-range 10.32.0.0/31", "too small"},
		{"launch --ipalloc-range fd00::/64", "want an IPv4 subnet"},
		{"launch --ipalloc-range x", `--ipalloc-range "x": want a subnet`},
		{"launch --ipalloc-range= --ipalloc-default-subnet 10.2.0.0/16", "needs an --ipalloc-range"},
		{"launch --ipalloc-range= --ipalloc-init observer", "needs an --ipalloc-range"},
		{"launch --ipalloc-default-subnet 10.2.0.0/16", "has nothing in common with"},
		{"launch --ipalloc-init consensus=0", "want consensus=N"},
		{"launch --ipalloc-init seed=", "is no peer name"},
		{"launch --ipalloc-init seed=::1,host2", `"host2" is no peer name`},
		{"launch --ipalloc-init maybe", "want consensus, consensus=N, seed="},
		{"launch --dns-domain a..b", "--dns-domain"},
		{"launch --dns-listen-address localhost", "want ADDRESS or ADDRESS:PORT"},
		{"launch --dns-listen-address 10.0.0.1:0", "want ADDRESS or ADDRESS:PORT"},
		{"launch --dns-ttl -1", "invalid argument"},
		{"launch --resume host2", "--resume takes the peers of the last run"},
		{"launch host2:0", "not a peer"},
		{"launch --password=", "--password is empty"},
	} {
		args := strings.Split(tt.args, " ")
		c.want(2, "", tt.stderr, args...)
	}
	for env, want := range map[string]string{"WEAVE_PORT=x": `WEAVE_PORT="x": want a number`, "WEAVE_MTU=1": "--mtu 1", "WEAVE_PASSWORD=": "WEAVE_PASSWORD is empty"} {
		name, value, _ := strings.Cut(env, "=")
		c.env = map[string]string{name: value}
		c.want(2, "", want, "launch")
	}
	if _, err := os.Lstat(c.runDir()); err == nil {
		t.Error("a refused command left a directory")
	}
}

func TestNoVerb(t *testing.T) {
	c := newCLI(t)
	out, errs, code := c.run()
	if code != 2 || out != "" || !strings.Contains(errs, "Usage:") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	out, errs, code = c.run("--help")
	if code != 0 || errs != "" || !strings.Contains(out, "Exit status: 0 done") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestNotRunning(t *testing.T) {
	c := newCLI(t)
	for _, args := range []string{"status", "status --json", "status connections", "status peers", "status targets", "connect host2", "forget host2",
		"attach 10.55.0.1/24 netns:a", "attach --wait netns:a", "detach netns:a", "ps", "report", "stop", "status ipam", "status dns", "expose", "hide", "prime", "prime --wait",
		"rmpeer a", "dns-add 10.2.0.1 -h a", "dns-remove netns:a", "dns-lookup a", "dns-args"} {
		c.want(3, "", "no daemon is running at "+c.runDir()+": start one with weave launch", strings.Split(args, " ")...)
	}
}

func TestVerbs(t *testing.T) {
	c := newCLI(t)
	h1, _ := peer.ParseName("::1")
	b := &apitest.Backend{
		StatusAnswer: api.Status{Version: "1.2.3", Router: api.Router{Name: h1, NickName: "h1", Protocol: "1", MTU: 1376, FastDP: "off", Peers: api.PeerCounts{Known: 1}},
			DNS: &api.DNS{Domain: "weave.local.", TTL: time.Second, Listening: []netip.AddrPort{netip.MustParseAddrPort("10.32.0.9:53")}}},
		ConnectionsAnswer: api.Connections{Encryption: true, Connections: []api.Connection{
			{Outbound: true, Address: "192.0.2.7:6783", State: api.StateEstablished, Peer: h1, NickName: "h2", Path: "sleeve", Encrypted: true, MTU: 1418, RTT: 200 * time.Microsecond, Cipher: "aes-256-gcm"}}},
		PeersAnswer:     api.Peers{Peers: []api.Peer{{Name: h1, NickName: "h1"}}},
		TargetsAnswer:   api.Targets{Targets: []string{"host2", "host3"}},
		PsAnswer:        api.Attachments{Attachments: []api.Attachment{{Container: "netns:a", MAC: "02:00:00:00:00:09", Addrs: []netip.Prefix{netip.MustParsePrefix("10.55.0.1/24")}}}},
		AddressesAnswer: []netip.Prefix{netip.MustParsePrefix("10.32.0.9/12")},
		RemovedAnswer:   api.Removed{Addresses: 524288},
		IPAMAnswer:      api.IPAM{RangeNumIPs: 16, Shares: []api.Share{{Peer: h1, NickName: "h1", Addresses: 8, Self: true}}},
		DNSAnswer: api.DNS{Records: []api.DNSRecord{
			{Name: "web.weave.local.", Short: "web", Address: netip.MustParseAddr("10.32.0.1"), Container: "netns:a", Origin: h1, NickName: "h1"}}},
		LookupAnswer: api.NameAddresses{Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("fd00::1")}},
		ReportAnswer: api.Report{Version: "1.2.3", Router: api.Router{NickName: "h1"}, Targets: []string{"host2"}},
	}
	c.backend(b)
	c.want(0, "        Version: 1.2.3\n\n        Service: router\n       Protocol: weave 1\n           Name: 00:00:00:00:00:01(h1)\n     Encryption: disabled\n  PeerDiscovery: disabled\n"+
		"        Targets: 0\n    Connections: 0\n          Peers: 1\n TrustedSubnets: none\n            MTU: 1376\n         FastDP: off\n"+
		"\n        Service: dns\n         Domain: weave.local.\n      Listening: 10.32.0.9\n       Upstream: none\n            TTL: 1\n        Entries: 0\n", "", "status")
	c.want(0, "-> 192.0.2.7:6783        established sleeve encrypted   00:00:00:00:00:01(h2) mtu=1418 rtt=0.2ms cipher=aes-256-gcm\n", "", "status", "connections")
	c.want(0, "00:00:00:00:00:01(h1)\n", "", "status", "peers")
	c.want(0, "host2\nhost3\n", "", "status", "targets")
	c.want(0, "netns:a 02:00:00:00:00:09 10.55.0.1/24\n", "", "ps")
	c.want(0, "netns:a 02:00:00:00:00:09 10.55.0.1/24\n", "", "ps", "netns:a", "pid:7")
	c.want(0, "h1 1.2.3\n", "", "report", "-f", "{{.Router.NickName}} {{.Version}}")
	c.want(0, "[\"host2\"]\n", "", "report", "--format", "{{json .Targets}}")
	c.want(2, "", "can't evaluate field Nope", "report", "-f", "{{.Nope}}")
	c.want(0, "10.55.0.1 fd00:55::1\n", "", "attach", "10.55.0.1/24", "ip:fd00:55::1/64", "netns:a")
	c.want(0, "10.55.0.1\n", "", "detach", "10.55.0.1/24", "netns:/x")
	c.want(0, "10.32.0.9\n", "", "detach", "pid:7")
	c.want(0, "10.32.0.9\n", "", "attach", "--name", "blue", "--no-multicast-route", "netns:b")
	c.want(0, "10.55.0.1 10.32.0.9\n", "", "attach", "--wait", "10.55.0.1/24", "net:10.2.0.0/16", "netns:b")
	c.want(0, "10.32.0.9\n", "", "expose", "-h", "h1", "-h", "h1.weave.local", "--without-masquerade", "net:default")
	c.want(0, "10.32.0.9\n", "", "hide")
	c.want(0, "", "", "prime")
	c.want(0, "524288 IPs taken over from host3\n524288 IPs taken over from ::2\n", "", "rmpeer", "host3", "::2")
	c.want(0, "00:00:00:00:00:01(h1)                        8 IPs (50.0% of total) (0 active)\n", "", "status", "ipam")
	c.want(0, "web          10.32.0.1       netns:a      00:00:00:00:00:01(h1)\n", "", "status", "dns")
	c.want(0, "", "", "dns-add", "10.32.0.1", "netns:a", "-h", "web")
	c.want(0, "", "", "dns-add", "192.0.2.1", "fd00::1", "--name=web")
	c.want(0, "", "", "dns-remove", "netns:a")
	c.want(0, "10.32.0.1\nfd00::1\n", "", "dns-lookup", "web")
	c.want(0, "--dns=10.32.0.9 --dns-search=weave.local.", "", "dns-args")
	c.want(0, "", "", "connect", "host2", "[2001:db8::1]:7000")
	c.want(0, "", "", "connect", "--replace")
	c.want(0, "", "", "forget", "host2")
	c.want(0, "weave "+version+"\n", "", "version")
	for _, call := range []any{
		api.ConnectRequest{Peers: []string{"host2", "[2001:db8::1]:7000"}}, api.ConnectRequest{Replace: true}, api.ForgetRequest{Peers: []string{"host2"}},
		api.AttachRequest{Container: mustContainer(t, "netns:b"), Names: []string{"blue"}, NoMulticastRoute: true},
		api.AttachRequest{Container: mustContainer(t, "netns:b"), Wait: true, Addrs: []api.Addr{
			api.AddrOf(netip.MustParsePrefix("10.55.0.1/24")), api.NetOf(netip.MustParsePrefix("10.2.0.0/16"))}},
		api.ExposeRequest{Addrs: []api.Addr{api.DefaultNet}, Names: []string{"h1", "h1.weave.local"}, WithoutMasquerade: true},
		api.HideRequest{}, api.PrimeRequest{}, api.RmPeerRequest{Peer: "::2"},
		apitest.Added{Container: mustContainer(t, "netns:a"), Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.1")}, Name: "web"},
		apitest.Added{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")}, Name: "web"},
		apitest.Taken{Container: mustContainer(t, "netns:a")}, api.LookupRequest{Name: "web"},
	} {
		if !contains(b.Calls(), call) {
			t.Errorf("%+v was not asked", call)
		}
	}
	for _, args := range []string{"status", "status connections", "status peers", "status targets", "status ipam", "status dns", "dns-lookup web", "dns-args", "ps", "version", "report"} {
		out, errs, code := c.run(append(strings.Split(args, " "), "--json")...)
		var v struct{ Schema string }
		if err := json.Unmarshal([]byte(out), &v); err != nil || v.Schema != "v1" || code != 0 || errs != "" {
			t.Errorf("%s --json: %v, exit %d, %s%s", args, err, code, out, errs)
		}
	}
}

func mustContainer(t *testing.T, s string) api.Container {
	t.Helper()
	c, err := api.ParseContainer(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A reset that nobody took addresses from says so, and goes on.
func TestResetWarns(t *testing.T) {
	c := newCLI(t)
	want := "weave: warning: host2 did not confirm\n"
	var a bytes.Buffer
	app := newApp()
	app.stderr = &a
	app.warn(api.Given{Warning: "host2 did not confirm"})
	app.warn(api.Given{Addresses: 5})
	if a.String() != want {
		t.Errorf("got %q, want %q", a.String(), want)
	}
	c.want(0, "", "", "reset")
}

func TestCheck(t *testing.T) {
	c := newCLI(t)
	b := &apitest.Backend{}
	c.backend(b)
	if _, errs, code := c.run("status", "--check"); code != 0 || errs != "" {
		t.Errorf("healthy: exit %d, %s", code, errs)
	}
	c2 := newCLI(t)
	c2.backend(&apitest.Backend{StatusAnswer: api.Status{Degraded: []string{"connection to host2 is failed: refused", "x"}}})
	out, errs, code := c2.run("status", "--check")
	if code != 4 || !strings.Contains(out, "Service: router") || errs != "weave: degraded: connection to host2 is failed: refused (and more): see weave status connections\n" {
		t.Errorf("degraded: exit %d, %q %q", code, out, errs)
	}
	if _, _, code := c2.run("status"); code != 0 {
		t.Errorf("without --check: exit %d", code)
	}
}

func TestExitStatus(t *testing.T) {
	for code, exit := range map[api.Code]int{api.CodeFailure: 1, api.CodeUsage: 2, api.CodeConflict: 5, api.CodeNotFound: 6, api.CodeTimeout: 7, api.CodeAuth: 8, api.CodePermission: 9, api.CodeKernelFeature: 10} {
		c := newCLI(t)
		c.backend(&apitest.Backend{Err: api.Errorf(code, "what happened: what to do")})
		for _, args := range []string{"attach 10.55.0.1/24 netns:a", "status", "connect host2", "stop", "ps"} {
			c.want(exit, "", "weave: what happened: what to do\n", strings.Split(args, " ")...)
		}
	}
	c := newCLI(t)
	c.backend(&apitest.Backend{Block: true})
	c.want(7, "", "did not answer in time", "status", "--timeout", "50ms")
}

// TestHelp walks the whole tree.
func TestHelp(t *testing.T) {
	a := newApp()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !strings.Contains(cmd.Example, "weave ") || cmd.Short == "" {
			t.Errorf("%s has no example or description", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(a.rootCommand())
}

func TestCompletion(t *testing.T) {
	c := newCLI(t)
	c.backend(&apitest.Backend{TargetsAnswer: api.Targets{Targets: []string{"host2", "host3"}}})
	// The hidden verb that the shells' scripts call.
	out, _, code := c.run("__complete", "forget", "host2", "")
	if want := "host3\n:4\n"; code != 0 || out != want {
		t.Errorf("forget: exit %d, %q, want %q", code, out, want)
	}
	out, _, _ = c.run("__complete", "launch", "--cipher", "")
	if want := "auto\naes\nchacha\n:4\n"; out != want {
		t.Errorf("--cipher: %q, want %q", out, want)
	}
	if out, _, code := c.run("completion", "bash"); code != 0 || !strings.Contains(out, "__weave") {
		t.Errorf("completion bash: exit %d, %.60q", code, out)
	}
	none := newCLI(t)
	if out, _, code := none.run("__complete", "forget", ""); code != 0 || out != ":4\n" {
		t.Errorf("without a daemon: exit %d, %q", code, out)
	}
}

func TestConfig(t *testing.T) {
	hostname, _ := os.Hostname()
	parse := func(env map[string]string, args ...string) LaunchConfig {
		t.Helper()
		var l launchFlags
		cmd := &cobra.Command{Use: "launch"}
		l.register(cmd)
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		l.peers = cmd.Flags().Args()
		lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
		if err := l.fromEnv(cmd, lookup); err != nil {
			t.Fatal(err)
		}
		cfg, err := l.config(globalFlags{runDir: "/r", stateDir: "/s"})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	base := LaunchConfig{RunDir: "/r", StateDir: "/s", NickName: hostname, Port: 6783, Peers: []string{}, Discovery: true, ConnLimit: 200, Cipher: "auto", FastDP: "auto", EncryptedPath: "sleeve", MinPath: "sleeve",
		Bridge: "weave", StatusAddr: "127.0.0.1:6782", LogFormat: "auto", Version: version}
	ttl, ttl9 := uint32(1), uint32(9)
	base.Addressing.Range, base.Naming.Domain, base.Naming.TTL = daemon.DefaultRange, "weave.local.", &ttl
	one, _ := peer.ParseName("::1")
	for _, tt := range []struct {
		name string
		env  map[string]string
		args []string
		want func(*LaunchConfig)
	}{
		{"defaults", nil, nil, func(*LaunchConfig) {}},
		{"environment", map[string]string{"WEAVE_PORT": "7000", "WEAVE_MTU": "1400", "WEAVE_NO_FASTDP": "1", "WEAVE_STATUS_ADDR": ""}, nil,
			func(c *LaunchConfig) { c.Port, c.MTU, c.FastDP, c.StatusAddr = 7000, 1400, "off", "" }},
		{"flags win", map[string]string{"WEAVE_PORT": "7000", "WEAVE_MTU": "1400", "WEAVE_NO_FASTDP": "1", "WEAVE_STATUS_ADDR": "x"},
			[]string{"--port", "8000", "--mtu=0", "--fastdp=ovs", "--status-addr=[::1]:80"},
			func(c *LaunchConfig) { c.Port, c.FastDP, c.StatusAddr = 8000, "ovs", "[::1]:80" }},
		{"all", nil, []string{"--name=::1", "--nickname", "n", "--host", "::1", "--trusted-subnets", "10.1.2.3/8,fd00::/8", "--conn-limit=0", "--no-discovery", "--cipher=aes", "--no-fastdp",
			"--fastdp=off", "--bridge=br0", "--log-level=debug", "--log-format=json", "host2", "192.0.2.7:1"}, func(c *LaunchConfig) {
			c.Name, c.NickName, c.Host, c.ConnLimit, c.Discovery, c.Cipher, c.FastDP, c.Bridge = one, "n", netip.MustParseAddr("::1"), 0, false, "aes", "off", "br0"
			c.TrustedSubnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
			c.LogLevel, c.LogFormat, c.Peers = -4, "json", []string{"host2", "192.0.2.7:1"}
		}},
		{"addresses and names", nil, []string{"--ipalloc-range=10.2.0.0/16", "--ipalloc-default-subnet=10.2.3.0/24", "--ipalloc-init=seed=::1,::2",
			"--dns-domain=example.com", "--dns-listen-address=[::1]:5353", "--dns-ttl=9", "--resolv-conf=/etc/upstream"}, func(c *LaunchConfig) {
			c.Addressing = daemon.Addressing{Range: netip.MustParsePrefix("10.2.0.0/16"), RangeGiven: true, DefaultSubnet: netip.MustParsePrefix("10.2.3.0/24"), Init: "seed=::1,::2"}
			c.Naming = daemon.Naming{Domain: "example.com", Listen: netip.MustParseAddrPort("[::1]:5353"), TTL: &ttl9, ResolvConf: "/etc/upstream"}
		}},
		{"neither", nil, []string{"--ipalloc-range=", "--no-dns", "--dns-listen-address=10.0.0.1"}, func(c *LaunchConfig) {
			c.Addressing = daemon.Addressing{}
			c.Naming.Off, c.Naming.Listen = true, netip.MustParseAddrPort("10.0.0.1:53")
		}},
		{"resume", nil, []string{"--resume"}, func(c *LaunchConfig) { c.Resume = true }},
	} {
		want := base
		tt.want(&want)
		got := parse(tt.env, tt.args...)
		a, _ := encodeHandover(want)
		b, _ := encodeHandover(got)
		if diff := cmp.Diff(string(a), string(b)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		again, err := decodeHandover(b)
		c, _ := encodeHandover(again)
		if diff := cmp.Diff(string(b), string(c)); diff != "" || err != nil {
			t.Errorf("%s: the pipe changes it: %v\n%s", tt.name, err, diff)
		}
	}
}

// Containers are told of servers that they can ask: on port 53, not on loopback.
func TestDNSArgs(t *testing.T) {
	listening := func(at ...string) *api.DNS {
		d := &api.DNS{Domain: "weave.local."}
		for _, a := range at {
			d.Listening = append(d.Listening, netip.MustParseAddrPort(a))
		}
		return d
	}
	for _, tt := range []struct {
		name string
		dns  *api.DNS
		want string
		code api.Code
	}{
		{"no DNS", nil, "", ""},
		{"exposed", listening("10.32.0.1:53"), "--dns=10.32.0.1 --dns-search=weave.local.", ""},
		{"exposed twice", listening("10.32.0.1:53", "[fd55::1]:53"), "--dns=10.32.0.1 --dns-search=weave.local.", ""},
		{"not exposed", listening(), "", api.CodeConflict},
		{"loopback", listening("127.0.0.1:53"), "", api.CodeConflict},
		{"another port", listening("172.17.0.1:5353"), "", api.CodeConflict},
		{"one of two will do", listening("127.0.0.1:53", "172.17.0.1:53"), "--dns=172.17.0.1 --dns-search=weave.local.", ""},
	} {
		var out strings.Builder
		args, err := dnsArgsOf(tt.dns)
		if err == nil {
			err = writeDNSArgs(&out, args)
		}
		if out.String() != tt.want || err != nil && api.CodeOf(err) != tt.code || err == nil && tt.code != "" {
			t.Errorf("%s: %q, %v; want %q, %q", tt.name, out.String(), err, tt.want, tt.code)
		}
	}
}
