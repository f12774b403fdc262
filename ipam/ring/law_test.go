package ring_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

var triples = flag.Int("triples", 100_000, "random triples for the join laws")

// small is a universe in which random rings meet often.
var small = addr.MustPrefix("10.0.0.0/28")

// randomDelta is any state that the type admits, reachable or not: a hostile or
// broken peer may send it.
func randomDelta(rnd *rand.Rand, id ring.ID) ring.Delta {
	d := ring.Delta{ID: id}
	for pos := id.Range.Start; pos.Less(id.Range.End); {
		end := pos.Plus(1 + rnd.Uint64N(5))
		if id.Range.End.Less(end) {
			end = id.Range.End
		}
		if rnd.IntN(4) > 0 {
			d.Entries = append(d.Entries, ring.Entry{
				Range: addr.Range{Start: pos, End: end},
				Stamp: ring.Stamp{Epoch: uint32(rnd.IntN(2)), Version: rnd.Uint64N(3), Owner: name(1 + rnd.IntN(3))},
			})
		}
		pos = end
	}
	for v := 1; v <= 3; v++ {
		if rnd.IntN(4) == 0 {
			d.Fences = append(d.Fences, ring.Fence{Victim: name(v), Boot: rnd.Uint64N(2), By: name(1 + rnd.IntN(3))})
		}
	}
	return d
}

func merged(t *testing.T, id ring.ID, ds ...ring.Delta) *ring.Ring {
	t.Helper()
	r, err := ring.New(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		if _, err := r.Merge(d); err != nil {
			t.Fatal(err)
		}
		checkShape(t, r)
	}
	return r
}

// checkShape: entries cover the range without gaps, neighbours differ.
func checkShape(t *testing.T, r *ring.Ring) {
	t.Helper()
	pos := r.ID().Range.Start
	var last ring.Stamp
	for i, e := range r.Entries() {
		if e.Start != pos || e.Empty() || i > 0 && e.Stamp == last {
			t.Fatalf("bad shape at %v: %s", e.Start, text(r))
		}
		pos, last = e.End, e.Stamp
	}
	if pos != r.ID().Range.End {
		t.Fatalf("ends at %v: %s", pos, text(r))
	}
}

// slow is the ring as its definition has it: a stamp for each address.
type slow map[addr.Addr]ring.Stamp

func (s slow) merge(d ring.Delta) {
	for _, e := range d.Entries {
		for a := e.Start; a.Less(e.End); a = a.Plus(1) {
			if s[a].Compare(e.Stamp) < 0 {
				s[a] = e.Stamp
			}
		}
	}
}

func (s slow) check(t *testing.T, r *ring.Ring) {
	t.Helper()
	for _, e := range r.Entries() {
		for a := e.Start; a.Less(e.End); a = a.Plus(1) {
			if s[a] != e.Stamp {
				t.Fatalf("%v: %v, want %v", a, e.Stamp, s[a])
			}
		}
	}
}

// TestJoinLaws: any order, any number of times, one by one or joined before.
func TestJoinLaws(t *testing.T) {
	n := *triples
	if testing.Short() {
		n /= 20
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	id := ring.NewID(small, []peer.Name{a, b, c}, 0)
	for i := range n {
		x, y, z := randomDelta(rnd, id), randomDelta(rnd, id), randomDelta(rnd, id)
		want := merged(t, id, x, y, z)
		for _, o := range []*ring.Ring{
			merged(t, id, z, y, x),                          // commutative
			merged(t, id, x, merged(t, id, y, z).All()),     // associative
			merged(t, id, x, x, y, z, y, x, want.All()),     // idempotent
			merged(t, id, x.Join(y).Join(z)),                // deltas joined on the way
			merged(t, id, z.Join(x.Join(y)), want.All(), x), //
		} {
			if o.Sum() != want.Sum() {
				t.Fatalf("triple %d: %s, want %s\n%v\n%v\n%v", i, text(o), text(want), x, y, z)
			}
		}
		if i%100 == 0 {
			s := slow{}
			s.merge(merged(t, id).All())
			s.merge(x)
			s.merge(y)
			s.merge(z)
			s.check(t, want)
		}
		monotone(t, id, x, y)
	}
}

// monotone: merging never lowers a stamp, and reports exactly what it raised.
func monotone(t *testing.T, id ring.ID, x, y ring.Delta) {
	t.Helper()
	r := merged(t, id, x)
	before := r.Clone()
	ch, err := r.Merge(y)
	if err != nil {
		t.Fatal(err)
	}
	if o := before.Clone(); true {
		if _, err := o.Merge(ch.News); err != nil || o.Sum() != r.Sum() {
			t.Fatalf("news %v are not the difference", ch.News)
		}
	}
	if ch2, _ := r.Merge(before.All()); !ch2.News.Empty() {
		t.Fatalf("an old state was news: %v", ch2.News)
	}
	for _, m := range ch.Moves {
		from, _ := before.Owner(m.Start)
		to, _ := r.Owner(m.Start)
		if from != m.From || to != m.To || from == to {
			t.Fatalf("move %v: from %v to %v", m, from, to)
		}
	}
}

// TestAllOrders: six deltas in all 720 orders.
func TestAllOrders(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 5
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	id := ring.NewID(small, []peer.Name{a, b, c}, 0)
	for range rounds {
		var ds [6]ring.Delta
		for i := range ds {
			ds[i] = randomDelta(rnd, id)
		}
		want := merged(t, id, ds[:]...).Sum()
		permute(ds[:], 0, func() {
			if got := merged(t, id, ds[:]...).Sum(); got != want {
				t.Fatalf("order matters: %v", ds)
			}
		})
	}
}

func permute(ds []ring.Delta, k int, visit func()) {
	if k == len(ds) {
		visit()
		return
	}
	for i := k; i < len(ds); i++ {
		ds[k], ds[i] = ds[i], ds[k]
		permute(ds, k+1, visit)
		ds[k], ds[i] = ds[i], ds[k]
	}
}

func TestMembersJoin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	random := func() ring.Member {
		return ring.Member{Name: name(1 + rnd.IntN(2)), Boot: rnd.Uint64N(2), Run: peer.UID(rnd.Uint64N(2)),
			Seq: rnd.Uint64N(2), Free: rnd.Uint64N(2), Nick: string(rune('a' + rnd.IntN(2)))}
	}
	for range 20_000 {
		x, y, z := random(), random(), random()
		m, o := ring.Members{}, ring.Members{}
		m.Merge([]ring.Member{x, y, z})
		o.Merge([]ring.Member{z, z})
		o.Merge([]ring.Member{y})
		o.Merge([]ring.Member{x, y})
		if diff := cmp.Diff(m, o, cmp.AllowUnexported(peer.Name{})); diff != "" {
			t.Fatal(diff)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, s1, s2 uint64) {
		rnd := rand.New(rand.NewPCG(s1, s2))
		id := ring.NewID(small, []peer.Name{a, b}, 0)
		x, y := randomDelta(rnd, id), randomDelta(rnd, id)
		if merged(t, id, x, y).Sum() != merged(t, id, y, x).Sum() {
			t.Fatal("order matters")
		}
	})
}
