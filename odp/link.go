package odp

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/mesh/overlay"
	"weave/odp/proof"
)

// Link is the kernel path to one peer.
type Link struct {
	// Set once.
	o      *Overlay
	p      overlay.Params
	log    *slog.Logger
	tx, rx [proof.KeyLen]byte
	psk    [32]byte  // of a sealed path
	data   string    // from the peer's offer, of a sealed path
	clock  time.Time // zero of the stamps

	status  atomic.Pointer[overlay.Status]
	lastRx  atomic.Int64 // Unix nanoseconds of the last heartbeat
	rxBeats atomic.Uint64
	txBeats atomic.Uint64
	badBeat atomic.Uint64

	mu       sync.Mutex
	started  bool
	messages [][]byte // at most maxWaiting
	beats    []beat   // at most maxWaiting

	signal  chan struct{} // has room for one
	done    chan struct{}
	stopped chan struct{}
	once    sync.Once

	machine  *proof.Machine // owned by run, as all below
	running  bool
	remote   hello
	told     map[ether.MAC]bool // MACs the peer was told of
	tellAt   time.Time
	smallAt  time.Time // last answer to a short heartbeat
	replyAt  time.Time // last answer to a long one
	begun    time.Time
	reason   string
	detail   error
	haveSaid bool
}

// beat is a heartbeat with the length and time in which it came.
type beat struct {
	proof.Beat
	size int
	at   time.Time
}

var _ overlay.Link = (*Link)(nil)

const (
	labelInitiator = "weave fastdp v1 initiator"
	labelResponder = "weave fastdp v1 responder"
	labelPSK       = "weave cage v1 psk"
)

func newLink(o *Overlay, p overlay.Params) *Link {
	l := &Link{
		o: o, p: p, log: o.log.With("peer", p.Remote.String()), clock: time.Now(),
		tx: p.Secret.Derive(labelResponder), rx: p.Secret.Derive(labelInitiator),
		signal: make(chan struct{}, 1), done: make(chan struct{}), stopped: make(chan struct{}),
		machine: proof.New(o.cfg.Timing, time.Now()), reason: ReasonProbing, told: map[ether.MAC]bool{},
	}
	if p.Initiator {
		l.tx, l.rx = l.rx, l.tx
	}
	if o.cfg.Sealed {
		l.psk, l.data = p.Secret.Derive(labelPSK), string(p.Offer.Data[fixedOffer:])
	}
	l.p.Secret = session.Secret{}
	l.publish()
	return l
}

func (l *Link) peer() Peer {
	return Peer{Name: l.p.Remote, Addr: l.p.RemoteAddr, Also: l.remote.source, Data: l.data, PSK: l.psk}
}

// Overlay returns the one that made the link.
func (l *Link) Overlay() *Overlay { return l.o }

// Start begins heartbeats.
func (l *Link) Start() {
	l.mu.Lock()
	l.started = true
	l.mu.Unlock()
	l.wake()
}

// Control takes a message of the link's other end.
func (l *Link) Control(msg []byte) {
	l.mu.Lock()
	if len(l.messages) < maxWaiting {
		l.messages = append(l.messages, slices.Clone(msg))
	}
	l.mu.Unlock()
	l.wake()
}

// heard takes a frame that came from the peer's probe MAC.
func (l *Link) heard(frame []byte) {
	b, err := proof.Parse(frame, &l.rx)
	if err != nil || b.ConnUID != l.p.ConnUID {
		l.badBeat.Add(1)
		return
	}
	now := time.Now()
	l.rxBeats.Add(1)
	l.lastRx.Store(now.UnixNano())
	l.mu.Lock()
	if len(l.beats) < maxWaiting {
		l.beats = append(l.beats, beat{b, len(frame), now})
	}
	l.mu.Unlock()
	l.wake()
}

