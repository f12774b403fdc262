package topo

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"weave/internal/peer"
)

// Times of conflicts.
const (
	maxRivals   = 64
	rivalAgain  = time.Minute      // until a rival is looked at and passed on again
	rivalMemory = 5 * time.Minute  // until one that is heard of no more is forgotten
	jumpTime    = 30 * time.Second // in which the local record goes above another life's
	maxJumps    = 4                // so often
	cloneRises  = 3                // a dead life can't rise so often
)

// Conflict is another holder of a peer's name.
type Conflict struct {
	Name     peer.Name
	NickName string // of the other holder
	UID      peer.UID
	Clone    bool      // it has the same key: a copy of the peer's state
	Refused  bool      // it is known only from connections that were turned away
	Last     time.Time // when it was heard of

	passed time.Time
}

// Conflicts returns those seen in the last minutes, sorted by name.
func (t *Topology) Conflicts(now time.Time) (out []Conflict) {
	for k, c := range t.rivals {
		if now.Sub(c.Last) >= rivalMemory {
			delete(t.rivals, k)
		} else {
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int {
		return cmp.Or(a.Name.Compare(b.Name), cmp.Compare(a.UID, b.UID))
	})
	return out
}

// seen notes a rival, and returns nil if there is no room.
func (t *Topology) seen(r *Record, clone bool, now time.Time) *Conflict {
	k := life{r.Name, r.UID}
	c := t.rivals[k]
	if c == nil {
		if len(t.rivals) >= maxRivals {
			maps.DeleteFunc(t.rivals, func(_ life, c *Conflict) bool { return now.Sub(c.Last) >= rivalMemory })
		}
		if len(t.rivals) >= maxRivals {
			return nil
		}
		c = &Conflict{Name: r.Name, UID: r.UID, Clone: clone}
		t.rivals[k] = c
	}
	c.NickName, c.Last, c.Refused = r.NickName, now, false
	return c
}

// TurnedAway notes a rival that a connection of its own made known, and that is not
// let in.
func (t *Topology) TurnedAway(name peer.Name, nick string, uid peer.UID, clone bool, now time.Time) {
	k := life{name, uid}
	if c := t.rivals[k]; c != nil {
		c.Last = now
	} else if c := t.seen(&Record{Name: name, UID: uid, NickName: nick}, clone, now); c != nil {
		c.Refused = true
	}
}

// takeRival considers a whole record of another holder of a name that is taken. It
// is not stored; the holders are told of one another.
func (t *Topology) takeRival(u *incoming, e *entry, direct bool, now time.Time, res *Result) error {
	t.counters.Rivals++
	if c := t.rivals[life{u.rec.Name, u.rec.UID}]; c != nil && now.Sub(c.passed) < rivalAgain {
		c.Last = now
		return nil
	}
	r, err := t.verified(u, nil)
	if err != nil {
		return err
	}
	c := t.seen(r, false, now)
	if c == nil {
		return nil
	}
	c.passed = now
	if direct {
		res.tell(r.Name, update{rec: r})
		return nil
	}
	res.news(update{rec: r}) // as far as the neighbours of the holder that is known here
	res.reply(update{rec: e.rec})
	return nil
}

// lives is what is known of other lives of the local peer.
type lives struct {
	jumps []time.Time // the latest, at most maxJumps
	above uint64      // the version to go above when it is time
	waits bool
	other map[peer.UID]rise // at most maxRivals
}

// rise is how often another life's version rose above what was known, and to what.
type rise struct {
	version uint64
	times   int
}

// takeOwn considers a record with the local name.
func (t *Topology) takeOwn(u *incoming, now time.Time, res *Result) error {
	switch {
	case u.rec.UID == t.local.UID:
		return nil
	case u.base != 0:
		if u.rec.newer(t.local.UID, t.local.Version) {
			t.askFor(u.rec.Name, now, res)
		}
		return nil
	case u.rec.Key != t.local.Key:
		if c := t.rivals[life{u.rec.Name, u.rec.UID}]; c != nil && now.Sub(c.passed) < rivalAgain {
			return nil
		}
		r, err := t.verified(u, nil)
		if err != nil {
			return err
		}
		t.counters.Rivals++
		if c := t.seen(r, false, now); c != nil {
			c.passed = now
		}
		return nil
	case !u.rec.newer(t.local.UID, t.local.Version):
		return nil
	}
	r, err := t.verified(u, nil)
	if err != nil {
		return err
	}
	t.otherLife(r, now, res)
	return nil
}

// otherLife goes above the record of another life. If that keeps rising, it lives.
func (t *Topology) otherLife(r *Record, now time.Time, res *Result) {
	l := &t.lives
	if l.other == nil || len(l.other) >= maxRivals {
		l.other = map[peer.UID]rise{}
	}
	o, known := l.other[r.UID]
	if known && r.Version > o.version {
		o.times++
	}
	o.version = max(o.version, r.Version)
	l.other[r.UID] = o
	if o.times >= cloneRises {
		t.counters.Rivals++
		t.seen(r, true, now)
	}
	l.above, l.waits = max(l.above, r.Version), true
	res.News = res.merged(res.News, t.Tick(now))
}

// Tick does what waits for its time. It may be called at any time, and is to be
// called every second or so; the Delta is to be announced.
func (t *Topology) Tick(now time.Time) (announce Delta) {
	l := &t.lives
	if !l.waits || l.above >= MaxVersion || len(l.jumps) >= maxJumps && now.Sub(l.jumps[0]) < jumpTime {
		return announce
	}
	if l.jumps = append(l.jumps, now); len(l.jumps) > maxJumps {
		l.jumps = l.jumps[1:]
	}
	l.waits = false
	if t.local.Version > l.above {
		return announce
	}
	r := *t.local
	r.Version = l.above + 1
	t.steps = nil
	t.setLocal(&r)
	announce.add(update{rec: &r})
	return announce
}
