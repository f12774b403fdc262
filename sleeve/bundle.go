package sleeve

import (
	"encoding/binary"

	"weave/internal/peer"
)

// bundle gathers small frames of one batch and route for one datagram.
//
//	buf: [route][meta BUNDLE][u16 n][meta][frame] [u16 n][meta][frame] ...
//
// The route is there only if the datagram is RELAYED. A bundle that stays alone
// leaves as a FRAME: its meta and frame lie behind each other already.
type bundle struct {
	buf    [bundleBuf]byte
	n      int // bytes used; 0: empty
	frames int
	rt     peer.Route
}

// gather puts a frame into the bundle.
func (t *txLane) gather(rt peer.Route, m meta, frame []byte) {
	b := &t.bundle
	need := bundleItem + len(frame)
	if b.n > 0 && (b.rt != rt || b.n+need > min(t.room, bundleBuf)) {
		t.sealBundle()
	}
	if b.n == 0 {
		b.n, b.rt = routeLen+metaLen, rt
	}
	p := b.buf[b.n:]
	binary.LittleEndian.PutUint16(p, uint16(len(frame)))
	m.put(p[bundleLenLen:])
	copy(p[bundleItem:], frame)
	b.n += need
	b.frames++
}

// sealBundle seals the bundle, if there is one, into the arena.
func (t *txLane) sealBundle() {
	b := &t.bundle
	if b.n == 0 {
		return
	}
	meta1 := routeLen // where the datagram's own meta stands
	if b.frames == 1 {
		meta1 = bundleFirst
	} else {
		m := meta{kind: kindBundle}
		m.put(b.buf[meta1:])
	}
	start := meta1 - t.routeLen(b.rt)
	_, flags := t.prefix(b.buf[start:], b.rt)
	plaintext := b.buf[start:b.n]
	b.n, b.frames = 0, 0
	t.seal(flags, plaintext)
}

// bundled calls f for each frame of a bundle's data; false if it is malformed.
// Frames before the fault have been handed to f then.
func bundled(data []byte, f func(m meta, frame []byte)) bool {
	for len(data) > 0 {
		if len(data) < bundleItem {
			return false
		}
		n := int(binary.LittleEndian.Uint16(data))
		if len(data)-bundleItem < n {
			return false
		}
		m, frame, ok := parseMeta(data[bundleLenLen : bundleItem+n])
		if !ok || m.kind != kindFrame {
			return false
		}
		f(m, frame)
		data = data[bundleItem+n:]
	}
	return true
}
