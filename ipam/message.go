package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"

	"github.com/fxamacker/cbor/v2"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/paxos"
	"weave/ipam/ring"
	"weave/mesh/gossip"
)

// # Wire format
//
// A message is a version byte, 1, and a CBOR map (RFC 8949, core deterministic) with
// the keys of wireMessage. Unknown keys are ignored, so that later versions can say
// more; bytes after the map are an error. Names are byte strings of 6, addresses
// numbers, a range is the array [start, size].
//
//	kind       from → to          meaning, and the keys that it has besides kind
//	1 state    gossip, neighbour  part of what I know: ring, members, votes (with the range voted on)
//	2 digest   neighbour          sum of all I know; differs from yours: send me yours.
//	                              hop counts the digests of one exchange
//	3 want     unicast            an observer asks electors to divide the range
//	4 ask      unicast            give me space in range; ringID names the asker's ring; hop 1: the
//	                              address is in use here already
//	5 grant    unicast            yes: range; ring has the stamps that say so
//	6 deny     unicast            no; text says why, hop 1: not yet; ring: who owns it
//	7 sync     unicast            tell me all you know, and what you remember of me (run, boot)
//	8 ack      unicast            my ring if it differs from yours, in parts; memory is
//	                              the member record I have of you
//	9 hand     unicast            all I had is yours now: all I know, in parts; boot is my last run
//	10 handed  unicast            I have stored it
//
// id ties an answer to its question; it is unique within a run.
type kind uint8

const (
	kindState kind = 1 + iota
	kindDigest
	kindWant
	kindAsk
	kindGrant
	kindDeny
	kindSync
	kindAck
	kindHand
	kindHanded
	kindEnd
)

const wireVersion = 1

// Limits of messages. A state that does not fit is sent as several.
const (
	maxNick         = 64
	maxText         = 200
	maxParts        = 64
	entriesPerPart  = 2200 // of at most 36 bytes
	membersPerPart  = 500  // of at most 120 bytes
	votesPerMessage = 16
	maxHop          = 2
	sumLen          = 16
)

// message is a decoded message. It is never changed once it is made, so that it can
// be handed to other goroutines and, in tests, to other peers.
type message struct {
	kind    kind
	ring    ring.Delta // ID.Seeds nil: none
	members []ring.Member
	votes   []paxos.Vote
	sum     [sumLen]byte
	hop     uint8
	id      uint64
	rng     addr.Range
	run     peer.UID
	boot    uint64
	ringID  uint64
	part    uint8
	parts   uint8
	text    string
}

func (m *message) hasRing() bool { return len(m.ring.ID.Seeds) > 0 }

type wireMessage struct {
	Kind    uint8        `cbor:"1,keyasint"`
	Ring    *wireRing    `cbor:"2,keyasint,omitempty"`
	Members []wireMember `cbor:"3,keyasint,omitempty"`
	Votes   []wireVote   `cbor:"4,keyasint,omitempty"`
	Sum     []byte       `cbor:"5,keyasint,omitempty"`
	Hop     uint8        `cbor:"6,keyasint,omitempty"`
	ID      uint64       `cbor:"7,keyasint,omitempty"`
	Range   *wireRange   `cbor:"8,keyasint,omitempty"`
	Run     uint64       `cbor:"9,keyasint,omitempty"`
	Boot    uint64       `cbor:"10,keyasint,omitempty"`
	RingID  uint64       `cbor:"11,keyasint,omitempty"`
	Part    uint8        `cbor:"12,keyasint,omitempty"`
	Parts   uint8        `cbor:"13,keyasint,omitempty"`
	Text    string       `cbor:"14,keyasint,omitempty"`
}

type wireRange struct {
	_     struct{} `cbor:",toarray"`
	Start uint64
	Size  uint64
}

type wireRing struct {
	_       struct{} `cbor:",toarray"`
	Range   wireRange
	Seeds   [][peer.NameLen]byte
	Nonce   uint64
	Entries []wireEntry
	Fences  []wireFence
}

