package ipam

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weave/ipam/addr"
)

// script is one random schedule.
type script struct {
	*sim
	guard     time.Duration // no new faults until then: something is going on that must not be disturbed
	unsure    bool          // somebody left without an heir's confirmation
	lastLeave time.Duration
	serial    int
}

// newScript draws a network and its weather from the seed.
func newScript(seed uint64, b bug) *script {
	s := newSim(seed, 0, "10.0.0.0/26", Init{})
	s.bug = b
	n := 3 + s.rnd.IntN(4)
	if s.rnd.IntN(20) == 0 {
		n = 8 + s.rnd.IntN(3)
	}
	if s.rnd.IntN(4) == 0 {
		s.prefix = netip.MustParsePrefix("10.0.0.0/28")
	}
	for range n {
		s.addHost(false)
	}
	s.init = Init{Mode: Consensus, Electors: n}
	if s.rnd.IntN(4) == 0 {
		s.init = Init{Mode: Seed}
		for _, h := range s.hosts {
			s.init.Seeds = append(s.init.Seeds, h.name)
		}
	}
	return &script{sim: s}
}

func (s *script) play() {
	for _, h := range s.hosts {
		s.after(time.Duration(s.rnd.Int64N(2e9)), func() { s.start(h) })
	}
	s.loss, s.dup, s.slow = 0.15*s.rnd.Float64(), 0.1*s.rnd.Float64(), 0.05*s.rnd.Float64()
	if s.rnd.IntN(2) == 0 {
		s.crash = 0.002 * s.rnd.Float64()
	}
	end := 25*time.Second + time.Duration(s.rnd.Int64N(30e9))
	for s.now < end && s.failed == "" {
		s.runFor(time.Duration(s.rnd.Int64N(500e6)))
		s.client()
		if s.rnd.IntN(4) == 0 && s.now >= s.guard {
			s.fault()
		}
	}
	s.heal()
	s.calm = true
	s.runFor(30 * time.Second)
	s.checkEqual()
	s.runFor(32 * time.Second)
	s.checkLeaks()
}

func (s *script) pick(ok func(*simHost) bool) *simHost {
	var hs []*simHost
	for _, h := range s.hosts {
		if ok(h) {
			hs = append(hs, h)
		}
	}
	if len(hs) == 0 {
		return nil
	}
	return hs[s.rnd.IntN(len(hs))]
}

func running(h *simHost) bool { return h.core != nil }

// client does what a user of some host does.
func (s *script) client() {
	h := s.pick(func(h *simHost) bool { return !h.gone && !h.left && !h.leaving })
	if h == nil {
		return
	}
	switch s.rnd.IntN(10) {
	case 0, 1, 2, 3, 4:
		s.serial++
		c := &container{host: h, ident: fmt.Sprintf("c%d", s.serial), plain: s.rnd.IntN(6) == 0}
		h.containers[c.ident] = c
		s.allocate(c)
	case 5:
		s.serial++
		c := &container{host: h, ident: fmt.Sprintf("k%d", s.serial)}
		h.containers[c.ident] = c
		s.claim(c)
	default:
		s.containerEvent(h)
	}
}

