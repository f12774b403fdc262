package addresses_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// launchAtOnce starts daemons side by side, with names ::1, ::2, ... in the order of
// the labels a, b, ..., and waits until all answer.
func launchAtOnce(t *testing.T, sites []*harness.Node, args ...string) {
	t.Helper()
	for _, s := range sites {
		s.Begin(append([]string{"--name", seedName(s)}, args...)...)
	}
	for _, s := range sites {
		harness.Within(t, harness.JoinLimit, "start of "+s.Label, s.Ready)
	}
}

func seedName(s *harness.Node) string { return fmt.Sprintf("::%d", s.Label[0]-'a'+1) }

// attachAtOnce makes a container on each host and attaches all side by side.
func attachAtOnce(t *testing.T, sites []*harness.Node) (boxes []*testnet.Namespace, got []netip.Addr) {
	t.Helper()
	results := make([]testnet.Result, len(sites))
	took := make([]time.Duration, len(sites))
	var wg sync.WaitGroup
	for i, s := range sites {
		boxes = append(boxes, s.Container("box"))
		wg.Go(func() {
			start := time.Now()
			results[i] = s.Weave("attach", boxes[i].Ref())
			took[i] = time.Since(start).Round(time.Millisecond)
		})
	}
	wg.Wait()
	seen := map[netip.Addr]string{}
	for i, s := range sites {
		r := results[i]
		if r.Code != 0 {
			t.Fatalf("attach on %s after %v: exit %d, %s", s.Label, took[i], r.Code, r.Stderr)
		}
		a := harness.ParseAddrs(t, r.Stdout)[0]
		if seen[a] != "" {
			t.Errorf("%v on %s and on %s", a, seen[a], s.Label)
		}
		seen[a] = s.Label
		got = append(got, a)
		t.Logf("%s gets %v in %v", s.Label, a, took[i])
	}
	return boxes, got
}

// The recipe for hosts that are all set up alike: one list of names as seeds, one list
// of peers with the own address in it, and nothing that depends on which host is
// first or who sees whom. Hosts are added side by side, also under partition; seeds
// may go later, and hosts come even then with the same configuration.
func TestUniformCluster(t *testing.T) {
	lab, sites := harness.NewNodes(t, 6)
	config := append([]string{"--ipalloc-init=seed=::1,::2,::3"}, harness.Underlays(sites[:3]...)...)
	a, b, c, d, e, f := sites[0], sites[1], sites[2], sites[3], sites[4], sites[5]
	cut := func(x *harness.Node, from ...*harness.Node) {
		for _, y := range from {
			lab.Cut(x.Host, y.Host)
			lab.Cut(y.Host, x.Host)
		}
	}
	// The seeds start at once, a apart from the others; d, no seed, sees only a.
	cut(a, b, c)
	cut(d, b, c)
	launchAtOnce(t, sites[:4], config...)
	boxes, got := attachAtOnce(t, sites[:4])
	for _, x := range []*harness.Node{a, d} {
		for _, y := range []*harness.Node{b, c} {
			lab.Heal(x.Host, y.Host)
		}
	}
	for _, s := range sites[:4] {
		s.MustWeave(append([]string{"connect"}, harness.Underlays(sites[:3]...)...)...) // rather than wait for the next try
	}
	harness.Joined(t, sites[:4]...)
	for i := range boxes {
		for j := range boxes {
			mustReach(t, boxes[i], got[j])
		}
	}
	for _, s := range sites[:4] {
		if st := s.Status(); st.IPAM.Conflicts != nil || !st.IPAM.Ready {
			t.Errorf("%s: %+v", s.Label, st.IPAM)
		}
	}
	text := a.MustWeave("status", "ipam")
	harness.WantLine(t, "output", text, "00:00:00:00:00:03(c)", "262144 IPs (25.0% of total)")

	// Seeds go: one says so, one does not.
	if r := c.Weave("reset"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("reset: %+v", r)
	}
	b.Daemon.Kill9()
	harness.Within(t, harness.JoinLimit, "missing b", func() bool {
		text := a.MustWeave("status", "ipam")
		return !strings.Contains(text, "(c)") && strings.Contains(text, "(b) ") && strings.Contains(text, "- unreachable!")
	})
	owned := uint64(0)
	for _, s := range harness.Ask(a.Host, (*api.Client).IPAM).Shares {
		if s.NickName == "b" {
			owned = s.Addresses
		}
	}
	if got, want := a.MustWeave("rmpeer", "b"), fmt.Sprintf("%d IPs taken over from b\n", owned); got != want || owned < 1<<17 {
		t.Errorf("rmpeer printed %q, want %q", got, want)
	}
	// Two more come side by side, one of them as an observer, with lists that name hosts
	// that are gone.
	launchAtOnce(t, []*harness.Node{e}, config...)
	launchAtOnce(t, []*harness.Node{f}, append([]string{"--ipalloc-init=observer"}, harness.Underlays(sites...)...)...)
	harness.Joined(t, a, d, e, f)
	late, addrs := attachAtOnce(t, []*harness.Node{e, f})
	for i, n := range late {
		mustReach(t, n, got[0])
		mustReach(t, boxes[3], addrs[i])
	}
	harness.WantLine(t, "output", f.MustWeave("status", "ipam"), "00:00:00:00:00:01(a)")
	if strings.Contains(a.MustWeave("status", "ipam"), "unreachable") {
		t.Errorf("still unreachable:\n%s", a.MustWeave("status", "ipam"))
	}
}

