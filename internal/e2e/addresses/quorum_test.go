package addresses_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// One host of three cannot divide the range, and says why in time; what needs no
// address of the range works all the same. With --wait it waits.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 3)
	a, b := sites[0], sites[1]
	a.Start(harness.Underlays(sites...)...)
	box := a.Container("box")
	for _, args := range [][]string{{"attach", box.Ref()}, {"attach", "10.32.0.7/12", box.Ref()}, {"prime"}, {"expose"}} {
		start := time.Now()
		a.Refuses(harness.ExitTimeout, "no quorum: need 2 of 3, know a", args...)
		took := time.Since(start)
		t.Logf("%v: %v", args, took.Round(time.Millisecond))
		if took > replyLimit {
			t.Errorf("%v: answered after %v", args, took)
		}
	}
	if got := a.AttachBox(box, "10.55.0.1/24"); got[0].String() != "10.55.0.1" {
		t.Errorf("attached %v", got)
	}
	a.MustWeave("detach", box.Ref())
	if out := a.MustWeave("hide"); out != "" {
		t.Errorf("hid %s", out)
	}
	// Longer than any timeout of the control socket's.
	done := make(chan testnet.Result, 1)
	go func() { done <- a.Weave("attach", "--wait", box.Ref()) }()
	select {
	case r := <-done:
		t.Fatalf("did not wait: %+v", r)
	case <-time.After(12 * time.Second):
	}
	harness.WantLine(t, "output", a.MustWeave("status"), "Status: awaiting consensus (quorum: 2, known: 1)")
	b.Start(harness.Underlays(sites...)...)
	start := time.Now()
	r := <-done
	if r.Code != 0 || len(harness.ParseAddrs(t, r.Stdout)) != 1 {
		t.Errorf("after all: %+v", r)
	}
	t.Logf("address %v after the second host came", time.Since(start).Round(time.Millisecond))
}

// Given seeds, hosts hand out addresses without ever having seen one another, and
// then join.
func TestSeedUnderPartition(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewNodes(t, 3)
	a, b := sites[0], sites[1]
	lab.Cut(a.Host, b.Host)
	lab.Cut(b.Host, a.Host)
	for _, s := range sites[:2] {
		s.Start(append([]string{"--ipalloc-init=seed=::1,::2", "--name", map[string]string{"a": "::1", "b": "::2"}[s.Label]}, harness.Underlays(sites...)...)...)
	}
	boxA, addrA := a.NewBox("box")
	boxB, addrB := b.NewBox("box")
	if addrA == addrB {
		t.Fatalf("both hosts gave %v", addrA)
	}
	lab.Heal(a.Host, b.Host)
	a.MustWeave("connect", b.IP4.String()) // rather than wait for the next try
	harness.Within(t, harness.JoinLimit, "joining", func() bool { return harness.Reaches(boxA, addrB) })
	mustReach(t, boxB, addrA)
	// A host that is no seed gets its addresses from those.
	c := sites[2]
	c.Start(append([]string{"--ipalloc-init=seed=::1,::2"}, harness.Underlays(sites...)...)...)
	harness.Joined(t, sites...)
	boxC, addrC := c.NewBox("box")
	if addrC == addrA || addrC == addrB {
		t.Errorf("third host gave %v", addrC)
	}
	mustReach(t, boxC, addrA)
	mustReach(t, boxC, addrB)
}

// A host with another range, or other seeds, is told so, and told of, and nobody else
// is hurt.
func TestConflict(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	a.Start(harness.Underlays(sites...)...)
	b.Start(harness.Underlays(sites...)...)
	harness.Joined(t, a, b)
	_, addrA := a.NewBox("box")
	boxB, _ := b.NewBox("box")
	c.Start(append([]string{"--ipalloc-range=10.2.0.0/16", "--ipalloc-init=seed=02:00:00:00:00:03"}, harness.Underlays(sites...)...)...)
	c.NewBox("box")
	for _, s := range sites {
		harness.Within(t, harness.JoinLimit, "conflict in the status of "+s.Label, func() bool {
			return strings.Contains(s.MustWeave("status"), "Conflict: ")
		})
	}
	text := c.MustWeave("status")
	harness.WantLine(t, "output", text, "10.2.0.0/16", "10.32.0.0/12", "--ipalloc-range")
	if r := c.Weave("status", "--check"); r.Code != harness.ExitDegraded {
		t.Errorf("status --check: exit %d", r.Code)
	}
	mustReach(t, boxB, addrA)
	a.NewBox("more")
}