func (l *Link) wake() {
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// Close ends the link. When it returns it sends nothing more and Notify is not called
// again. What is steered to the peer goes on for LingerTime if the path was up. It
// must not be called from within Notify or Send.
func (l *Link) Close() {
	l.once.Do(func() { close(l.done) })
	<-l.stopped
}

// Status implements overlay.Link.
func (l *Link) Status() overlay.Status {
	st := *l.status.Load()
	if ns := l.lastRx.Load(); ns != 0 {
		st.LastHeard = time.Unix(0, ns)
	}
	st.Counters = overlay.Counters{TxDatagrams: l.txBeats.Load(), RxDatagrams: l.rxBeats.Load(), Drops: map[string]uint64{}}
	if n := l.badBeat.Load(); n > 0 {
		st.Counters.Drops["auth"] = n
	}
	return st
}

// run is the link's goroutine.
func (l *Link) run() {
	defer close(l.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.done:
			state, _ := l.machine.State()
			l.reason = ReasonClosed
			l.publish()
			l.o.closedLink(l, state == proof.Up)
			return
		case <-l.signal:
		case <-timer.C:
		}
		l.step(time.Now())
		if l.running {
			timer.Reset(max(0, time.Until(l.next())))
		}
	}
}

func (l *Link) next() time.Time {
	if w := l.machine.Wake(); w.Before(l.tellAt) {
		return w
	}
	return l.tellAt
}

// step does what is due.
func (l *Link) step(now time.Time) {
	l.mu.Lock()
	started := l.started
	var messages [][]byte
	if started {
		messages, l.messages = l.messages, nil
	}
	beats := l.beats
	l.beats = nil
	l.mu.Unlock()
	if !started {
		return
	}
	if !l.running {
		l.running, l.begun = true, now
		l.machine = proof.New(l.o.cfg.Timing, now)
	}
	for _, m := range messages {
		l.message(m)
	}
	st := l.o.be.State(l.p.Remote)
	l.sayHello(st)
	l.vouch(now)
	before, _ := l.machine.State()
	for _, b := range beats {
		l.beat(b)
	}
	l.tick(st, now)
	after, _ := l.machine.State()
	l.explain(st, now)
	l.publish()
	if before != after {
		l.notify(after)
	}
}

func (l *Link) notify(s proof.State) {
	if s == proof.Up {
		l.log.Info("kernel path up", "mtu", l.o.cfg.MTU, "rtt", l.machine.RTT())
		l.p.Notify(overlay.Event{Up: true})
		return
	}
	n, retry := l.machine.Failures()
	l.log.Warn("kernel path down", "reason", l.reason, "err", l.detail, "failures", n, "not_before", retry)
	l.p.Notify(overlay.Event{Reason: l.reason, Err: l.detail})
}

// sayHello tells the peer what we are, once.
func (l *Link) sayHello(st State) {
	if l.haveSaid {
		return
	}
	l.haveSaid = true
	l.send(hello{version: version, vni: l.o.cfg.VNI, mtu: uint16(l.o.cfg.MTU), source: st.Source}.append(nil))
}

func (l *Link) send(msg []byte) {
	if err := l.p.Send(msg); err != nil {
		l.log.Debug("control message not sent", "err", err)
	}
}

func (l *Link) message(m []byte) {
	var err error
	switch {
	case len(m) == 0:
	case m[0] == typeHello:
		var h hello
		if h, err = parseHello(m); err == nil {
			l.remote = h
			if h.source.IsValid() && h.source.Unmap() != l.p.RemoteAddr.Addr().Unmap() {
				l.o.be.AddPeer(l.peer())
			}
		}
	case m[0] == typeMACs:
		var macs []ether.MAC
		if macs, err = parseMACs(m); err == nil {
			l.o.cfg.Vouched(l.p.Remote, macs)
		}
	}
	if err != nil {
		l.log.Debug("control message ignored", "err", err)
	}
}

// vouch tells the peer of our MACs: new ones at once, all of them now and then.
func (l *Link) vouch(now time.Time) {
	macs := l.o.localMACs()
	if all := !now.Before(l.tellAt); all {
		l.tellAt = now.Add(vouchEvery)
		clear(l.told)
	}
	var fresh []ether.MAC
	for _, m := range macs {
		if !l.told[m] {
			l.told[m] = true
			fresh = append(fresh, m)
		}
	}
	for _, msg := range appendMACs(fresh) {
		l.send(msg)
	}
}

