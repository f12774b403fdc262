package odp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"weave/internal/ether"
)

// Types of messages. The numbers are protocol: append only.
const (
	typeHello = 1
	typeMACs  = 2
)

const (
	version    = 1
	helloLen   = 8
	maxMACs    = 1000
	maxWaiting = 64 // messages a link has not looked at
)

var errMessage = errors.New("odp: malformed message")

// hello is what each end says of its kernel path first.
type hello struct {
	version byte
	vni     uint32
	mtu     uint16
	source  netip.Addr // zero: not known
}

func (h hello) append(b []byte) []byte {
	b = append(b, typeHello, h.version, byte(h.vni>>16), byte(h.vni>>8), byte(h.vni))
	b = binary.BigEndian.AppendUint16(b, h.mtu)
	a := h.source.AsSlice()
	return append(append(b, byte(len(a))), a...)
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) < helloLen || b[0] != typeHello {
		return h, errMessage
	}
	h.version, h.vni, h.mtu = b[1], uint32(b[2])<<16|uint32(b[3])<<8|uint32(b[4]), binary.BigEndian.Uint16(b[5:])
	n := int(b[7])
	if n == 0 {
		return h, nil
	}
	if n != 4 && n != 16 || len(b) < helloLen+n {
		return hello{}, errMessage
	}
	h.source, _ = netip.AddrFromSlice(b[helloLen : helloLen+n])
	if h.source.IsMulticast() || h.source.IsUnspecified() || h.source.IsLoopback() {
		return hello{}, errMessage
	}
	return h, nil
}

// appendMACs makes messages that hold all of macs.
func appendMACs(macs []ether.MAC) (out [][]byte) {
	for len(macs) > 0 {
		n := min(len(macs), maxMACs)
		b := append(make([]byte, 0, 1+6*n), typeMACs)
		for _, m := range macs[:n] {
			b = append(b, m[:]...)
		}
		out, macs = append(out, b), macs[n:]
	}
	return out
}

// parseMACs leaves out what is no individual address.
func parseMACs(b []byte) (out []ether.MAC, err error) {
	if len(b) < 1 || b[0] != typeMACs || len(b) > 1+6*maxMACs || (len(b)-1)%6 != 0 {
		return nil, errMessage
	}
	for b = b[1:]; len(b) > 0; b = b[6:] {
		if m := ether.MAC(b[:6]); !m.IsMulticast() && m != (ether.MAC{}) {
			out = append(out, m)
		}
	}
	return out, nil
}