func (s *script) containerEvent(h *simHost) {
	idents := slices.Sorted(maps.Keys(h.containers))
	if len(idents) == 0 {
		return
	}
	c := h.containers[idents[s.rnd.IntN(len(idents))]]
	switch {
	case c.stopped: // starts again, with the same ident
		c.stopped = false
		s.log("%s on %s starts again", c.ident, h.nick)
		s.step(h, evTick{})
		s.allocate(c)
	case c.plain:
		s.log("%s on %s is freed", c.ident, h.nick)
		had, a, asking := c.has, c.addr, c.asking
		s.end(c)
		delete(h.containers, c.ident)
		h.orphans = append(h.orphans, c.ident) // until the daemon says that it knows
		freed := func(result) {
			if asking { // its request may still be granted, and the answer lost
				return
			}
			h.orphans = slices.DeleteFunc(h.orphans, func(i string) bool { return i == c.ident })
		}
		if h.core != nil && had {
			s.request(h, &op{kind: opFree, ident: c.ident, prefix: netip.PrefixFrom(a.Netip(), 32)}, freed)
		} else if h.core != nil {
			s.request(h, &op{kind: opFreeAll, ident: c.ident}, freed)
		}
	case s.rnd.IntN(2) == 0: // stops, and may come back
		s.log("%s on %s stops", c.ident, h.nick)
		s.end(c)
		if s.rnd.IntN(4) > 0 { // the event may be missed
			s.step(h, evDied{c.ident})
		}
	default:
		s.log("%s on %s is destroyed", c.ident, h.nick)
		s.end(c)
		delete(h.containers, c.ident)
		if s.rnd.IntN(4) > 0 {
			s.step(h, evDestroyed{c.ident})
		}
	}
}

func (s *script) allocate(c *container) {
	if c.host.core == nil || c.asking {
		return
	}
	c.asking = true
	subnet := s.prefix
	if s.rnd.IntN(5) == 0 {
		subnet = netip.PrefixFrom(s.prefix.Addr(), s.prefix.Bits()+1)
	}
	s.log("%s on %s wants an address in %v", c.ident, c.host.nick, subnet)
	begin := s.now
	h, run, nth := c.host, c.host.run, c.starts
	s.request(h, &op{kind: opAllocate, ident: c.ident, prefix: subnet, container: !c.plain}, func(r result) {
		if c.starts != nth && h.containers[c.ident] == c {
			return // of an earlier start, which is over
		}
		c.asking = false
		s.answered(h, run, begin, c, r)
	})
}

func (s *script) claim(c *container) {
	if c.host.core == nil || c.asking {
		return
	}
	c.asking = true
	size := int64(1) << (addr.Bits - s.prefix.Bits())
	start, _ := addr.FromNetip(s.prefix.Addr())
	a := start.Plus(uint64(s.rnd.Int64N(size)))
	s.log("%s on %s claims %v", c.ident, c.host.nick, a)
	begin := s.now
	h, run, nth := c.host, c.host.run, c.starts
	s.request(h, &op{kind: opClaim, ident: c.ident, prefix: netip.PrefixFrom(a.Netip(), s.prefix.Bits()), container: true}, func(r result) {
		if c.starts != nth && h.containers[c.ident] == c {
			return // of an earlier start, which is over
		}
		c.asking = false
		s.answered(h, run, begin, c, r)
	})
}

// answered: every request ends within 5 s of the host's own time.
func (s *script) answered(h *simHost, run int, begin time.Duration, c *container, r result) {
	if s.now-begin > 5*time.Second && h.run == run && h.thaw < begin && !h.jumped {
		s.fail("%s on %s waited %v for: %v", c.ident, h.nick, s.now-begin, r.err)
	}
	if r.err != nil {
		s.log("%s on %s gets nothing: %v", c.ident, h.nick, r.err)
		s.stats["refused"]++
		if r.err.Error() == "" {
			s.fail("a refusal without words")
		}
		return
	}
	if h.containers[c.ident] != c && h.core != nil { // it ended while it waited: who asked gives it back
		h.orphans = append(h.orphans, c.ident)
		s.request(h, &op{kind: opFreeAll, ident: c.ident}, func(result) {
			h.orphans = slices.DeleteFunc(h.orphans, func(i string) bool { return i == c.ident })
		})
		return
	}
	a, ok := addr.FromNetip(r.prefixes[0].Addr())
	if !ok {
		s.fail("not an address: %v", r.prefixes)
	}
	s.begin(c, a)
}

