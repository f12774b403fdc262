package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// Message types: protocol, append only. See doc.go for their bodies.
const (
	msgSum         = 0x01
	msgStamps      = 0x02
	msgStampsFinal = 0x03
	msgSegments    = 0x04
	msgWant        = 0x05
	msgHeld        = 0x06
	msgBuried      = 0x07

	sumLen   = 8
	stampLen = peer.NameLen + 8 + 8 + 8

	flagWhole = 1

	// budget bounds one message; a segment's runs are at most 3 bytes for each entry
	// and 4 where numbers are far apart, see maxSeq.
	budget = gossip.MaxMessage - 64
)

// ErrMessage reports a message that no peer of ours would send.
var ErrMessage = errors.New("bad names message")

// stamp says how much is known of one log.
type stamp struct {
	origin peer.Name
	life   Life
	known  uint64
}

// segment is a part of one log; see doc.go. It is immutable once made.
type segment struct {
	origin   peer.Name
	life     Life
	from, to uint64
	whole    bool
	alive    []span   // if whole: runs of the numbers <= from that are alive
	adds     []*Entry // alive in (from, to], by seq
	dels     []del    // in (from, to], by at
}

func appendStamp(b []byte, s stamp) []byte {
	b = s.origin.AppendBytes(b)
	b = binary.BigEndian.AppendUint64(b, s.life.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(s.life.UID))
	return binary.BigEndian.AppendUint64(b, s.known)
}

func parseStamps(b []byte) ([]stamp, error) {
	if len(b)%stampLen != 0 || len(b)/stampLen > MaxPeers {
		return nil, fmt.Errorf("%d bytes of stamps: %w", len(b), ErrMessage)
	}
	out := make([]stamp, 0, len(b)/stampLen)
	for ; len(b) > 0; b = b[stampLen:] {
		d := decoder{b: b[:stampLen]}
		s := stamp{origin: d.name(), life: Life{d.uint64(), peer.UID(d.uint64())}, known: d.uint64()}
		if s.origin.IsZero() {
			return nil, fmt.Errorf("stamp without a name: %w", ErrMessage)
		}
		out = append(out, s)
	}
	return out, nil
}

func sum(stamps []byte) []byte {
	h := sha256.Sum256(stamps)
	return append([]byte{msgSum}, h[:sumLen]...)
}

func appendHead(b []byte, s *segment) []byte {
	b = s.origin.AppendBytes(b)
	b = binary.BigEndian.AppendUint64(b, s.life.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(s.life.UID))
	b = binary.AppendUvarint(b, s.from)
	b = binary.AppendUvarint(b, s.to-s.from)
	if !s.whole {
		return append(b, 0)
	}
	b = append(b, flagWhole)
	b = binary.AppendUvarint(b, uint64(len(s.alive)))
	at := uint64(0)
	for _, r := range s.alive {
		b = binary.AppendUvarint(b, r.from-at)
		b = binary.AppendUvarint(b, r.to-r.from)
		at = r.to
	}
	return b
}

func appendAdd(b []byte, e *Entry, prev uint64) []byte {
	b = binary.AppendUvarint(b, e.seq-prev)
	if e.addr.Is4() {
		a := e.addr.As4()
		b = append(append(b, 4), a[:]...)
	} else {
		a := e.addr.As16()
		b = append(append(b, 16), a[:]...)
	}
	b = append(append(b, byte(e.nameLen)), e.Name()...)
	return append(append(b, byte(len(e.Container()))), e.Container()...)
}

func appendSegment(b []byte, s *segment) []byte {
	b = appendHead(b, s)
	b = binary.AppendUvarint(b, uint64(len(s.adds)))
	prev := s.from
	for _, e := range s.adds {
		b = appendAdd(b, e, prev)
		prev = e.seq
	}
	b = binary.AppendUvarint(b, uint64(len(s.dels)))
	prev = s.from
	for _, d := range s.dels {
		b = binary.AppendUvarint(b, d.at-prev)
		b = binary.AppendUvarint(b, d.at-d.of)
		prev = d.at
	}
	return b
}

const (
	maxHead    = peer.NameLen + 8 + 8 + 2*binary.MaxVarintLen64 + 1 + 3*binary.MaxVarintLen32
	maxAddLen  = binary.MaxVarintLen64 + 1 + 16 + 1 + MaxName + 1 + MaxContainer
	maxDelLen  = 2 * binary.MaxVarintLen64
	maxRunsLen = budget - maxHead - 2*maxAddLen
)

