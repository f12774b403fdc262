package handshake

import (
	"fmt"

	"github.com/flynn/noise"
)

const (
	// MaxRecord is the largest record in bytes.
	MaxRecord = 65535
	// RecordOverhead is how many bytes longer than its plaintext a record is.
	RecordOverhead = 16
	// MaxPlaintext is the largest plaintext of a record in bytes.
	MaxPlaintext = MaxRecord - RecordOverhead

	// rekeyEvery records, the keys of a direction are replaced (Noise section
	// 11.3); both ends count. It is protocol.
	rekeyEvery = 1 << 16
)

// Transport seals the records of a control connection. Nonces are counted on both
// ends and not sent, so records must come in order and complete, as TCP has them.
// Framing is the caller's. One goroutine may seal while another opens.
type Transport struct {
	send, recv *noise.CipherState
	broken     bool // owned by who opens
}

// Seal appends the next record to dst. dst and plaintext must not overlap.
func (t *Transport) Seal(dst, plaintext []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return dst, fmt.Errorf("record of %d bytes: %w", len(plaintext), ErrTooLong)
	}
	step(t.send)
	out, err := t.send.Encrypt(dst, nil, plaintext)
	if err != nil {
		return dst, fmt.Errorf("sealing record: %w", err)
	}
	return out, nil
}

// Open appends the plaintext of the next record to dst; record[:0] opens in place.
// A record that does not open is the end: every later Open fails too.
func (t *Transport) Open(dst, record []byte) ([]byte, error) {
	if t.broken {
		return dst, ErrAuth
	}
	if len(record) > MaxRecord {
		t.broken = true
		return dst, fmt.Errorf("record of %d bytes: %w", len(record), ErrTooLong)
	}
	step(t.recv)
	out, err := t.recv.Decrypt(dst, nil, record)
	if err != nil {
		t.broken = true
		return dst, ErrAuth
	}
	return out, nil
}

// step replaces the key when it is time; it comes once before each record.
func step(s *noise.CipherState) {
	if n := s.Nonce(); n != 0 && n%rekeyEvery == 0 {
		s.Rekey()
	}
}
