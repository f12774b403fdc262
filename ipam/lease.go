package ipam

import (
	"net/netip"
	"slices"
	"strings"

	"weave/ipam/addr"
)

// anonymous is the ident of an address that nobody's end frees.
const anonymous = "_"

// identOf is what an address is kept under: an anonymous one under its own text.
func identOf(ident string, a addr.Addr) string {
	if ident == anonymous {
		return a.String()
	}
	return ident
}

// addLease keeps account of an address in use, taking it from our space if it is
// ours.
func (c *core) addLease(l *lease) {
	if old := c.leases[l.addr]; old != nil {
		c.dropLease(old)
	}
	l.foreign = !c.space.Claim(l.addr)
	if l.foreign {
		l.asked = c.now - foreignAgain
		c.foreign++
		c.house = c.now - houseTime
	}
	c.leases[l.addr] = l
	c.byIdent[l.ident] = append(c.byIdent[l.ident], l.addr)
	c.dirty.leases[l.addr] = true
}

// dropLease forgets an address in use and frees it if it is ours.
func (c *core) dropLease(l *lease) {
	delete(c.leases, l.addr)
	delete(c.doubles, l.addr)
	rest := slices.DeleteFunc(c.byIdent[l.ident], func(a addr.Addr) bool { return a == l.addr })
	if c.byIdent[l.ident] = rest; len(rest) == 0 {
		delete(c.byIdent, l.ident)
	}
	if l.dying {
		c.dying--
	}
	if l.foreign {
		c.foreign--
	} else {
		c.space.Free(l.addr)
		if !c.usable() {
			c.space.Hold(addr.Of(l.addr))
		}
	}
	c.dirty.leases[l.addr] = true
}

// leasesOf returns what ident has, in order of address.
func (c *core) leasesOf(ident string) (out []*lease) {
	for _, a := range c.byIdent[ident] {
		out = append(out, c.leases[a])
	}
	sortLeases(out)
	return out
}

func (c *core) foreignLeases() (out []*lease) {
	for _, l := range c.leases {
		if l.foreign {
			out = append(out, l)
		}
	}
	sortLeases(out)
	return out
}

func sortLeases(ls []*lease) {
	slices.SortFunc(ls, func(a, b *lease) int { return a.addr.Compare(b.addr) })
}

func prefixes(ls []*lease) (out []netip.Prefix) {
	for _, l := range ls {
		if len(out) < maxNotes {
			out = append(out, l.prefix())
		}
	}
	return out
}

// revive says that a container is there (again).
func (c *core) revive(l *lease) {
	if l.dying && !c.hits(bugReapAlive) {
		l.dying = false
		c.dying--
	}
}

// die starts the grace of a container's address.
func (c *core) die(l *lease) {
	if l.container && !l.dying {
		l.dying, l.freeAt = true, c.now+deathGrace
		c.dying++
	}
}

// reap frees addresses whose grace is over.
func (c *core) reap() {
	c.forgetAsks()
	if c.dying == 0 || c.hits(bugNeverReap) {
		return
	}
	var dead []*lease
	for _, l := range c.leases {
		if l.dying && c.now >= l.freeAt {
			dead = append(dead, l)
		}
	}
	sortLeases(dead)
	for _, l := range dead {
		c.dropLease(l)
	}
}

// Live is a container, or another user of addresses, that is there now.
type Live struct {
	Ident     string
	Container bool           // its addresses may be freed when Reconcile misses it
	Addrs     []netip.Prefix // as found on its interface; may be none
}

// evDied says that a container stopped; it may come back.
type evDied struct{ ident string }

func (e evDied) apply(c *core) {
	for _, l := range c.leasesOf(e.ident) {
		c.die(l)
	}
	c.cancelOf(e.ident)
}

// evDestroyed says that a container will not come back.
type evDestroyed struct{ ident string }

func (e evDestroyed) apply(c *core) {
	for _, l := range c.leasesOf(e.ident) {
		if l.container {
			c.dropLease(l)
		}
	}
	c.cancelOf(e.ident)
}

// evReconcile says what is there now: all of it.
type evReconcile struct {
	live []Live
	op   *op
}

func (e evReconcile) apply(c *core) {
	c.reconciled = true
	there := make(map[string]bool, len(e.live))
	seen := map[addr.Addr]string{}
	for _, v := range e.live {
		there[v.Ident] = true
		for _, p := range v.Addrs {
			if a, ok := addr.FromNetip(p.Addr()); ok {
				seen[a] = identOf(v.Ident, a)
			}
		}
	}
	for _, v := range e.live {
		c.present(v, seen)
	}
	for a, l := range c.leases {
		l.stored = l.stored && seen[a] != l.ident
		if l.foreign && c.universe.Contains(a) && seen[a] != l.ident {
			c.dropLease(l) // not ours, and not in use: of no value
			continue
		}
		if there[l.ident] {
			c.revive(l)
		} else {
			c.die(l)
		}
	}
	if e.op != nil {
		c.answer(e.op, result{})
	}
}

// present records addresses in use that we do not know of, whoever owns them. seen
// is what was found in use, and by whom: it counts for more than our books, which
// may be old.
func (c *core) present(v Live, seen map[addr.Addr]string) {
	for _, p := range v.Addrs {
		a, ok := addr.FromNetip(p.Addr())
		if !ok || v.Ident == "" || len(v.Ident) > maxIdent || len(c.leases) >= maxLeases {
			continue
		}
		ident := identOf(v.Ident, a)
		if old := c.leases[a]; seen[a] != ident || old != nil && old.ident == ident {
			continue
		}
		c.addLease(&lease{addr: a, ident: ident, bits: p.Bits(), container: v.Container && v.Ident != anonymous})
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}
