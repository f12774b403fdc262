// Package addr does arithmetic on addresses: single ones, ranges, and sets of
// ranges.
//
// Its one idea: an [Addr] is a number with hidden representation, and a [Range]
// is half open. One past the last address of all is still an Addr, so that no
// range, not even one that ends at the very end, wraps or overflows. Only this
// package knows that addresses are IPv4.
//
// The package is pure.
package addr

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
)

// Bits is the length of an address.
const Bits = 32

// limit is one past the last address.
const limit = 1 << Bits

// MinSize is the smallest allocation range or subnet: below it no address is left
// once the first and the last are taken out and one is in use.
const MinSize = 4

// ErrPrefix reports a prefix that cannot be an allocation range or a subnet.
var ErrPrefix = errors.New("not a usable subnet")

// Addr is an address, or one past the last. It is a comparable value; the zero
// Addr is 0.0.0.0.
type Addr struct{ v uint64 } // 0 <= v <= limit

// FromNetip returns a as an Addr; false if it is not of the family handled.
func FromNetip(a netip.Addr) (Addr, bool) {
	a = a.Unmap()
	if !a.Is4() {
		return Addr{}, false
	}
	b := a.As4()
	return Addr{uint64(binary.BigEndian.Uint32(b[:]))}, true
}

// MustParse is for constants and tests; it panics on bad text.
func MustParse(s string) Addr {
	a, ok := FromNetip(netip.MustParseAddr(s))
	if !ok {
		panic("not an IPv4 address: " + s)
	}
	return a
}

// FromNumber makes an Addr of its number on the wire; false if there is none.
func FromNumber(n uint64) (Addr, bool) { return Addr{min(n, limit)}, n <= limit }

// Number is a's wire form.
func (a Addr) Number() uint64 { return a.v }

// Netip returns a for use outside; the end of all addresses gives the zero
// netip.Addr.
func (a Addr) Netip() netip.Addr {
	if a.v >= limit {
		return netip.Addr{}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a.v))
	return netip.AddrFrom4(b)
}

// Plus returns a+n, at most one past the last address.
func (a Addr) Plus(n uint64) Addr { return Addr{a.v + min(n, limit-a.v)} }

// Minus returns how many addresses lie between b and a; 0 if a is not after b.
func (a Addr) Minus(b Addr) uint64 {
	if a.v <= b.v {
		return 0
	}
	return a.v - b.v
}

// Compare orders addresses by number: -1, 0 or +1.
func (a Addr) Compare(b Addr) int { return cmp.Compare(a.v, b.v) }

// Less reports a < b.
func (a Addr) Less(b Addr) bool { return a.v < b.v }

// String is the dotted form; "end" for the address behind the last one.
func (a Addr) String() string {
	if a.v >= limit {
		return "end"
	}
	return a.Netip().String()
}

// Range is the addresses a with Start <= a < End.
type Range struct{ Start, End Addr }

// Of returns the range of one address.
func Of(a Addr) Range { return Range{a, a.Plus(1)} }

// FromPrefix returns all addresses of p, which must have no host bits set and
// hold at least MinSize addresses: ErrPrefix.
func FromPrefix(p netip.Prefix) (Range, error) {
	start, ok := FromNetip(p.Addr())
	switch {
	case !p.IsValid() || !ok || p.Addr().Is4In6():
		return Range{}, fmt.Errorf("%v: %w: want an IPv4 prefix", p, ErrPrefix)
	case p.Masked() != p:
		return Range{}, fmt.Errorf("%v: %w: host bits are set, did you mean %v?", p, ErrPrefix, p.Masked())
	}
	r := Range{start, start.Plus(1 << (Bits - p.Bits()))}
	if r.Size() < MinSize {
		return Range{}, fmt.Errorf("%v: %w: holds %d addresses, want at least %d", p, ErrPrefix, r.Size(), MinSize)
	}
	return r, nil
}

// MustPrefix is for constants and tests; it panics where FromPrefix fails.
func MustPrefix(s string) Range {
	r, err := FromPrefix(netip.MustParsePrefix(s))
	if err != nil {
		panic(err)
	}
	return r
}

// Size returns how many addresses r holds.
func (r Range) Size() uint64 { return r.End.Minus(r.Start) }

// Empty reports that r holds nothing.
func (r Range) Empty() bool { return r.End.v <= r.Start.v }

// Contains reports whether a is in r.
func (r Range) Contains(a Addr) bool { return r.Start.v <= a.v && a.v < r.End.v }

// Covers reports whether all of s is in r.
func (r Range) Covers(s Range) bool { return s.Empty() || r.Start.v <= s.Start.v && s.End.v <= r.End.v }

// Intersect returns what r and s share.
func (r Range) Intersect(s Range) Range {
	out := Range{Addr{max(r.Start.v, s.Start.v)}, Addr{min(r.End.v, s.End.v)}}
	if out.Empty() {
		return Range{}
	}
	return out
}

// Overlaps reports whether r and s share an address.
func (r Range) Overlaps(s Range) bool { return !r.Intersect(s).Empty() }

// Hosts returns r without its first and last address, which no container gets
// when r is a subnet.
func (r Range) Hosts() Range {
	if r.Size() <= 2 {
		return Range{}
	}
	return Range{r.Start.Plus(1), Addr{r.End.v - 1}}
}

// LargestBlock returns the largest CIDR-aligned part of r; of equals the last.
func (r Range) LargestBlock() Range {
	if r.Empty() {
		return Range{}
	}
	for size := uint64(1) << (bits.Len64(r.Size()) - 1); size > 0; size >>= 1 {
		start := (r.End.v &^ (size - 1)) - size
		if r.End.v >= size && start >= r.Start.v {
			return Range{Addr{start}, Addr{start + size}}
		}
	}
	return Range{}
}

// UpperHalf returns the second half of r, the larger one if they differ.
func (r Range) UpperHalf() Range {
	return Range{Addr{r.Start.v + r.Size()/2}, r.End}
}

// Prefixes returns the fewest prefixes that make up r, in order.
func (r Range) Prefixes() (out []netip.Prefix) {
	for a := r.Start; a.v < r.End.v; {
		n := min(bits.TrailingZeros64(a.v|limit), bits.Len64(r.End.v-a.v)-1)
		out = append(out, netip.PrefixFrom(a.Netip(), Bits-n))
		a = Addr{a.v + 1<<n}
	}
	return out
}

// String is the half-open interval, [start,end).
func (r Range) String() string { return "[" + r.Start.String() + "," + r.End.String() + ")" }
