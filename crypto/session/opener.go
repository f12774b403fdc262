package session

import (
	"crypto/cipher"
	"encoding/binary"
)

// Opener opens the datagrams of one lane with one key and refuses those that came
// before. It belongs to one goroutine at a time. The zero Opener opens nothing.
type Opener struct {
	keys   *RxKeys // nil in the zero Opener
	aead   cipher.AEAD
	sealed bool
	lane   Lane
	index  uint32
	hard   uint64
	nonce  [nonceLen]byte
	win    window
}

// Open checks a datagram and decrypts it in place. h is what ParseHeader read
// from the same datagram. The plaintext is a part of datagram and shares its
// lifetime. After an error the datagram's bytes are undefined, and the Opener is
// as if the datagram had never come.
func (o *Opener) Open(h Header, datagram []byte) (plaintext []byte, err error) {
	if o.keys == nil || o.keys.gone.Load() {
		return nil, ErrNoKey
	}
	if h.Lane != o.lane || h.Index != o.index {
		return nil, ErrMismatch
	}
	if h.Counter >= o.hard {
		return nil, ErrCounter
	}
	if !o.win.fresh(h.Counter) {
		return nil, ErrReplay
	}
	if !o.sealed {
		if len(datagram) < HeaderLen {
			return nil, ErrShort
		}
		o.win.commit(h.Counter)
		return datagram[HeaderLen:], nil
	}
	if len(datagram) < HeaderLen+TagLen {
		return nil, ErrShort
	}
	binary.LittleEndian.PutUint64(o.nonce[nonceLen-8:], h.Counter)
	body := datagram[HeaderLen:]
	plaintext, err = o.aead.Open(body[:0], o.nonce[:], body, datagram[:HeaderLen])
	if err != nil {
		return nil, ErrAuth
	}
	o.win.commit(h.Counter)
	return plaintext, nil
}

// Highest is the highest counter opened so far, 0 at first. A datagram just
// opened whose counter is equal to it is the newest of its lane; only such a one
// may move the peer's endpoint.
func (o *Opener) Highest() uint64 { return o.win.last }