// fault breaks or mends something.
func (s *script) fault() {
	switch s.rnd.IntN(22) {
	case 0, 1: // a partition in two
		side := s.rnd.Uint64()
		for i := range s.hosts {
			for j := range s.hosts {
				s.cut[[2]int{i, j}] = side>>i&1 != side>>j&1
			}
		}
		s.log("partition %b", side&(1<<len(s.hosts)-1))
		s.stats["partition"]++
	case 2: // one way
		i, j := s.rnd.IntN(len(s.hosts)), s.rnd.IntN(len(s.hosts))
		s.cut[[2]int{i, j}] = true
		s.log("cut %d to %d", i+1, j+1)
		s.stats["one-way cut"]++
	case 3, 4, 5:
		clear(s.cut)
		s.log("no cuts")
	case 6, 7, 8:
		if h := s.pick(running); h != nil {
			s.stats["crash"]++
			if s.rnd.IntN(3) == 0 {
				s.reboot(h)
			} else {
				s.stop(h)
			}
			s.after(time.Duration(s.rnd.Int64N(10e9)), func() { s.start(h) })
		}
	case 9, 10:
		if h := s.pick(running); h != nil {
			h.clock += time.Duration(s.rnd.Int64N(2e9)-1e9) * 300_000_000 // within ±10 years
			h.jumped = true
			s.log("%s: clock jumps", h.nick)
			s.stats["clock"]++
		}
	case 11:
		if h := s.pick(running); h != nil {
			h.frozen = max(h.frozen, s.now+time.Duration(s.rnd.Int64N(10e9)))
			h.thaw = h.frozen
			s.log("%s freezes until %v", h.nick, h.frozen)
			s.stats["freeze"]++
		}
	case 12, 13:
		if len(s.hosts) < 12 {
			h := s.addHost(true)
			s.start(h)
			s.stats["join"]++
		}
	case 14:
		s.leave()
	case 15:
		s.lose()
	case 16, 17:
		s.remove()
	case 18:
		if h := s.pick(running); h != nil {
			h.snapshot = maps.Clone(h.disk)
		}
	case 19:
		s.oldDisk()
	case 20:
		s.lostDisk()
	case 21:
		s.clone()
	}
}

// leave: a peer gives its space away and is never seen again.
func (s *script) leave() {
	if s.alive() <= 2 {
		return
	}
	h := s.pick(func(h *simHost) bool { return h.core != nil && !h.isolated && !h.leaving && h.core.ring != nil })
	if h == nil {
		return
	}
	s.stats["leave"]++
	s.log("%s leaves", h.nick)
	h.leaving = true
	s.lastLeave = s.now
	s.evict(h)
	s.request(h, &op{kind: opShutdown}, func(r result) {
		s.log("%s has left: %v", h.nick, r.err)
		h.left = r.err == nil
		alone := h.core.ring != nil && h.core.ring.OwnedBy(h.name).Size() > 0
		s.unsure = s.unsure || r.err != nil || alone // its space may have gone to one who was leaving as well
		h.gone = true
		s.after(0, func() { s.stop(h) })
	})
}

// lose: a machine is lost for good, with its containers.
func (s *script) lose() {
	if s.alive() <= 3 || s.now < s.lastLeave+10*time.Second {
		return // an heir that dies before it has told anybody takes its inheritance along
	}
	h := s.pick(func(h *simHost) bool { return h.core != nil && !h.isolated })
	if h != nil && !s.inheritsAlone(h) {
		s.log("%s is lost for good", h.nick)
		s.reboot(h)
		h.gone = true
		s.stats["lost host"]++
	}
}

// inheritsAlone reports whether somebody left to h and another living host has not
// heard of it: as long as h is cut off from the others, longer than lose waits.
func (s *script) inheritsAlone(h *simHost) bool {
	for _, gone := range s.hosts {
		for _, o := range s.hosts {
			if gone.left && o != h && o.core != nil && o.core.ring != nil && o.core.ring.OwnedBy(gone.name).Size() > 0 {
				return true
			}
		}
	}
	return false
}

