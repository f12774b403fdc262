package sleeve

import (
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
)

// The way of a superframe, functions in this order:
//
//	Link.Send → send → super: the header is saved, then for each shard stamped
//	together with the meta right in front of the payload where it lies → seal
//	into the arena → transmit: one Sender.Send for a train of equal datagrams.
//	Frames without segmentation go through frame, small ones by way of the bundle,
//	frames that fit no datagram through oversize.

const (
	maxTrain    = 64    // datagrams in one Send (UDP_MAX_SEGMENTS of older kernels)
	maxSendLen  = 65507 // bytes in one Send: what IPv4 lets a UDP datagram have
	arenaLen    = maxSendLen
	bundleBuf   = 9216                                 // bounds a bundle on jumbo paths
	bundleMax   = 512                                  // longer frames aren't worth the copy into a bundle
	minSlice    = 64                                   // least TCP payload worth a datagram
	maxPadding  = 16                                   // most bytes that are sent to seal a shard faster
	maxPrefix   = routeLen + metaLen                   // in front of a frame or template
	headRoom    = routeLen + 2*metaLen                 // the most that is stamped before a frame: FRAG around FRAME
	sealOver    = session.HeaderLen + session.TagLen   // in clear it is less; sizes are the same for both
	stampBuf    = maxPrefix + ether.MaxTemplate        // prefix and template of a shard
	scratchBuf  = ether.Headroom + ether.MaxSuperframe // a relayed frame, gathered
	bundleFirst = routeLen + metaLen + bundleLenLen    // where the first meta of a bundle stands
)

// A frame's headroom has to hold everything we stamp before it.
var _ [ether.Headroom - headRoom]struct{}

// txLane is the state of one sending worker, owned by it: the datagrams gathered
// for one link, and scratch space. Nothing stays in it over a flush.
type txLane struct {
	lane session.Lane
	slot int // index of its state in Link.tx
	out  Sender
	hook func(rt peer.Route, frame []byte, mtu int) // TooBig; may be nil

	link   *Link   // of what is below; nil: nothing is
	tx     *linkTx // link's state for this lane
	room   int     // plaintext bytes in a datagram
	arena  []byte  // sealed datagrams
	seg    int     // size of each but the last; 0: arena is empty
	count  int
	closed bool // the last one is shorter: no more may follow

	join    join // what came later than the bundle
	bundle  bundle
	fragID  uint16
	stamp   [stampBuf]byte
	tmpl    [ether.MaxTemplate]byte // of a superframe that goes segment by segment
	scratch []byte                  // relay lanes only
}

// linkTx is one link's state for one txLane, owned by that lane's worker.
type linkTx struct {
	keys   *session.TxKeys
	sealer *session.Sealer
	over   int  // what sealing adds
	asked  bool // for new keys, because these are nearly used up
	count  traffic
	drops  drops
	_      [64]byte // keeps two lanes' states off one cache line
}

// send carries one frame, buf[head:], to rt.Dest by way of l. It may overwrite buf.
func (t *txLane) send(l *Link, rt peer.Route, off ether.Offload, buf []byte, head int) {
	if !t.attach(l) {
		return
	}
	frame := buf[head:]
	if len(frame) < ether.HeaderLen || len(frame) > ether.MaxSuperframe || head < headRoom {
		t.drop(dropBadOffload)
		return
	}
	t.tx.count.frames++
	t.tx.count.bytes += uint64(len(frame))
	if off.GSO == ether.GSONone {
		t.frame(rt, off, buf, head)
		return
	}
	n, err := ether.TemplateLen(frame, off)
	if err != nil {
		t.drop(dropBadOffload)
		return
	}
	if len(frame)-n <= int(off.Size) {
		t.frame(rt, single(off), buf, head)
		return
	}
	t.super(rt, off, buf, head, n)
}

// single is what is left to do of a superframe with one segment.
func single(off ether.Offload) ether.Offload {
	off.GSO, off.Size, off.ECN = ether.GSONone, 0, false
	return off
}

// attach makes l the link whose datagrams are gathered. It reports false when l
// has no keys to send with.
func (t *txLane) attach(l *Link) bool {
	if t.link != l {
		t.flush()
		t.link, t.tx = l, l.txState(t.slot)
	}
	st := l.sending.Load()
	if st == nil {
		t.drop(dropNoKeys)
		return false
	}
	if t.tx.keys != st.keys {
		t.settle() // what was promised to the old room
		t.tx.keys, t.tx.sealer, t.tx.asked = st.keys, st.keys.Sealer(t.lane), false
		t.tx.over = t.tx.sealer.Overhead()
	}
	if t.room != st.limit-sealOver {
		t.settle()
		t.room = st.limit - sealOver
	}
	return true
}

// txState returns l's state for the worker with a slot, made when it first sends.
func (l *Link) txState(slot int) *linkTx {
	s := l.tx[slot].Load()
	if s == nil {
		s = new(linkTx)
		l.tx[slot].Store(s)
	}
	return s
}

func (t *txLane) drop(r reason) { t.tx.drops[r].Add(1) }

