package nameserver

import (
	"net/netip"
	"strconv"
	"strings"
)

// reverseAddr reads a name under in-addr.arpa or ip6.arpa, in any case. is says that it
// is such a name; whole that it is one of an address. Of a name that is neither an
// address nor a shorter one of a network, a is the zero Addr.
func reverseAddr(name string) (a netip.Addr, is, whole bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		return reverse4(strings.Split(rest, "."))
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		return reverse6(strings.Split(rest, "."))
	}
	if name == "in-addr.arpa." || name == "ip6.arpa." {
		return netip.IPv6Unspecified(), true, false
	}
	return netip.Addr{}, false, false
}

func reverse4(labels []string) (a netip.Addr, is, whole bool) {
	var b [4]byte
	if len(labels) > len(b) {
		return netip.Addr{}, true, false
	}
	for i, l := range labels {
		v, err := strconv.ParseUint(l, 10, 8)
		if err != nil || len(l) > 1 && l[0] == '0' || l[0] == '+' {
			return netip.Addr{}, true, false
		}
		b[len(labels)-1-i] = byte(v)
	}
	return netip.AddrFrom4(b), true, len(labels) == len(b)
}

func reverse6(labels []string) (a netip.Addr, is, whole bool) {
	var b [16]byte
	if len(labels) > 2*len(b) {
		return netip.Addr{}, true, false
	}
	for i, l := range labels {
		v, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, true, false
		}
		nibble := len(labels) - 1 - i
		b[nibble/2] |= byte(v) << (4 * (1 - nibble%2))
	}
	a = netip.AddrFrom16(b)
	return a, true, len(labels) == 2*len(b)
}