// remove: an administrator gives up a lost host, as the manual says: on one host,
// when all others are there.
func (s *script) remove() {
	victim := s.pick(func(h *simHost) bool { return h.gone && !h.removed })
	if victim == nil {
		return
	}
	victim.removed = true
	s.fair(12 * time.Second)
	s.after(8*time.Second, func() {
		h := s.pick(func(h *simHost) bool { return h.core != nil && !h.isolated && h.core.usable() })
		if h == nil {
			return
		}
		s.log("rmpeer %s on %s", victim.nick, h.nick)
		s.request(h, &op{kind: opRemove, target: victim.nick}, func(r result) {
			s.log("rmpeer %s on %s: %d, %v", victim.nick, h.nick, r.count, r.err)
			s.stats["rmpeer"]++
		})
	})
}

// fair is good weather for a while: everybody up, no cuts, no loss.
func (s *script) fair(d time.Duration) {
	s.guard = s.now + d
	clear(s.cut)
	loss, slow, crash := s.loss, s.slow, s.crash
	s.loss, s.slow, s.crash = 0, 0, 0
	for _, h := range s.hosts {
		h.frozen = min(h.frozen, s.now)
		s.start(h)
	}
	s.after(d, func() {
		if !s.calm {
			s.loss, s.slow, s.crash = loss, slow, crash
		}
	})
}

// oldDisk: a host comes back with a disk of an earlier day, while the others are
// there. Its containers live on, or not.
func (s *script) oldDisk() {
	h := s.pick(func(h *simHost) bool { return h.core != nil && h.snapshot != nil && !h.isolated })
	if h == nil {
		return
	}
	s.fair(20 * time.Second)
	s.after(8*time.Second, func() {
		if s.memories(h) == 0 {
			return // nobody remembers what the disk forgot
		}
		s.stats["old disk"]++
		s.ending(h)
		h.disk, h.oldDisk = maps.Clone(h.snapshot), true
		s.log("%s gets an old disk", h.nick)
		s.after(time.Second, func() { s.start(h) })
	})
}

// lostDisk: a host comes back with nothing.
func (s *script) lostDisk() {
	h := s.pick(func(h *simHost) bool { return h.core != nil && !h.isolated })
	if h == nil {
		return
	}
	s.fair(20 * time.Second)
	s.after(8*time.Second, func() {
		rings := s.memories(h)
		if rings == 0 || rings < s.init.Electors/2+1 && s.init.Mode == Consensus {
			return // the documented limit: a quorum of memory is lost
		}
		s.stats["lost disk"]++
		s.ending(h)
		h.disk, h.snapshot = map[string][]byte{}, nil
		s.log("%s loses its disk", h.nick)
		s.after(time.Second, func() { s.start(h) })
	})
}

// memories counts the others that have a ring.
func (s *script) memories(h *simHost) (n int) {
	for _, o := range s.hosts {
		if o != h && o.core != nil && !o.isolated && o.core.ring != nil {
			n++
		}
	}
	return n
}

func (s *script) ending(h *simHost) {
	if s.rnd.IntN(2) == 0 {
		s.reboot(h)
	} else {
		s.stop(h)
	}
}

// clone: a copy of a running host is started. The mesh refuses it, for it has the
// same name, and says so.
func (s *script) clone() {
	h := s.pick(func(h *simHost) bool { return h.core != nil && !h.isolated })
	if h == nil || len(s.hosts) >= 12 {
		return
	}
	s.stats["clone"]++
	c := s.addHost(true)
	c.name, c.nick, c.disk, c.isolated = h.name, h.nick+"-copy", maps.Clone(h.disk), true
	s.start(c)
	s.after(20*time.Second, func() { // somebody notices
		s.reboot(c)
		c.gone, c.removed = true, true
	})
}

func (s *script) alive() (n int) {
	for _, h := range s.hosts {
		if !h.gone && !h.left && !h.isolated {
			n++
		}
	}
	return n
}