type wireEntry struct {
	_       struct{} `cbor:",toarray"`
	Start   uint64
	Size    uint64
	Epoch   uint32
	Version uint64
	Owner   [peer.NameLen]byte
}

type wireFence struct {
	_      struct{} `cbor:",toarray"`
	Victim [peer.NameLen]byte
	Boot   uint64
	By     [peer.NameLen]byte
}

type wireMember struct {
	_    struct{} `cbor:",toarray"`
	Name [peer.NameLen]byte
	Boot uint64
	Run  uint64
	Seq  uint64
	Nick string
	Free uint64
}

type wireBallot struct {
	_     struct{} `cbor:",toarray"`
	Round uint64
	Name  [peer.NameLen]byte
	Run   uint64
}

type wireVote struct {
	_        struct{} `cbor:",toarray"`
	Elector  [peer.NameLen]byte
	Promised wireBallot
	Accepted wireBallot
	Seeds    [][peer.NameLen]byte
	Nonce    uint64
}

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		MaxNestedLevels:  8,
		MaxArrayElements: 4096,
		MaxMapPairs:      64,
	}.DecMode())
	// storeMode reads what this daemon wrote: as strict, but a ring may be whole.
	storeMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: ring.MaxEntries + 1,
	}.DecMode())
)

// must is for options that are constants of this file.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// encode returns m as bytes; its maker keeps it below gossip.MaxMessage.
func (m *message) encode() []byte {
	w := wireMessage{
		Kind: uint8(m.kind), Hop: m.hop, ID: m.id, Run: uint64(m.run), Boot: m.boot,
		RingID: m.ringID, Part: m.part, Parts: m.parts, Text: m.text,
	}
	if m.hasRing() {
		w.Ring = ringToWire(m.ring)
	}
	for _, r := range m.members {
		w.Members = append(w.Members, memberToWire(r))
	}
	for _, v := range m.votes {
		w.Votes = append(w.Votes, voteToWire(v))
	}
	if m.kind == kindDigest || m.kind == kindSync {
		w.Sum = m.sum[:]
	}
	if !m.rng.Empty() {
		r := rangeToWire(m.rng)
		w.Range = &r
	}
	b, err := encMode.Marshal(w)
	if err != nil {
		panic(err) // plain values: cannot be
	}
	return append([]byte{wireVersion}, b...)
}