// prefix writes what stands in front of the meta and returns its length.
func (t *txLane) prefix(p []byte, rt peer.Route) (n int, flags uint16) {
	if n = t.routeLen(rt); n == 0 {
		if rt.Dest.IsZero() {
			return 0, flagFlooded
		}
		return 0, 0
	}
	putRoute(p, rt)
	return n, flagRelayed
}

// routeLen is how many bytes say what the link does not: nothing if the frame is
// this peer's own, for the link's peer or for all.
func (t *txLane) routeLen(rt peer.Route) int {
	if rt.Origin == t.link.route.Origin && (rt.Dest == t.link.route.Dest || rt.Dest.IsZero()) {
		return 0
	}
	return routeLen
}

// super sends a frame of several segments, with a header of tmplLen bytes.
func (t *txLane) super(rt peer.Route, off ether.Offload, buf []byte, head, tmplLen int) {
	t.settle()
	pre, flags := t.prefix(t.stamp[:], rt)
	k, ok := t.slice(&off, tmplLen, pre)
	if !ok {
		t.segmented(rt, off, buf, head, tmplLen)
		return
	}
	m := shardMeta(off, tmplLen)
	stamp := t.stamp[:pre+metaLen+tmplLen]
	copy(stamp[pre+metaLen:], buf[head:])
	chunk := k * int(off.Size)
	pad := t.padding(len(stamp) + chunk)
	for p := head + tmplLen; p < len(buf); {
		n, end := min(chunk, len(buf)-p), 0
		switch end = p + n + pad; {
		case p+n == len(buf):
			end = len(buf)
			m.flags = m.flags&^metaPadded | metaLast
		case pad == 0 || end > len(buf): // what lies behind may be another's
			end = p + n
			m.flags &^= metaPadded
		default:
			m.flags |= metaPadded
		}
		m.put(stamp[pre:])
		// This overwrites the end of the payload before, which is sealed already.
		start := p - len(stamp)
		copy(buf[start:p], stamp)
		if !t.seal(flags, buf[start:end]) {
			return
		}
		p += n
		m.a += uint16(k)
	}
}

// padding returns how many bytes make a plaintext of n bytes one that is sealed
// faster, 0 if that is not worth it or they do not fit the datagram.
func (t *txLane) padding(n int) int {
	pad := -n & (t.tx.sealer.Stride() - 1)
	if pad > maxPadding || n+pad > t.room {
		return 0
	}
	return pad
}

// slice returns how many segments go into one datagram. When not even one does
// and the segments are TCP's, it makes them smaller; UDP's are datagrams and may
// not be changed.
func (t *txLane) slice(off *ether.Offload, tmplLen, pre int) (k int, ok bool) {
	space := t.room - pre - metaLen - tmplLen
	if space >= int(off.Size) {
		return space / int(off.Size), true
	}
	if off.GSO == ether.GSOUDPL4 || space < minSlice {
		return 0, false
	}
	off.Size = uint16(space &^ 7)
	return 1, true
}

// segmented sends the segments of a superframe as frames of their own.
func (t *txLane) segmented(rt peer.Route, off ether.Offload, buf []byte, head, tmplLen int) {
	tmpl := t.tmpl[:tmplLen]
	copy(tmpl, buf[head:])
	for p, i := head+tmplLen, 0; p < len(buf); i++ {
		n := min(int(off.Size), len(buf)-p)
		start := p - tmplLen
		copy(buf[start:p], tmpl)
		run := ether.Run{First: i, Len: n, Last: p+n == len(buf)}
		if ether.CutTemplate(buf[start:p], off, run) != nil {
			t.drop(dropBadOffload)
			return
		}
		t.plain(rt, single(off), buf[:p+n], start)
		p += n
	}
}

// frame sends a frame of one packet, buf[head:], maybe together with others.
func (t *txLane) frame(rt peer.Route, off ether.Offload, buf []byte, head int) {
	if !t.joined(rt, off, buf[head:]) {
		t.plain(rt, off, buf, head)
	}
}

// settle seals what was gathered.
func (t *txLane) settle() {
	t.endJoin()
	t.sealBundle()
}

// plain sends a frame of one packet as such.
func (t *txLane) plain(rt peer.Route, off ether.Offload, buf []byte, head int) {
	m, ok := frameMeta(off)
	if !ok {
		if ether.FinishChecksum(buf[head:], off) != nil {
			t.drop(dropBadOffload)
			return
		}
		m, _ = frameMeta(ether.Offload{})
	}
	if !m.validFrame(buf[head:]) {
		t.drop(dropBadOffload)
		return
	}
	pre := t.routeLen(rt)
	n := len(buf) - head
	switch {
	case pre+metaLen+n > t.room && !t.resegment(rt, off, buf, head):
		t.oversize(rt, m, buf, head)
	case pre+metaLen+n > t.room:
	case n <= bundleMax:
		t.gather(rt, m, buf[head:])
	default:
		t.sealBundle()
		start := head - pre - metaLen
		_, flags := t.prefix(buf[start:], rt)
		m.put(buf[start+pre:])
		t.seal(flags, buf[start:])
	}
}

