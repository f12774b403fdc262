package names_test

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Exit statuses.
const (
	exitUsage    = 2
	exitConflict = 5
	exitNotFound = 6
)

// Bounds of waiting that no promise of the documentation is about.
const (
	joinLimit = harness.JoinLimit
	pollEvery = harness.PollEvery
)

// site is a host with a daemon.
type site struct {
	*testnet.Host
	d   *testnet.Daemon
	t   *testing.T
	bin string
	pw  string // file
}

// newSites makes hosts a, b, ... on an underlay of their own.
func newSites(t *testing.T, n int) []*site {
	t.Helper()
	return sitesOn(t, testnet.New(t), "", n)
}

// sitesOn adds hosts to a lab; the prefix tells those of one test from another's.
func sitesOn(t *testing.T, lab *testnet.Lab, prefix string, n int) []*site {
	t.Helper()
	pw := harness.PasswordFile(t, harness.Password)
	sites := make([]*site, n)
	for i := range sites {
		sites[i] = &site{Host: lab.Host(prefix + string(rune('a'+i))), t: t, bin: testnet.Binary(t), pw: pw}
	}
	return sites
}

// launch starts the daemon with these arguments, and peers.
func (s *site) launch(args ...string) {
	s.t.Helper()
	s.d = s.StartWeave(s.t, s.bin, append([]string{"--nickname", s.Label, "--password-file", s.pw}, args...)...)
}

// launchAll starts all daemons in the uniform way: each is told of all, itself too.
func launchAll(t *testing.T, sites []*site, args ...string) {
	t.Helper()
	for _, s := range sites {
		s.launch(append(args, ips(sites)...)...)
	}
	joined(t, sites...)
}

func ips(sites []*site) (out []string) {
	for _, s := range sites {
		out = append(out, s.IP4.String())
	}
	return out
}

// joined waits until each site has a route to every other.
func joined(t *testing.T, sites ...*site) {
	t.Helper()
	within(t, joinLimit, "joining", func() bool {
		for _, s := range sites {
			if harness.Established(s.Host) < len(sites)-1 {
				return false
			}
		}
		return true
	})
}

// query asks a daemon without the cost of a process; the zero value if it does not
// answer.
func query[T any](s *site, question func(*api.Client, context.Context) (T, error)) T {
	return harness.Ask(s.Host, question)
}

// weave runs a command and wants it to succeed.
func (s *site) weave(args ...string) string {
	s.t.Helper()
	r := s.Weave(s.bin, args...)
	if r.Code != 0 {
		s.t.Fatalf("weave %s on %s: exit %d\n%s%s", strings.Join(args, " "), s.Label, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// refuses runs a command that has to fail.
func (s *site) refuses(code int, text string, args ...string) {
	s.t.Helper()
	r := s.Weave(s.bin, args...)
	if r.Code != code || !strings.Contains(r.Stderr, text) || r.Stdout != "" {
		s.t.Errorf("weave %s on %s: exit %d, %q %q; want exit %d with %q", strings.Join(args, " "), s.Label, r.Code, r.Stdout, r.Stderr, code, text)
	}
}

// container makes a container and attaches it with one address, unless args have some.
func (s *site) container(label string, args ...string) (*testnet.Namespace, netip.Addr) {
	s.t.Helper()
	n := s.Container(label)
	return n, addrs(s.t, s.weave(append(append([]string{"attach"}, args...), n.Ref())...))[0]
}

// expose puts the host on the network; it serves names at the address then.
func (s *site) expose(args ...string) netip.Addr {
	s.t.Helper()
	return addrs(s.t, s.weave(append([]string{"expose"}, args...)...))[0]
}

func addrs(t *testing.T, text string) (out []netip.Addr) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		t.Fatal("no address printed")
	}
	return out
}

// within waits until cond holds and returns how long it took.
func within(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	return harness.Within(t, limit, what, cond)
}

// wantLine looks for a line with all the words.
func wantLine(t *testing.T, text string, words ...string) {
	t.Helper()
	harness.WantLine(t, "output", text, words...)
}

// dig asks a name server from inside a namespace and returns what it printed, sorted.
func dig(from *testnet.Namespace, server netip.Addr, args ...string) string {
	r := from.Try("dig", append([]string{"@" + server.String(), "+time=1", "+tries=1", "+short"}, args...)...)
	words := strings.Fields(r.Stdout)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// ask asks a name server once, on port 53 unless the network is "udp:PORT" or
// "tcp:PORT", from inside a namespace. It returns nil if no answer comes in time.
func ask(t *testing.T, from *testnet.Namespace, network string, server netip.Addr, name string, qtype uint16, limit time.Duration) (reply *dns.Msg, took time.Duration) {
	t.Helper()
	network, port, _ := strings.Cut(network, ":")
	to := net.JoinHostPort(server.String(), cmp.Or(port, "53"))
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, false)
	start := time.Now()
	var c net.Conn
	if err := from.Do(func() (err error) { c, err = net.DialTimeout(network, to, limit); return err }); err != nil {
		return nil, time.Since(start)
	}
	defer c.Close()
	c.SetDeadline(start.Add(limit))
	conn := &dns.Conn{Conn: c, UDPSize: 1232}
	if err := conn.WriteMsg(q); err != nil {
		return nil, time.Since(start)
	}
	reply, err := conn.ReadMsg()
	if err != nil {
		return nil, time.Since(start)
	}
	return reply, time.Since(start)
}

// answers are the data of a reply's answers, sorted; the code if there are none.
func answers(m *dns.Msg) string {
	if m == nil {
		return "silence"
	}
	if len(m.Answer) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	var out []string
	for _, r := range m.Answer {
		words := strings.Fields(r.String())
		out = append(out, words[len(words)-1])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// lookup is what a host's own index has for a name.
func (s *site) lookup(name string) string {
	var out []string
	got := query(s, func(c *api.Client, ctx context.Context) (api.NameAddresses, error) {
		return c.Lookup(ctx, api.LookupRequest{Name: name})
	})
	for _, a := range got.Addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

// knows waits until each host has these addresses of a name, and returns how long the
// last one took.
func knows(t *testing.T, limit time.Duration, name, want string, sites ...*site) (last time.Duration) {
	t.Helper()
	for _, s := range sites {
		last += within(t, limit, s.Label+": "+name+" is "+want, func() bool { return s.lookup(name) == want })
	}
	return last
}

// metrics are the samples of a daemon, by name with all labels.
func (s *site) metrics() map[string]string {
	s.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			err = s.Do(func() error { c, err = net.DialTimeout(network, addr, time.Second); return err })
			return c, err
		},
	}}
	resp, err := client.Get("http://127.0.0.1:6782/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			out[name] = value
		}
	}
	return out
}
