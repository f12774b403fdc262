package names_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// 10,000 names come and go on three hosts, as fast as these take them: two seconds
// later all three have the same, which is what each of them was told last.
func TestChurn(t *testing.T) {
	const changes = 10000
	_, sites := harness.NewNodes(t, 3)
	harness.StartAll(t, sites)
	var want []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	for i, s := range sites {
		wg.Go(func() {
			live := churn(t, s, i, changes/len(sites)+1)
			mu.Lock()
			defer mu.Unlock()
			want = append(want, live...)
		})
	}
	wg.Wait()
	t.Logf("%d changes took %v", changes, time.Since(start).Round(time.Millisecond))
	allHave(t, want, sites)
}

// allHave waits the two seconds that hosts may take to agree and compares their names.
func allHave(t *testing.T, want []string, sites []*harness.Node) {
	t.Helper()
	slices.Sort(want)
	time.Sleep(2 * time.Second)
	for _, s := range sites {
		var got []string
		for _, r := range harness.Ask(s.Host, (*api.Client).DNS).Records {
			got = append(got, r.Short+" "+r.Address.String())
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s has other names than there should be (-want +got):\n%.2000s", s.Label, diff)
		}
	}
	if len(want) == 0 {
		t.Error("no names are left to compare")
	}
}

// churn gives and takes names on one host and returns those that are left.
func churn(t *testing.T, s *harness.Node, host, changes int) (live []string) {
	c := api.NewClient(s.RunDir())
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	rng := rand.New(rand.NewPCG(uint64(host), 1))
	var there []api.DNSRequest
	for i := range changes {
		var err error
		if n := len(there); n > 0 && rng.IntN(2) == 0 {
			k := rng.IntN(n)
			err = c.RemoveName(ctx, there[k])
			there = slices.Delete(there, k, k+1)
		} else {
			req := api.DNSRequest{Name: fmt.Sprintf("web%d", rng.IntN(50)), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(100 + host), byte(i >> 8), byte(i)})}}
			err = c.AddName(ctx, req)
			there = append(there, req)
		}
		if err != nil {
			t.Errorf("%s: change %d: %v", s.Label, i, err)
			return nil
		}
	}
	for _, r := range there {
		live = append(live, r.Name+" "+r.Addrs[0].String())
	}
	return live
}

var containers = flag.Int("containers", 60, "containers that TestContainerChurn starts")

// The same with containers, which nobody detaches: their namespaces end.
func TestContainerChurn(t *testing.T) {
	const alive = 5 // of each host at a time
	_, sites := harness.NewNodes(t, 3)
	harness.StartAll(t, sites)
	left := make([][]string, len(sites))
	var wg sync.WaitGroup
	start := time.Now()
	for i, s := range sites {
		wg.Go(func() {
			c := api.NewClient(s.RunDir())
			defer c.Close()
			var boxes []*testnet.Namespace
			for k := range *containers / len(sites) {
				box := s.Container(fmt.Sprintf("c%d", k))
				ref, err := api.ParseContainer(box.Ref())
				if err != nil {
					t.Error(err)
					return
				}
				name := fmt.Sprintf("web%d", k%3)
				got, err := c.Attach(t.Context(), api.AttachRequest{Container: ref, Names: []string{name}})
				if err != nil {
					t.Errorf("%s: container %d: %v", s.Label, k, err)
					return
				}
				boxes, left[i] = append(boxes, box), append(left[i], name+" "+got.Addrs[0].Addr().String())
				if len(boxes) > alive {
					boxes[0].Delete()
					boxes, left[i] = boxes[1:], left[i][1:]
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	t.Logf("%d containers in %v, %v each", *containers, took.Round(time.Millisecond), (took / time.Duration(*containers)).Round(time.Millisecond))
	// A namespace ends in the kernel some time after its name is gone.
	lag := harness.Within(t, time.Minute, "the kernel to end the namespaces", func() bool {
		return !slices.ContainsFunc(sites, func(s *harness.Node) bool { return strings.Count(s.Exec("ip", "-o", "link"), "vethwe") > alive })
	})
	t.Logf("the kernel ended the last of their namespaces after %v", lag)
	allHave(t, slices.Concat(left...), sites)
}
