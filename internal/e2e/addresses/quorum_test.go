package addresses_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/testnet"
)

// One host of three cannot divide the range, and says why in time; what needs no
// address of the range works all the same. With --wait it waits.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	_, sites := newSites(t, 3)
	a, b := sites[0], sites[1]
	a.launch(ips(sites)...)
	box := a.Container("box")
	for _, args := range [][]string{{"attach", box.Ref()}, {"attach", "10.32.0.7/12", box.Ref()}, {"prime"}, {"expose"}} {
		start := time.Now()
		a.refuses(exitTimeout, "no quorum: need 2 of 3, know a", args...)
		took := time.Since(start)
		t.Logf("%v: %v", args, took.Round(time.Millisecond))
		if took > replyLimit {
			t.Errorf("%v: answered after %v", args, took)
		}
	}
	if got := a.attach(box, "10.55.0.1/24"); got[0].String() != "10.55.0.1" {
		t.Errorf("attached %v", got)
	}
	a.weave("detach", box.Ref())
	if out := a.weave("hide"); out != "" {
		t.Errorf("hid %s", out)
	}
	// Longer than any timeout of the control socket's.
	done := make(chan testnet.Result, 1)
	go func() { done <- a.Weave(a.bin, "attach", "--wait", box.Ref()) }()
	select {
	case r := <-done:
		t.Fatalf("did not wait: %+v", r)
	case <-time.After(12 * time.Second):
	}
	wantLine(t, a.weave("status"), "Status: awaiting consensus (quorum: 2, known: 1)")
	b.launch(ips(sites)...)
	start := time.Now()
	r := <-done
	if r.Code != 0 || len(addrs(t, r.Stdout)) != 1 {
		t.Errorf("after all: %+v", r)
	}
	t.Logf("address %v after the second host came", time.Since(start).Round(time.Millisecond))
}

// Given seeds, hosts hand out addresses without ever having seen one another, and
// then join.
func TestSeedUnderPartition(t *testing.T) {
	lab, sites := newSites(t, 3)
	a, b := sites[0], sites[1]
	lab.Cut(a.Host, b.Host)
	lab.Cut(b.Host, a.Host)
	for _, s := range sites[:2] {
		s.launch(append([]string{"--ipalloc-init=seed=::1,::2", "--name", map[string]string{"a": "::1", "b": "::2"}[s.Label]}, ips(sites)...)...)
	}
	boxA, addrA := a.container("box")
	boxB, addrB := b.container("box")
	if addrA == addrB {
		t.Fatalf("both hosts gave %v", addrA)
	}
	lab.Heal(a.Host, b.Host)
	a.weave("connect", b.IP4.String()) // rather than wait for the next try
	within(t, joinLimit, "joining", func() bool { return reaches(boxA, addrB) })
	mustReach(t, boxB, addrA)
	// A host that is no seed gets its addresses from those.
	c := sites[2]
	c.launch(append([]string{"--ipalloc-init=seed=::1,::2"}, ips(sites)...)...)
	joined(t, sites...)
	boxC, addrC := c.container("box")
	if addrC == addrA || addrC == addrB {
		t.Errorf("third host gave %v", addrC)
	}
	mustReach(t, boxC, addrA)
	mustReach(t, boxC, addrB)
}

// A host with another range, or other seeds, is told so, and told of, and nobody else
// is hurt.
func TestConflict(t *testing.T) {
	_, sites := newSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	a.launch(ips(sites)...)
	b.launch(ips(sites)...)
	joined(t, a, b)
	_, addrA := a.container("box")
	boxB, _ := b.container("box")
	c.launch(append([]string{"--ipalloc-range=10.2.0.0/16", "--ipalloc-init=seed=02:00:00:00:00:03"}, ips(sites)...)...)
	c.container("box")
	for _, s := range sites {
		within(t, joinLimit, "conflict in the status of "+s.Label, func() bool {
			return strings.Contains(s.weave("status"), "Conflict: ")
		})
	}
	text := c.weave("status")
	wantLine(t, text, "10.2.0.0/16", "10.32.0.0/12", "--ipalloc-range")
	if r := c.Weave(c.bin, "status", "--check"); r.Code != 4 {
		t.Errorf("status --check: exit %d", r.Code)
	}
	mustReach(t, boxB, addrA)
	a.container("more")
}

