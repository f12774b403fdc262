package harness

import (
	"fmt"
	"net/netip"
	"testing"

	"weave/internal/testnet"
)

// Site is a host with a daemon, and one container with inner addresses.
type Site struct {
	Node
	Box      *testnet.Namespace
	In4, In6 netip.Addr // the container's, of 10.55.0.0/24 and fd55::/64
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
	return &Site{
		Node: *NodeOn(t, h), Box: h.Container("box"),
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

// Attach puts the container on the network, with its two addresses.
func (s *Site) Attach() {
	s.t.Helper()
	got := s.MustWeave("attach", s.In4.String()+"/24", s.In6.String()+"/64", s.Box.Ref())
	if want := fmt.Sprintf("%v %v\n", s.In4, s.In6); got != want {
		s.t.Errorf("attach on %s printed %q, want %q", s.Label, got, want)
	}
}
