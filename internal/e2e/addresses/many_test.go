package addresses_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Many containers at once, on hosts that have to share a small range: each gets an
// address of its own, in time.
func TestMany(t *testing.T) {
	const each = 12 // of 3 hosts: more than half of the range
	_, sites := harness.NewNodes(t, 3)
	harness.StartAll(t, sites, "--ipalloc-range=10.40.0.0/26")
	var boxes []*testnet.Namespace
	for i := range 3 * each {
		boxes = append(boxes, sites[i%3].Container(fmt.Sprint("c", i)))
	}
	var mu sync.Mutex
	got := map[netip.Addr]string{}
	var wg sync.WaitGroup
	start := time.Now()
	for i, n := range boxes {
		s := sites[i%3]
		wg.Go(func() {
			begin := time.Now()
			r := s.Weave("attach", n.Ref())
			took := time.Since(begin)
			mu.Lock()
			defer mu.Unlock()
			a, err := netip.ParseAddr(strings.TrimSpace(r.Stdout))
			if r.Code != 0 || err != nil || got[a] != "" {
				t.Errorf("%s: exit %d, %q %s, before by %s", n.Name, r.Code, r.Stdout, r.Stderr, got[a])
			}
			if took > replyLimit+4*time.Second { // a process each, all at once
				t.Errorf("%s: after %v", n.Name, took)
			}
			got[a] = n.Name
		})
	}
	wg.Wait()
	t.Logf("%d containers in %v", len(boxes), time.Since(start).Round(time.Millisecond))
	for a := range got {
		mustReach(t, boxes[0], a)
	}
}

// A detach ends an attach of the same container that waits for an address, and leaves
// nothing of it.
func TestDetachOvertakes(t *testing.T) {
	_, sites := harness.NewNodes(t, 1)
	a := sites[0]
	a.Start("--ipalloc-init=observer")
	box := a.Container("box")
	done := make(chan testnet.Result, 1)
	go func() { done <- a.Weave("attach", "--wait", box.Ref()) }()
	harness.Within(t, harness.JoinLimit, "waiting", func() bool { return a.Status().IPAM.Status == "priming" })
	start := time.Now()
	if out := a.MustWeave("detach", box.Ref()); out != "" {
		t.Errorf("detached %s", out)
	}
	if r := <-done; r.Code != harness.ExitConflict {
		t.Errorf("attach: %+v", r)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}
