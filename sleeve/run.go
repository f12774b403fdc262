package sleeve

import (
	"weave/internal/ether"
	"weave/internal/peer"
)

const (
	maxRuns   = 16  // lanes with an unfinished run at the same time, per worker
	maxPieces = 256 // template and payloads of a run; the kernel takes 1024 (IOV_MAX)
)

// run is a sequence of shards that belong together, in the buffers in which they
// were received.
type run struct {
	rt      peer.Route
	m       meta   // of its first shard
	counter uint64 // of the shard that would continue it
	next    int    // index of the segment that would
	payload int    // bytes
	last    bool   // the superframe's last segment is in it
	n       int    // pieces
	bufs    [maxPieces][]byte
	hdr     [ether.MaxTemplate]byte // edited template of an incomplete run
}

// shard adds a shard to the lane's run, or begins a new one.
func (w *rxWorker) shard(ln *rxLane, r *record) {
	tmpl, payload := r.m.shard(r.data)
	r.m.flags &^= metaPadded
	u := ln.run
	if u == nil || !u.continuedBy(r) {
		w.endRun(ln)
		u = w.newRun()
		ln.run = u
		u.rt, u.m, u.payload, u.last = r.rt, r.m, 0, false
		u.next = int(r.m.a)
		u.bufs[0] = tmpl
		u.n = 1
	}
	u.bufs[u.n] = payload
	u.n++
	u.payload += len(payload)
	u.next += (len(payload) + int(r.m.b) - 1) / int(r.m.b)
	u.counter = r.counter + 1
	u.last = r.m.flags&metaLast != 0
	if u.last || u.n == maxPieces {
		w.endRun(ln)
	}
}

func (u *run) continuedBy(r *record) bool {
	m := r.m
	m.flags &^= metaLast
	m.a = u.m.a
	return r.counter == u.counter && int(r.m.a) == u.next && m == u.m && r.rt == u.rt
}

// newRun returns an unused run; it ends another lane's if there is none.
func (w *rxWorker) newRun() *run {
	if len(w.free) == 0 {
		for _, ln := range w.touched {
			if ln.run != nil {
				w.endRun(ln)
				break
			}
		}
	}
	u := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	return u
}

// endRun hands the lane's run on, if it has one. A complete one goes as it is.
func (w *rxWorker) endRun(ln *rxLane) {
	u := ln.run
	if u == nil {
		return
	}
	ln.run = nil
	w.free = append(w.free, u)
	off := u.m.offload()
	first := int(u.m.a)
	if first > 0 || !u.last {
		hdr := u.hdr[:copy(u.hdr[:], u.bufs[0])]
		if ether.CutTemplate(hdr, off, ether.Run{First: first, Len: u.payload, Last: u.last}) != nil {
			ln.entry.link.rxDrops[dropBadHeader].Add(1)
			return
		}
		u.bufs[0] = hdr
		off.ECN = off.ECN && first == 0 // CWR went with the first segment
	}
	if u.payload <= int(off.Size) {
		off = single(off)
	}
	w.deliver(ln, u.rt, off, u.bufs[:u.n], len(u.bufs[0])+u.payload)
}

// deliver hands a frame of size bytes on.
func (w *rxWorker) deliver(ln *rxLane, rt peer.Route, off ether.Offload, bufs [][]byte, size int) {
	ln.count.frames++
	ln.count.bytes += uint64(size)
	w.to.Receive(w.id, ln.entry.link.back.Origin, rt, off, bufs)
}
