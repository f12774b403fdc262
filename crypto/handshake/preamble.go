package handshake

import "encoding/binary"

const (
	preambleLen  = 16
	magic        = "weave\x00\r\n"
	flagPassword = 1 << 0

	// Versions spoken; they are protocol.
	versionMin = 1
	versionMax = 1
)

// preamble is the first thing each end says, in clear.
type preamble struct {
	low, high uint8 // versions spoken
	password  bool
}

func (p preamble) append(b []byte) []byte {
	var flags uint16
	if p.password {
		flags |= flagPassword
	}
	b = append(b, magic...)
	b = append(b, p.low, p.high)
	b = binary.LittleEndian.AppendUint16(b, flags)
	return append(b, 0, 0, 0, 0)
}

func parsePreamble(b []byte) (preamble, error) {
	if len(b) != preambleLen || string(b[:len(magic)]) != magic {
		return preamble{}, ErrNotWeave
	}
	p := preamble{
		low:      b[8],
		high:     b[9],
		password: binary.LittleEndian.Uint16(b[10:])&flagPassword != 0,
	}
	if p.low > p.high {
		return preamble{}, ErrNotWeave
	}
	return p, nil
}

// version returns the highest version that both speak.
func (p preamble) version(o preamble) (uint8, error) {
	v := min(p.high, o.high)
	if v < max(p.low, o.low) {
		return 0, ErrVersion
	}
	return v, nil
}
