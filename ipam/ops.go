package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
)

type opKind uint8

const (
	opAllocate opKind = iota
	opClaim
	opFree
	opFreeAll
	opLookup
	opPrime
	opRemove
	opShutdown
	opStatus
	opReconcile
)

// op is a request of this host.
type op struct {
	kind      opKind
	ident     string
	prefix    netip.Prefix // allocate: the subnet; claim, free: the address with its subnet's length
	rng       addr.Range   // of the subnet
	addr      addr.Addr
	container bool
	wait      bool   // however long it takes
	target    string // remove: a peer's name or nickname

	deadline time.Duration // 0: none
	done     chan result   // of the Allocator; nil in tests of the core
}

// result is the answer to an op.
type result struct {
	prefixes []netip.Prefix
	count    uint64
	status   *Status
	err      error
}

// evOp is a request.
type evOp struct{ op *op }

func (e evOp) apply(c *core) {
	o := e.op
	if err := c.admit(o); err != nil {
		c.answer(o, result{err: err})
		return
	}
	if !o.wait {
		o.deadline = c.now + requestTime
	}
	switch o.kind {
	case opLookup, opFree, opFreeAll, opStatus:
		c.immediate(o)
	case opRemove:
		c.startRemoval(o)
	case opShutdown:
		o.deadline = c.now + confirmTime
		c.ending = o
		for _, w := range c.ops {
			c.fail(w, ErrStopped)
		}
		c.ops = nil
	default:
		if o.kind == opClaim {
			c.seekAfresh(addr.Of(o.addr))
		}
		c.ops = append(c.ops, o)
	}
}

// admit checks what does not depend on others.
func (c *core) admit(o *op) error {
	switch {
	case o.kind == opStatus || o.kind == opLookup:
		return nil
	case c.stopping || c.ending != nil:
		return ErrStopped
	case len(c.ops) >= maxOps:
		return refuse(ErrBusy, "%d requests for addresses wait already", len(c.ops))
	case (o.kind == opAllocate || o.kind == opClaim) && (o.ident == "" || len(o.ident) > maxIdent):
		return refuse(ErrSubnet, "container name of %d bytes, want 1 to %d", len(o.ident), maxIdent)
	case (o.kind == opAllocate || o.kind == opClaim) && len(c.leases) >= maxLeases:
		return refuse(ErrBusy, "%d addresses are in use on this host already", len(c.leases))
	}
	var err error
	switch o.kind {
	case opAllocate:
		if o.rng, err = addr.FromPrefix(o.prefix); err != nil {
			return refuse(ErrSubnet, "%v", err)
		}
		if !o.rng.Overlaps(c.universe) {
			return refuse(ErrSubnet, "subnet %v is outside the allocation range %v", o.prefix, c.prefix)
		}
	case opClaim, opFree:
		var ok bool
		if o.addr, ok = addr.FromNetip(o.prefix.Addr()); !ok {
			return refuse(ErrSubnet, "%v is not an IPv4 address", o.prefix.Addr())
		}
	}
	return nil
}

func (c *core) answer(o *op, r result) { c.out.replies = append(c.out.replies, reply{o, r}) }

func (c *core) fail(o *op, err error) { c.answer(o, result{err: err}) }

func (c *core) immediate(o *op) {
	switch o.kind {
	case opStatus:
		c.answer(o, result{status: c.status()})
	case opLookup:
		c.answer(o, result{prefixes: c.lookup(o.ident, o.rng)})
	case opFreeAll:
		ls := c.leasesOf(o.ident)
		for _, l := range ls {
			c.dropLease(l)
		}
		c.answer(o, result{prefixes: prefixes(ls)})
	case opFree:
		l := c.leases[o.addr]
		if l == nil || l.ident != identOf(o.ident, o.addr) && o.ident != anonymous {
			c.fail(o, refuse(ErrNotFound, "%v is not in use by %s", o.addr, o.ident))
			return
		}
		c.dropLease(l)
		c.answer(o, result{prefixes: prefixes([]*lease{l})})
	}
}

// lookup returns what ident has; in rng, unless that is empty.
func (c *core) lookup(ident string, rng addr.Range) (out []netip.Prefix) {
	for _, l := range c.leasesOf(ident) {
		if rng.Empty() || rng.Contains(l.addr) {
			out = append(out, l.prefix())
		}
	}
	return out
}

