package mesh_test

import (
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// directLimit is for two hosts to meet that wait for one another: two rounds of dialing.
const directLimit = 30 * time.Second

// Two hosts behind NATs of their own and a public one: they connect from their side,
// and reach each other at once, through the public one. Where the NATs keep ports they
// get a direct link by dialing at the same time.
func TestNAT(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		v6          bool
		randomPorts bool
	}{
		{"IPv4, ports are kept", false, false},
		{"IPv6, ports are kept", true, false},
		{"IPv4, ports are chosen at random", false, true},
		{"IPv6, ports are chosen at random", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lab, sites := harness.NewSites(t, 1)
			c := sites[0]
			var inside []*harness.Site
			for i, label := range []string{"m", "n"} {
				router := lab.Host("router-" + label)
				inside = append(inside, harness.SiteOn(t, lab.Behind(router, label, tt.randomPorts), 2+i))
			}
			m, n := inside[0], inside[1]
			at := c.IP4.String()
			if tt.v6 {
				at = c.IP6.String()
			}
			pw := harness.PasswordFile(t, harness.Password)
			all := []*harness.Site{c, m, n}
			harness.LaunchAll(t, all, func(s *harness.Site) []string {
				if s == c {
					return []string{"--password-file", pw}
				}
				return []string{"--password-file", pw, at}
			})
			t.Logf("all meet after %v", harness.Meet(t, startLimit, all...))
			for _, s := range inside {
				conn, ok := s.To(c)
				if !ok || !conn.Outbound || !conn.Encrypted {
					t.Errorf("%s to the public host: %+v", s.Label, conn)
				}
			}
			harness.Stream(t, c.Box, m.Box, m.In4, 4<<20, 10*time.Second)
			harness.Stream(t, m.Box, n.Box, n.In6, 4<<20, 10*time.Second)
			if tt.randomPorts {
				if _, direct := m.To(n); direct {
					t.Error("a direct link between the two: the test's NAT lets in what is uninvited")
				}
				return
			}
			took := harness.Within(t, directLimit, "a direct link between the two", func() bool { _, ok := m.To(n); return ok })
			t.Logf("a direct link after %v more", took)
			c.Daemon.Kill9()
			harness.Stream(t, m.Box, n.Box, n.In4, 4<<20, 10*time.Second)
			harness.MustPing(t, n.Box, m.In6)
		})
	}
}
