package space_test

import (
	"math/rand/v2"
	"testing"

	"weave/ipam/addr"
	"weave/ipam/space"
)

var all = addr.MustPrefix("10.32.0.0/12")

func at(n uint64) addr.Addr               { return all.Start.Plus(n) }
func rng(from, to uint64) addr.Range      { return addr.Range{Start: at(from), End: at(to)} }
func single(text string) addr.Range       { return addr.Of(addr.MustParse(text)) }
func fresh(rs ...addr.Range) *space.Space { return gained(false, rs...) }
func gained(held bool, rs ...addr.Range) *space.Space {
	s := &space.Space{}
	for _, r := range rs {
		s.Gain(r, held)
	}
	return s
}

func TestDonate(t *testing.T) {
	oneUsed := fresh(all)
	oneUsed.Allocate(all.Hosts())
	lastUsed := fresh(rng(0, 48))
	lastUsed.Claim(at(47))
	for _, tt := range []struct {
		what string
		s    *space.Space
		in   addr.Range
		want addr.Range
	}{
		{"all of a /12 is free", fresh(all), all, addr.MustPrefix("10.40.0.0/13")},
		{"one address is used", oneUsed, all, addr.MustPrefix("10.44.0.0/14")},
		{"48 with the last used", lastUsed, all, rng(16, 32)},
		{"a single address", fresh(single("10.32.0.9")), all, single("10.32.0.9")},
		{"one asked for", fresh(all), single("10.33.0.1"), single("10.33.0.1")},
		{"of equals the last", fresh(rng(0, 8), rng(16, 24), rng(32, 36)), all, rng(16, 24)},
		{"nothing owned there", fresh(rng(0, 8)), rng(8, 16), addr.Range{}},
		{"only held", gained(true, all), all, addr.Range{}},
	} {
		got, ok := tt.s.Donate(tt.in)
		if got != tt.want || ok == tt.want.Empty() {
			t.Errorf("%s: %v, %v, want %v", tt.what, got, ok, tt.want)
		}
		for _, a := range []addr.Addr{got.Start} {
			if ok && tt.s.Owns(a) {
				t.Errorf("%s: still owns %v", tt.what, a)
			}
		}
	}
}

func TestAllocateLowest(t *testing.T) {
	s := fresh(rng(0, 4), rng(8, 10))
	for _, want := range []uint64{1, 2, 3, 8, 9} {
		if a, ok := s.Allocate(rng(1, 16)); !ok || a != at(want) {
			t.Fatalf("%v, %v, want %v", a, ok, at(want))
		}
	}
	if a, ok := s.Allocate(rng(1, 16)); ok {
		t.Fatalf("allocated %v of nothing", a)
	}
	if !s.Free(at(3)) || s.Free(at(3)) || s.Free(at(5)) || s.Free(at(0)) {
		t.Error("Free: want true only for a used address")
	}
	if a, _ := s.Allocate(rng(1, 16)); a != at(3) {
		t.Errorf("got %v, want the freed one", a)
	}
}

func TestHold(t *testing.T) {
	s := gained(true, rng(0, 8))
	s.Gain(rng(8, 10), false)
	if a, _ := s.Allocate(all); a != at(8) {
		t.Errorf("allocated %v, want the lowest that is not held", a)
	}
	if !s.Claim(at(2)) || s.Claim(at(2)) || s.Claim(at(8)) || s.Claim(at(99)) {
		t.Error("Claim: want true for a held address, once")
	}
	s.Gain(rng(0, 16), false) // what was ours stays what it was
	if _, free, held := s.Sizes(); free != 7 || held != 7 {
		t.Errorf("free %d held %d, want 7 and 7", free, held)
	}
	s.Release(rng(0, 4))
	if !s.Used(at(2)) || s.Held(at(1)) || !s.Held(at(4)) {
		t.Error("Release: frees what is held, and only that")
	}
	s.Hold(rng(0, 16))
	if _, ok := s.Allocate(all); ok {
		t.Error("allocated while all is held")
	}
	if !s.Unheld().Equal(addr.SetOf(addr.Of(at(2)), addr.Of(at(8)))) {
		t.Errorf("unheld %v", s.Unheld().Ranges())
	}
}

// A Space agrees with a table of what each address is.
func TestAgainstTable(t *testing.T) {
	const size = 64
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var table [size]byte // 0 not ours, f, u, h
		s := &space.Space{}
		for range 80 {
			a := rnd.Uint64N(size)
			r := rng(a, a+1+rnd.Uint64N(size-a))
			each := func(f func(byte) byte) {
				for i := range table {
					if r.Contains(at(uint64(i))) {
						table[i] = f(table[i])
					}
				}
			}
			swap := func(from, to byte) { each(func(b byte) byte { return map[bool]byte{true: to, false: b}[b == from] }) }
			switch rnd.IntN(8) {
			case 0:
				s.Gain(r, false)
				swap(0, 'f')
			case 1:
				s.Gain(r, true)
				swap(0, 'h')
			case 2:
				s.Lose(r)
				each(func(byte) byte { return 0 })
			case 3:
				s.Hold(r)
				swap('f', 'h')
			case 4:
				s.Release(r)
				swap('h', 'f')
			case 5:
				if got, ok := s.Allocate(r); ok {
					table[got.Minus(all.Start)] = 'u'
				}
			case 6:
				if ok := s.Claim(at(a)); ok != (table[a] == 'f' || table[a] == 'h') {
					t.Fatalf("Claim(%d) = %v of %q", a, ok, table[a])
				} else if ok {
					table[a] = 'u'
				}
			case 7:
				if ok := s.Free(at(a)); ok != (table[a] == 'u') {
					t.Fatalf("Free(%d) = %v of %q", a, ok, table[a])
				} else if ok {
					table[a] = 'f'
				}
			}
			compare(t, s, table[:])
		}
	}
}

func compare(t *testing.T, s *space.Space, table []byte) {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var free, held uint64
	for i, b := range table {
		a := at(uint64(i))
		if s.Owns(a) != (b != 0) || s.Used(a) != (b == 'u') || s.Held(a) != (b == 'h') {
			t.Fatalf("%d is %q", i, b)
		}
		switch b {
		case 'f':
			free++
		case 'h':
			held++
		}
	}
	if s.FreeIn(all) != free || s.HeldIn(all) != held {
		t.Fatalf("free %d want %d, held %d want %d", s.FreeIn(all), free, s.HeldIn(all), held)
	}
}
