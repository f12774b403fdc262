package ipam

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	schedules  = flag.Int("schedules", 20_000, "random schedules of the simulation; -schedules=1000000 for a campaign")
	firstSeed  = flag.Uint64("seed", 1, "the first schedule's seed")
	replaySeed = flag.Uint64("replay", 0, "run the schedule of this seed alone and print what happened")
	workers    = flag.Int("workers", 2, "schedules at a time")
)

// play runs one schedule; a panic is a failure like others.
func play(seed uint64, b bug, tracing bool) (s *script) {
	s = newScript(seed, b)
	s.tracing = tracing
	defer func() {
		if r := recover(); r != nil {
			s.fail("panic: %v\n%s", r, debug.Stack())
		}
	}()
	s.play()
	return s
}

// TestSimulation: no address twice at any instant, none leaked, all equal 30 s after
// all is healed.
//
// A failure prints its seed; -run TestSimulation -replay=SEED runs it again and
// prints the trace.
func TestSimulation(t *testing.T) {
	if *replaySeed != 0 {
		s := play(*replaySeed, noBug, true)
		fmt.Println(strings.Join(s.trace, "\n"))
		if s.failed != "" {
			t.Fatal(s.failed)
		}
		return
	}
	n := *schedules
	if testing.Short() {
		n = min(n, 200) // with the race detector one takes 100 ms
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1600))
	var next, failures atomic.Uint64
	stats := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) || failures.Load() > 4 {
					return
				}
				s := play(*firstSeed+i, noBug, false)
				if s.failed != "" {
					failures.Add(1)
					report(t, s)
				}
				mu.Lock()
				for k, v := range s.stats {
					stats[k] += v
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules: %v", n, stats)
}

func report(t *testing.T, s *script) {
	again := play(s.seed, s.bug, true)
	file := filepath.Join(os.TempDir(), fmt.Sprintf("ipam-seed-%d.txt", s.seed))
	os.WriteFile(file, []byte(strings.Join(again.trace, "\n")), 0o600)
	t.Errorf("seed %d: %s\n  run again: go test ./ipam -run TestSimulation -replay=%d\n  trace in %s", s.seed, s.failed, s.seed, file)
}
