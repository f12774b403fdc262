package sleeve

import (
	"crypto/rand"
	"encoding/binary"
	"maps"

	"weave/crypto/session"
	"weave/mesh/overlay"
)

// The table of receiver indices is an immutable map behind one pointer: workers
// load it once per batch, links replace it when their keys change.

// allLanes are those that a peer may send on, whatever the number of its workers.
func allLanes() []session.Lane {
	lanes := []session.Lane{session.LaneControl}
	for i := range session.Lane(overlay.MaxLanes) {
		lanes = append(lanes, i, session.RelayLane0+i)
	}
	return lanes
}

// newIndex reserves a receiver index.
func (o *Overlay) newIndex() (uint32, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		var b [4]byte
		rand.Read(b[:])
		if i := binary.LittleEndian.Uint32(b[:]); !o.index[i] {
			o.index[i] = true
			return i, nil
		}
	}
}

// arm makes workers open datagrams with e's keys.
func (o *Overlay) arm(e *rxEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := maps.Clone(*o.table.Load())
	m[e.keys.Index] = e
	o.table.Store(&m)
}

// disarm forgets receiver indices.
func (o *Overlay) disarm(indices []uint32) {
	if len(indices) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	m := maps.Clone(*o.table.Load())
	for _, i := range indices {
		delete(m, i)
		delete(o.index, i)
	}
	o.table.Store(&m)
}
