package topo

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// # Wire format
//
// A message between neighbours is a type byte and a body. Unknown types are
// ignored; bytes after a body are an error.
//
//	0x01 sum      8 bytes: the first of SHA-256 over all stamps, each name(6) uid(8 BE)
//	              version(8 BE), sorted by name. Equal sums: nothing to do. Otherwise the
//	              receiver replies with its stamps.
//	0x02 stamps   n times name(6) uid(8 BE) version(8 BE), sorted by name. The receiver
//	              replies with records the sender lacks, and with its own stamps wrapped in
//	              0x03 if it lacks some itself.
//	0x03 stamps   as 0x02, but the receiver replies with records only.
//	0x04 records  CBOR array of records
//
// A record is the CBOR array [name bytes(6), uid, version, nickname, [conn…]], a conn the
// array [name bytes(6), address bytes(4|16), port, flags], flags 1 outbound, 2 established.
const (
	msgSum         = 0x01
	msgStamps      = 0x02
	msgStampsFinal = 0x03
	msgRecords     = 0x04

	sumLen   = 8
	stampLen = peer.NameLen + 8 + 8
)

// ErrMessage reports a message that no peer of ours would send.
var ErrMessage = errors.New("bad topology message")

type wireRecord struct {
	_       struct{} `cbor:",toarray"`
	Name    []byte
	UID     uint64
	Version uint64
	Nick    string
	Conns   []wireConn
}

type wireConn struct {
	_     struct{} `cbor:",toarray"`
	Name  []byte
	Addr  []byte
	Port  uint16
	Flags uint8
}

const (
	flagOutbound    = 1
	flagEstablished = 2
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		MaxArrayElements: MaxPeers, MaxMapPairs: 16, MaxNestedLevels: 6,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options
	}
	return v
}

// Delta is a set of records on its way to a neighbour, newest only.
type Delta map[peer.Name]*Record

// NewDelta makes a Delta of records.
func NewDelta(records ...*Record) Delta {
	d := Delta{}
	for _, r := range records {
		d.add(r)
	}
	return d
}

func (d Delta) add(r *Record) {
	if old := d[r.Name]; old == nil || r.newer(old) {
		d[r.Name] = r
	}
}

// Merge adds another Delta's records.
func (d Delta) Merge(o gossip.Data) gossip.Data {
	if other, ok := o.(Delta); ok {
		for _, r := range other {
			d.add(r)
		}
		return d
	}
	return mixed{d, o}
}

