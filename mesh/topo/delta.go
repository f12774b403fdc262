package topo

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// Message types, see the package comment.
const (
	msgSum         = 0x01
	msgStamps      = 0x02
	msgStampsFinal = 0x03
	msgUpdates     = 0x04
	msgWant        = 0x05
)

// update is a record on its way to neighbours, and since which version of it they
// need to be told. It is immutable.
type update struct {
	rec     *Record
	base    uint64      // 0: the whole record
	touched []peer.Name // the connections that may have changed since base, sorted
}

// merge returns what tells of both; u and o are about one life of a peer.
func (u update) merge(o update) update {
	if !o.rec.newer(u.rec.UID, u.rec.Version) {
		u, o = o, u
	}
	whole := u.base == 0 || o.base == 0 || o.base > u.rec.Version
	if whole {
		return update{rec: o.rec}
	}
	return update{rec: o.rec, base: min(u.base, o.base), touched: union(u.touched, o.touched)}
}

// union joins two sorted lists.
func union(a, b []peer.Name) []peer.Name {
	out := make([]peer.Name, 0, len(a)+len(b))
	out = append(append(out, a...), b...)
	slices.SortFunc(out, peer.Name.Compare)
	return slices.Compact(out)
}

// append appends the update: the change, or the whole record if that is shorter.
func (u update) append(b []byte) []byte {
	start := len(b)
	if u.base != 0 {
		b = u.appendChange(b)
		if len(b)-start <= u.rec.wholeLen() {
			return b
		}
		b = b[:start]
	}
	return append(appendRecord(b, u.rec), u.rec.sig[:]...)
}

func (u update) appendChange(b []byte) []byte {
	b = appendFixed(b, u.rec, u.base)
	at := len(b)
	b = append(b, 0, 0)
	changed := 0
	var gone []peer.Name
	entries := u.rec.conns
	for _, n := range u.touched {
		want := n.Bytes()
		for len(entries) > 0 && string(entries[:peer.NameLen]) < string(want[:]) {
			entries = entries[entryLen(entries):]
		}
		if len(entries) == 0 || string(entries[:peer.NameLen]) != string(want[:]) {
			gone = append(gone, n)
			continue
		}
		b = append(b, entries[:entryLen(entries)]...)
		changed++
	}
	binary.BigEndian.PutUint16(b[at:], uint16(changed))
	b = binary.BigEndian.AppendUint16(b, uint16(len(gone)))
	for _, n := range gone {
		b = n.AppendBytes(b)
	}
	return append(b, u.rec.sig[:]...)
}

// life is one run of a peer.
type life struct {
	name peer.Name
	uid  peer.UID
}

func (l life) compare(o life) int { return cmp.Or(l.name.Compare(o.name), cmp.Compare(l.uid, o.uid)) }

// Delta is what a neighbour is told: updates, and questions.
type Delta struct {
	updates map[life]update    // lives apart, as two hosts may have one name
	stamps  [][]byte           // messages, of the latest answer to a digest
	want    map[peer.Name]bool // records to ask for
}

// IsEmpty reports whether there is nothing to tell.
func (d Delta) IsEmpty() bool { return len(d.updates) == 0 && len(d.stamps) == 0 && len(d.want) == 0 }

// data is d as the contract has it: nil when there is nothing to tell.
func (d Delta) data() gossip.Data {
	if d.IsEmpty() {
		return nil
	}
	return d
}

// Len is the number of records told of.
func (d Delta) Len() int { return len(d.updates) }

// add is for a Delta that nobody else has seen yet.
func (d *Delta) add(u update) {
	if d.updates == nil {
		d.updates = map[life]update{}
	}
	k := life{u.rec.Name, u.rec.UID}
	if old, ok := d.updates[k]; ok {
		u = old.merge(u)
	}
	d.updates[k] = u
}

func (d *Delta) ask(n peer.Name) {
	if d.want == nil {
		d.want = map[peer.Name]bool{}
	}
	d.want[n] = true
}

// Merge joins two Deltas; another kind of Data is ignored.
func (d Delta) Merge(o gossip.Data) gossip.Data {
	other, ok := o.(Delta)
	if !ok {
		return d
	}
	out := Delta{updates: maps.Clone(d.updates), stamps: d.stamps, want: maps.Clone(d.want)}
	for _, u := range other.updates {
		out.add(u)
	}
	if other.stamps != nil {
		out.stamps = other.stamps
	}
	for n := range other.want {
		out.ask(n)
	}
	return out
}

// Encode returns messages, each below gossip.MaxMessage.
func (d Delta) Encode() (out [][]byte) {
	out = append(out, d.stamps...)
	if len(d.want) > 0 {
		b := []byte{msgWant}
		for _, n := range slices.SortedFunc(maps.Keys(d.want), peer.Name.Compare) {
			b = n.AppendBytes(b)
		}
		out = append(out, b)
	}
	var batch []byte
	for _, l := range slices.SortedFunc(maps.Keys(d.updates), life.compare) {
		b := d.updates[l].append(nil)
		if len(batch) > 0 && len(batch)+len(b) > batchBytes {
			out = append(out, batch)
			batch = nil
		}
		if batch == nil {
			batch = []byte{msgUpdates}
		}
		batch = append(batch, b...)
	}
	if batch != nil {
		out = append(out, batch)
	}
	return out
}

// batchBytes is the size above which a message gets no further update: small, so
// that heartbeats don't wait long behind it.
const batchBytes = 32 << 10
