package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"encoding/binary"
	"fmt"
	"hash"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// keyLen is the size in bytes of the key of each cipher.
const keyLen = 32

// laneLabel begins the HKDF info of a lane's key. It is protocol.
const laneLabel = "weave session v1 lane"

// direction is part of a lane's label. It is protocol.
type direction byte

const (
	toResponder direction = 0
	toInitiator direction = 1
)

// limits returns after how many datagrams a key should be, and must be, replaced.
// AES-GCM's bound is that of NIST SP 800-38D with a margin for large datagrams;
// ChaCha20-Poly1305's is WireGuard's.
func limits(c Cipher) (soft, hard uint64) {
	if c == CipherAES {
		return 1 << 33, 1 << 34
	}
	return 1 << 59, 1 << 60
}

// TxKeys are the keys of one epoch to send with. They may be read by all; each
// Sealer in them has one owner.
type TxKeys struct {
	Epoch   uint32
	Index   uint32    // the peer's receiver index, in the header of each datagram
	Created time.Time // as told to the Exchange; when this end began to make them

	gone    atomic.Bool
	sealers [NumLanes]*Sealer
}

// Sealer returns the one Sealer of a lane, the same at each call, or nil when the
// lane was not among those of the ExchangeConfig.
func (k *TxKeys) Sealer(l Lane) *Sealer {
	if l >= NumLanes {
		return nil
	}
	return k.sealers[l]
}

// RxKeys are the keys of one epoch to receive with. They may be read by all; each
// Opener in them has one owner.
type RxKeys struct {
	Epoch uint32
	Index uint32 // from NewIndex; datagrams under these keys carry it

	created time.Time
	gone    atomic.Bool
	used    atomic.Bool
	openers [NumLanes]*Opener
}

// Opener returns the one Opener of a lane, the same at each call, or nil when the
// lane was not among those of the ExchangeConfig.
func (k *RxKeys) Opener(l Lane) *Opener {
	if l >= NumLanes {
		return nil
	}
	return k.openers[l]
}

// FirstUse is called after each datagram opened with the keys and is true exactly
// once, for whichever goroutine comes first: that one has Exchange.Authenticated
// called. Later calls cost one load.
func (k *RxKeys) FirstUse() bool {
	return !k.used.Load() && k.used.CompareAndSwap(false, true)
}

// schedule makes the keys of one epoch; it is the whole key schedule.
type schedule struct {
	cipher Cipher
	epoch  uint32
	prk    []byte // nil in clear mode
}

// newSchedule takes the DH result and the two messages as they were on the wire.
// It clears dh.
func newSchedule(c Cipher, epoch uint32, dh []byte, secret Secret, init, resp []byte) (schedule, error) {
	s := schedule{cipher: c, epoch: epoch}
	if c == CipherNone {
		return s, nil
	}
	h := newBlake2s()
	h.Write(init)
	h.Write(resp)
	b := secret.bytes()
	ikm := append(append(make([]byte, 0, len(dh)+SecretLen), dh...), b[:]...)
	var err error
	s.prk, err = hkdf.Extract(newBlake2s, ikm, h.Sum(nil))
	clear(ikm)
	clear(dh)
	clear(b[:])
	return s, err
}

// wipe forgets the secret that the keys were made from.
func (s *schedule) wipe() { clear(s.prk) }

// aead returns the cipher of one lane and direction; nil in clear mode.
func (s *schedule) aead(d direction, l Lane) (cipher.AEAD, error) {
	if s.cipher == CipherNone {
		return nil, nil
	}
	key, err := s.key(d, l)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newAEAD(s.cipher, key)
}

func (s *schedule) key(d direction, l Lane) ([]byte, error) {
	info := append(make([]byte, 0, len(laneLabel)+7), laneLabel...)
	info = append(info, byte(s.cipher))
	info = binary.LittleEndian.AppendUint32(info, s.epoch)
	info = append(info, byte(d), byte(l))
	return hkdf.Expand(newBlake2s, s.prk, string(info), keyLen)
}

func (s *schedule) tx(d direction, lanes []Lane, index uint32, created time.Time) (*TxKeys, error) {
	k := &TxKeys{Epoch: s.epoch, Index: index, Created: created}
	soft, hard := limits(s.cipher)
	for _, l := range lanes {
		aead, err := s.aead(d, l)
		if err != nil {
			return nil, err
		}
		k.sealers[l] = &Sealer{keys: k, aead: aead, sealed: s.cipher != CipherNone, lane: l, index: index, soft: soft, hard: hard}
	}
	return k, nil
}

func (s *schedule) rx(d direction, lanes []Lane, index uint32, created time.Time) (*RxKeys, error) {
	k := &RxKeys{Epoch: s.epoch, Index: index, created: created}
	_, hard := limits(s.cipher)
	for _, l := range lanes {
		aead, err := s.aead(d, l)
		if err != nil {
			return nil, err
		}
		k.openers[l] = &Opener{keys: k, aead: aead, sealed: s.cipher != CipherNone, lane: l, index: index, hard: hard}
	}
	return k, nil
}

func newAEAD(c Cipher, key []byte) (cipher.AEAD, error) {
	switch c {
	case CipherChaCha:
		return chacha20poly1305.New(key)
	case CipherAES:
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	return nil, fmt.Errorf("%v: %w", c, ErrCipher)
}

func newBlake2s() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err) // only a key that is too long is refused, and there is none
	}
	return h
}
