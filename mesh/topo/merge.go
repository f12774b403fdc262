package topo

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weave/internal/peer"
)

// ErrForged reports a record whose signature is not its author's.
var ErrForged = errors.New("forged topology record")

// Rates above which updates are left out.
const (
	updateRate   = 10 // per second and author
	updateBurst  = 50
	newNamesRate = 100 // per second
	wantAgain    = 500 * time.Millisecond
	maxWanted    = MaxPeers
)

// bucket is a token bucket. Its rate and burst are set once.
type bucket struct {
	rate, burst float64 // per second; tokens
	used        float64
	at          time.Time
}

// take takes a token if there is one.
func (b *bucket) take(now time.Time) bool {
	if !b.at.IsZero() {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	if b.used+1 > b.burst {
		return false
	}
	b.used++
	return true
}

// take considers one update from a neighbour.
func (t *Topology) take(from peer.Name, u *incoming, now time.Time, res *Result) error {
	name := u.rec.Name
	if name == t.local.Name {
		return t.takeOwn(u, now, res)
	}
	e := t.records[name]
	nb, direct := t.neighbours[name]
	if u.base == 0 && t.contested(e, nb, direct, u) {
		return t.takeRival(u, e, direct, now, res)
	}
	current := u.rec.UID == nb.UID && from == name // the author itself says so, of this life
	if e != nil && !u.rec.newer(e.rec.UID, e.rec.Version) && !(current && e.rec.UID != nb.UID) {
		return nil
	}
	if u.base != 0 && (e == nil || e.rec.UID != u.rec.UID || e.rec.Version < u.base) {
		t.askFor(name, now, res)
		return nil
	}
	if direct && u.rec.UID != nb.UID {
		// An earlier life of a neighbour, or a clone: the neighbour is to know.
		if r, err := t.verified(u, nil); err != nil {
			return err
		} else if e == nil || e.updates.take(now) {
			res.tell(name, update{rec: r})
		}
		return nil
	}
	if e == nil {
		if !direct && (len(t.records) >= MaxPeers || !t.newNames.take(now)) {
			t.counters.Limited++
			return nil
		}
	} else if !e.updates.take(now) {
		t.counters.Hurried++
		return nil
	}
	return t.adopt(u, e, now, res)
}

// contested reports whether a whole record comes from another holder of a name that
// is taken. E is nil if nothing is known of the name.
func (t *Topology) contested(e *entry, nb Neighbour, direct bool, u *incoming) bool {
	if direct {
		return u.rec.Key != nb.Key
	}
	return e != nil && u.rec.Key != e.rec.Key && t.supported(e)
}

// supported reports whether a peer that e says it is connected to says the same of
// the holder of e's key.
func (t *Topology) supported(e *entry) bool { return t.supportedBut(e, peer.Name{}) }

func (t *Topology) supportedBut(e *entry, but peer.Name) bool {
	for c := range e.rec.Conns() {
		if w := t.records[c.Peer]; w != nil && c.Peer != but {
			if back, ok := w.rec.Conn(e.rec.Name); ok && back.Mark == e.mark {
				return true
			}
		}
	}
	return false
}

// Supported reports whether some other peer says that it is connected to the holder of
// the key that a name is known with here.
func (t *Topology) Supported(name peer.Name) bool {
	e := t.records[name]
	return e != nil && t.supportedBut(e, t.local.Name)
}

// adopt replaces e's record, which may be missing, by that of u.
func (t *Topology) adopt(u *incoming, e *entry, now time.Time, res *Result) error {
	var old *Record
	if e != nil {
		old = e.rec
	}
	touched := []peer.Name(nil)
	r, err := t.verified(u, &touched)
	if err != nil {
		return err
	}
	grown := len(r.conns)
	if old != nil {
		grown -= len(old.conns)
	}
	if grown > 0 && t.bytes+grown > MaxBytes && len(r.conns) > fairBytes {
		t.counters.Limited++
		return nil
	}
	news := update{rec: r, base: u.base, touched: touched}
	if old != nil && old.Key == r.Key && u.base == 0 {
		touched = diff(old.conns, r.conns)
		if old.UID == r.UID && old.Version < r.Version && old.NickName == r.NickName && old.Program == r.Program && old.Port == r.Port {
			news.base, news.touched = old.Version, touched
		}
	}
	if old != nil && old.UID != r.UID && !r.newer(old.UID, old.Version) {
		res.reply(update{rec: old}) // the author is to go above its earlier life
	}
	t.store(r)
	t.graph.update(r, touched)
	delete(t.wanted, r.Name)
	res.news(news)
	return nil
}

// verified makes the record that u leads to and checks its signature. It shares no
// memory with the message.
func (t *Topology) verified(u *incoming, touched *[]peer.Name) (*Record, error) {
	var r *Record
	if u.base == 0 {
		whole := u.rec
		whole.conns = slices.Clone(u.conns)
		r = &whole
	} else {
		var err error
		var names []peer.Name
		if r, names, err = u.apply(t.records[u.rec.Name].rec); err != nil {
			return nil, err
		}
		if touched != nil {
			*touched = names
		}
	}
	t.scratch = signed(t.scratch[:0], r)
	if !t.cfg.Verify(r.Key, t.scratch, r.sig[:]) {
		t.counters.Forged++
		return nil, fmt.Errorf("record of %s: %w", r.Name, ErrForged)
	}
	return r, nil
}

// askFor asks the neighbour for a whole record, unless it was just asked for.
func (t *Topology) askFor(name peer.Name, now time.Time, res *Result) {
	if at, ok := t.wanted[name]; ok && now.Sub(at) < wantAgain {
		return
	}
	if len(t.wanted) >= maxWanted {
		clear(t.wanted)
	}
	t.wanted[name] = now
	t.counters.Asked++
	res.replies.ask(name)
}
