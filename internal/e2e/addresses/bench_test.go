package addresses_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// BenchmarkAttach64 attaches containers through the control socket of a real daemon,
// by 64 clients at once, and detaches them: what a user gets, with the interface, the
// route and the announcement, where BenchmarkAllocate64 of ipam has the address alone.
// Run it with -benchtime=512x.
func BenchmarkAttach64(b *testing.B) {
	const clients = 64
	lab := testnet.New(b)
	host := lab.Host("a")
	args := []string{"--password-file", harness.PasswordFile(b, harness.Password), "--ipalloc-init=consensus=1", "--no-dns"}
	host.StartWeave(b, testnet.Binary(b), args...)
	boxes := make([]api.Container, b.N)
	for i := range boxes {
		var err error
		if boxes[i], err = api.ParseContainer(host.Container(fmt.Sprint("c", i)).Ref()); err != nil {
			b.Fatal(err)
		}
	}
	all := func(do func(*api.Client, api.Container) error) (perSecond, p99 float64) {
		var mu sync.Mutex
		var took []time.Duration
		work := make(chan api.Container, len(boxes))
		for _, c := range boxes {
			work <- c
		}
		close(work)
		var wg sync.WaitGroup
		start := time.Now()
		for range clients {
			wg.Go(func() {
				client := api.NewClient(host.RunDir())
				defer client.Close()
				for c := range work {
					begin := time.Now()
					if err := do(client, c); err != nil {
						b.Errorf("%v: %v", c, err)
					}
					mu.Lock()
					took = append(took, time.Since(begin))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		total := time.Since(start)
		slices.Sort(took)
		return float64(len(took)) / total.Seconds(), float64(took[len(took)*99/100].Microseconds()) / 1000
	}
	b.ResetTimer()
	rate, p99 := all(func(c *api.Client, box api.Container) error {
		got, err := c.Attach(context.Background(), api.AttachRequest{Container: box})
		if err == nil && len(got.Addrs) != 1 {
			err = fmt.Errorf("addresses %v", got.Addrs)
		}
		return err
	})
	again, p99again := all(func(c *api.Client, box api.Container) error { // nothing to do but to look
		_, err := c.Attach(context.Background(), api.AttachRequest{Container: box})
		return err
	})
	gone, p99gone := all(func(c *api.Client, box api.Container) error {
		_, err := c.Detach(context.Background(), api.DetachRequest{Container: box})
		return err
	})
	b.StopTimer()
	b.ReportMetric(rate, "attach/s")
	b.ReportMetric(p99, "attach-p99-ms")
	b.ReportMetric(again, "again/s")
	b.ReportMetric(p99again, "again-p99-ms")
	b.ReportMetric(gone, "detach/s")
	b.ReportMetric(p99gone, "detach-p99-ms")
	b.ReportMetric(0, "ns/op")
}
