package harness

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weave/internal/api"
)

// startLimit is within what time many daemons that start at once have to answer, each
// of which needs the processor for its password.
const startLimit = 30 * time.Second

// LaunchAll starts a daemon on each site, all at the same time, with arguments that may
// differ, and attaches the containers.
func LaunchAll(t testing.TB, sites []*Site, args func(*Site) []string) {
	t.Helper()
	for _, s := range sites {
		s.Daemon = s.LaunchWeave(t, s.DaemonBin, append([]string{"--nickname", s.Label}, args(s)...)...)
	}
	for _, s := range sites {
		Within(t, startLimit, "an answer of "+s.Label, s.Ready)
	}
	var all sync.WaitGroup
	for _, s := range sites {
		all.Go(s.Attach)
	}
	all.Wait()
}

// Ready reports whether the site's daemon answers.
func (s *Site) Ready() bool {
	return Ask(s.Host, func(c *api.Client, ctx context.Context) (bool, error) {
		_, err := c.Status(ctx)
		return err == nil, nil
	})
}

// Underlay is the site's address on the underlay: the IPv4 one unless it has none.
func (s *Site) Underlay() netip.Addr {
	if s.IP4.IsValid() {
		return s.IP4
	}
	return s.IP6
}

// Underlays are the addresses of sites, as arguments of launch.
func Underlays(sites ...*Site) (out []string) {
	for _, s := range sites {
		out = append(out, s.Underlay().String())
	}
	return out
}

// Meet waits until every container reaches every other at both of its addresses, and
// returns how long the last one took. Each round costs one small datagram per pair and
// address.
func Meet(t testing.TB, limit time.Duration, sites ...*Site) time.Duration {
	t.Helper()
	return newMeeting(t, sites).all(limit)
}