// A copy of a host's disk that is started on another machine is turned away; both ends
// say so and what to do, and the copy gives out no address.
func TestClone(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	args := append([]string{"--ipalloc-init=seed=::1,::2"}, harness.Underlays(sites[:2]...)...)
	launchAtOnce(t, sites[:2], args...)
	harness.Joined(t, a, b)
	_, addrB := b.NewBox("box")
	b.Daemon.Stop()
	if err := os.CopyFS(c.StateDir(), os.DirFS(b.StateDir())); err != nil {
		t.Fatal(err)
	}
	launchAtOnce(t, []*harness.Node{b}, args...)
	harness.Joined(t, a, b)
	c.Start(append([]string{"--name=::2"}, args...)...)
	c.Refuses(harness.ExitConflict, "weave reset", "attach", c.Container("box").Ref())
	harness.WantLine(t, "output", c.MustWeave("status"), "Status: stopped: ", "00:00:00:00:00:02")
	for _, s := range sites {
		harness.WantLine(t, "output", s.MustWeave("status"), "Conflict: ", "peer name 00:00:00:00:00:02 and its key", "this is a copy of that host's state; run 'weave reset' on one of them")
		if r := s.Weave("status", "--check"); r.Code != harness.ExitDegraded {
			t.Errorf("status --check on %s: exit %d", s.Label, r.Code)
		}
	}
	// The host itself goes on.
	if _, more := b.NewBox("more"); more == addrB {
		t.Errorf("%v twice", more)
	}
	// The cure.
	if r := c.Weave("reset"); r.Code != 0 {
		t.Errorf("reset of the copy: %+v", r)
	}
	c.Start(harness.Underlays(sites[:2]...)...)
	harness.Joined(t, sites...)
	_, addrC := c.NewBox("cured")
	if addrC == addrB {
		t.Errorf("%v twice", addrC)
	}
}

// A store that cannot be read is set aside, and the host learns from the others what it
// owned, before it gives out anything.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 2)
	harness.StartAll(t, sites)
	a, b := sites[0], sites[1]
	a.NewBox("box")
	_, first := b.NewBox("box")
	for i, damage := range []func([]byte) []byte{
		func(f []byte) []byte { copy(f[:16384], make([]byte, 16384)); return f },
		func(f []byte) []byte { return f[:5000] },
		func([]byte) []byte { return []byte("not a store at all\n") },
	} {
		b.Daemon.Stop()
		file := filepath.Join(b.StateDir(), "weave.db")
		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, damage(was), 0o600); err != nil {
			t.Fatal(err)
		}
		b.Start(harness.Underlays(sites...)...)
		aside := fmt.Sprint("weave.db.broken-", i+1)
		harness.WantLine(t, "output", b.MustWeave("status"), "Warning: ", "set aside as", aside)
		harness.Joined(t, sites...)
		start := time.Now()
		_, next := b.NewBox("next")
		t.Logf("address after %v", time.Since(start).Round(time.Millisecond))
		if next == first {
			t.Errorf("%v was given again", next)
		}
		harness.WantLine(t, "output", b.Daemon.Log(), "state is unreadable", aside)
		harness.WantLine(t, "output", b.MustWeave("status", "ipam"), "00:00:00:02(b)", "524288 IPs (50.0% of total)", fmt.Sprintf("(%d active)", i+2))
	}
}
