package ring_test

import (
	"flag"
	"testing"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

var scopeStates = flag.Int("ring.states", 600_000, "states of the exhaustive search to visit at most")

// world is all that three peers know, and one message under way. Peer c may be
// lost for good; who takes over has asked all that are left first.
type world struct {
	rings [3]*ring.Ring
	slot  *ring.Ring // a state that was sent and may arrive, again and again, anywhere
	lost  bool       // c is gone
	taken bool
}

var scopePeers = [3]peer.Name{a, b, c}

// key packs what matters of w: for each replica and address owner, version, epoch.
func (w *world) key() (k [20]byte) {
	at := 0
	for _, r := range append(w.rings[:], w.slot) {
		if r != nil {
			for _, e := range r.Entries() {
				owner := e.Owner.Bytes()
				for n := uint64(0); n < e.Size(); n++ {
					k[at+int(e.Start.Minus(r.ID().Range.Start)+n)] = owner[5] | byte(e.Version)<<2 | byte(e.Epoch)<<6
				}
			}
		}
		at += 4
	}
	if w.lost {
		k[16] = 1
	}
	if w.taken {
		k[17] = 1
	}
	return k
}

func (w *world) alive(i int) bool { return i < 2 || !w.lost }

// check: no address has two living peers that believe it is theirs.
func (w *world) check(t *testing.T) {
	t.Helper()
	owned := addr.Set{}
	for i, r := range w.rings {
		if !w.alive(i) {
			continue
		}
		for _, rng := range r.OwnedBy(scopePeers[i]).Ranges() {
			if owned.SizeWithin(rng) > 0 {
				t.Fatalf("two owners of %v:\n%s\n%s\n%s", rng, text(w.rings[0]), text(w.rings[1]), text(w.rings[2]))
			}
			owned.Add(rng)
		}
	}
}

// next visits all that can happen to w.
func (w *world) next(maxVersion uint64, visit func(world)) {
	change := func(i int, f func(*ring.Ring)) {
		n := *w
		n.rings[i] = w.rings[i].Clone()
		f(n.rings[i])
		visit(n)
	}
	for i := range w.rings {
		if !w.alive(i) {
			continue
		}
		if w.slot != nil { // the message arrives
			change(i, func(r *ring.Ring) { r.Merge(w.slot.All()) })
		}
		n := *w // what i knows is sent, and whatever was under way is lost
		n.slot = w.rings[i]
		visit(n)
		for _, e := range w.rings[i].Entries() {
			if e.Owner != scopePeers[i] || e.Version >= maxVersion {
				continue
			}
			for _, to := range scopePeers {
				change(i, func(r *ring.Ring) { r.Grant(scopePeers[i], e.Range, to) })
				if e.Size() > 1 {
					change(i, func(r *ring.Ring) { r.Grant(scopePeers[i], e.Range.UpperHalf(), to) })
				}
			}
		}
	}
	if !w.lost {
		n := *w
		n.lost = true
		visit(n)
	}
	if w.lost && !w.taken {
		for i := range 2 {
			n := *w
			n.taken = true
			n.rings[i] = w.rings[i].Clone()
			n.rings[i].Merge(w.rings[1-i].All()) // ask all that are left
			n.rings[i].TakeOver(c, scopePeers[i], 1)
			n.rings[1-i] = w.rings[1-i].Clone() // and tell them before the first use
			n.rings[1-i].Merge(n.rings[i].All())
			visit(n)
		}
	}
}

// TestSmallScope visits every state that three peers and four addresses can get
// into by grants, messages that arrive late, twice or never, and one takeover.
func TestSmallScope(t *testing.T) {
	limit := *scopeStates
	if testing.Short() {
		limit = 50_000
	}
	r, err := ring.New(ring.NewID(addr.MustPrefix("10.0.0.0/30"), scopePeers[:], 0))
	if err != nil {
		t.Fatal(err)
	}
	start := world{rings: [3]*ring.Ring{r, r, r}}
	seen := map[[20]byte]bool{start.key(): true}
	queue := []world{start}
	for len(queue) > 0 && len(seen) < limit {
		w := queue[0]
		queue = queue[1:]
		w.check(t)
		w.next(3, func(n world) {
			if k := n.key(); !seen[k] {
				seen[k] = true
				queue = append(queue, n)
			}
		})
	}
	for i := range queue {
		queue[i].check(t)
	}
	t.Logf("%d states, %d of them not followed further", len(seen), len(queue))
	if len(seen) < limit {
		t.Logf("that is all there are")
	}
}
