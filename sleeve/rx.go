package sleeve

import (
	"runtime"
	"sync/atomic"
	"time"

	"weave/crypto/session"
	"weave/internal/peer"
	"weave/sleeve/udp"
)

// The way of a datagram, functions in this order:
//
//	Run → batch (all slots of one Recv) → datagram: header, keys, Open in place →
//	take: in order of counters per lane, what is ahead of a gap is parked until the
//	end of the batch → item: by kind → a run of shards or a frame → Receiver.
//
// Nothing waits for a datagram that is missing; the order is restored only among
// those that came in one batch.

const (
	maxParked  = 1024 // datagrams ahead of a gap, in one batch
	maxStrays  = 64   // datagrams that another worker's socket got
	maxTouched = 256  // lanes heard in one batch before it is ended early
)

// rxEntry is what a receiver index stands for: a link and one epoch of its keys.
type rxEntry struct {
	link  *Link
	keys  *session.RxKeys
	lanes [session.NumLanes]*rxLane // each made and read by its lane's worker only
}

// rxLane is the receiving state of one lane under one epoch of keys. It belongs to
// the worker of the lane.
type rxLane struct {
	entry   *rxEntry
	opener  *session.Opener
	next    uint64 // counter that comes next if nothing is lost or reordered
	parked  int32  // first of the parked datagrams, by counter; none: -1
	tail    int32  // last of them
	run     *run   // open run; nil: none
	frags   *reassembly
	touched bool // is in rxWorker.touched
	count   *traffic
}

// record is an opened datagram that is ahead of a gap.
type record struct {
	counter uint64
	rt      peer.Route
	m       meta
	data    []byte
	next    int32
}

// rxWorker owns a socket and everything that is received on its lanes.
type rxWorker struct {
	ov   *Overlay
	id   int
	sock Socket
	to   Receiver

	// Of the current batch.
	now     time.Time
	table   map[uint32]*rxEntry
	last    *rxEntry // cache of the last lookup
	placed  *Link    // the slot's sender is known to be this link's endpoint
	touched []*rxLane
	records []record
	free    []*run // those no lane has open
	one     [1][]byte
	frags   fragBudget
	drops   drops // before a link is known

	strays strays
}

func newRxWorker(ov *Overlay, id int, sock Socket, to Receiver) *rxWorker {
	w := &rxWorker{
		ov:      ov,
		id:      id,
		sock:    sock,
		to:      to,
		touched: make([]*rxLane, 0, maxTouched),
		records: make([]record, 0, maxParked),
	}
	for range maxRuns {
		w.free = append(w.free, new(run))
	}
	return w
}

// loop is the worker: it reads until the socket is empty, then waits.
func (w *rxWorker) loop(stop *atomic.Bool) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !stop.Load() {
		slots, err := w.sock.Recv()
		switch {
		case err == nil:
			w.batch(slots, time.Now())
		case err == udp.ErrWouldBlock:
			wait := time.Duration(-1)
			if w.frags.live > 0 {
				wait = fragTimeout
			}
			if err := w.sock.Wait(wait); err != nil {
				return err
			}
			w.housekeep(time.Now())
		default:
			return err
		}
	}
	return nil
}

// housekeep does what has to be done without a batch of our own socket.
func (w *rxWorker) housekeep(now time.Time) {
	if w.strays.pending.Load() || w.frags.live > 0 {
		w.batch(nil, now)
	}
}

// batch takes all that one Recv returned.
func (w *rxWorker) batch(slots []udp.Slot, now time.Time) {
	w.now = now
	w.table = *w.ov.table.Load()
	w.last = nil
	for i := range slots {
		s := &slots[i]
		w.placed = nil
		for d := s.Next(); d != nil; d = s.Next() {
			w.datagram(d, &s.Reply)
		}
	}
	w.takeStrays()
	w.endBatch()
}

// datagram opens one datagram and hands on what is in it.
func (w *rxWorker) datagram(d []byte, from *udp.Endpoint) {
	h, ok := session.ParseHeader(d)
	if !ok {
		w.drops[dropShort].Add(1)
		return
	}
	e := w.find(h.Index)
	if e == nil {
		w.drops[dropUnknownIndex].Add(1)
		return
	}
	if o := w.ov.ownerOf(h.Lane); o != w.id {
		w.stray(w.ov.workers[o], e.link, d, from)
		return
	}
	ln := w.lane(e, h.Lane)
	if ln == nil {
		e.link.rxDrops[dropLane].Add(1)
		return
	}
	p, err := ln.opener.Open(h, d)
	if err != nil {
		e.link.rxDrops[openReason(err)].Add(1)
		return
	}
	w.authentic(ln, h, from)
	r, ok := e.link.parse(h, p)
	switch {
	case !ok:
		e.link.rxDrops[dropBadMeta].Add(1)
	case r.m.kind == kindControl:
		e.link.heartbeat(r.data, len(d), w.now)
	default:
		w.take(ln, r)
	}
}

// find looks up a receiver index; datagrams mostly come in rows with the same.
func (w *rxWorker) find(index uint32) *rxEntry {
	if w.last == nil || w.last.keys.Index != index {
		w.last = w.table[index]
	}
	return w.last
}

// parse reads an opened plaintext up to its data.
func (l *Link) parse(h session.Header, p []byte) (r record, ok bool) {
	r.counter, r.rt = h.Counter, l.back
	switch h.Flags {
	case 0:
	case flagFlooded:
		r.rt.Dest = peer.Name{}
	case flagRelayed:
		if r.rt, p, ok = parseRoute(p); !ok {
			return r, false
		}
	default:
		return r, false
	}
	r.m, r.data, ok = parseMeta(p)
	return r, ok && (r.m.kind == kindControl) == (h.Lane == session.LaneControl)
}