func (s *script) heal() {
	s.log("all is healed")
	s.fair(0)
	s.loss, s.dup, s.slow, s.crash = 0, 0, 0, 0
	for _, h := range s.hosts {
		if h.isolated {
			s.reboot(h)
			h.gone = true
		}
	}
}

// checkEqual: 30 s after all is healed everybody knows the same, and nobody rests.
func (s *script) checkEqual() {
	if s.failed != "" {
		return
	}
	var first *simHost
	for _, h := range s.hosts {
		if h.core == nil || h.core.stopping {
			continue
		}
		if first == nil {
			first = h
		}
		if known(h) != known(first) {
			s.fail("%s and %s still differ:\n%s\n%s", h.nick, first.nick, h.core.all().short(), first.core.all().short())
		}
		if s.waitsForGone(h) {
			continue
		}
		if h.core.ring != nil && !h.core.usable() {
			s.fail("%s still rests: %s", h.nick, h.core.stateText())
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.live), addr.Addr.Compare) {
		c := s.live[a]
		if c.host.core == nil {
			continue
		}
		if l := c.host.core.leases[a]; l == nil || l.ident != c.ident {
			s.fail("%v of %s on %s is not on its host's books", a, c.ident, c.host.nick)
		} else if l.foreign && !s.misuse {
			s.fail("%v of %s on %s is not its host's", a, c.ident, c.host.nick)
		}
	}
}

// known is what hosts must agree on: the ring, and the runs of all peers. Reports of
// free space may be under way.
func known(h *simHost) string {
	var b []byte
	if h.core.ring != nil {
		sum := h.core.ring.Sum()
		b = append(b, sum[:]...)
	}
	for _, r := range h.core.members.Sorted() {
		b = r.Name.AppendBytes(b)
		b = binary.BigEndian.AppendUint64(b, r.Boot)
		b = binary.BigEndian.AppendUint64(b, uint64(r.Run))
	}
	return string(b)
}

// waitsForGone: a host with a lost disk waits for owners that never come back; its
// space is safe, and rmpeer ends it.
func (s *script) waitsForGone(h *simHost) bool {
	if h.core.confirm == nil || !h.core.stale {
		return false
	}
	for _, n := range h.core.unheard() {
		for _, o := range s.hosts {
			if o.name == n && o.gone {
				return true
			}
		}
	}
	return false
}

// checkLeaks: no address is in use without a container, or owned by one who left.
func (s *script) checkLeaks() {
	if s.failed != "" {
		return
	}
	for _, h := range s.hosts {
		c := h.core
		if c == nil || c.stopping {
			continue
		}
		if err := c.space.Check(); err != nil {
			s.fail("%s: %v", h.nick, err)
		}
		used := 0
		for a, l := range c.leases {
			if !l.foreign {
				used++
				if !c.space.Used(a) {
					s.fail("%s: %v of %s is free", h.nick, a, l.ident)
				}
			}
			if con := h.containers[l.ident]; con == nil || con.stopped {
				if !slices.Contains(h.orphans, l.ident) && (l.container || !h.oldDisk) {
					s.fail("%s: %v is leaked: %s is gone: %+v container %+v", h.nick, a, l.ident, *l, con)
				}
			}
		}
		if c.ring == nil {
			continue
		}
		if owned := c.ring.OwnedBy(c.self); !owned.Equal(c.space.Owned()) {
			s.fail("%s: ring says %v, space %v", h.nick, owned.Ranges(), c.space.Owned().Ranges())
		}
		owned, free, held := c.space.Sizes()
		if owned != free+held+uint64(used) {
			s.fail("%s: %d owned, %d free, %d held, %d used", h.nick, owned, free, held, used)
		}
		for n := range c.ring.Owners(c.universe) {
			for _, o := range s.hosts {
				if o.name == n && o.left && !s.unsure {
					s.fail("%s has left and owns %v", o.nick, c.ring.OwnedBy(n).Ranges())
				}
			}
		}
	}
}
