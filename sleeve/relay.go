package sleeve

import (
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
)

// relay sends a received frame on. A superframe stays in pieces: each shard is
// gathered where it is sealed, in the arena, so relaying costs one copy.
func (t *txLane) relay(l *Link, rt peer.Route, off ether.Offload, bufs [][]byte) {
	if !t.attach(l) {
		return
	}
	size := 0
	for _, b := range bufs {
		size += len(b)
	}
	if size < ether.HeaderLen || size > ether.MaxSuperframe {
		t.drop(dropBadOffload)
		return
	}
	if off.GSO != ether.GSONone {
		n, err := ether.TemplateLen(bufs[0], off)
		if err == nil && n == len(bufs[0]) && size-n > int(off.Size) && t.relaySuper(rt, off, bufs, size) {
			return
		}
	}
	// Small, or of a shape that is rare: gather and send as if it were ours.
	if t.scratch == nil {
		t.scratch = make([]byte, scratchBuf)
	}
	at := ether.Headroom
	for _, b := range bufs {
		at += copy(t.scratch[at:], b)
	}
	t.send(l, rt, off, t.scratch[:at], ether.Headroom)
}

// relaySuper sends a superframe in pieces, the first its template. It reports false
// when not one segment fits a datagram.
func (t *txLane) relaySuper(rt peer.Route, off ether.Offload, bufs [][]byte, size int) bool {
	t.settle()
	tmpl := bufs[0]
	stamp := t.stamp[:]
	pre, flags := t.prefix(stamp, rt)
	k, ok := t.slice(&off, len(tmpl), pre)
	if !ok {
		return false
	}
	t.tx.count.frames++
	t.tx.count.bytes += uint64(size)
	m := shardMeta(off, len(tmpl))
	stamp = stamp[:pre+metaLen+copy(stamp[pre+metaLen:], tmpl)]
	src := pieces{bufs: bufs[1:]}
	for left := size - len(tmpl); left > 0; {
		n := min(k*int(off.Size), left)
		left -= n
		if left == 0 {
			m.flags |= metaLast
		}
		m.put(stamp[pre:])
		t.reserve(t.tx.over + len(stamp) + n)
		before := len(t.arena)
		at := before + session.HeaderLen
		plain := t.arena[at : at+len(stamp)+n]
		copy(plain, stamp)
		src.read(plain[len(stamp):])
		var err error
		if t.arena, err = t.tx.sealer.Seal(t.arena, flags, plain); err != nil {
			t.sealFailed(err)
			return true
		}
		t.added(len(t.arena) - before)
		m.a += uint16(k)
	}
	return true
}

// pieces reads a sequence of buffers as one.
type pieces struct {
	bufs [][]byte
	off  int // in bufs[0]
}

// read fills p; the caller knows that there is enough.
func (s *pieces) read(p []byte) {
	for len(p) > 0 && len(s.bufs) > 0 {
		n := copy(p, s.bufs[0][s.off:])
		p = p[n:]
		if s.off += n; s.off == len(s.bufs[0]) {
			s.bufs, s.off = s.bufs[1:], 0
		}
	}
}
