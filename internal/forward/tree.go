package forward

import (
	"maps"
	"time"

	"weave/internal/peer"
)

// settleTime is how much later than by its old way a flood may come by its new one
// when the tree that it travels on has changed.
const settleTime = 250 * time.Millisecond

// trees decides from which neighbour the floods of each origin are taken, so that
// none is taken twice while the peers learn of a change at different times.
//
// A peer takes an origin's floods from its parent in the origin's tree and nobody
// else. That alone is not enough: a flood that was taken from the old parent may
// still be on its way to the new one. So the new parent's are not taken before
// settleTime has passed since the old one's were. Who takes a flood twice must have
// got it from two neighbours, and the second copy was then more than settleTime
// behind the first. A broadcast is rather lost than doubled.
//
// It is pure; all times are those of one clock.
type trees struct {
	all map[peer.Name]*tree // by origin
	due time.Duration       // when follow is to be called again with the same parents; 0: never
}

// tree is what is known of one origin. While parent == taken floods are taken;
// else from until+settleTime on parent becomes taken.
type tree struct {
	parent peer.Name     // now; zero: none
	taken  peer.Name     // whose floods were taken last, never zero
	until  time.Duration // parent != taken: when that ended
}

// follow takes the parents of now and returns those whose floods are taken.
func (t *trees) follow(parents map[peer.Name]peer.Name, now time.Duration) map[peer.Name]peer.Name {
	if t.all == nil {
		t.all = map[peer.Name]*tree{}
	}
	for origin, p := range parents {
		if t.all[origin] == nil && !p.IsZero() {
			t.all[origin] = &tree{parent: p, taken: p}
		}
	}
	t.due = 0
	out := parents
	for origin, e := range t.all {
		e.settle(now)
		e.change(parents[origin], now)
		e.settle(now)
		switch {
		case e.parent == e.taken:
			continue
		case !e.parent.IsZero():
			if len(out) == len(parents) {
				out = maps.Clone(parents)
			}
			delete(out, origin)
		case now >= e.until+settleTime:
			delete(t.all, origin)
			continue
		}
		if at := e.until + settleTime; t.due == 0 || at < t.due {
			t.due = at
		}
	}
	return out
}

// settle makes the parent the one whose floods are taken if it is time.
func (e *tree) settle(now time.Duration) {
	if e.parent != e.taken && !e.parent.IsZero() && now >= e.until+settleTime {
		e.taken = e.parent
	}
}

func (e *tree) change(parent peer.Name, now time.Duration) {
	if e.parent == e.taken && parent != e.taken {
		e.until = now
	}
	e.parent = parent
}
