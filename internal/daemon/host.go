package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weave/internal/hostnet"
)

// hostside is the host's half of the data plane: bridge and router port.
type hostside struct {
	host   *hostnet.Host
	bridge hostnet.BridgeConfig
	tap    string
	steer  *steering
	joined chan struct{} // has room for one: we have a link, after a time without any
	grown  chan struct{} // the same: a peer has come within reach
	log    *slog.Logger
	made   bool // ensure made the bridge when it was first called

	warned []string // of the host's settings, at the last ensure
}

// ensure makes or mends the bridge with the router's port on it, and puts the
// containers back that lost it.
func (h *hostside) ensure() error {
	b, err := h.host.EnsureBridge(h.bridge)
	if err != nil {
		return err
	}
	if h.steer.port.Load() == 0 {
		h.made = b.Created
	}
	for _, fixed := range b.Repaired {
		h.log.Warn("bridge repaired", "what", fixed)
	}
	h.warn(b.Warnings)
	p, err := h.host.AddRouterPort(h.bridge.Name, h.tap)
	if err != nil {
		return err
	}
	h.steer.port.Store(int64(p.Index))
	done, err := h.host.Repair(h.bridge.Name)
	for _, what := range done {
		h.log.Warn("container's port repaired", "what", what)
	}
	if err != nil {
		h.log.Warn("containers' ports not in order", "err", err)
	}
	return nil
}

// warn says what is wrong with the host's settings once, and again when it was right
// in between: ensure looks every few seconds.
func (h *hostside) warn(warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(h.warned, w) {
			h.log.Warn("host setting", "what", w)
		}
	}
	h.warned = warnings
}

// undo takes a bridge away that nothing is on, if this run made it: its daemon has
// not come up.
func (h *hostside) undo() {
	if !h.made {
		return
	}
	list, err := h.host.List(h.bridge.Name)
	if err == nil && len(list) == 0 {
		err = h.host.Reset(h.bridge.Name)
	}
	if err != nil {
		h.log.Warn("removing the bridge", "err", err)
	}
}

// repair mends what somebody changed behind our back, soon after it happened.
func (h *hostside) repair(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	poke := func() { wake(changed) }
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for _, link := range []string{h.bridge.Name, h.tap} {
		watchers.Go(func() { h.watchLink(ctx, link, poke) })
	}
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		refill := false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if !pause(ctx, 200*time.Millisecond) { // let a burst of changes pass
				return nil
			}
			refill = true
		case <-tick.C:
		}
		if err := h.ensure(); err != nil {
			if ctx.Err() == nil {
				h.log.Error("bridge not in order", "err", err)
			}
			continue
		}
		if refill {
			h.steer.refill()
		}
	}
}

// untrack keeps packets of the kernel path out of the kernel's table of connections,
// whoever flushes the rules, until ctx ends. Without such a path, port 0, it removes
// what an earlier run made.
func (h *hostside) untrack(ctx context.Context, port uint16) error {
	set := func() {
		changed, err := h.host.SetUntracked(port)
		switch {
		case err != nil:
			h.log.Warn("connection tracking of the kernel path", "err", err)
		case changed:
			h.log.Info("connection tracking of the kernel path", "port", port, "on", port == 0)
		}
	}
	if port == 0 {
		set()
		return nil
	}
	for ctx.Err() == nil {
		if err := h.host.WatchRules(ctx, set); err != nil && ctx.Err() == nil {
			h.log.Debug("watching rules", "err", err)
			set()
		}
		pause(ctx, 10*time.Second)
	}
	return nil
}

// announce tells the network where our containers are whenever we come into it:
// those who were there before may remember addresses that the containers had at
// an earlier run of this host. Twice, as not all links come up at once.
func (h *hostside) announce(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.joined:
		}
		for _, wait := range []time.Duration{200 * time.Millisecond, 2 * time.Second} {
			if !pause(ctx, wait) {
				return nil
			}
			if err := h.host.Announce(h.bridge.Name, h.tap); err != nil {
				h.log.Warn("announcing containers", "err", err)
			}
		}
	}
}

// askAgain are the waits after a peer has come within reach until containers' questions
// are repeated: it and those in between learn of the way to us in their own time.
var askAgain = []time.Duration{10 * time.Millisecond, 60 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}

// ask repeats what containers asked all others while some of these were not within
// reach: they would do so themselves, but a second later.
func (h *hostside) ask(ctx context.Context, asked func() [][]byte) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.grown:
		}
		for _, wait := range askAgain {
			if !pause(ctx, wait) {
				return nil
			}
			frames := asked()
			if len(frames) == 0 {
				continue
			}
			if err := h.host.Transmit(h.tap, frames); err != nil {
				h.log.Debug("asking for neighbours again", "err", err)
			}
		}
	}
}

// wake gives the one who waits for c a reason to look, if there is none yet.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (h *hostside) watchLink(ctx context.Context, link string, poke func()) {
	for ctx.Err() == nil {
		err := h.host.WatchLink(ctx, link, func(hostnet.LinkState) { poke() })
		if ctx.Err() == nil {
			h.log.Warn("watching a link ended; starting again", "link", link, "err", err)
			pause(ctx, time.Second)
		}
	}
}

// pause waits; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
