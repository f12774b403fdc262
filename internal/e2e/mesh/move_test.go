package mesh_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// moveLimit is within what time a container that moved to another host is reached.
const moveLimit = time.Second

// A container with its MAC address moves from one host to another and back, while a
// third host talks to it, over IPv6 to the one and IPv4 to the other.
func TestMovingContainer(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--password"}} {
		t.Run(map[bool]string{true: "kernel path", false: "sleeve"}[flags == nil], func(t *testing.T) {
			t.Parallel()
			_, sites := harness.NewSites(t, 3)
			a, b, c := sites[0], sites[1], sites[2]
			if flags != nil {
				flags = []string{"--password-file", harness.PasswordFile(t, harness.Password)}
			}
			harness.LaunchAll(t, sites, func(s *harness.Site) []string { return append(flags, harness.Earlier(s, sites)...) })
			t.Logf("all meet after %v", harness.Meet(t, startLimit, sites...))
			harness.Joined(t, sites...)
			time.Sleep(settled) // what a container says first, it says to all
			const mac = "0a:00:00:00:00:77"
			at4, at6 := netip.MustParseAddr("10.55.0.77"), netip.MustParseAddr("fd55::77")
			puts := 100
			put := func(s *harness.Site) *testnet.Namespace {
				n := s.Container("wanderer")
				// With an address of its own each time, so that what attaching tells
				// the others is about that one only.
				s.Daemon.MustWeave("attach", fmt.Sprintf("10.55.0.%d/24", puts), n.Ref())
				puts++
				n.Exec("ip", "link", "set", "ethwe", "address", mac)
				n.Exec("ip", "addr", "add", at4.String()+"/24", "dev", "ethwe")
				n.Exec("ip", "addr", "add", at6.String()+"/64", "dev", "ethwe", "nodad")
				harness.EchoAt(t, n, netip.AddrPortFrom(at4, wandererPort))
				harness.EchoAt(t, n, netip.AddrPortFrom(at6, wandererPort))
				n.Try("ping", "-c", "1", "-W", "0.01", "-I", at4.String(), "10.55.0.78") // it says something
				return n
			}
			on, n := a, put(a)
			p := harness.StartProbe(t, c.Box, netip.AddrPortFrom(at4, wandererPort), netip.AddrPortFrom(at6, wandererPort))
			harness.Within(t, 5*time.Second, "an answer", func() bool { return p.AnsweredSince(time.Time{}) })
			neigh := c.Box.Exec("ip", "neigh", "show", at4.String())
			if !strings.Contains(neigh, mac) {
				t.Fatalf("the container's address is not its own: %s", neigh)
			}
			for _, to := range []*harness.Site{b, a, b, c, a} {
				on.Daemon.MustWeave("detach", n.Ref())
				n.Delete()
				moved := time.Now()
				on, n = to, put(to)
				up := time.Now()
				harness.Within(t, 5*moveLimit, "an answer from "+to.Label, func() bool { return p.AnsweredSince(up) })
				took := time.Since(up)
				t.Logf("to %s: answers %v after it is there, %v after it left", to.Label, took.Round(time.Millisecond), time.Since(moved).Round(time.Millisecond))
				if took > moveLimit {
					t.Errorf("to %s: reached after %v, want %v at most", to.Label, took, moveLimit)
				}
				time.Sleep(300 * time.Millisecond)
			}
			p.Stop()
		})
	}
}

const wandererPort = 7103
