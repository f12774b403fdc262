package sleeve

import "slices"

// The sizes that are tried first: those of the networks there are. On most paths
// one of them is the largest that passes, and proving it takes one round trip with a
// heartbeat of each.

const (
	headersIPv4 = 20 + 8 // IP and UDP
	headersIPv6 = 40 + 8
	unknownMTU  = 1500
	largestMTU  = 9216 // no probe is larger, whatever a virtual device claims
	leastIPv4   = 576
	leastIPv6   = 1280 // RFC 8200 §5
)

var commonMTUs = []int{9000, 1500, 1460, 1400, 1280}

// probeSizes returns the UDP payload sizes to try, largest first, when IP packets
// of egress bytes can leave this host. need is the size that carries the overlay's
// MTU; it is tried as well.
func probeSizes(egress int, ipv6 bool, need int) []int {
	headers, least := headersIPv4, leastIPv4
	if ipv6 {
		headers, least = headersIPv6, leastIPv6
	}
	if egress <= 0 {
		egress = unknownMTU
	}
	egress = max(least, min(egress, largestMTU))
	sizes := []int{egress - headers, least - headers}
	for _, mtu := range commonMTUs {
		if mtu < egress && mtu > least {
			sizes = append(sizes, mtu-headers)
		}
	}
	if need < egress-headers && need > least-headers {
		sizes = append(sizes, need)
	}
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	return slices.Compact(sizes)
}

// innerMTU is the largest IP packet that fits a datagram of limit bytes.
func innerMTU(limit int) int { return limit - Overhead }

// datagramFor is the datagram that an inner packet of mtu bytes makes.
func datagramFor(mtu int) int { return mtu + Overhead }
