package topo

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

const (
	sumLen    = 8
	stampLen  = peer.NameLen + 8 + 8
	maxStamps = 4096 // in one message
)

// Result is what a message from a neighbour gives rise to.
type Result struct {
	gossip.Reaction
	Tell map[peer.Name]Delta // for these neighbours alone

	changed Delta
	replies Delta
}

func (r *Result) news(u update)  { r.changed.add(u) }
func (r *Result) reply(u update) { r.replies.add(u) }

func (r *Result) tell(to peer.Name, u update) {
	if r.Tell == nil {
		r.Tell = map[peer.Name]Delta{}
	}
	d := r.Tell[to]
	d.add(u)
	r.Tell[to] = d
}

// merged joins what may be nil.
func (r *Result) merged(a gossip.Data, b Delta) gossip.Data {
	if a == nil || b.IsEmpty() {
		if a == nil {
			return b.data()
		}
		return a
	}
	return a.Merge(b)
}

// stamp is the age of one record: what a digest holds of it.
type stamp struct {
	name    peer.Name
	uid     peer.UID
	version uint64
}

func (t *Topology) stampOf(n peer.Name) stamp {
	r := t.records[n].rec
	return stamp{n, r.UID, r.Version}
}

func (s stamp) append(b []byte) []byte {
	b = s.name.AppendBytes(b)
	b = binary.BigEndian.AppendUint64(b, uint64(s.uid))
	return binary.BigEndian.AppendUint64(b, s.version)
}

// Digest is the message with the sum of all records.
func (t *Topology) Digest() []byte {
	if t.sum == nil {
		var b []byte
		for _, n := range t.Names() {
			b = t.stampOf(n).append(b)
		}
		h := sha256.Sum256(b)
		t.sum = append([]byte{msgSum}, h[:sumLen]...)
	}
	return slices.Clone(t.sum)
}

// Step takes a message from a neighbour: the whole protocol of this channel. After
// an error what came before the mistake is done, and the Result is to be used.
func (t *Topology) Step(from peer.Name, msg []byte, now time.Time) (Result, error) {
	var res Result
	err := t.step(from, msg, now, &res)
	res.News = res.merged(res.News, res.changed)
	res.Reply = res.replies.data()
	return res, err
}

func (t *Topology) step(from peer.Name, msg []byte, now time.Time, res *Result) error {
	if len(msg) == 0 {
		return ErrMessage
	}
	p := parser{b: msg[1:]}
	switch msg[0] {
	case msgSum:
		if len(p.b) != sumLen {
			return fmt.Errorf("sum: %w", ErrMessage)
		}
		if string(t.Digest()) != string(msg) {
			t.replyStamps(res, msgStamps, peer.Name{}, peer.NameFromBytes([6]byte{255, 255, 255, 255, 255, 255}))
		}
	case msgStamps, msgStampsFinal:
		return t.onStamps(p, msg[0] == msgStamps, res)
	case msgUpdates:
		for len(p.b) > 0 {
			u, err := p.update()
			if err == nil {
				err = t.take(from, &u, now, res)
			}
			if err != nil {
				return err
			}
		}
	case msgWant:
		if len(p.b)%peer.NameLen != 0 {
			return fmt.Errorf("want: %w", ErrMessage)
		}
		for len(p.b) > 0 {
			if e := t.records[p.name()]; e != nil {
				res.reply(update{rec: e.rec})
			}
		}
	}
	return nil
}

// replyStamps tells the ages of all records of a range.
func (t *Topology) replyStamps(res *Result, kind byte, first, last peer.Name) {
	names := slices.DeleteFunc(t.Names(), func(n peer.Name) bool { return n.Compare(first) < 0 || n.Compare(last) > 0 })
	for {
		part := names[:min(len(names), maxStamps)]
		names = names[len(part):]
		to := last
		if len(names) > 0 {
			to = part[len(part)-1]
		}
		b := to.AppendBytes(first.AppendBytes([]byte{kind}))
		for _, n := range part {
			b = t.stampOf(n).append(b)
		}
		res.replies.stamps = append(res.replies.stamps, b)
		if len(names) == 0 {
			return
		}
		first = after(to)
	}
}

// after returns the next name.
func after(n peer.Name) peer.Name {
	b := n.Bytes()
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			break
		}
	}
	return peer.NameFromBytes(b)
}

// onStamps compares the sender's records with ours.
func (t *Topology) onStamps(p parser, ask bool, res *Result) error {
	first, last := p.name(), p.name()
	if p.bad || len(p.b)%stampLen != 0 || len(p.b)/stampLen > maxStamps {
		return fmt.Errorf("%d bytes of stamps: %w", len(p.b), ErrMessage)
	}
	theirs := make(map[peer.Name]stamp, len(p.b)/stampLen)
	behind := false
	for len(p.b) > 0 {
		s := stamp{p.name(), peer.UID(p.u64()), p.u64()}
		theirs[s.name] = s
		e := t.records[s.name]
		behind = behind || e == nil || e.rec.Version < s.version || e.rec.Version == s.version && e.rec.UID < s.uid
	}
	for n, e := range t.records {
		if n.Compare(first) < 0 || n.Compare(last) > 0 {
			continue
		}
		if s, ok := theirs[n]; !ok || e.rec.newer(s.uid, s.version) {
			res.reply(update{rec: e.rec})
		}
	}
	if behind && ask {
		t.replyStamps(res, msgStampsFinal, first, last)
	}
	return nil
}
