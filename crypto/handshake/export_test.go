package handshake

import "github.com/flynn/noise"

// SetOffer gives a Machine an offer that New would refuse, as another program may.
func SetOffer(m *Machine, offer []byte) { m.cfg.Offer = offer }

// PSKBytes shows what no program may see.
func PSKBytes(p *PSK) []byte { return p.bytes() }

// SendKey is the key that the next record is sealed with, unless it is replaced.
func SendKey(t *Transport) [32]byte { return t.send.UnsafeKey() }

// FirstRecord is what t would have sealed as its first record.
func FirstRecord(t *Transport, plaintext []byte) []byte {
	first := &Transport{send: noise.UnsafeNewCipherState(suite, t.send.UnsafeKey(), 0)}
	record, err := first.Seal(nil, plaintext)
	if err != nil {
		panic(err)
	}
	return record
}