// pump tries all requests that wait; claims go before allocations, which might
// take what is claimed.
func (c *core) pump() {
	if len(c.ops) == 0 {
		return
	}
	pending := slices.Clone(c.ops)
	slices.SortStableFunc(pending, func(a, b *op) int { return int(boolInt(a.kind == opAllocate)) - int(boolInt(b.kind == opAllocate)) })
	left := make([]*op, 0, len(pending))
	for _, o := range pending {
		if c.try(o) {
			continue
		}
		if o.deadline > 0 && c.now >= o.deadline {
			c.fail(o, c.reason(o))
			continue
		}
		left = append(left, o)
	}
	c.ops = left
}

func boolInt(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// try answers a request if that can be done now.
func (c *core) try(o *op) bool {
	switch {
	case c.stopping:
		c.fail(o, ErrStopped)
		return true
	case o.kind == opAllocate:
		return c.tryAllocate(o)
	case o.kind == opClaim:
		return c.tryClaim(o)
	case o.kind == opPrime:
		if c.ring == nil {
			c.elect()
			return false
		}
		c.answer(o, result{})
		return true
	}
	return true
}

func (c *core) tryAllocate(o *op) bool {
	for _, l := range c.leasesOf(o.ident) {
		if o.ident != anonymous && o.rng.Contains(l.addr) {
			if c.doubtful(l) {
				return false
			}
			if l.foreign && (l.dying || l.stored) {
				c.dropLease(l) // it was lost while the container was down
				continue
			}
			c.handOut(o, l)
			return true
		}
	}
	switch {
	case c.fenced != "":
		c.fail(o, refuse(ErrIdentity, "%s", c.fenced))
		return true
	case c.ring == nil:
		c.elect()
		return false
	}
	want := o.rng.Hosts()
	for {
		a, ok := c.space.Allocate(want)
		if !ok {
			break
		}
		if c.leases[a] != nil { // cannot be: who has it took it from space
			continue
		}
		l := &lease{addr: a, ident: identOf(o.ident, a), bits: o.prefix.Bits(), container: o.container && o.ident != anonymous}
		c.leases[a] = l
		c.byIdent[l.ident] = append(c.byIdent[l.ident], a)
		c.dirty.leases[a] = !c.hits(bugSkipSaveLease)
		if !c.dirty.leases[a] {
			delete(c.dirty.leases, a)
		}
		c.answer(o, result{prefixes: prefixes([]*lease{l})})
		return true
	}
	over := c.seek(want.Intersect(c.universe))
	if over && !o.wait && c.hopeless(o) {
		c.fail(o, c.reason(o))
		return true
	}
	return false
}

// hopeless reports whether waiting cannot help, unless a container ends.
func (c *core) hopeless(o *op) bool {
	rng := o.rng.Hosts().Intersect(c.universe)
	return c.confirm == nil && c.space.HeldIn(rng) == 0 && !c.asks[rng].blocked
}

// doubtful reports whether a lease is only in the store, which may be of an earlier
// day, and nobody has said yet what is really in use, or whose the address is now.
func (c *core) doubtful(l *lease) bool {
	return l.stored && (!c.reconciled && c.now < reconcileMax || c.confirm != nil && c.universe.Contains(l.addr))
}

// handOut answers with a lease that there is already.
func (c *core) handOut(o *op, l *lease) {
	c.revive(l)
	l.stored = false
	c.answer(o, result{prefixes: prefixes([]*lease{l})})
}

func (c *core) tryClaim(o *op) bool {
	if l := c.leases[o.addr]; l != nil {
		switch {
		case c.doubtful(l):
			return false
		case l.foreign && (l.dying || l.stored) && c.universe.Contains(l.addr): // another's by now
			c.dropLease(l)
			return c.tryClaim(o)
		case l.ident == identOf(o.ident, o.addr) || o.ident == anonymous:
			c.handOut(o, l)
		case l.dying:
			c.dropLease(l)
			return c.tryClaim(o)
		default:
			c.fail(o, refuse(ErrInUse, "%v is in use by %s", o.addr, l.ident))
		}
		return true
	}
	mine := &lease{addr: o.addr, ident: identOf(o.ident, o.addr), bits: o.prefix.Bits(), container: o.container && o.ident != anonymous}
	if !c.universe.Contains(o.addr) { // not managed; but two containers here cannot have it
		c.addLease(mine)
		c.answer(o, result{prefixes: prefixes([]*lease{mine})})
		return true
	}
	if c.fenced != "" {
		c.fail(o, refuse(ErrIdentity, "%s", c.fenced))
		return true
	}
	if c.ring == nil {
		c.elect()
		return false
	}
	return c.tryClaimManaged(o, mine)
}

func (c *core) tryClaimManaged(o *op, mine *lease) bool {
	if c.space.Owns(o.addr) {
		if c.space.Held(o.addr) {
			return false // until we know more
		}
		c.addLease(mine)
		c.answer(o, result{prefixes: prefixes([]*lease{mine})})
		return true
	}
	one := addr.Of(o.addr)
	owner, _ := c.ring.Owner(o.addr)
	over := c.seek(one)
	if why, ok := c.asks[one].denied[owner]; ok && over && !o.wait {
		c.fail(o, refuse(ErrInUse, "%v is owned by %s, where it is not free: %s", o.addr, c.nickOf(owner), why))
		return true
	}
	return false
}

// reason says why a request could not be answered in time.
func (c *core) reason(o *op) error {
	rng := o.rng.Hosts().Intersect(c.universe)
	if o.kind == opClaim {
		rng = addr.Of(o.addr)
	}
	switch {
	case c.fenced != "":
		return refuse(ErrIdentity, "%s", c.fenced)
	case c.ring == nil:
		return c.noQuorum()
	}
	names := c.blockers(rng)
	switch rests := c.space.HeldIn(rng) > 0; {
	case c.confirm != nil && (rests || len(names) == 0):
		return c.unconfirmed()
	case len(names) > 0:
		return c.waitingFor(names)
	case rests:
		return refuse(ErrWaiting, "waiting for the other hosts to hear of addresses just taken over")
	}
	return refuse(ErrExhausted, "range exhausted: no address is free in %v", o.prefix)
}

// unconfirmed says why what is ours rests.
func (c *core) unconfirmed() error {
	names := c.unheard()
	text, wrong := c.conflictAmong(names)
	switch {
	case wrong:
		return refuse(ErrWaiting, "waiting for %s to confirm what this host owns: %s", c.nicksOf(names), text)
	case c.stale:
		return refuse(ErrWaiting, "the store of this host is lost or old: waiting for %s to confirm what it owns: %s", c.nicksOf(names), c.giveUp(names))
	case !c.reconciled:
		return refuse(ErrWaiting, "waiting to hear which addresses are in use on this host: try again")
	}
	return refuse(ErrWaiting, "waiting for %s to confirm what this host owns: %s", c.nicksOf(names), c.giveUp(names))
}

func (c *core) waitingFor(names []peer.Name) error {
	if text, wrong := c.conflictAmong(names); wrong {
		return refuse(ErrWaiting, "waiting for %s: %s", c.nicksOf(names), text)
	}
	which := "which owns"
	if len(names) > 1 {
		which = "which own"
	}
	return refuse(ErrWaiting, "waiting for %s, %s the rest: %s", c.nicksOf(names), which, c.giveUp(names))
}

// giveUp is the advice what to do about peers that are gone.
func (c *core) giveUp(names []peer.Name) string {
	var gone []string
	for _, n := range names {
		if !c.reach[n] {
			gone = append(gone, c.nickOf(n))
		}
	}
	switch {
	case len(gone) == 0:
		return "try again"
	case len(gone) == 1:
		return "rmpeer " + gone[0] + " if it is gone"
	}
	return "rmpeer those that are gone"
}

func (c *core) nicksOf(names []peer.Name) string {
	var out []string
	for i, n := range names {
		if i == 5 {
			return list(out) + " and others"
		}
		out = append(out, c.nickOf(n))
	}
	return list(out)
}

// evCancel takes a request back.
type evCancel struct {
	op  *op
	err error
}

func (e evCancel) apply(c *core) {
	if i := slices.Index(c.ops, e.op); i >= 0 {
		c.ops = slices.Delete(c.ops, i, i+1)
		c.fail(e.op, e.err)
	}
}

var errGone = errors.New("the container has ended")

// cancelOf takes back the requests of a container that has ended.
func (c *core) cancelOf(ident string) {
	c.ops = slices.DeleteFunc(c.ops, func(o *op) bool {
		mine := o.ident == ident && (o.kind == opAllocate || o.kind == opClaim)
		if mine {
			c.fail(o, errGone)
		}
		return mine
	})
}
