package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"weave/mesh/gossip"
)

var (
	// ErrMalformed reports bytes that no honest peer sends.
	ErrMalformed = errors.New("malformed control message")
	// ErrTooLong reports a record or message over its limit.
	ErrTooLong = errors.New("control message too long")
)

// Tag says what kind of message a record carries. Append only.
type Tag uint8

const (
	TagHello     Tag = 1 // who is there, its overlays; first on each connection
	TagHeartbeat Tag = 2 // asks for an echo
	TagEcho      Tag = 3 // of a heartbeat
	TagOverlay   Tag = 4 // from one end of a link to the other
	TagUnicast   Tag = 5 // to one peer, passed on by those in between
	TagGossip    Tag = 6 // what changed in a channel's state
	TagDigest    Tag = 7 // what a channel's state is, in short
	TagClose     Tag = 8 // the reason; last on the connection
)

// Sizes in bytes.
const (
	LengthLen  = 2  // in front of a record
	sealLen    = 16 // what sealing adds
	headLen    = 2  // tag, flags
	minSealed  = headLen + sealLen
	MaxSealed  = 16 << 10 // keeps a reader's buffer small; the length field could say 64 KiB
	maxPiece   = MaxSealed - minSealed
	MaxMessage = 1 << 20 // no message is longer
)

const flagMore = 1

// keepBuffer is the largest buffer, in bytes, that is kept between messages: a
// connection that was busy once must not cost its memory for life.
const keepBuffer = 2 << 10

// Limit returns the longest body of a message with this tag; 0 for unknown tags.
func (t Tag) Limit() int {
	switch t {
	case TagHello:
		return 4 << 10
	case TagHeartbeat, TagEcho:
		return 8
	case TagOverlay:
		return 16 << 10
	case TagUnicast:
		return unicastFix + channelFix + maxChannel + gossip.MaxMessage
	case TagGossip, TagDigest:
		return channelFix + maxChannel + gossip.MaxMessage
	case TagClose:
		return 1 << 10
	}
	return 0
}

// String returns the name of the package comment's table.
func (t Tag) String() string {
	names := [...]string{"", "hello", "heartbeat", "echo", "overlay", "unicast", "gossip", "digest", "close"}
	if t != 0 && int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("tag(%d)", uint8(t))
}

// Msg is a message of any kind.
type Msg struct {
	Tag  Tag
	Body []byte
}

// Sealer seals what it is given in order; Seal appends the sealed plaintext,
// which is 16 bytes longer, to dst.
type Sealer interface {
	Seal(dst, plaintext []byte) ([]byte, error)
}

// Encoder turns messages into records. It is not safe for concurrent use.
type Encoder struct {
	seal  Sealer
	plain []byte
}

// NewEncoder makes an Encoder; nobody else may use seal.
func NewEncoder(seal Sealer) *Encoder { return &Encoder{seal: seal} }

// Append appends the records of m to dst. An error of the limits leaves the
// stream intact, one of the Sealer doesn't.
func (e *Encoder) Append(dst []byte, m Msg) ([]byte, error) {
	if len(m.Body) > m.Tag.Limit() {
		return dst, fmt.Errorf("%s of %d bytes: %w", m.Tag, len(m.Body), ErrTooLong)
	}
	dst = slices.Grow(dst, len(m.Body)+(len(m.Body)/maxPiece+1)*(LengthLen+minSealed))
	for body := m.Body; ; {
		n := min(len(body), maxPiece)
		flags := byte(0)
		if n < len(body) {
			flags = flagMore
		}
		e.plain = append(append(e.plain[:0], byte(m.Tag), flags), body[:n]...)
		at := len(dst)
		sealed, err := e.seal.Seal(append(dst, 0, 0), e.plain)
		if err != nil {
			return dst, fmt.Errorf("sealing record: %w", err)
		}
		dst = sealed
		binary.BigEndian.PutUint16(dst[at:], uint16(len(dst)-at-LengthLen))
		if body = body[n:]; len(body) == 0 {
			if cap(e.plain) > keepBuffer {
				e.plain = nil
			}
			return dst, nil
		}
	}
}

// SealedLen reads the length in front of a record.
func SealedLen(b [LengthLen]byte) (int, error) {
	n := int(binary.BigEndian.Uint16(b[:]))
	switch {
	case n > MaxSealed:
		return 0, fmt.Errorf("record of %d bytes: %w", n, ErrTooLong)
	case n < minSealed:
		return 0, fmt.Errorf("record of %d bytes: %w", n, ErrMalformed)
	}
	return n, nil
}

// Assembler puts messages together from the plaintexts of records. The zero
// Assembler is ready. After an error it must not be used again.
type Assembler struct {
	tag  Tag
	busy bool // a record with MORE came last
	size int  // of the message so far; size <= tag.Limit() for known tags
	buf  []byte
}

// Push takes the plaintext of the next record. With ok, m is a whole message,
// whose body is valid until the next Push and may alias plain; a message of an
// unknown tag has no body.
func (a *Assembler) Push(plain []byte) (m Msg, ok bool, err error) {
	if len(plain) < headLen || plain[1]&^flagMore != 0 {
		return m, false, fmt.Errorf("record header: %w", ErrMalformed)
	}
	tag, more, piece := Tag(plain[0]), plain[1]&flagMore != 0, plain[headLen:]
	if (a.busy && tag != a.tag) || (more && len(piece) == 0) {
		return m, false, fmt.Errorf("%s record: %w", tag, ErrMalformed)
	}
	if !a.busy {
		a.tag, a.size, a.buf = tag, 0, a.buf[:0]
	}
	a.size += len(piece)
	limit := tag.Limit()
	if a.size > MaxMessage || (limit > 0 && a.size > limit) {
		return m, false, fmt.Errorf("%s of more than %d bytes: %w", tag, limit, ErrTooLong)
	}
	first := !a.busy
	a.busy = more
	switch {
	case limit == 0:
		return Msg{Tag: tag}, !more, nil
	case first && !more:
		return Msg{Tag: tag, Body: piece}, true, nil
	}
	a.buf = append(a.buf, piece...)
	if more {
		return m, false, nil
	}
	m = Msg{Tag: tag, Body: a.buf}
	if cap(a.buf) > keepBuffer {
		a.buf = nil
	}
	return m, true, nil
}
