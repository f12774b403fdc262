package sleeve

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve/udp"
)

// Link is the path to one peer. It implements overlay.FrameLink, and the Path of
// package forward.
type Link struct {
	// Set once.
	ov    *Overlay
	p     overlay.Params
	route peer.Route               // of frames from us to the peer: these need no route on the wire
	back  peer.Route               // of frames from the peer to us
	tx    []atomic.Pointer[linkTx] // element i belongs to the worker of Overlay.lanes or relays with slot i; nil: never used
	rx    []traffic                // element l belongs to RX worker l

	// Swapped by the link's goroutine (endpoint also by workers), read by workers.
	sending  atomic.Pointer[sending] // nil: no keys
	endpoint atomic.Pointer[udp.Endpoint]
	closed   atomic.Bool

	// Counted by workers.
	rxDrops drops
	heard   atomic.Int64 // Unix nanoseconds of the last authentic datagram; 0: none

	inbox   inbox
	status  atomic.Pointer[linkStatus]
	done    chan struct{} // closed by Close
	stopped chan struct{} // closed when the goroutine is gone
	once    sync.Once
}

// sending is what a worker needs to know to seal; immutable.
type sending struct {
	keys  *session.TxKeys
	limit int // largest datagram, in bytes of UDP payload
}

// linkStatus is the goroutine's part of overlay.Status; immutable.
type linkStatus struct {
	up      bool
	reason  string
	limit   int
	rtt     time.Duration
	epoch   uint32
	keyedAt time.Time
}

var _ overlay.FrameLink = (*Link)(nil)

func newLink(o *Overlay, p overlay.Params, ep udp.Endpoint) *Link {
	l := &Link{
		ov:      o,
		p:       p,
		route:   peer.Route{Origin: p.Local, Dest: p.Remote},
		back:    peer.Route{Origin: p.Remote, Dest: p.Local},
		tx:      make([]atomic.Pointer[linkTx], len(o.lanes)+len(o.relays)),
		rx:      make([]traffic, len(o.workers)),
		inbox:   inbox{signal: make(chan struct{}, 1)},
		done:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	l.endpoint.Store(&ep)
	return l
}

// Send carries sf towards rt.Dest. It is called only by the worker that owns lane,
// and overwrites sf. Datagrams may stay queued until [Overlay.Flush].
func (l *Link) Send(lane int, rt peer.Route, sf *ether.Superframe) {
	l.ov.lanes[lane].send(l, rt, sf.Offload, sf.Buf, sf.Head)
}

// Relay carries a received frame, in the pieces in which the Receiver got it, on
// towards rt.Dest. It is called only from [Receiver.Receive] with that call's lane;
// bufs are not changed. What is queued leaves at the end of the worker's batch.
func (l *Link) Relay(lane int, rt peer.Route, off ether.Offload, bufs [][]byte) {
	l.ov.relays[lane].relay(l, rt, off, bufs)
}

// Start begins key exchange and heartbeats.
func (l *Link) Start() { l.inbox.flag(wakeStart) }

// Control takes a message of the link's other end.
func (l *Link) Control(msg []byte) {
	l.inbox.put(input{kind: inControl, msg: bytes.Clone(msg)})
}

// Close ends the link. When it returns nothing more is sent, the keys are gone, and
// Notify is not called again. It must not be called from within Notify or Send of
// the Params.
func (l *Link) Close() {
	l.once.Do(func() {
		l.closed.Store(true)
		close(l.done)
	})
	<-l.stopped
}

// Status reads what workers and goroutine have published.
func (l *Link) Status() overlay.Status {
	s := l.status.Load()
	st := overlay.Status{
		Path:     Name,
		Up:       s.up,
		Cipher:   l.p.Agreement.Cipher,
		Lanes:    l.p.Agreement.Lanes,
		Remote:   l.endpoint.Load().AddrPort(),
		MTU:      innerMTU(s.limit),
		RTT:      s.rtt,
		KeyEpoch: s.epoch,
		Reason:   s.reason,
		Offloads: l.ov.net.Offloads(),
		Counters: l.counters(),
	}
	if ns := l.heard.Load(); ns != 0 {
		st.LastHeard = time.Unix(0, ns)
	}
	if s.epoch > 0 {
		st.KeyAge = time.Since(s.keyedAt)
	}
	return st
}

func (l *Link) counters() overlay.Counters {
	c := overlay.Counters{Drops: map[string]uint64{}}
	for i := range l.tx {
		t := l.tx[i].Load()
		if t == nil {
			continue
		}
		c.TxFrames += t.count.pubFrames.Load()
		c.TxBytes += t.count.pubBytes.Load()
		c.TxDatagrams += t.count.pubDatagrams.Load()
		t.drops.addTo(c.Drops)
	}
	for i := range l.rx {
		c.RxFrames += l.rx[i].pubFrames.Load()
		c.RxBytes += l.rx[i].pubBytes.Load()
		c.RxDatagrams += l.rx[i].pubDatagrams.Load()
	}
	l.rxDrops.addTo(c.Drops)
	return c
}

// Called by workers.

// moved makes an authenticated newer address of the peer the endpoint.
func (l *Link) moved(to udp.Endpoint) {
	l.endpoint.Store(&to)
	l.inbox.flag(wakeMoved)
}

// heartbeat hands a control message to the link's goroutine.
func (l *Link) heartbeat(body []byte, size int, now time.Time) {
	b, ok := parseBeat(body)
	if !ok {
		l.rxDrops[dropBadMeta].Add(1)
		return
	}
	if !l.inbox.beat(timedBeat{b, size, now}) {
		l.rxDrops[dropControlQueue].Add(1)
	}
}

func (l *Link) firstUse(index uint32) { l.inbox.used(index) }

// sendFailed learns from an error of Sender.Send.
func (l *Link) sendFailed(ep *udp.Endpoint, err error) {
	switch err {
	case udp.ErrTooBig:
		l.inbox.flag(wakeTooBig)
	case udp.ErrSource: // our address is gone: let the kernel choose another
		if to, err := udp.NewEndpoint(ep.AddrPort(), netip.Addr{}); err == nil {
			l.endpoint.CompareAndSwap(ep, &to)
		}
	}
}