// decode reads a message from outside: ErrMessage.
func decode(b []byte) (*message, error) {
	if len(b) < 2 || len(b) > gossip.MaxMessage || b[0] != wireVersion {
		return nil, fmt.Errorf("%w: %d bytes, or another version", ErrMessage, len(b))
	}
	var w wireMessage
	if err := decMode.Unmarshal(b[1:], &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	m := &message{
		kind: kind(w.Kind), hop: w.Hop, id: w.ID, run: peer.UID(w.Run), boot: w.Boot,
		ringID: w.RingID, part: w.Part, parts: w.Parts, text: clip(w.Text, maxText),
	}
	if m.kind == 0 || m.kind >= kindEnd || m.parts > maxParts || m.part > m.parts {
		return nil, fmt.Errorf("%w: kind %d part %d of %d", ErrMessage, w.Kind, w.Part, w.Parts)
	}
	if (m.kind == kindDigest || m.kind == kindSync) && copy(m.sum[:], w.Sum) != sumLen {
		return nil, fmt.Errorf("%w: sum of %d bytes", ErrMessage, len(w.Sum))
	}
	if err := m.readLists(&w); err != nil {
		return nil, err
	}
	return m, m.complete()
}

func (m *message) readLists(w *wireMessage) (err error) {
	if w.Ring != nil {
		if m.ring, err = ringFromWire(w.Ring); err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
	}
	if w.Range != nil {
		if m.rng, err = rangeFromWire(*w.Range); err != nil {
			return err
		}
	}
	for _, x := range w.Members {
		m.members = append(m.members, memberFromWire(x))
	}
	for _, x := range w.Votes {
		v := voteFromWire(x)
		if !v.Valid() {
			return fmt.Errorf("%w: vote of %v", ErrMessage, v.Elector)
		}
		m.votes = append(m.votes, v)
	}
	return nil
}

// complete checks that m has what its kind needs.
func (m *message) complete() error {
	ok := true
	switch m.kind {
	case kindAsk:
		ok = !m.rng.Empty()
	case kindGrant:
		ok = !m.rng.Empty() && m.hasRing()
	case kindHand:
		ok = m.hasRing() && m.parts > 0 && m.part < m.parts
	case kindAck:
		ok = m.parts > 0 && m.part < m.parts
	}
	if !ok {
		return fmt.Errorf("%w: kind %d lacks something", ErrMessage, m.kind)
	}
	return nil
}

func rangeToWire(r addr.Range) wireRange {
	return wireRange{Start: r.Start.Number(), Size: r.Size()}
}

func rangeFromWire(w wireRange) (addr.Range, error) {
	start, ok := addr.FromNumber(w.Start)
	if !ok || w.Size == 0 || start.Plus(w.Size).Minus(start) != w.Size {
		return addr.Range{}, fmt.Errorf("%w: range %d+%d", ErrMessage, w.Start, w.Size)
	}
	return addr.Range{Start: start, End: start.Plus(w.Size)}, nil
}

func namesToWire(names []peer.Name) (out [][peer.NameLen]byte) {
	for _, n := range names {
		out = append(out, n.Bytes())
	}
	return out
}

func namesFromWire(w [][peer.NameLen]byte) (out []peer.Name) {
	for _, b := range w {
		out = append(out, peer.NameFromBytes(b))
	}
	return out
}

func ringToWire(d ring.Delta) *wireRing {
	w := &wireRing{Range: rangeToWire(d.ID.Range), Seeds: namesToWire(d.ID.Seeds), Nonce: d.ID.Nonce}
	for _, e := range d.Entries {
		w.Entries = append(w.Entries, wireEntry{Start: e.Start.Number(), Size: e.Size(), Epoch: e.Epoch, Version: e.Version, Owner: e.Owner.Bytes()})
	}
	for _, f := range d.Fences {
		w.Fences = append(w.Fences, wireFence{Victim: f.Victim.Bytes(), Boot: f.Boot, By: f.By.Bytes()})
	}
	return w
}

func ringFromWire(w *wireRing) (d ring.Delta, err error) {
	if d.ID.Range, err = rangeFromWire(w.Range); err != nil {
		return d, err
	}
	d.ID.Seeds, d.ID.Nonce = namesFromWire(w.Seeds), w.Nonce
	for _, e := range w.Entries {
		r, err := rangeFromWire(wireRange{Start: e.Start, Size: e.Size})
		if err != nil {
			return d, err
		}
		d.Entries = append(d.Entries, ring.Entry{Range: r, Stamp: ring.Stamp{Epoch: e.Epoch, Version: e.Version, Owner: peer.NameFromBytes(e.Owner)}})
	}
	for _, f := range w.Fences {
		d.Fences = append(d.Fences, ring.Fence{Victim: peer.NameFromBytes(f.Victim), Boot: f.Boot, By: peer.NameFromBytes(f.By)})
	}
	return d, d.Valid()
}

func memberToWire(m ring.Member) wireMember {
	return wireMember{Name: m.Name.Bytes(), Boot: m.Boot, Run: uint64(m.Run), Seq: m.Seq, Nick: clip(m.Nick, maxNick), Free: m.Free}
}

func memberFromWire(w wireMember) ring.Member {
	return ring.Member{Name: peer.NameFromBytes(w.Name), Boot: w.Boot, Run: peer.UID(w.Run), Seq: w.Seq, Nick: clip(w.Nick, maxNick), Free: w.Free}
}

func ballotToWire(b paxos.Ballot) wireBallot {
	return wireBallot{Round: b.Round, Name: b.Name.Bytes(), Run: uint64(b.Run)}
}

func ballotFromWire(w wireBallot) paxos.Ballot {
	return paxos.Ballot{Round: w.Round, Name: peer.NameFromBytes(w.Name), Run: peer.UID(w.Run)}
}

func voteToWire(v paxos.Vote) wireVote {
	return wireVote{Elector: v.Elector.Bytes(), Promised: ballotToWire(v.Promised), Accepted: ballotToWire(v.Accepted),
		Seeds: namesToWire(v.Value.Seeds), Nonce: v.Value.Nonce}
}

func voteFromWire(w wireVote) paxos.Vote {
	return paxos.Vote{Elector: peer.NameFromBytes(w.Elector), Promised: ballotFromWire(w.Promised), Accepted: ballotFromWire(w.Accepted),
		Value: paxos.Value{Seeds: namesFromWire(w.Seeds), Nonce: w.Nonce}}
}

// clip shortens text to n bytes at most and replaces what a terminal would not
// print: the text may come from a hostile peer and ends up in logs and status.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// split cuts a state into messages that are small enough, each of use by itself.
func (m *message) split() []*message {
	if len(m.ring.Entries) <= entriesPerPart && len(m.members) <= membersPerPart/10 && len(m.votes) <= votesPerMessage/8 {
		return []*message{m}
	}
	var out []*message
	for rest := m.ring.Entries; m.hasRing(); {
		part := *m
		part.members, part.votes = nil, nil
		n := min(len(rest), entriesPerPart)
		part.ring.Entries, rest = rest[:n], rest[n:]
		if len(out) > 0 {
			part.ring.Fences = nil
		}
		out = append(out, &part)
		if len(rest) == 0 {
			break
		}
	}
	for rest := m.members; len(rest) > 0; {
		part := *m
		n := min(len(rest), membersPerPart)
		part.ring, part.votes = ring.Delta{}, nil
		part.members, rest = rest[:n], rest[n:]
		out = append(out, &part)
	}
	for rest := m.votes; len(rest) > 0; {
		part := *m
		n := min(len(rest), votesPerMessage)
		part.ring, part.members = ring.Delta{}, nil
		part.votes, rest = rest[:n], rest[n:]
		out = append(out, &part)
	}
	if len(out) == 0 {
		return []*message{m}
	}
	return out
}

// data is a state on its way to neighbours.
type data struct{ m *message }

// Encode implements gossip.Data.
func (d data) Encode() (out [][]byte) {
	for _, m := range d.m.split() {
		out = append(out, m.encode())
	}
	return out
}

// Merge implements gossip.Data.
func (d data) Merge(o gossip.Data) gossip.Data {
	other, ok := o.(data)
	if !ok || d.m.hasRing() && other.m.hasRing() && !d.m.ring.ID.Equal(other.m.ring.ID) {
		return mixed{d, o}
	}
	n := &message{kind: kindState, ring: d.m.ring}
	if d.m.hasRing() && other.m.hasRing() {
		n.ring = d.m.ring.Join(other.m.ring)
		n.ring.ID = d.m.ring.ID
	} else if other.m.hasRing() {
		n.ring = other.m.ring
	}
	members := ring.Members{}
	members.Merge(d.m.members)
	members.Merge(other.m.members)
	n.members = members.Sorted()
	votes := paxos.New(peer.Name{}, 0, false, 0)
	votes.Merge(d.m.votes)
	votes.Merge(other.m.votes)
	n.votes, n.rng = votes.Votes(), d.m.rng
	if n.rng.Empty() {
		n.rng = other.m.rng
	}
	return data{n}
}

// mixed is what cannot be merged: both are sent.
type mixed struct{ a, b gossip.Data }

// Encode implements gossip.Data.
func (m mixed) Encode() [][]byte { return append(m.a.Encode(), m.b.Encode()...) }

// Merge implements gossip.Data.
func (m mixed) Merge(o gossip.Data) gossip.Data { return mixed{m.a, m.b.Merge(o)} }

// idSum is a short name for a ring's ID.
func idSum(id ring.ID) uint64 {
	b := binary.BigEndian.AppendUint64(nil, id.Range.Start.Number())
	b = binary.BigEndian.AppendUint64(b, id.Range.End.Number())
	b = binary.BigEndian.AppendUint64(b, id.Nonce)
	for _, s := range id.Seeds {
		b = s.AppendBytes(b)
	}
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint64(h[:])
}
