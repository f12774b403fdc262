package addr_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/ipam/addr"
)

func TestFromPrefix(t *testing.T) {
	for _, tt := range []struct {
		text string
		size uint64
		ok   bool
	}{
		{"10.32.0.0/12", 1 << 20, true},
		{"0.0.0.0/0", 1 << 32, true},
		{"255.255.255.252/30", 4, true},
		{"10.0.0.0/31", 0, false},
		{"10.0.0.1/24", 0, false},
		{"fd00::/64", 0, false},
		{"::ffff:10.0.0.0/120", 0, false},
	} {
		r, err := addr.FromPrefix(netip.MustParsePrefix(tt.text))
		if tt.ok != (err == nil) || r.Size() != tt.size {
			t.Errorf("FromPrefix(%s) = %v (%d), %v", tt.text, r, r.Size(), err)
		}
		if err != nil && !errors.Is(err, addr.ErrPrefix) {
			t.Errorf("FromPrefix(%s): %v is not ErrPrefix", tt.text, err)
		}
	}
}

// The last range of all ends at an address that no host can have.
func TestEndOfAll(t *testing.T) {
	r := addr.MustPrefix("255.255.255.0/24")
	if r.End.Netip().IsValid() || r.End.String() != "end" || r.End.Plus(9) != r.End {
		t.Errorf("end is %v", r.End)
	}
	want := []netip.Prefix{netip.MustParsePrefix("255.255.255.128/25")}
	if diff := cmp.Diff(want, r.UpperHalf().Prefixes(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if h := r.Hosts(); h.Start.String() != "255.255.255.1" || h.End.String() != "255.255.255.255" {
		t.Errorf("hosts %v", h)
	}
}

func TestLargestBlock(t *testing.T) {
	at := func(n uint64) addr.Addr { a, _ := addr.FromNumber(n); return a }
	for _, tt := range []struct{ start, end, from, to uint64 }{
		{0, 47, 0, 32}, {0, 48, 0, 32}, {1, 256, 128, 256}, {5, 6, 5, 6}, {0, 64, 0, 64},
		{16, 48, 32, 48}, {3, 5, 4, 5}, {7, 7, 0, 0}, {1 << 31, 1 << 32, 1 << 31, 1 << 32},
	} {
		got := addr.Range{Start: at(tt.start), End: at(tt.end)}.LargestBlock()
		if got != (addr.Range{Start: at(tt.from), End: at(tt.to)}) {
			t.Errorf("[%d,%d): %v, want [%d,%d)", tt.start, tt.end, got, tt.from, tt.to)
		}
	}
}

// A Set agrees with a table of booleans.
func TestSetAgainstTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const size = 64
	at := func(n int) addr.Addr { a, _ := addr.FromNumber(uint64(n)); return a }
	for range 300 {
		var table [size]bool
		s := &addr.Set{}
		for range 60 {
			a := rnd.IntN(size)
			b := a + rnd.IntN(size-a+1)
			r := addr.Range{Start: at(a), End: at(b)}
			add := rnd.IntN(2) == 0
			if add {
				s.Add(r)
			} else {
				s.Remove(r)
			}
			for i := a; i < b; i++ {
				table[i] = add
			}
			check(t, s, table[:], at, rnd)
		}
	}
}

func check(t *testing.T, s *addr.Set, table []bool, at func(int) addr.Addr, rnd *rand.Rand) {
	t.Helper()
	var n uint64
	for i, want := range table {
		if s.Contains(at(i)) != want {
			t.Fatalf("Contains(%d) = %v in %v", i, !want, s.Ranges())
		}
		if want {
			n++
		}
	}
	rs := s.Ranges()
	for i := range rs {
		if rs[i].Empty() || i > 0 && !rs[i-1].End.Less(rs[i].Start) {
			t.Fatalf("not normal: %v", rs)
		}
	}
	a := rnd.IntN(len(table))
	w := addr.Range{Start: at(a), End: at(a + rnd.IntN(len(table)-a+1))}
	first, ok := s.First(w)
	var in uint64
	for i := range table {
		if w.Contains(at(i)) && table[i] {
			if in == 0 && (!ok || first != at(i)) {
				t.Fatalf("First(%v) = %v, %v in %v", w, first, ok, rs)
			}
			in++
		}
	}
	if s.Size() != n || s.SizeWithin(w) != in || ok != (in > 0) || s.Covers(w) != (in == w.Size()) {
		t.Fatalf("size %d want %d; within %v %d want %d", s.Size(), n, w, s.SizeWithin(w), in)
	}
}