// beat takes a heartbeat.
func (l *Link) beat(b beat) {
	switch b.Type {
	case proof.Request:
		reply := b.Beat
		reply.Type, reply.Got = proof.Reply, uint16(b.size)
		l.transmit(reply, proof.MinLen)
	case proof.Reply:
		if b.Seq == 0 {
			l.smallAt = b.at
			return
		}
		if int(b.Got) != l.size() {
			return
		}
		sent := b.at.Sub(l.clock) - time.Duration(b.Clock)
		l.replyAt = b.at
		l.machine.Reply(b.Seq, sent, b.at)
	}
}

// size of the heartbeats that prove the path.
func (l *Link) size() int { return l.o.cfg.MTU + ether.HeaderLen }

// tick sends what is due. A path of which the backend says that there is none is
// down; nothing is sent on it.
func (l *Link) tick(st State, now time.Time) {
	send, seq, _ := l.machine.Tick(now)
	if l.impossible(st) != nil {
		l.machine.Refuse(now)
		return
	}
	if !send {
		return
	}
	req := proof.Beat{Type: proof.Request, Seq: seq, Clock: int64(now.Sub(l.clock)), ConnUID: l.p.ConnUID}
	l.transmit(req, l.size())
	if state, _ := l.machine.State(); state != proof.Up {
		req.Seq = 0 // tells a narrow way from a closed one
		l.transmit(req, proof.MinLen)
	}
}

// impossible says why heartbeats need not be tried.
func (l *Link) impossible(st State) error {
	switch {
	case st.Err != nil:
		return st.Err
	case l.remote.version == 0:
		return nil // it has not spoken yet
	case l.remote.version != version, l.remote.vni != l.o.cfg.VNI:
		return &ReasonError{Why: ReasonVersion}
	}
	return nil
}

func (l *Link) transmit(b proof.Beat, size int) {
	i := 0
	if l.p.RemoteAddr.Addr().Unmap().Is6() && !l.o.cfg.Sealed {
		i = 1
	}
	b.Dst, b.Src = l.o.probeMACs(l.p.Remote)[i], l.o.probeMACs(l.p.Local)[i]
	if err := l.o.be.SendProbe(l.p.Remote, b.Append(make([]byte, 0, size), &l.tx, size)); err != nil {
		l.log.Debug("heartbeat not sent", "err", err)
		return
	}
	l.txBeats.Add(1)
}

// explain finds the reason why the path is not up.
func (l *Link) explain(st State, now time.Time) {
	state, since := l.machine.State()
	l.detail = l.impossible(st)
	recent := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < 3*time.Second }
	switch {
	case state == proof.Up:
		l.reason = ""
	case l.detail != nil:
		l.reason = ReasonOf(l.detail)
	case recent(l.replyAt) && state == proof.Down && now.Sub(since) > time.Second:
		l.reason = ReasonSettling
	case recent(l.smallAt) && !recent(l.replyAt) && now.Sub(l.begun) > time.Second:
		l.reason = ReasonMTU
	case state == proof.Down && now.Sub(since) < 5*time.Second:
		l.reason = ReasonTimeout
	case state == proof.Probing && now.Sub(l.begun) < 3*time.Second:
		l.reason = ReasonProbing
	default:
		l.reason = ReasonSilent
	}
}

func (l *Link) publish() {
	state, _ := l.machine.State()
	st := overlay.Status{
		Path: Name, Up: state == proof.Up && l.reason != ReasonClosed, Lanes: 0, Remote: l.p.RemoteAddr,
		RTT: l.machine.RTT(), Reason: l.reason, Offloads: l.o.be.Name(),
	}
	if st.Up {
		st.MTU = l.o.cfg.MTU
	}
	if l.o.cfg.Sealed { // WireGuard has one
		st.Cipher, st.Lanes = session.CipherChaCha, 1
	}
	l.status.Store(&st)
}
