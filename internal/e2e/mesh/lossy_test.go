package mesh_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// lossyLimit is within what time a host joins over a way that hardly works; half of them
// need a tenth of it.
const lossyLimit = 4 * time.Minute

// Hosts join one, each over a relay of its own that loses 30 % of all packets and damages
// 30 %, both ways: 5, and 20 when there is time. What is damaged of TCP's the kernel would
// find out by the checksum, so that it is lost here, too: half of all, but not more than
// three in a row.
func TestLossyJoins(t *testing.T) {
	t.Parallel()
	n := 5
	if os.Getenv(soakEnv) != "" {
		n = 20
	}
	lab, hubs := harness.NewSites(t, 1)
	hub := hubs[0]
	pw := harness.PasswordFile(t, harness.Password)
	flags := []string{"--no-discovery", "--no-fastdp", "--password-file", pw}
	hub.Launch(flags...)
	var nodes []*harness.Node
	var targets []string
	for i := range n {
		relay := harness.NodeOn(t, lab.Host(fmt.Sprintf("relay%d", i)))
		node := harness.NodeOn(t, lab.Host(fmt.Sprintf("joiner%d", i)))
		lay(t, relay.Host, netip.MustParseAddr(hub.Via(i)), faults{loss: 0.3, corrupt: 0.3})
		relay.Exec("nft", fmt.Sprintf("table inet bad { chain in { type filter hook prerouting priority 0; %[1]s saddr %[2]s meta l4proto tcp numgen inc mod 4 < 3 numgen random mod 100 < 68 drop; };"+
			" chain out { type filter hook output priority 0; %[1]s daddr %[2]s meta l4proto tcp numgen inc mod 4 < 3 numgen random mod 100 < 68 drop; }; }",
			[]string{"ip", "ip6"}[i%2], node.Via(i)))
		nodes, targets = append(nodes, node), append(targets, relay.Via(i))
	}
	took := make([]time.Duration, n)
	var all sync.WaitGroup
	for i, node := range nodes {
		node.Begin(append(flags, targets[i])...)
		begun := time.Now()
		all.Go(func() {
			for time.Since(begun) < lossyLimit {
				if _, ok := node.To(hub); ok {
					took[i] = time.Since(begun).Round(time.Millisecond)
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	all.Wait()
	for i, d := range took {
		if d == 0 {
			t.Errorf("%s has not joined after %v", nodes[i].Label, lossyLimit)
		}
	}
	slices.Sort(took)
	record(t, "%d joins over relays that lose 30 %% and damage 30 %%, both ways: half within %v, the last within %v", n, took[n/2], took[n-1])
}
