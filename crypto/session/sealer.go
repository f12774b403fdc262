package session

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// Errors of Seal and Open. They are values, so refusing a datagram allocates
// nothing; each can serve as the name of a drop counter.
var (
	// ErrExhausted: the key has sealed all it may. Only new keys help.
	ErrExhausted = errors.New("session: key exhausted")
	// ErrNoKey: the zero Sealer or Opener, or one whose keys were given up.
	ErrNoKey = errors.New("session: no key")
	// ErrShort: the datagram has no room for header and tag.
	ErrShort = errors.New("session: datagram too short")
	// ErrMismatch: the header names another lane or index than the Opener's.
	ErrMismatch = errors.New("session: datagram of another lane or index")
	// ErrCounter: the counter is beyond what a key may seal.
	ErrCounter = errors.New("session: counter out of range")
	// ErrReplay: the counter was accepted before, or is behind the window.
	ErrReplay = errors.New("session: replayed or too old")
	// ErrAuth: the datagram was not sealed with this key.
	ErrAuth = errors.New("session: authentication failed")
)

const nonceLen = 12

// Sealer seals the datagrams of one lane with one key. It belongs to one
// goroutine at a time. The zero Sealer seals nothing.
type Sealer struct {
	keys   *TxKeys // nil in the zero Sealer
	aead   cipher.AEAD
	stride int
	sealed bool // false: clear, with the permit checked when the keys were made
	lane   Lane
	index  uint32
	next   uint64 // counter of the next datagram; next <= hard
	soft   uint64
	hard   uint64
	nonce  [nonceLen]byte // here because an argument of an interface's method escapes
	_      [48]byte       // keeps Sealers of two workers off one cache line
}

// Seal appends one datagram that carries plaintext to dst and returns the longer
// slice. Consecutive calls use consecutive counters. It does not allocate when
// dst has room for Overhead more bytes than plaintext. plaintext must not overlap
// the part of dst that is written, except that it may lie exactly where the
// sealed bytes will go. On error dst comes back as it was.
func (s *Sealer) Seal(dst []byte, flags uint16, plaintext []byte) ([]byte, error) {
	if s.keys == nil || s.keys.gone.Load() {
		return dst, ErrNoKey
	}
	if s.next >= s.hard {
		return dst, ErrExhausted
	}
	counter := s.next
	s.next++
	start := len(dst)
	dst = appendHeader(dst, Header{Lane: s.lane, Flags: flags, Index: s.index, Counter: counter})
	if !s.sealed {
		return append(dst, plaintext...), nil
	}
	binary.LittleEndian.PutUint64(s.nonce[nonceLen-8:], counter)
	return s.aead.Seal(dst, s.nonce[:], plaintext, dst[start:start+HeaderLen]), nil
}

// Overhead is how many bytes longer than its plaintext a datagram is.
func (s *Sealer) Overhead() int {
	if !s.sealed {
		return HeaderLen
	}
	return HeaderLen + TagLen
}

// Stride is the number of bytes, a power of two, that the cipher works on at a time:
// a plaintext of a multiple of it costs less than one that is a little shorter.
func (s *Sealer) Stride() int { return max(1, s.stride) }

// Remaining is how many datagrams may still be sealed.
func (s *Sealer) Remaining() uint64 { return s.hard - s.next }

// NeedsRekey reports that half of what the key may seal is used up: time to call
// Exchange.Rekey.
func (s *Sealer) NeedsRekey() bool { return s.next >= s.soft }
