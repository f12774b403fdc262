package overlay

// Encapsulation is how a path wraps the overlay's frames. Its String is part of no
// protocol.
type Encapsulation uint8

const (
	EncapSleeve Encapsulation = iota // shards: IP, UDP 8, header 16, meta 8, Ethernet 14, tag 16
	EncapVXLAN                       // RFC 7348: IP, UDP 8, VXLAN 8, Ethernet 14
	EncapCage                        // VXLAN over IPv4 within WireGuard: IP, UDP 8, header 16, tag 16, and 50 within
	numEncapsulations
)

// String names the encapsulation for tests and logs.
func (e Encapsulation) String() string {
	return [numEncapsulations]string{"sleeve", "vxlan", "cage"}[e]
}

// Bytes that an encapsulation adds to an inner IP packet, without the outermost IP
// header.
var overhead = [numEncapsulations]int{
	EncapSleeve: 8 + 16 + 8 + 14 + 16,
	EncapVXLAN:  8 + 8 + 14,
	EncapCage:   8 + 16 + 16 + (20 + 8 + 8 + 14),
}

// Sizes of IP headers without options.
const (
	headerIPv4 = 20
	headerIPv6 = 40
)

// InnerMTU returns the largest inner IP packet that fits, in this encapsulation, an
// underlay packet of mtu bytes; 0 if none does. It is the one place where overheads
// are counted.
func InnerMTU(mtu int, ipv6 bool, e Encapsulation) int { return max(0, mtu-Overhead(ipv6, e)) }

// Overhead returns how many bytes an underlay packet is longer than the inner IP
// packet in it.
func Overhead(ipv6 bool, e Encapsulation) int {
	if ipv6 {
		return overhead[e] + headerIPv6
	}
	return overhead[e] + headerIPv4
}