// What a host owned that is gone for good is taken over by another, which says how
// much it was.
func TestRmPeer(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	harness.StartAll(t, sites, "--ipalloc-range=10.40.0.0/28", "--ipalloc-init=seed=02:00:00:00:00:01,02:00:00:00:00:02,02:00:00:00:00:03")
	for _, s := range sites {
		s.NewBox("box")
	}
	a.Refuses(harness.ExitConflict, "is alive", "rmpeer", "c")
	c.Daemon.Kill9()
	harness.Within(t, harness.JoinLimit, "missing c", func() bool {
		return strings.Contains(a.MustWeave("status", "ipam"), "02:00:00:00:00:03(c)") && strings.Contains(a.MustWeave("status", "ipam"), "- unreachable!")
	})
	// The rest of 14 addresses less one of c's each; then only c has some.
	var left []string
	for len(left) < 20 {
		n := a.Container("fill")
		start := time.Now()
		r := a.Weave("attach", n.Ref())
		if took := time.Since(start); took > replyLimit {
			t.Errorf("answered after %v", took)
		}
		if r.Code != 0 {
			if r.Code != harness.ExitTimeout || !strings.Contains(r.Stderr, "waiting for c") || !strings.Contains(r.Stderr, "rmpeer c") {
				t.Errorf("exit %d, %s", r.Code, r.Stderr)
			}
			break
		}
		left = append(left, r.Stdout)
	}
	a.Refuses(harness.ExitNotFound, `"nobody"`, "rmpeer", "nobody")
	share := harness.Ask(a.Host, (*api.Client).IPAM)
	var owned uint64
	for _, s := range share.Shares {
		if s.NickName == "c" {
			owned = s.Addresses
		}
	}
	want := map[uint64]string{4: "4 IPs taken over from c\n", 5: "5 IPs taken over from c\n", 6: "6 IPs taken over from c\n"}[owned]
	start := time.Now()
	if got := a.MustWeave("rmpeer", "c"); got != want || got == "" {
		t.Errorf("rmpeer printed %q; c owned %d", got, owned)
	}
	t.Logf("rmpeer took %v", time.Since(start).Round(time.Millisecond))
	if got := a.MustWeave("rmpeer", "02:00:00:00:00:03"); got != "0 IPs taken over from 02:00:00:00:00:03\n" {
		t.Errorf("rmpeer again printed %q", got)
	}
	start = time.Now()
	a.NewBox("after")
	b.NewBox("after")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("addresses after rmpeer took %v", took)
	}
	// When all are in use, everywhere, that is what it says.
	for range 20 {
		r := a.Weave("attach", a.Container("fill").Ref())
		if r.Code != 0 {
			if r.Code != harness.ExitConflict || !strings.Contains(r.Stderr, "range exhausted") {
				t.Errorf("exit %d, %s", r.Code, r.Stderr)
			}
			return
		}
	}
	t.Error("the range has no end")
}

// A host that leaves gives what it owns to another.
func TestResetGivesAway(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewNodes(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	harness.StartAll(t, sites)
	for _, s := range sites {
		s.NewBox("box")
	}
	if r := c.Weave("reset"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("reset: %+v", r)
	}
	harness.Within(t, harness.JoinLimit, "c owning nothing", func() bool { return !strings.Contains(a.MustWeave("status", "ipam"), "(c)") })
	if r := c.Weave("status"); r.Code != harness.ExitNotRunning {
		t.Errorf("still there: %+v", r)
	}
	// Nobody is there to be given anything: that is said, and it is done nevertheless.
	lab.Cut(a.Host, b.Host)
	lab.Cut(b.Host, a.Host)
	start := time.Now()
	r := b.Weave("reset")
	if r.Code != 0 || !strings.Contains(r.Stderr, "rmpeer b") {
		t.Errorf("reset of a lonely host: %+v", r)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("reset took %v", took)
	}
}

// The default range must not be where the host's own routes lead; another range is
// the user's business.
func TestRangeOverlapsRoute(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewNodes(t, 1)
	a := sites[0]
	a.Exec("ip", "route", "add", "10.0.0.0/8", "dev", testnet.Uplink)
	d := a.LaunchWeave(t, a.Bin, "--nickname", a.Label)
	if code := d.Wait(5 * time.Second); code != harness.ExitConflict {
		t.Errorf("exit %d", code)
	}
	harness.WantLine(t, "output", d.Log(), "10.32.0.0/12", "10.0.0.0/8 dev "+testnet.Uplink, "--ipalloc-range")
	a.Start("--ipalloc-range=10.32.0.0/12")
	harness.WantLine(t, "output", a.Daemon.Log(), "overlaps a route", "10.0.0.0/8")
	a.Daemon.Stop()
	a.Start("--ipalloc-range=")
	box := a.Container("box")
	a.Refuses(2, "--ipalloc-range is empty", "attach", box.Ref())
	a.AttachBox(box, "10.32.0.1/12")
	if a.Status().IPAM != nil {
		t.Error("status has ipam")
	}
	a.Refuses(2, "--ipalloc-range", "status", "ipam")
	a.Refuses(2, "--ipalloc-range", "prime")
}
