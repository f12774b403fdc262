package api

import (
	"fmt"
	"net/netip"
	"strings"
)

// Addr is an ADDR argument: an address with the length of its subnet, or a subnet in
// which the daemon is to find one. The zero Addr is none. It is a comparable value;
// its text form is what users type.
type Addr struct {
	prefix netip.Prefix // of net:default the zero Prefix
	net    bool
}

// Words of the ADDR grammar.
const (
	prefixIP   = "ip:"
	prefixNet  = "net:"
	netDefault = "net:default"
)

// DefaultNet is "net:default": an address in the default subnet.
var DefaultNet = Addr{net: true}

// AddrOf is the given address.
func AddrOf(p netip.Prefix) Addr { return Addr{prefix: p} }

// NetOf is an address to be found in subnet.
func NetOf(subnet netip.Prefix) Addr { return Addr{prefix: subnet, net: true} }

// ParseAddr reads "10.55.0.1/24", "ip:10.55.0.1/24", "net:10.2.0.0/16" or
// "net:default". Given addresses may be IPv6.
func ParseAddr(s string) (Addr, error) {
	if s == netDefault {
		return DefaultNet, nil
	}
	a, kind := Addr{}, ErrBadAddr
	text, isNet := strings.CutPrefix(s, prefixNet)
	if a.net = isNet; isNet {
		kind = ErrBadSubnet
	} else {
		text = strings.TrimPrefix(s, prefixIP)
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return Addr{}, fmt.Errorf("%q: %w", clip(s), kind)
	}
	a.prefix = p
	return a, a.check()
}

// check says what is wrong with a.
func (a Addr) check() error {
	why, kind := "", ErrBadAddr
	switch {
	case a == DefaultNet:
	case a.net:
		why, kind = unusableNet(a.prefix), ErrBadSubnet
	default:
		why = unusable(a.prefix)
	}
	if why != "" {
		return fmt.Errorf("%q is %s: %w", clip(a.String()), why, kind)
	}
	return nil
}

// IsNet reports whether the daemon is to find the address.
func (a Addr) IsNet() bool { return a.net }

// Prefix is the given address with the length of its subnet, or the subnet to look
// in; the zero Prefix for DefaultNet.
func (a Addr) Prefix() netip.Prefix { return a.prefix }

// String is a form ParseAddr reads, "" for the zero Addr.
func (a Addr) String() string {
	switch {
	case a == Addr{}:
		return ""
	case a == DefaultNet:
		return netDefault
	case a.net:
		return prefixNet + a.prefix.String()
	}
	return a.prefix.String()
}

// MarshalText returns the String form.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddr.
func (a *Addr) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAddr(string(b))
	return err
}

// minNet is the smallest subnet to allocate in: without its first and its last
// address two are left.
const minNet = 30

// unusableNet says why no address can be found in p, or "".
func unusableNet(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case !p.IsValid():
		return "no subnet"
	case !a.Is4():
		return "not IPv4"
	case p != p.Masked():
		return "an address in the subnet net:" + p.Masked().String()
	case p.Bits() > minNet:
		return "too small"
	case p.Bits() == 0, a.IsMulticast(), a.IsLoopback():
		return "not for hosts"
	}
	return ""
}

// unusable says why no host can have the address p, or "".
func unusable(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case !p.IsValid():
		return "no address"
	case a.Is4In6():
		return "an IPv4 address in IPv6 form"
	case a.IsUnspecified(), p.Bits() == 0:
		return "everything"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLoopback():
		return "a loopback address"
	case a.BitLen()-p.Bits() < 2: // RFC 3021, RFC 6164: both ends are hosts
		return ""
	case a == p.Masked().Addr():
		return "the subnet, not an address in it"
	case a.Is4() && isLast(p):
		return "the subnet's broadcast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

// isLast reports whether all host bits of the IPv4 prefix p are set.
func isLast(p netip.Prefix) bool {
	return p.Addr().Next() == netip.Addr{} || !p.Masked().Contains(p.Addr().Next())
}
