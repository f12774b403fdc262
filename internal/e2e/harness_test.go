package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/testnet"
)

// password is that of all networks here. It must not be seen anywhere.
const password = "xeroxed-quokka-71-pagoda-92"

// Bounds of waiting that no promise of the documentation is about.
const (
	joinLimit = 10 * time.Second
	pollEvery = 20 * time.Millisecond
)

// site is a host with a daemon, and one container with inner addresses.
type site struct {
	*testnet.Host
	box      *testnet.Namespace
	in4, in6 netip.Addr
	d        *testnet.Daemon
	bin      string // of commands

	daemonBin string // usually bin too
	t         *testing.T
}

// newSites makes hosts a, b, … on one underlay, with a container each.
func newSites(t *testing.T, n int, opts ...testnet.HostOption) (*testnet.Lab, []*site) {
	t.Helper()
	lab := testnet.New(t)
	sites := make([]*site, n)
	for i := range sites {
		h := lab.Host(string(rune('a'+i)), opts...)
		sites[i] = siteOn(t, h, i+1)
	}
	return lab, sites
}

// siteOn gives a host its container, whose inner addresses end in n.
func siteOn(t *testing.T, h *testnet.Host, n int) *site {
	bin := testnet.Binary(t)
	return &site{
		Host: h, box: h.Container("box"), bin: bin, daemonBin: bin, t: t,
		in4: netip.AddrFrom4([4]byte{10, 55, 0, byte(n)}),
		in6: netip.MustParseAddr(fmt.Sprintf("fd55::%x", n)),
	}
}

// launch starts the daemon and attaches the container.
func (s *site) launch(args ...string) {
	s.t.Helper()
	s.start(args...)
	s.attach()
}

// start starts the daemon.
func (s *site) start(args ...string) {
	s.t.Helper()
	s.d = s.StartWeave(s.t, s.daemonBin, append([]string{"--nickname", s.Label}, args...)...)
}

// attach puts the container on the network.
func (s *site) attach() {
	s.t.Helper()
	got := mustSucceed(s.t, s.weave("attach", s.in4.String()+"/24", s.in6.String()+"/64", s.box.Ref()))
	if want := fmt.Sprintf("%v %v\n", s.in4, s.in6); got != want {
		s.t.Errorf("attach on %s printed %q, want %q", s.Label, got, want)
	}
}

// weave runs a weave command on the host; the daemon need not run.
func (s *site) weave(args ...string) testnet.Result { return s.Weave(s.bin, args...) }

// api calls fn with a client of the host's daemon, for polling without the cost
// of a process each time.
func (s *site) api(fn func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := api.NewClient(s.RunDir())
	defer c.Close()
	return fn(ctx, c)
}

// conns lists the host's connections; none if the daemon does not answer.
func (s *site) conns() []api.Connection {
	var got api.Connections
	s.api(func(ctx context.Context, c *api.Client) (err error) {
		got, err = c.Connections(ctx)
		return err
	})
	return got.Connections
}

// established counts the host's connections that carry data.
func (s *site) established() (n int) {
	for _, c := range s.conns() {
		if c.State == api.StateEstablished {
			n++
		}
	}
	return n
}

// to returns the connection to another site's peer, if there is one.
func (s *site) to(o *site) (api.Connection, bool) {
	conns := s.conns()
	i := slices.IndexFunc(conns, func(c api.Connection) bool { return c.NickName == o.Label && c.State == api.StateEstablished })
	if i < 0 {
		return api.Connection{}, false
	}
	return conns[i], true
}

// joined waits until every site has a working connection to every other.
func joined(t *testing.T, sites ...*site) time.Duration {
	t.Helper()
	return within(t, joinLimit, "all connections", func() bool {
		for _, s := range sites {
			for _, o := range sites {
				if _, ok := s.to(o); !ok && o != s {
					return false
				}
			}
		}
		return true
	})
}

// within waits until cond holds and returns how long it took; the test fails at
// once when that is longer than limit.
func within(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not after %v", what, limit)
		}
		time.Sleep(pollEvery)
	}
	return time.Since(start)
}

// passwordFile makes a file for --password-file.
func passwordFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustSucceed fails the test at once unless the command did what it was told.
func mustSucceed(t *testing.T, r testnet.Result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// wantLine looks for a line with all the words.
func wantLine(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return
		}
	}
	t.Errorf("%s: no line with %q in:\n%s", what, words, text)
}