// What a host owned that is gone for good is taken over by another, which says how
// much it was.
func TestRmPeer(t *testing.T) {
	t.Parallel()
	_, sites := newSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	launchAll(t, sites, "--ipalloc-range=10.40.0.0/28", "--ipalloc-init=seed=02:00:00:00:00:01,02:00:00:00:00:02,02:00:00:00:00:03")
	for _, s := range sites {
		s.container("box")
	}
	a.refuses(exitConflict, "is alive", "rmpeer", "c")
	c.d.Kill9()
	within(t, joinLimit, "missing c", func() bool {
		return strings.Contains(a.weave("status", "ipam"), "02:00:00:00:00:03(c)") && strings.Contains(a.weave("status", "ipam"), "- unreachable!")
	})
	// The rest of 14 addresses less one of c's each; then only c has some.
	var left []string
	for len(left) < 20 {
		n := a.Container("fill")
		start := time.Now()
		r := a.Weave(a.bin, "attach", n.Ref())
		if took := time.Since(start); took > replyLimit {
			t.Errorf("answered after %v", took)
		}
		if r.Code != 0 {
			if r.Code != exitTimeout || !strings.Contains(r.Stderr, "waiting for c") || !strings.Contains(r.Stderr, "rmpeer c") {
				t.Errorf("exit %d, %s", r.Code, r.Stderr)
			}
			break
		}
		left = append(left, r.Stdout)
	}
	a.refuses(exitNotFound, `"nobody"`, "rmpeer", "nobody")
	share := ask(a, (*api.Client).IPAM)
	var owned uint64
	for _, s := range share.Shares {
		if s.NickName == "c" {
			owned = s.Addresses
		}
	}
	want := map[uint64]string{4: "4 IPs taken over from c\n", 5: "5 IPs taken over from c\n", 6: "6 IPs taken over from c\n"}[owned]
	start := time.Now()
	if got := a.weave("rmpeer", "c"); got != want || got == "" {
		t.Errorf("rmpeer printed %q; c owned %d", got, owned)
	}
	t.Logf("rmpeer took %v", time.Since(start).Round(time.Millisecond))
	if got := a.weave("rmpeer", "02:00:00:00:00:03"); got != "0 IPs taken over from 02:00:00:00:00:03\n" {
		t.Errorf("rmpeer again printed %q", got)
	}
	start = time.Now()
	a.container("after")
	b.container("after")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("addresses after rmpeer took %v", took)
	}
	// When all are in use, everywhere, that is what it says.
	for range 20 {
		r := a.Weave(a.bin, "attach", a.Container("fill").Ref())
		if r.Code != 0 {
			if r.Code != exitConflict || !strings.Contains(r.Stderr, "range exhausted") {
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
	lab, sites := newSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	launchAll(t, sites)
	for _, s := range sites {
		s.container("box")
	}
	if r := c.Weave(c.bin, "reset"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("reset: %+v", r)
	}
	within(t, joinLimit, "c owning nothing", func() bool { return !strings.Contains(a.weave("status", "ipam"), "(c)") })
	if r := c.Weave(c.bin, "status"); r.Code != 3 {
		t.Errorf("still there: %+v", r)
	}
	// Nobody is there to be given anything: that is said, and it is done nevertheless.
	lab.Cut(a.Host, b.Host)
	lab.Cut(b.Host, a.Host)
	start := time.Now()
	r := b.Weave(b.bin, "reset")
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
	_, sites := newSites(t, 1)
	a := sites[0]
	a.Exec("ip", "route", "add", "10.0.0.0/8", "dev", testnet.Uplink)
	d := a.LaunchWeave(t, a.bin, "--nickname", "a")
	if code := d.Wait(5 * time.Second); code != exitConflict {
		t.Errorf("exit %d", code)
	}
	wantLine(t, d.Log(), "10.32.0.0/12", "10.0.0.0/8 dev "+testnet.Uplink, "--ipalloc-range")
	a.launch("--ipalloc-range=10.32.0.0/12")
	wantLine(t, a.d.Log(), "overlaps a route", "10.0.0.0/8")
	a.d.Stop()
	a.launch("--ipalloc-range=")
	box := a.Container("box")
	a.refuses(2, "--ipalloc-range is empty", "attach", box.Ref())
	a.attach(box, "10.32.0.1/12")
	if a.status().IPAM != nil {
		t.Error("status has ipam")
	}
	a.refuses(2, "--ipalloc-range", "status", "ipam")
	a.refuses(2, "--ipalloc-range", "prime")
}
