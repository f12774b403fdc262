package ether

import (
	"encoding/binary"
	"math/bits"
)

// Sum returns the ones' complement sum of b's big-endian 16-bit words (RFC 1071)
// on top of init, not complemented. An odd last byte counts as the high half of a
// word, so only the last piece of a message may have an odd length.
func Sum(b []byte, init uint16) uint16 {
	// The sum does not care about byte order as long as every word and the
	// result are swapped alike (RFC 1071 §2 B), nor about word size.
	acc, c := uint64(bits.ReverseBytes16(init)), uint64(0)
	le := binary.LittleEndian
	for len(b) >= 64 {
		p := (*[64]byte)(b)
		acc, c = bits.Add64(acc, le.Uint64(p[0:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[8:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[16:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[24:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[32:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[40:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[48:]), c)
		acc, c = bits.Add64(acc, le.Uint64(p[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, le.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte // zero bytes at the end change nothing
		copy(last[:], b)
		acc, c = bits.Add64(acc, le.Uint64(last[:]), c)
	}
	// acc and c are never both at their maximum, as c began with 0.
	return bits.ReverseBytes16(fold(acc + c))
}

// fold brings a ones' complement sum down to 16 bits.
func fold(v uint64) uint16 {
	v = v>>32 + v&0xffffffff
	v = v>>16 + v&0xffff
	v = v>>16 + v&0xffff
	return uint16(v>>16 + v)
}

// AddSums adds two sums of Sum's kind.
func AddSums(a, b uint16) uint16 { return fold(uint64(a) + uint64(b)) }

// PseudoSum returns the sum of the pseudo-header in front of an L4 message of
// length bytes: RFC 793 §3.1 for two 4-byte addresses, RFC 8200 §8.1 for two of 16.
// It is what a partial checksum field holds (Offload.NeedsCsum).
func PseudoSum(src, dst []byte, proto uint8, length int) uint16 {
	s := AddSums(Sum(src, 0), Sum(dst, 0))
	return AddSums(s, fold(uint64(proto)+uint64(length)))
}

// FinishChecksum completes in place the checksum that off leaves undone: it sums
// frame from CsumStart to its end, over the pseudo-header sum already in the field.
// A frame that needs none is left as it is. For a superframe see [Segmenter]: its
// single frames have one checksum each, so off.GSO must be GSONone.
func FinishChecksum(frame []byte, off Offload) error {
	if !off.NeedsCsum {
		return nil
	}
	start, field := int(off.CsumStart), int(off.CsumStart)+int(off.CsumOff)
	if off.GSO != GSONone {
		return ErrMalformed
	}
	if field+2 > len(frame) {
		return ErrTruncated
	}
	check := ^Sum(frame[start:], 0)
	if check == 0 {
		check = 0xffff // the same number; in UDP 0 means "none" (RFC 768)
	}
	binary.BigEndian.PutUint16(frame[field:], check)
	return nil
}
