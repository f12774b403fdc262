package proof

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/blake2s"

	"weave/internal/ether"
)

// EtherType marks heartbeats (IEEE 802 local experimental ethertype 1).
const EtherType = 0x88b5

// Sizes in bytes.
const (
	KeyLen = 32
	sumLen = 16
	MinLen = ether.HeaderLen + bodyLen + sumLen // shortest heartbeat

	bodyLen = 24
	version = 1
)

// Type of a heartbeat. The numbers are protocol.
type Type uint8

const (
	Request Type = 1
	Reply   Type = 2
)

// ErrFrame reports a frame that is no heartbeat of this connection.
var ErrFrame = errors.New("proof: not a heartbeat of this connection")

// Beat is one heartbeat.
type Beat struct {
	Dst, Src ether.MAC
	Type     Type
	Got      uint16 // Reply: length of the request as it arrived, Ethernet header included
	Seq      uint32
	Clock    int64  // nanoseconds of the clock of who sent the request
	ConnUID  uint64 // of the control connection
}

// Append appends the frame, padded with zeros to size bytes if it is shorter.
func (b Beat) Append(dst []byte, key *[KeyLen]byte, size int) []byte {
	start := len(dst)
	dst = append(dst, b.Dst[:]...)
	dst = append(dst, b.Src[:]...)
	dst = binary.BigEndian.AppendUint16(dst, EtherType)
	dst = append(dst, version, byte(b.Type))
	dst = binary.BigEndian.AppendUint16(dst, b.Got)
	dst = binary.BigEndian.AppendUint32(dst, b.Seq)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Clock))
	dst = binary.BigEndian.AppendUint64(dst, b.ConnUID)
	dst = append(dst, sum(key, dst[start+ether.HeaderLen:])...)
	if pad := size - (len(dst) - start); pad > 0 {
		dst = append(dst, make([]byte, pad)...)
	}
	return dst
}

// Parse reads a heartbeat and checks its sum. Bytes behind the sum are ignored.
func Parse(frame []byte, key *[KeyLen]byte) (Beat, error) {
	if len(frame) < MinLen || binary.BigEndian.Uint16(frame[12:]) != EtherType {
		return Beat{}, ErrFrame
	}
	body := frame[ether.HeaderLen : ether.HeaderLen+bodyLen]
	if body[0] != version || subtle.ConstantTimeCompare(sum(key, body), frame[ether.HeaderLen+bodyLen:MinLen]) != 1 {
		return Beat{}, ErrFrame
	}
	b := Beat{
		Dst: ether.MAC(frame[0:6]), Src: ether.MAC(frame[6:12]),
		Type:    Type(body[1]),
		Got:     binary.BigEndian.Uint16(body[2:]),
		Seq:     binary.BigEndian.Uint32(body[4:]),
		Clock:   int64(binary.BigEndian.Uint64(body[8:])),
		ConnUID: binary.BigEndian.Uint64(body[16:]),
	}
	if b.Type != Request && b.Type != Reply {
		return Beat{}, ErrFrame
	}
	return b, nil
}

func sum(key *[KeyLen]byte, b []byte) []byte {
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err) // the key's length is constant
	}
	h.Write(b)
	return h.Sum(nil)
}
