package session

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of Exchange.Control. Each means that the other end does not speak the
// protocol: the Exchange is unchanged, and the connection should be closed.
var (
	// ErrMessage: wrong length, version, type or padding.
	ErrMessage = errors.New("session: malformed control message")
	// ErrCipher: the ends do not agree on the cipher, or it is unknown.
	ErrCipher = errors.New("session: cipher mismatch")
	// ErrRole: a message that only this end may send.
	ErrRole = errors.New("session: control message from the wrong end")
	// ErrEpoch: a second, different INIT for one epoch.
	ErrEpoch = errors.New("session: epoch used twice")
	// ErrPublicKey: the other end's X25519 key is no use.
	ErrPublicKey = errors.New("session: bad public key")
)

const messageVersion = 1

type messageType byte

// Message types; they are protocol, append only.
const (
	msgInit    messageType = 1
	msgResp    messageType = 2
	msgConfirm messageType = 3
	msgRequest messageType = 4
)

const (
	publicLen      = 32
	randomLen      = 32
	headLen        = 8
	offMsgIndex    = headLen
	offMsgPublic   = offMsgIndex + 4
	offMsgRandom   = offMsgPublic + publicLen
	keyMessageLen  = offMsgRandom + randomLen
	offMsgEpoch    = 4
	offMsgReserved = 3
)

// message is a control message; index, public and random are of INIT and RESP.
type message struct {
	kind   messageType
	cipher Cipher
	epoch  uint32
	index  uint32
	public [publicLen]byte
	random [randomLen]byte
}

// hasKey reports whether messages of the type go on after the head.
func (t messageType) hasKey() bool { return t == msgInit || t == msgResp }

func (m *message) append(b []byte) []byte {
	b = append(b, messageVersion, byte(m.kind), byte(m.cipher), 0)
	b = binary.LittleEndian.AppendUint32(b, m.epoch)
	if !m.kind.hasKey() {
		return b
	}
	b = binary.LittleEndian.AppendUint32(b, m.index)
	b = append(b, m.public[:]...)
	return append(b, m.random[:]...)
}

func parseMessage(b []byte) (message, error) {
	if len(b) < headLen {
		return message{}, fmt.Errorf("%d bytes: %w", len(b), ErrMessage)
	}
	m := message{
		kind:   messageType(b[1]),
		cipher: Cipher(b[2]),
		epoch:  binary.LittleEndian.Uint32(b[offMsgEpoch:]),
	}
	want := headLen
	if m.kind.hasKey() {
		want = keyMessageLen
	}
	switch {
	case b[0] != messageVersion:
		return message{}, fmt.Errorf("version %d: %w", b[0], ErrMessage)
	case m.kind < msgInit || m.kind > msgRequest:
		return message{}, fmt.Errorf("type %d: %w", m.kind, ErrMessage)
	case b[offMsgReserved] != 0 || m.epoch == 0:
		return message{}, fmt.Errorf("bad head: %w", ErrMessage)
	case len(b) != want:
		return message{}, fmt.Errorf("type %d of %d bytes: %w", m.kind, len(b), ErrMessage)
	}
	if m.kind.hasKey() {
		m.index = binary.LittleEndian.Uint32(b[offMsgIndex:])
		m.public = [publicLen]byte(b[offMsgPublic:])
		m.random = [randomLen]byte(b[offMsgRandom:])
	}
	return m, nil
}