// Encode returns record messages, each below gossip.MaxMessage.
func (d Delta) Encode() (out [][]byte) {
	const budget = gossip.MaxMessage - 16
	var batch []cbor.RawMessage
	size := 0
	flush := func() {
		if len(batch) > 0 {
			body, _ := encMode.Marshal(batch) // cannot fail: raw messages
			out = append(out, append([]byte{msgRecords}, body...))
			batch, size = nil, 0
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(d), peer.Name.Compare) {
		b, err := encMode.Marshal(toWire(d[n]))
		if err != nil || len(b) > budget {
			continue // over the limits of Record; its author is at fault
		}
		if size+len(b) > budget {
			flush()
		}
		batch, size = append(batch, b), size+len(b)
	}
	flush()
	return out
}

func toWire(r *Record) wireRecord {
	name := r.Name.Bytes()
	w := wireRecord{Name: name[:], UID: uint64(r.UID), Version: r.Version, Nick: r.NickName, Conns: []wireConn{}}
	for _, c := range r.Conns {
		n := c.Peer.Bytes()
		wc := wireConn{Name: n[:], Addr: c.Addr.Addr().Unmap().AsSlice(), Port: c.Addr.Port()}
		if c.Outbound {
			wc.Flags |= flagOutbound
		}
		if c.Established {
			wc.Flags |= flagEstablished
		}
		w.Conns = append(w.Conns, wc)
	}
	return w
}

func fromWire(w wireRecord) (*Record, error) {
	if len(w.Name) != peer.NameLen {
		return nil, ErrMessage
	}
	r := &Record{Name: peer.NameFromBytes([peer.NameLen]byte(w.Name)), UID: peer.UID(w.UID), Version: w.Version, NickName: w.Nick}
	for _, wc := range w.Conns {
		addr, ok := netip.AddrFromSlice(wc.Addr)
		if len(wc.Name) != peer.NameLen || !ok && len(wc.Addr) != 0 {
			return nil, ErrMessage
		}
		r.Conns = append(r.Conns, Conn{
			Peer: peer.NameFromBytes([peer.NameLen]byte(wc.Name)), Addr: netip.AddrPortFrom(addr, wc.Port),
			Outbound: wc.Flags&flagOutbound != 0, Established: wc.Flags&flagEstablished != 0,
		})
	}
	if !r.valid() {
		return nil, ErrMessage
	}
	return r, nil
}

// raw is a ready-made message as a gossip.Data.
type raw []byte

func (r raw) Encode() [][]byte                { return [][]byte{r} }
func (r raw) Merge(o gossip.Data) gossip.Data { return mixed{r, o} }

// mixed holds two Data of different kinds.
type mixed [2]gossip.Data

func (m mixed) Encode() [][]byte { return append(m[0].Encode(), m[1].Encode()...) }

// Merge keeps one of each kind: the newest raw message and the union of records.
func (m mixed) Merge(o gossip.Data) gossip.Data {
	for i := range m {
		switch m[i].(type) {
		case Delta:
			if d, ok := o.(Delta); ok {
				m[i] = m[i].Merge(d)
				return m
			}
		case raw:
			if r, ok := o.(raw); ok {
				m[i] = r
				return m
			}
		}
	}
	if pair, ok := o.(mixed); ok {
		return m.Merge(pair[0]).Merge(pair[1])
	}
	return m
}

// Digest is the message with the sum of all records.
func (t *Topology) Digest() []byte {
	h := sha256.Sum256(appendStamps(nil, t.Stamps()))
	return append([]byte{msgSum}, h[:sumLen]...)
}

func appendStamps(b []byte, stamps []Stamp) []byte {
	for _, s := range stamps {
		b = s.Name.AppendBytes(b)
		b = binary.BigEndian.AppendUint64(b, uint64(s.UID))
		b = binary.BigEndian.AppendUint64(b, s.Version)
	}
	return b
}

func parseStamps(b []byte) ([]Stamp, error) {
	if len(b)%stampLen != 0 || len(b)/stampLen > MaxPeers {
		return nil, fmt.Errorf("%d bytes of stamps: %w", len(b), ErrMessage)
	}
	out := make([]Stamp, 0, len(b)/stampLen)
	for ; len(b) > 0; b = b[stampLen:] {
		out = append(out, Stamp{
			Name:    peer.NameFromBytes([peer.NameLen]byte(b)),
			UID:     peer.UID(binary.BigEndian.Uint64(b[peer.NameLen:])),
			Version: binary.BigEndian.Uint64(b[peer.NameLen+8:]),
		})
	}
	return out, nil
}

// ParseRecords decodes a record message's body.
func ParseRecords(b []byte) ([]*Record, error) {
	var in []wireRecord
	if err := decMode.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("decoding records: %w: %w", ErrMessage, err)
	}
	out := make([]*Record, 0, len(in))
	for _, w := range in {
		r, err := fromWire(w)
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Step takes a message from a neighbour: the whole protocol of this channel. After
// an error the Topology is unchanged.
func (t *Topology) Step(msg []byte) (gossip.Reaction, error) {
	if len(msg) == 0 {
		return gossip.Reaction{}, ErrMessage
	}
	body := msg[1:]
	switch msg[0] {
	case msgSum:
		if len(body) != sumLen {
			return gossip.Reaction{}, fmt.Errorf("sum: %w", ErrMessage)
		}
		if string(t.Digest()) == string(msg) {
			return gossip.Reaction{}, nil
		}
		return gossip.Reaction{Reply: raw(appendStamps([]byte{msgStamps}, t.Stamps()))}, nil
	case msgStamps, msgStampsFinal:
		return t.onStamps(body, msg[0] == msgStamps)
	case msgRecords:
		records, err := ParseRecords(body)
		if err != nil {
			return gossip.Reaction{}, err
		}
		if news := t.Merge(records); len(news) > 0 {
			return gossip.Reaction{News: NewDelta(news...)}, nil
		}
	}
	return gossip.Reaction{}, nil
}

func (t *Topology) onStamps(body []byte, ask bool) (gossip.Reaction, error) {
	stamps, err := parseStamps(body)
	if err != nil {
		return gossip.Reaction{}, err
	}
	var reply gossip.Data
	missing, behind := t.Compare(stamps)
	if len(missing) > 0 {
		reply = NewDelta(missing...)
	}
	if behind && ask {
		mine := raw(appendStamps([]byte{msgStampsFinal}, t.Stamps()))
		if reply == nil {
			reply = mine
		} else {
			reply = reply.Merge(mine)
		}
	}
	return gossip.Reaction{Reply: reply}, nil
}
