package daemon

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"weave/internal/store"
)

// A kernel path that brings the host down, or the daemon, would do so again after each
// restart. So the store is told before a run first uses one, and again when that went
// well for trialTime; after trialRuns runs in a row that ended without either, the
// paths that were not asked for by name are left alone for trialRest, or until the
// program or the kernel is another.
const (
	trialTime = time.Minute
	trialRuns = 3
	trialRest = 24 * time.Hour
)

// trial is this run's. Its zero value with a store is ready for load.
type trial struct {
	store       trialStore
	log         *slog.Logger
	now         func() time.Time
	quarantined bool

	mu    sync.Mutex
	state store.KernelTrial
	timer *time.Timer
}

type trialStore interface {
	KernelTrial() (store.KernelTrial, error)
	SetKernelTrial(store.KernelTrial) error
}

// loadTrial reads how the runs before ended. asked says that a kernel path was asked
// for by name, which ends a quarantine; subject is the program and kernel.
func loadTrial(s trialStore, log *slog.Logger, subject string, asked bool, now func() time.Time) (*trial, error) {
	t := &trial{store: s, log: log, now: now}
	var err error
	if t.state, err = s.KernelTrial(); err != nil {
		return nil, err
	}
	st := &t.state
	before := *st
	if st.Running {
		st.Running = false
		st.Failed++
		st.Last = now().Unix()
		log.Warn("the last run died soon after it began to use a kernel path", "in_a_row", st.Failed)
	}
	rested := now().Sub(time.Unix(st.Last, 0)) >= trialRest
	if st.Subject != subject || asked || rested {
		st.Failed = 0
	}
	st.Subject = subject
	if t.quarantined = st.Failed >= trialRuns; t.quarantined {
		log.Warn("kernel paths left alone", "reason", "quarantine", "text", t.explain())
	}
	if *st != before {
		err = s.SetKernelTrial(*st)
	}
	return t, err
}

// explain says what a quarantine is and how it ends.
func (t *trial) explain() string {
	return fmt.Sprintf("the last %d runs died within %v of using a kernel path: it is left alone for %v; relaunch with --fastdp=vxlan or --encrypted-path=kernel to try at once",
		t.state.Failed, trialTime, trialRest)
}

// begin is called before the kernel first carries something in this run.
func (t *trial) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		return
	}
	t.state.Running = true
	t.save()
	t.timer = time.AfterFunc(trialTime, func() { t.end(true) })
}

// end says that the run did well, or just that it ends in order.
func (t *trial) end(well bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	if !t.state.Running {
		return
	}
	t.state.Running = false
	if well {
		t.state.Failed = 0
	}
	t.save()
}

func (t *trial) save() {
	if err := t.store.SetKernelTrial(t.state); err != nil {
		t.log.Warn("remembering the use of a kernel path", "err", err)
	}
}