// stray leaves d to the worker of its lane.
func (w *rxWorker) stray(owner *rxWorker, l *Link, d []byte, from *udp.Endpoint) {
	if !owner.strays.add(d, from) {
		l.rxDrops[dropLane].Add(1)
		return
	}
	owner.sock.Wake()
}

func (w *rxWorker) takeStrays() {
	for _, s := range w.strays.take() {
		w.placed = nil
		w.datagram(s.datagram, &s.from)
	}
}

func openReason(err error) reason {
	switch err {
	case session.ErrReplay:
		return dropReplay
	case session.ErrAuth:
		return dropAuth
	case session.ErrShort:
		return dropShort
	case session.ErrNoKey:
		return dropExpired
	}
	return dropAuth // a counter that no key may have is a forgery
}

// lane returns the state of a lane of e, nil when there are no keys for it.
func (w *rxWorker) lane(e *rxEntry, l session.Lane) *rxLane {
	ln := e.lanes[l]
	if ln != nil {
		return ln
	}
	o := e.keys.Opener(l)
	if o == nil {
		return nil
	}
	ln = &rxLane{entry: e, opener: o, parked: -1, tail: -1, count: &e.link.rx[w.id]}
	e.lanes[l] = ln
	return ln
}

// authentic notes that the peer was heard, and from where. The endpoint moves only
// with the newest datagram of its lane, so that one that was held back on an old
// path cannot move it back.
func (w *rxWorker) authentic(ln *rxLane, h session.Header, from *udp.Endpoint) {
	l := ln.entry.link
	ln.count.datagrams++
	if !ln.touched {
		if len(w.touched) == cap(w.touched) {
			w.endBatch()
		}
		ln.touched = true
		w.touched = append(w.touched, ln)
	}
	if w.placed != l && h.Counter == ln.opener.Highest() && from.IsValid() {
		if *l.endpoint.Load() != *from {
			l.moved(*from)
		}
		w.placed = l
	}
	if ln.entry.keys.FirstUse() {
		l.firstUse(ln.entry.keys.Index)
	}
}

// take hands a datagram on if it is the next of its lane, else parks it.
func (w *rxWorker) take(ln *rxLane, r record) {
	if r.counter != ln.next {
		w.park(ln, r)
		return
	}
	ln.next++
	w.item(ln, &r)
	for ln.parked >= 0 && w.records[ln.parked].counter == ln.next {
		w.unpark(ln)
	}
}

// park keeps r until the gap before it is closed, or the batch is over.
func (w *rxWorker) park(ln *rxLane, r record) {
	if len(w.records) == cap(w.records) {
		w.drain()
		if r.counter == ln.next {
			ln.next++
			w.item(ln, &r)
			return
		}
	}
	i := int32(len(w.records))
	w.records = append(w.records, r)
	rec := &w.records[i]
	switch {
	case ln.parked < 0:
		rec.next = -1
		ln.parked, ln.tail = i, i
	case r.counter > w.records[ln.tail].counter:
		rec.next = -1
		w.records[ln.tail].next = i
		ln.tail = i
	case r.counter < w.records[ln.parked].counter:
		rec.next = ln.parked
		ln.parked = i
	default:
		at := ln.parked
		for w.records[w.records[at].next].counter < r.counter {
			at = w.records[at].next
		}
		rec.next = w.records[at].next
		w.records[at].next = i
	}
}

// unpark hands on the first of the parked datagrams.
func (w *rxWorker) unpark(ln *rxLane) {
	r := &w.records[ln.parked]
	if ln.parked = r.next; ln.parked < 0 {
		ln.tail = -1
	}
	if r.counter >= ln.next {
		ln.next = r.counter + 1
	}
	w.item(ln, r)
}

// drain hands on all that is parked: the gaps stay.
func (w *rxWorker) drain() {
	for _, ln := range w.touched {
		for ln.parked >= 0 {
			w.unpark(ln)
		}
	}
	w.records = w.records[:0]
}

// item hands on one datagram's content.
func (w *rxWorker) item(ln *rxLane, r *record) {
	switch r.m.kind {
	case kindShard:
		w.shard(ln, r)
	case kindFrame:
		w.endRun(ln)
		w.frame(ln, r.rt, &r.m, r.data)
	case kindBundle:
		w.endRun(ln)
		if !bundled(r.data, func(m meta, frame []byte) { w.frame(ln, r.rt, &m, frame) }) {
			ln.entry.link.rxDrops[dropBadMeta].Add(1)
		}
	case kindFrag:
		w.endRun(ln)
		w.frag(ln, r)
	}
}

func (w *rxWorker) frame(ln *rxLane, rt peer.Route, m *meta, data []byte) {
	w.one[0] = data
	w.deliver(ln, rt, m.offload(), w.one[:], len(data))
}

// endBatch hands on what is parked and what is open, and tells what was counted.
func (w *rxWorker) endBatch() {
	w.drain()
	for _, ln := range w.touched {
		w.endRun(ln)
		ln.count.publish()
		ln.entry.link.heard.Store(w.now.UnixNano())
		ln.touched = false
	}
	clear(w.touched)
	w.touched = w.touched[:0]
	if w.frags.live > 0 {
		w.fragExpire()
	}
	w.ov.relays[w.id].flush()
}
