package daemon

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weave/internal/store"
)

// notes is a trialStore in memory.
type notes struct{ t store.KernelTrial }

func (n *notes) KernelTrial() (store.KernelTrial, error)  { return n.t, nil }
func (n *notes) SetKernelTrial(t store.KernelTrial) error { n.t = t; return nil }

// Runs that die soon after they began to use the kernel end in a quarantine, which has
// an end too.
func TestTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notes{}
		run := func(subject string, asked bool) *trial {
			t.Helper()
			tr, err := loadTrial(n, slog.New(slog.DiscardHandler), subject, asked, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}
		dies := func() { run("a", false).begin() } // and nothing more is heard of it
		for range trialRuns - 1 {
			dies()
		}
		if run("a", false).quarantined {
			t.Fatal("quarantined too early")
		}
		dies()
		tr := run("a", false)
		if !tr.quarantined || !strings.Contains(tr.explain(), "3 runs") {
			t.Fatalf("quarantined %v after %d runs: %s", tr.quarantined, trialRuns, tr.explain())
		}
		tr.end(false)
		if !run("a", false).quarantined {
			t.Error("a run that did not use the kernel ends the quarantine")
		}
		before := n.t
		if run("b", false).quarantined {
			t.Error("quarantined with another kernel")
		}
		n.t = before
		if run("a", true).quarantined {
			t.Error("quarantined though asked for by name")
		}
		n.t = before
		time.Sleep(trialRest)
		if run("a", false).quarantined {
			t.Error("quarantined after the rest")
		}

		// One that does well, and one that ends in order, are no failures.
		*n = notes{}
		dies()
		dies()
		tr = run("a", false)
		tr.begin()
		tr.begin()
		time.Sleep(trialTime + time.Second)
		if n.t.Running || n.t.Failed != 0 {
			t.Errorf("after a good run: %+v", n.t)
		}
		dies()
		tr = run("a", false)
		tr.begin()
		tr.end(false)
		if n.t.Running || n.t.Failed != 1 {
			t.Errorf("after a run that ended in order: %+v", n.t)
		}
		run("a", false).end(false)
	})
}
