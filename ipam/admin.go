package ipam

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

// removal is an rmpeer that listens to the others before it acts.
type removal struct {
	op     *op
	victim peer.Name
	since  time.Duration
	sync   syncing
}

// takenSpace is space taken over, at rest until the others have heard of it.
type takenSpace struct {
	ranges []addr.Range
	victim peer.Name
	since  time.Duration
	sync   syncing
}

// handover is the end of this peer: its space is an heir's, who has to say so.
type handover struct {
	op    *op
	heir  peer.Name
	since time.Duration
	sent  time.Duration
	id    uint64
	msgs  []*message
	count uint64
}

// inheritance is a handover that arrives in parts.
type inheritance struct {
	id    uint64
	parts uint64 // those received
}

// resolve finds a peer by its name or nickname.
func (c *core) resolve(text string) (peer.Name, error) {
	if n, err := peer.ParseName(text); err == nil {
		return n, nil
	}
	found := map[peer.Name]bool{}
	for _, n := range c.others() {
		if c.nickOf(n) == text {
			found[n] = true
		}
	}
	for n, nick := range c.nicks {
		if nick == text {
			found[n] = true
		}
	}
	names := sortedNames(found)
	switch {
	case len(names) == 0 && text != c.nick:
		return peer.Name{}, refuse(ErrNotFound, "no peer is known as %q: see weave status ipam", text)
	case len(names) > 1:
		return peer.Name{}, refuse(ErrNotFound, "several peers are known as %q, name one of %v", text, names)
	case len(names) == 0:
		return c.self, nil
	}
	return names[0], nil
}

func (c *core) startRemoval(o *op) {
	victim, err := c.resolve(o.target)
	switch {
	case err != nil:
		c.fail(o, err)
	case victim == c.self || c.ring == nil || c.ring.OwnedBy(victim).Size() == 0 && c.removed(victim):
		c.answer(o, result{}) // nothing to take over
	default:
		c.removals = append(c.removals, &removal{op: o, victim: victim, since: c.now, sync: c.newSync(ring.Delta{})})
	}
}

// checkRemovals takes over a peer's space once all others that can be reached have
// been heard, and the peer itself has not.
func (c *core) checkRemovals() {
	c.removals = slices.DeleteFunc(c.removals, func(r *removal) bool {
		others := c.others()
		if !slices.Contains(others, r.victim) {
			others = append(others, r.victim)
		}
		c.syncWith(&r.sync, others)
		late := c.now-r.since >= removeSync
		switch {
		case c.stopping:
			c.fail(r.op, ErrStopped)
		case r.sync.acked[r.victim]:
			c.fail(r.op, refuse(ErrAlive, "%s is alive: run weave reset there instead", c.nickOf(r.victim)))
		case c.fenced != "":
			c.fail(r.op, refuse(ErrIdentity, "%s", c.fenced))
		case c.confirm != nil:
			if c.now < r.op.deadline {
				return false
			}
			c.fail(r.op, c.reason(r.op))
		case len(c.unanswered(&r.sync, others)) > 0 && !late:
			return false
		default:
			c.answer(r.op, result{count: c.takeOver(r.victim)})
		}
		return true
	})
}

// takeOver makes a lost peer's space ours. It rests until others have heard.
func (c *core) takeOver(victim peer.Name) uint64 {
	ranges := c.ring.OwnedBy(victim).Ranges()
	n, d := c.ring.TakeOver(victim, c.self, c.members[victim].Boot)
	c.took(victim, n, ranges, d)
	return n
}

func (c *core) took(victim peer.Name, n uint64, ranges []addr.Range, d ring.Delta) {
	if d.Empty() {
		return
	}
	c.dirty.ring = true
	c.changed()
	for _, r := range ranges {
		c.gain(r, false)
		c.space.Hold(r)
	}
	if n > 0 {
		t := &takenSpace{ranges: ranges, victim: victim, since: c.now, sync: c.newSync(d)}
		c.taken = append(c.taken, t)
		c.note(Note{Kind: NoteRemoved, Peer: victim, Text: "took over the addresses of " + c.nickOf(victim)})
	}
	c.spread(&message{kind: kindState, ring: d})
}

// takeLate takes over what a removed peer turns out to have been given.
func (c *core) takeLate() {
	if !c.usable() || c.hits(bugNoRetire) {
		return
	}
	for _, f := range c.ring.All().Fences {
		if !c.standing(f) || c.lastHeir(f) != c.self {
			continue
		}
		ranges := c.ring.OwnedBy(f.Victim).Ranges()
		if len(ranges) == 0 {
			continue
		}
		n, d := c.ring.TakeOver(f.Victim, c.self, f.Boot)
		c.took(f.Victim, n, ranges, d)
	}
}

// standing reports whether the peer behind a fence has not come back.
func (c *core) standing(f ring.Fence) bool {
	return !c.reach[f.Victim] && c.members[f.Victim].Boot <= f.Boot
}

// lastHeir follows heirs that were fenced off themselves.
func (c *core) lastHeir(f ring.Fence) peer.Name {
	for range ring.MaxFences {
		next, ok := c.ring.Fence(f.By)
		if !ok || f.By == c.self || !c.standing(next) {
			break
		}
		f = next
	}
	return f.By
}

