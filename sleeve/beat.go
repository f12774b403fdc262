package sleeve

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"weave/crypto/session"
	"weave/sleeve/udp"
)

// beatKind is the first byte of a control message. Append only.
type beatKind uint8

const (
	beatRequest beatKind = 1
	beatReply   beatKind = 2
)

const beatLen = 16

// beat is a heartbeat, drawn in the package comment. The sender of a request finds
// all it needs in the reply and keeps no table.
type beat struct {
	kind   beatKind
	size   uint16 // UDP payload of the request
	number uint32
	stamp  time.Duration // requester's clock
}

// put writes b and the meta in front of it; p is the whole plaintext and its tail
// already zero.
func (b *beat) put(p []byte) {
	m := meta{kind: kindControl}
	m.put(p)
	p = p[metaLen:]
	p[0], p[1] = byte(b.kind), 0
	binary.LittleEndian.PutUint16(p[2:], b.size)
	binary.LittleEndian.PutUint32(p[4:], b.number)
	binary.LittleEndian.PutUint64(p[8:], uint64(b.stamp))
}

// parseBeat reads a control message; what follows it is ignored.
func parseBeat(p []byte) (b beat, ok bool) {
	if len(p) < beatLen {
		return beat{}, false
	}
	b = beat{
		kind:   beatKind(p[0]),
		size:   binary.LittleEndian.Uint16(p[2:]),
		number: binary.LittleEndian.Uint32(p[4:]),
		stamp:  time.Duration(binary.LittleEndian.Uint64(p[8:])),
	}
	return b, b.kind == beatRequest || b.kind == beatReply
}

// beatSender sends the heartbeats of all links. They are few, and buffers of the
// size of the largest would make most of what an idle link costs.
type beatSender struct {
	mu     sync.Mutex
	out    Sender
	plain  [largestMTU]byte
	sealed [largestMTU]byte
}

var errNotSealed = errors.New("sleeve: no key for a heartbeat")

// send seals b and sends it to ep. A request is as long as the size that it is to
// prove. The error is errNotSealed or that of the Sender.
func (s *beatSender) send(ep *udp.Endpoint, sealer *session.Sealer, b *beat) error {
	n := metaLen + beatLen
	if b.kind == beatRequest {
		n = max(n, int(b.size)-sealer.Overhead())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	plain := s.plain[:n]
	clear(plain)
	b.put(plain)
	d, err := sealer.Seal(s.sealed[:0], 0, plain)
	if err != nil {
		return errNotSealed
	}
	return s.out.Send(ep, d, len(d))
}
