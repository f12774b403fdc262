package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"
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
	source  source
	sealers [NumLanes]atomic.Pointer[Sealer]
}

// Sealer returns the one Sealer of a lane, the same at each call, or nil when the
// lane was not among those of the ExchangeConfig. The first call for a lane makes
// its key, which takes some microseconds and memory; later ones cost one load.
func (k *TxKeys) Sealer(l Lane) *Sealer {
	if l >= NumLanes {
		return nil
	}
	if s := k.sealers[l].Load(); s != nil {
		return s
	}
	return makeOnce(&k.source, l, &k.sealers[l], func(a cipher.AEAD, ok bool) *Sealer {
		s := &Sealer{aead: a, sealed: k.source.cipher != CipherNone, lane: l, index: k.Index, stride: stride(k.source.cipher)}
		if ok { // else it is one that seals nothing
			s.keys = k
			s.soft, s.hard = limits(k.source.cipher)
		}
		return s
	})
}

// giveUp makes all Sealers fail from now on, whoever holds them.
func (k *TxKeys) giveUp() {
	k.gone.Store(true)
	k.source.wipe()
}

// RxKeys are the keys of one epoch to receive with. They may be read by all; each
// Opener in them has one owner.
type RxKeys struct {
	Epoch uint32
	Index uint32 // from NewIndex; datagrams under these keys carry it

	created time.Time
	gone    atomic.Bool
	used    atomic.Bool
	source  source
	openers [NumLanes]atomic.Pointer[Opener]
}

// Opener returns the one Opener of a lane, the same at each call, or nil when the
// lane was not among those of the ExchangeConfig. As with [TxKeys.Sealer], the
// first call for a lane makes its key.
func (k *RxKeys) Opener(l Lane) *Opener {
	if l >= NumLanes {
		return nil
	}
	if o := k.openers[l].Load(); o != nil {
		return o
	}
	return makeOnce(&k.source, l, &k.openers[l], func(a cipher.AEAD, ok bool) *Opener {
		o := &Opener{aead: a, sealed: k.source.cipher != CipherNone, lane: l, index: k.Index}
		if ok {
			o.keys = k
			_, o.hard = limits(k.source.cipher)
		}
		return o
	})
}

// giveUp makes all Openers fail from now on, whoever holds them.
func (k *RxKeys) giveUp() {
	k.gone.Store(true)
	k.source.wipe()
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
	prk    Secret // zero in clear mode; a Secret, so that keys can be printed without it
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
	prk, err := hkdf.Extract(newBlake2s, ikm, h.Sum(nil))
	clear(ikm)
	clear(dh)
	clear(b[:])
	if err != nil {
		return s, err
	}
	s.prk = SecretFromBytes([SecretLen]byte(prk))
	clear(prk)
	return s, nil
}

// wipe forgets the secret that the keys were made from.
func (s *schedule) wipe() { s.prk.wipe() }

func (s *schedule) key(d direction, l Lane) ([]byte, error) {
	info := append(make([]byte, 0, len(laneLabel)+7), laneLabel...)
	info = append(info, byte(s.cipher))
	info = binary.LittleEndian.AppendUint32(info, s.epoch)
	info = append(info, byte(d), byte(l))
	prk := s.prk.bytes()
	defer clear(prk[:])
	return hkdf.Expand(newBlake2s, prk[:], string(info), keyLen)
}

// tx makes the keys to send with. That of the first lane is made at once, so that
// an error is the exchange's.
func (s *schedule) tx(d direction, lanes []Lane, index uint32, created time.Time) (*TxKeys, error) {
	k := &TxKeys{Epoch: s.epoch, Index: index, Created: created}
	k.source.init(s, d, lanes)
	if k.Sealer(lanes[0]).keys == nil {
		return nil, ErrNoKey
	}
	return k, nil
}

// rx is tx for the keys to receive with.
func (s *schedule) rx(d direction, lanes []Lane, index uint32, created time.Time) (*RxKeys, error) {
	k := &RxKeys{Epoch: s.epoch, Index: index, created: created}
	k.source.init(s, d, lanes)
	if k.Opener(lanes[0]).keys == nil {
		return nil, ErrNoKey
	}
	return k, nil
}

// source makes the keys of one direction, each when its lane is first used: most
// links never use most lanes, and an AEAD with a replay window is 2.5 KiB.
type source struct {
	// Set once.
	schedule
	d     direction
	lanes uint64 // bit l: lane l may have keys

	mu    sync.Mutex // held while a key is made or prk cleared
	wiped bool
}

func (src *source) init(s *schedule, d direction, lanes []Lane) {
	src.schedule = schedule{cipher: s.cipher, epoch: s.epoch, prk: s.prk.clone()}
	src.d = d
	for _, l := range lanes {
		src.lanes |= 1 << l
	}
}

// makeOnce fills at with what build makes of lane l's AEAD (nil in clear mode), if
// nobody has yet. ok is false when the keys were given up, or the AEAD cannot be
// made: what is built then must fail. The result is nil for a lane without keys.
func makeOnce[T any](s *source, l Lane, at *atomic.Pointer[T], build func(a cipher.AEAD, ok bool) *T) *T {
	if s.lanes&(1<<l) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := at.Load(); v != nil {
		return v
	}
	a, err := s.aead(l)
	v := build(a, err == nil)
	at.Store(v)
	return v
}

// aead returns the cipher of one lane; nil in clear mode. mu is held.
func (s *source) aead(l Lane) (cipher.AEAD, error) {
	if s.wiped {
		return nil, ErrNoKey
	}
	if s.cipher == CipherNone {
		return nil, nil
	}
	key, err := s.key(s.d, l)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newAEAD(s.cipher, key)
}

// wipe forgets what keys are made from.
func (s *source) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wiped = true
	s.schedule.wipe()
}

// stride is how many bytes the implementation of a cipher takes at a time. What is
// left of AES-GCM is done in single blocks, which cost three times as much each.
func stride(c Cipher) int {
	if c == CipherAES {
		return 128
	}
	return 1
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
