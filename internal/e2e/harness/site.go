package harness

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/testnet"
)

// Site is a host with a daemon, and one container with inner addresses.
type Site struct {
	*testnet.Host
	Box      *testnet.Namespace
	In4, In6 netip.Addr      // the container's, of 10.55.0.0/24 and fd55::/64
	Daemon   *testnet.Daemon // the last one started; nil at first

	Bin       string // the program of commands
	DaemonBin string // the program of the daemon, Bin unless a test changes it

	t testing.TB
}

// NewSites makes hosts a, b, … on one underlay, with a container each.
func NewSites(t testing.TB, n int, opts ...testnet.HostOption) (*testnet.Lab, []*Site) {
	t.Helper()
	lab := testnet.New(t)
	sites := make([]*Site, n)
	for i := range sites {
		sites[i] = SiteOn(t, lab.Host(string(rune('a'+i)), opts...), i+1)
	}
	return lab, sites
}

// SiteOn gives a host its container, whose inner addresses end in n.
func SiteOn(t testing.TB, h *testnet.Host, n int) *Site {
	t.Helper()
	bin := testnet.Binary(t)
	return &Site{
		Host: h, Box: h.Container("box"), Bin: bin, DaemonBin: bin, t: t,
		In4: netip.AddrFrom4([4]byte{10, 55, 0, byte(n)}),
		In6: netip.MustParseAddr(fmt.Sprintf("fd55::%x", n)),
	}
}

// Launch starts the daemon and attaches the container.
func (s *Site) Launch(args ...string) {
	s.t.Helper()
	s.Start(args...)
	s.Attach()
}

// Start starts the daemon, whose nickname is the host's label, and returns when it
// answers.
func (s *Site) Start(args ...string) {
	s.t.Helper()
	s.Daemon = s.StartWeave(s.t, s.DaemonBin, append([]string{"--nickname", s.Label}, args...)...)
}

// Attach puts the container on the network, with its two addresses.
func (s *Site) Attach() {
	s.t.Helper()
	got := MustSucceed(s.t, s.Weave("attach", s.In4.String()+"/24", s.In6.String()+"/64", s.Box.Ref()))
	if want := fmt.Sprintf("%v %v\n", s.In4, s.In6); got != want {
		s.t.Errorf("attach on %s printed %q, want %q", s.Label, got, want)
	}
}

// Weave runs a weave command on the host; the daemon need not run.
func (s *Site) Weave(args ...string) testnet.Result { return s.Host.Weave(s.Bin, args...) }

// Ask asks a host's daemon without the cost of a process; the answer is the zero value
// if it does not come.
func Ask[T any](h *testnet.Host, question func(*api.Client, context.Context) (T, error)) T {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := api.NewClient(h.RunDir())
	defer c.Close()
	v, _ := question(c, ctx)
	return v
}

// Conns lists the host's connections; none if the daemon does not answer.
func (s *Site) Conns() []api.Connection {
	return Ask(s.Host, (*api.Client).Connections).Connections
}

// Established counts the host's connections that carry data.
func (s *Site) Established() int { return Established(s.Host) }

// Established counts a host's connections that carry data; 0 if its daemon does not
// answer.
func Established(h *testnet.Host) (n int) {
	for _, c := range Ask(h, (*api.Client).Connections).Connections {
		if c.State == api.StateEstablished {
			n++
		}
	}
	return n
}

// To returns the connection to another site's peer, if there is an established one.
func (s *Site) To(o *Site) (api.Connection, bool) {
	conns := s.Conns()
	i := slices.IndexFunc(conns, func(c api.Connection) bool { return c.NickName == o.Label && c.State == api.StateEstablished })
	if i < 0 {
		return api.Connection{}, false
	}
	return conns[i], true
}

// LinkMTU is the MTU that the site's connection to another has by its own word; 0 if
// there is none.
func (s *Site) LinkMTU(o *Site) int {
	c, _ := s.To(o)
	return c.MTU
}

// Joined waits until every site has a working connection to every other.
func Joined(t testing.TB, sites ...*Site) time.Duration {
	t.Helper()
	return Within(t, JoinLimit, "all connections", func() bool {
		for _, s := range sites {
			conns := s.Conns()
			for _, o := range sites {
				if o != s && !slices.ContainsFunc(conns, func(c api.Connection) bool {
					return c.NickName == o.Label && c.State == api.StateEstablished
				}) {
					return false
				}
			}
		}
		return true
	})
}