// split cuts a segment into pieces that each fit a message.
func (s *segment) split() (out []*segment) {
	piece := *s
	piece.adds, piece.dels = nil, nil
	adds, dels := s.adds, s.dels
	size := maxHead + runsLen(piece.alive)
	for len(adds) > 0 || len(dels) > 0 {
		add := len(dels) == 0 || len(adds) > 0 && adds[0].seq < dels[0].at
		need, at := maxDelLen, uint64(0)
		if add {
			need, at = 40+len(adds[0].text), adds[0].seq
		} else {
			at = dels[0].at
		}
		if size+need > budget && len(piece.adds)+len(piece.dels) > 0 {
			done := piece
			done.to = at - 1
			out = append(out, &done)
			piece = done.next()
			size = maxHead + runsLen(piece.alive)
		}
		if add {
			piece.adds, adds = append(piece.adds, adds[0]), adds[1:]
		} else {
			piece.dels, dels = append(piece.dels, dels[0]), dels[1:]
		}
		size += need
	}
	piece.to = s.to
	return append(out, &piece)
}

// next begins the piece after s.
func (s *segment) next() segment {
	n := segment{origin: s.origin, life: s.life, from: s.to, whole: s.whole}
	if s.whole {
		n.alive = append(n.alive, s.alive...)
		for _, e := range s.adds {
			n.alive = appendRun(n.alive, e.seq)
		}
	}
	return n
}

func runsLen(runs []span) int {
	n, at := 0, uint64(0)
	for _, r := range runs {
		n += uvarintLen(r.from-at) + uvarintLen(r.to-r.from)
		at = r.to
	}
	return n
}

func uvarintLen(v uint64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], v)
}

// decoder reads a body; after the first error everything it returns is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = ErrMessage
	}
	d.b = nil
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) || d.err != nil {
		d.fail()
		return make([]byte, min(n, MaxName+MaxContainer))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) name() peer.Name {
	return peer.NameFromBytes([peer.NameLen]byte(d.bytes(peer.NameLen)))
}
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.bytes(8)) }
func (d *decoder) byte() byte     { return d.bytes(1)[0] }

// uvarint reads a number of at most limit, in its shortest form.
func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit || n > 1 && d.b[n-1] == 0 || d.err != nil {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many items of at least size bytes follow.
func (d *decoder) count(size int) int { return int(d.uvarint(uint64(len(d.b) / size))) }

const maxNumber = 1 << 40 // a bound for change numbers that no sum of two overflows

func (d *decoder) segment() *segment {
	s := &segment{origin: d.name(), life: Life{d.uint64(), peer.UID(d.uint64())}}
	s.from = d.uvarint(maxNumber)
	s.to = s.from + d.uvarint(maxNumber)
	switch d.byte() {
	case 0:
	case flagWhole:
		s.whole = true
		s.alive = d.runs(s.from)
	default:
		d.fail()
	}
	s.adds = d.adds(s)
	s.dels = d.dels(s)
	if s.origin.IsZero() || s.life.UID == 0 || s.life.Epoch == 0 || s.life.Epoch > maxNumber {
		d.fail()
	}
	return s
}

func (d *decoder) runs(limit uint64) (out []span) {
	n := d.count(2)
	out = make([]span, 0, n)
	at := uint64(0)
	for i := range n {
		from := at + d.uvarint(limit)
		to := from + d.uvarint(limit)
		if to > limit || to == from || i > 0 && from == at {
			d.fail()
			return nil
		}
		out = append(out, span{from, to})
		at = to
	}
	return out
}

func (d *decoder) adds(s *segment) (out []*Entry) {
	n := d.count(10)
	if n > 0 {
		out = make([]*Entry, 0, n)
	}
	seq := s.from
	for range n {
		step := d.uvarint(s.to - seq)
		seq += step
		addr, _ := netip.AddrFromSlice(d.bytes(int(d.byte())))
		name := d.bytes(int(d.byte()))
		container := d.bytes(int(d.byte()))
		if d.err != nil || step == 0 || CheckName(name) != nil || checkEntry(string(container), string(name), addr) != nil {
			d.fail()
			return nil
		}
		out = append(out, newEntry(s.origin, seq, string(name), string(container), addr))
	}
	return out
}

func (d *decoder) dels(s *segment) (out []del) {
	n := d.count(2)
	if n > 0 {
		out = make([]del, 0, n)
	}
	at := s.from
	for range n {
		step := d.uvarint(s.to - at)
		at += step
		back := d.uvarint(at)
		if d.err != nil || step == 0 || back == 0 || back == at {
			d.fail()
			return nil
		}
		out = append(out, del{at, at - back})
	}
	return out
}

// parseSegments reads the body of a segments message.
func parseSegments(b []byte) ([]*segment, error) {
	if len(b) > gossip.MaxMessage {
		return nil, fmt.Errorf("%d bytes of segments: %w", len(b), ErrMessage)
	}
	d := decoder{b: b}
	var out []*segment
	for len(d.b) > 0 {
		out = append(out, d.segment())
	}
	if d.err != nil {
		return nil, fmt.Errorf("segments: %w", d.err)
	}
	return out, nil
}
