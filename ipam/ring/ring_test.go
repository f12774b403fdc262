package ring_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

func name(n int) peer.Name {
	return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)})
}

var (
	a, b, c = name(1), name(2), name(3)
	slash24 = addr.MustPrefix("10.0.0.0/24")
)

func rng(from, to uint64) addr.Range {
	return addr.Range{Start: slash24.Start.Plus(from), End: slash24.Start.Plus(to)}
}

func newRing(t testing.TB, universe addr.Range, seeds ...peer.Name) *ring.Ring {
	t.Helper()
	r, err := ring.New(ring.NewID(universe, seeds, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// text is a ring in short: "1v0[0,16) 2v1[16,256)", with an epoch as "1e1v0".
func text(r *ring.Ring) string {
	var s string
	for _, e := range r.Entries() {
		owner := e.Owner.Bytes()
		s += fmt.Sprintf(" %d", owner[5])
		if e.Epoch > 0 {
			s += fmt.Sprintf("e%d", e.Epoch)
		}
		base := r.ID().Range.Start
		s += fmt.Sprintf("v%d[%d,%d)", e.Version, e.Start.Minus(base), e.End.Minus(base))
	}
	return s[1:]
}

func TestClaimForPeers(t *testing.T) {
	for _, tt := range []struct {
		seeds []peer.Name
		want  string
	}{
		{[]peer.Name{a}, "1v0[0,256)"},
		{[]peer.Name{b, a, b}, "1v0[0,128) 2v0[128,256)"},
		{[]peer.Name{c, b, a}, "1v0[0,128) 2v0[128,192) 3v0[192,256)"},
	} {
		if got := text(newRing(t, slash24, tt.seeds...)); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.seeds, got, tt.want)
		}
	}
	many := make([]peer.Name, 10)
	for i := range many {
		many[i] = name(i + 1)
	}
	small := newRing(t, addr.MustPrefix("10.0.0.0/30"), many...) // fewer addresses than seeds
	if got := small.OwnedBy(name(1)).Size(); got != 1 {
		t.Errorf("share of the first of 10 in 4 addresses: %d", got)
	}
}

// TestGrant: owner of .0 to .255 gives .10 to .244 away.
func TestGrant(t *testing.T) {
	r := newRing(t, slash24, a)
	d, err := r.Grant(a, rng(10, 245), b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(r), "1v0[0,10) 2v1[10,245) 1v0[245,256)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other := newRing(t, slash24, a)
	ch, err := other.Merge(d)
	if err != nil || text(other) != text(r) {
		t.Errorf("from the delta: %s, %v", text(other), err)
	}
	want := []ring.Move{{Range: rng(10, 245), From: a, To: b}}
	if diff := cmp.Diff(want, ch.Moves, cmp.AllowUnexported(addr.Addr{}, peer.Name{})); diff != "" {
		t.Errorf("moves (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		by  peer.Name
		rng addr.Range
		to  peer.Name
	}{
		{a, rng(9, 11), c}, {b, rng(0, 1), c}, {c, rng(0, 1), a}, {a, rng(3, 3), b}, {a, rng(0, 1), peer.Name{}},
		{a, addr.Range{Start: slash24.Start, End: slash24.End.Plus(1)}, b},
	} {
		if _, err := r.Grant(tt.by, tt.rng, tt.to); !errors.Is(err, ring.ErrNotOwner) {
			t.Errorf("Grant(%v, %v, %v): %v, want ErrNotOwner", tt.by, tt.rng, tt.to, err)
		}
	}
}

// A range at the very end of all addresses, or at their start, is like any other
// (the ancestor could not reconcile ranges that crossed zero).
func TestEndsOfAllAddresses(t *testing.T) {
	for _, p := range []string{"255.255.255.0/24", "0.0.0.0/24", "0.0.0.0/0", "128.0.0.0/1"} {
		u := addr.MustPrefix(p)
		r := newRing(t, u, a, b)
		half := u.UpperHalf()
		if _, err := r.Grant(b, half.UpperHalf(), a); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		o := newRing(t, u, a, b)
		if _, err := o.Merge(r.All()); err != nil || o.Sum() != r.Sum() {
			t.Errorf("%s: %v, %s and %s", p, err, text(o), text(r))
		}
		if got := o.OwnedBy(a).Size(); got != u.Size()/4*3 {
			t.Errorf("%s: a owns %d", p, got)
		}
		last, _ := addr.FromNumber(u.End.Number() - 1)
		if n, ok := o.Owner(last); !ok || n != a {
			t.Errorf("%s: last address owned by %v, %v", p, n, ok)
		}
		if _, ok := o.Owner(u.End); ok {
			t.Errorf("%s: the end has an owner", p)
		}
	}
}

func TestTakeOver(t *testing.T) {
	r := newRing(t, slash24, a, b)
	stale := newRing(t, slash24, a, b)
	n, _ := r.TakeOver(b, a, 7)
	if n != 128 || text(r) != "1v0[0,128) 1e1v0[128,256)" {
		t.Errorf("took %d: %s", n, text(r))
	}
	for range 5 { // the victim lives on and writes what it likes
		if _, err := stale.Grant(b, rng(128, 130), c); err == nil {
			stale.Grant(c, rng(128, 130), b)
		}
	}
	r.Merge(stale.All())
	if text(r) != "1v0[0,128) 1e1v0[128,256)" {
		t.Errorf("the victim got through the fence: %s", text(r))
	}
	if n, _ := r.TakeOver(b, a, 7); n != 0 {
		t.Errorf("took %d again", n)
	}
	if n, _ := r.TakeOver(a, a, 7); n != 0 {
		t.Errorf("took %d from itself", n)
	}
}

// What a lost peer was given unknown to who took over can be taken over when it
// turns up: the fence says by whom.
func TestTakeOverLate(t *testing.T) {
	giver, taker := newRing(t, slash24, a), newRing(t, slash24, a)
	giver.Grant(a, rng(0, 16), b)
	if n, _ := taker.TakeOver(b, c, 3); n != 0 {
		t.Fatalf("took %d", n)
	}
	taker.Merge(giver.All())
	if f, ok := taker.Fence(b); !ok || f.By != c || f.Boot != 3 {
		t.Fatalf("fence %v, %v", f, ok)
	}
	n, d := taker.TakeOver(b, c, 3)
	if n != 16 || text(taker) != "3e1v1[0,16) 1v0[16,256)" {
		t.Errorf("took %d: %s", n, text(taker))
	}
	giver.Merge(d)
	giver.Merge(taker.All())
	if giver.Sum() != taker.Sum() {
		t.Errorf("differ: %s and %s", text(giver), text(taker))
	}
}

// Two administrators act on two peers at once: all agree afterwards on one.
func TestTakeOverTwice(t *testing.T) {
	x, y := newRing(t, slash24, a, b, c), newRing(t, slash24, a, b, c)
	x.TakeOver(c, a, 1)
	y.TakeOver(c, b, 1)
	dx, dy := x.All(), y.All()
	x.Merge(dy)
	y.Merge(dx)
	if x.Sum() != y.Sum() || text(x) != "1v0[0,128) 2v0[128,192) 2e1v0[192,256)" {
		t.Errorf("%s and %s", text(x), text(y))
	}
}

func TestConflicts(t *testing.T) {
	r := newRing(t, slash24, a, b)
	before := r.Sum()
	for _, tt := range []struct {
		id   ring.ID
		want error
	}{
		{ring.NewID(slash24, []peer.Name{a, c}, 0), ring.ErrSeeds},
		{ring.NewID(slash24, []peer.Name{a, b}, 1), ring.ErrSeeds},
		{ring.NewID(addr.MustPrefix("10.0.0.0/16"), []peer.Name{a, b}, 0), ring.ErrRange},
	} {
		o, err := ring.New(tt.id)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Merge(o.All())
		var conflict *ring.ConflictError
		if !errors.Is(err, tt.want) || !errors.As(err, &conflict) || !conflict.Theirs.Equal(tt.id) {
			t.Errorf("%v: %v, want %v", tt.id, err, tt.want)
		}
		if r.Sum() != before {
			t.Errorf("%v changed the ring", tt.id)
		}
	}
}

func TestInvalid(t *testing.T) {
	id := ring.NewID(slash24, []peer.Name{a, b}, 0)
	e := func(from, to uint64, s ring.Stamp) ring.Entry { return ring.Entry{Range: rng(from, to), Stamp: s} }
	ok := ring.Stamp{Version: 1, Owner: a}
	for what, d := range map[string]ring.Delta{
		"no id":         {},
		"no seeds":      {ID: ring.ID{Range: slash24}},
		"seeds twice":   {ID: ring.ID{Range: slash24, Seeds: []peer.Name{a, a}}},
		"tiny":          {ID: ring.NewID(addr.Of(slash24.Start), []peer.Name{a}, 0)},
		"outside":       {ID: id, Entries: []ring.Entry{{Range: addr.MustPrefix("10.0.1.0/24"), Stamp: ok}}},
		"empty entry":   {ID: id, Entries: []ring.Entry{e(4, 4, ok)}},
		"overlap":       {ID: id, Entries: []ring.Entry{e(4, 9, ok), e(8, 12, ok)}},
		"out of order":  {ID: id, Entries: []ring.Entry{e(8, 9, ok), e(4, 5, ok)}},
		"no owner":      {ID: id, Entries: []ring.Entry{e(4, 5, ring.Stamp{Version: 1})}},
		"great version": {ID: id, Entries: []ring.Entry{e(4, 5, ring.Stamp{Version: ring.MaxVersion + 1, Owner: a})}},
		"great epoch":   {ID: id, Entries: []ring.Entry{e(4, 5, ring.Stamp{Epoch: ring.MaxEpoch + 1, Owner: a})}},
		"fence of none": {ID: id, Fences: []ring.Fence{{By: a}}},
	} {
		r := newRing(t, slash24, a, b)
		before := r.Sum()
		if _, err := r.Merge(d); !errors.Is(err, ring.ErrInvalid) || r.Sum() != before {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}

// An owner whose range was given the greatest version goes on in the next epoch.
func TestVersionsRunOut(t *testing.T) {
	r := newRing(t, slash24, a)
	top := ring.Stamp{Version: ring.MaxVersion, Owner: a}
	r.Merge(ring.Delta{ID: r.ID(), Entries: []ring.Entry{{Range: slash24, Stamp: top}}})
	d, err := r.Grant(a, rng(0, 1), b)
	if err != nil || d.Valid() != nil || d.Entries[0].Epoch != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	top.Epoch = ring.MaxEpoch
	r.Merge(ring.Delta{ID: r.ID(), Entries: []ring.Entry{{Range: slash24, Stamp: top}}})
	if _, err := r.Grant(a, rng(0, 1), b); !errors.Is(err, ring.ErrWornOut) {
		t.Errorf("%v, want ErrWornOut", err)
	}
	if n, _ := r.TakeOver(a, b, 1); n != 0 {
		t.Errorf("took %d past the last epoch", n)
	}
}

func TestRestamp(t *testing.T) {
	r := newRing(t, slash24, a)
	for i := uint64(0); i < 32; i += 2 {
		r.Grant(a, rng(i, i+1), b)
		r.Grant(b, rng(i, i+1), a)
	}
	before := r.Clone()
	d := r.Restamp(a)
	if got := text(r); got != "1v3[0,256)" || len(d.Entries) != 1 {
		t.Errorf("%s, delta %+v", got, d)
	}
	ch, _ := before.Merge(d)
	if len(ch.Moves) != 0 || before.Sum() != r.Sum() {
		t.Errorf("moved %v", ch.Moves)
	}
	if !r.Restamp(a).Empty() {
		t.Error("restamped a single entry")
	}
}

func TestChoosePeers(t *testing.T) {
	r := newRing(t, slash24, a, b, c)
	rnd := rand.New(rand.NewPCG(1, 1))
	first := map[peer.Name]int{}
	for range 1000 {
		got := r.ChoosePeersToAskForSpace(a, slash24, func(n peer.Name) uint64 {
			return map[peer.Name]uint64{b: 48, c: 16}[n]
		}, rnd)
		if len(got) != 2 || slices.Contains(got, a) {
			t.Fatalf("chose %v", got)
		}
		first[got[0]]++
	}
	if first[b] < 700 || first[c] < 100 {
		t.Errorf("first choices %v: not by weight", first)
	}
	got := r.ChoosePeersToAskForSpace(a, rng(128, 140), func(peer.Name) uint64 { return 0 }, rnd)
	if !slices.Equal(got, []peer.Name{b}) {
		t.Errorf("for b's range: %v", got)
	}
}

func BenchmarkMerge1000Peers(b *testing.B) {
	seeds := make([]peer.Name, 1000)
	for i := range seeds {
		seeds[i] = name(i + 1)
	}
	universe := addr.MustPrefix("10.32.0.0/12")
	base := newRing(b, universe, seeds...)
	other := base.Clone()
	for _, e := range base.Entries() { // every peer gave half of what it has to another
		other.Grant(e.Owner, e.Range.UpperHalf(), seeds[len(seeds)/2])
	}
	all := other.All()
	b.ReportAllocs()
	for b.Loop() {
		r := base.Clone()
		if _, err := r.Merge(all); err != nil {
			b.Fatal(err)
		}
	}
}
