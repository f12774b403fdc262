package addresses_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const (
	joinLimit = harness.JoinLimit // for hosts to know one another
	pollEvery = harness.PollEvery

	// replyLimit is by when every request for an address has its answer.
	replyLimit = 5*time.Second + processTime
	// processTime is for a command to start and end on a busy machine.
	processTime = time.Second
)

// Exit statuses.
const (
	exitConflict = 5
	exitNotFound = 6
	exitTimeout  = 7
)

// site is a host with a daemon.
type site struct {
	*testnet.Host
	d   *testnet.Daemon
	t   *testing.T
	bin string
	pw  string // file
}

// newSites makes hosts a, b, ... on one underlay.
func newSites(t *testing.T, n int) (*testnet.Lab, []*site) {
	t.Helper()
	lab := testnet.New(t)
	pw := harness.PasswordFile(t, harness.Password)
	bin := testnet.Binary(t)
	sites := make([]*site, n)
	for i := range sites {
		sites[i] = &site{Host: lab.Host(string(rune('a' + i))), t: t, bin: bin, pw: pw}
	}
	return lab, sites
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

// ask asks a daemon without the cost of a process; the zero value if it does not
// answer.
func ask[T any](s *site, question func(*api.Client, context.Context) (T, error)) T {
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

// attach attaches a container and returns its addresses.
func (s *site) attach(n *testnet.Namespace, args ...string) []netip.Addr {
	s.t.Helper()
	return addrs(s.t, s.weave(append(append([]string{"attach"}, args...), n.Ref())...))
}

// container makes a container and attaches it with one address.
func (s *site) container(label string, args ...string) (*testnet.Namespace, netip.Addr) {
	s.t.Helper()
	n := s.Container(label)
	return n, s.attach(n, args...)[0]
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

// status is `weave status --json`.
func (s *site) status() (st api.Status) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.weave("status", "--json")), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// reaches pings once.
func reaches(from *testnet.Namespace, to netip.Addr) bool {
	return from.Try("ping", "-c1", "-W1", to.String()).Code == 0
}

// mustReach gives a path that has just come up three tries.
func mustReach(t *testing.T, from *testnet.Namespace, to netip.Addr) {
	t.Helper()
	for range 3 {
		if reaches(from, to) {
			return
		}
	}
	t.Errorf("%s does not reach %v", from.Name, to)
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

func trim(s string) string { return strings.TrimSpace(s) }