// resegment sends a TCP segment that fits no datagram as a superframe of smaller
// ones, if its checksum is partial. It reports false if it is anything else.
func (t *txLane) resegment(rt peer.Route, off ether.Offload, buf []byte, head int) bool {
	if !off.NeedsCsum || off.CsumOff != tcpCsumOff {
		return false
	}
	l, err := ether.Parse(buf[head:])
	if err != nil || l.Proto != ether.ProtoTCP || l.L4 == 0 {
		return false
	}
	off.GSO = ether.GSOTCPv4
	if l.IPVersion == 6 {
		off.GSO = ether.GSOTCPv6
	}
	off.ECN = ether.TCP(buf[head+l.L4:]).Flags()&ether.CWR != 0
	off.Size = uint16(len(buf) - head - l.Payload)
	if n, err := ether.TemplateLen(buf[head:], off); err != nil || t.room-maxPrefix-n < minSlice {
		return false
	}
	t.super(rt, off, buf, head, l.Payload)
	return true
}

// oversize deals with a frame that fits no datagram: pieces if the network may
// cut it, else its sender has to be told.
func (t *txLane) oversize(rt peer.Route, m meta, buf []byte, head int) {
	t.settle()
	if mtu, tooBig := t.tooBig(rt, buf[head:]); tooBig {
		t.drop(dropTooBig)
		if t.hook != nil {
			t.hook(rt, buf[head:], mtu)
		}
		return
	}
	head -= metaLen
	m.put(buf[head:])
	pre, flags := t.prefix(t.stamp[:], rt)
	stamp := t.stamp[:pre+metaLen]
	piece := (t.room - len(stamp)) &^ (fragUnit - 1)
	t.fragID++
	for p := head; p < len(buf); {
		n := min(piece, len(buf)-p)
		f := meta{kind: kindFrag, a: uint16((p - head) / fragUnit), b: t.fragID}
		if p+n < len(buf) {
			f.a |= fragMore
		}
		f.put(stamp[pre:])
		start := p - len(stamp)
		copy(buf[start:p], stamp)
		if !t.seal(flags, buf[start:p+n]) {
			return
		}
		p += n
	}
}

// tooBig reports whether the sender of a frame that fits no datagram has to make it
// smaller, and to what size of its packet: with IPv6, and with IPv4 and DF. But no
// sender has to go below what every link must carry; such packets are cut here.
func (t *txLane) tooBig(rt peer.Route, frame []byte) (mtu int, tooBig bool) {
	if t.room < headRoom+fragUnit {
		return 0, true
	}
	l, _ := ether.Parse(frame)
	least := leastIPv4
	switch {
	case l.IPVersion == 6:
		least = leastIPv6
	case l.IPVersion == 0 || !ether.IPv4(frame[l.L3:]).DontFragment():
		return 0, false
	}
	mtu = t.room - t.routeLen(rt) - metaLen - l.L3
	return max(mtu, least), l.End-l.L3 > least
}

// seal appends one datagram to the arena.
func (t *txLane) seal(flags uint16, plaintext []byte) bool {
	t.reserve(t.tx.over + len(plaintext))
	before := len(t.arena)
	var err error
	t.arena, err = t.tx.sealer.Seal(t.arena, flags, plaintext)
	if err != nil {
		t.sealFailed(err)
		return false
	}
	t.added(len(t.arena) - before)
	return true
}

// reserve sends the arena off if a datagram of n bytes cannot join it.
func (t *txLane) reserve(n int) {
	if t.count > 0 && (t.closed || n > t.seg || t.count == maxTrain || len(t.arena)+n > maxSendLen) {
		t.transmit()
	}
}

func (t *txLane) added(n int) {
	if t.count == 0 {
		t.seg = n
	}
	t.closed = n < t.seg
	t.count++
}

func (t *txLane) sealFailed(err error) {
	if err == session.ErrExhausted {
		t.drop(dropExhausted)
		return
	}
	t.drop(dropNoKeys)
}

// transmit sends what is in the arena.
func (t *txLane) transmit() {
	if t.count == 0 {
		return
	}
	t.hand(t.link)
	t.arena, t.seg, t.count, t.closed = t.arena[:0], 0, 0, false
}

// hand gives the arena to the sender and counts what becomes of it.
func (t *txLane) hand(l *Link) {
	n := uint64(t.count)
	if l.closed.Load() {
		t.tx.drops[dropNoKeys].Add(n)
		return
	}
	ep := l.endpoint.Load()
	if err := t.out.Send(ep, t.arena, t.seg); err != nil {
		t.tx.drops[dropSend].Add(n)
		l.sendFailed(ep, err)
		return
	}
	t.tx.count.datagrams += n
}

// flush sends all that is queued and lets go of the link.
func (t *txLane) flush() {
	if t.link == nil {
		return
	}
	t.settle()
	t.transmit()
	t.tx.count.publish()
	if s := t.tx.sealer; s != nil && !t.tx.asked && s.NeedsRekey() {
		t.tx.asked = true
		t.link.inbox.flag(wakeRekey)
	}
	t.link, t.tx, t.room = nil, nil, 0
}