// checkTaken ends the rest of space taken over.
func (c *core) checkTaken() {
	c.taken = slices.DeleteFunc(c.taken, func(t *takenSpace) bool {
		others := slices.DeleteFunc(slices.Clone(c.others()), func(n peer.Name) bool { return n == t.victim })
		c.syncWith(&t.sync, others)
		if c.confirm != nil || c.fenced != "" {
			return true // all rests now, and ends otherwise
		}
		if len(c.unanswered(&t.sync, others)) > 0 && c.now-t.since < takenHold && !c.hits(bugTakeUnheard) {
			return false
		}
		for _, r := range t.ranges {
			c.space.Release(r)
		}
		return true
	})
}

// checkEnding begins the shutdown when it is known what we own, or when it does not
// become known.
func (c *core) checkEnding() {
	o := c.ending
	if o == nil || c.ring != nil && c.confirm != nil && c.fenced == "" && c.now < o.deadline {
		return
	}
	c.ending = nil
	c.startShutdown(o)
}

// startShutdown gives all that is ours to an heir: a reachable owner, else a
// reachable peer, else anybody known.
func (c *core) startShutdown(o *op) {
	mine := c.space.Unheld().Ranges()
	owned, _, held := c.space.Sizes()
	c.stopping = true
	for _, l := range slices.Collect(maps.Values(c.leases)) {
		c.dropLease(l)
	}
	heir, ok := c.heir()
	switch {
	case c.ring == nil || !ok:
		c.answer(o, result{})
		return
	case len(mine) == 0 && owned > 0:
		c.fail(o, refuse(ErrNotTaken, "what this host owns is not confirmed, it was given to nobody: rmpeer %s on another host", c.nickOf(c.self)))
		return
	}
	d := c.ring.GiveAll(c.self, mine, heir)
	for _, r := range mine {
		c.space.Lose(r)
	}
	c.dirty.ring = true
	c.changed()
	c.hand = &handover{op: o, heir: heir, since: c.now, sent: c.now - syncAgain, count: owned - held, id: c.newID()}
	// The heir gets all we know: what it does not hear of it might take for ours.
	all := &message{kind: kindHand, id: c.hand.id, boot: c.boot, ring: c.ring.All()}
	parts := all.split()
	for i, p := range parts {
		q := *p
		q.part, q.parts = uint8(i), uint8(len(parts))
		c.hand.msgs = append(c.hand.msgs, &q)
	}
	if !d.Empty() {
		c.spread(&message{kind: kindState, ring: d})
	}
}

func (c *core) heir() (peer.Name, bool) {
	if c.ring == nil {
		return peer.Name{}, false
	}
	owners := c.ring.Owners(c.universe)
	candidates := c.others()
	for n := range c.reach {
		if !slices.Contains(candidates, n) && len(candidates) == 0 {
			candidates = append(candidates, n)
		}
	}
	rank := func(n peer.Name) int {
		r := 0
		if c.reach[n] {
			r += 2
		}
		if owners[n] > 0 {
			r++
		}
		return r
	}
	if len(candidates) == 0 {
		return peer.Name{}, false
	}
	best := slices.MaxFunc(candidates, func(a, b peer.Name) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Compare(a))
	})
	return best, true
}

// checkHand repeats the handover until the heir has it, for a while.
func (c *core) checkHand() {
	h := c.hand
	if h == nil {
		return
	}
	if c.now-h.since >= handTime {
		c.hand = nil
		c.answer(h.op, result{count: h.count, err: refuse(ErrNotTaken,
			"%s did not confirm to have taken over this host's addresses: rmpeer %s there if they are missing", c.nickOf(h.heir), c.nickOf(c.self))})
		return
	}
	if c.now-h.sent >= syncAgain {
		h.sent = c.now
		for _, m := range h.msgs {
			c.send(h.heir, m)
		}
	}
}

// onHand inherits from a peer that leaves. What others still give that peer,
// unknowing, is ours too: the fence says so.
func (c *core) onHand(from peer.Name, m *message) {
	if c.ring != nil && !m.ring.ID.Equal(c.ring.ID()) {
		c.conflict(from, m.ring.ID)
		return
	}
	c.mergeState(from, &message{kind: kindState, ring: m.ring})
	in := c.inherits[from]
	if in.id != m.id {
		in = inheritance{id: m.id}
	}
	in.parts |= 1 << (m.part % maxParts)
	c.inherits[from] = in
	if c.ring == nil || in.parts != 1<<m.parts-1 {
		return
	}
	if d := c.ring.Retire(from, c.self, m.boot); !d.Empty() && !c.hits(bugNoRetire) {
		c.dirty.ring = true
		c.changed()
		c.spread(&message{kind: kindState, ring: d})
	}
	c.send(from, &message{kind: kindHanded, id: m.id})
}

func (c *core) onHanded(from peer.Name, m *message) {
	if h := c.hand; h != nil && h.heir == from && h.id == m.id {
		c.hand = nil
		c.answer(h.op, result{count: h.count})
	}
}

// compact joins what we own into fewer entries when it has fallen to pieces.
func (c *core) compact() {
	if !c.usable() || len(c.taken) > 0 || len(c.ring.Entries()) <= restampBeyond {
		return
	}
	mine := 0
	for _, e := range c.ring.Entries() {
		if e.Owner == c.self {
			mine++
		}
	}
	if pieces := len(c.ring.OwnedBy(c.self).Ranges()); mine <= 2*pieces+8 {
		return
	}
	if d := c.ring.Restamp(c.self); !d.Empty() {
		c.dirty.ring = true
		c.changed()
		c.spread(&message{kind: kindState, ring: d})
	}
}
