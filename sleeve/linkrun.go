package sleeve

import (
	"log/slog"
	"net/netip"
	"time"

	"weave/crypto/session"
	"weave/mesh/overlay"
	"weave/sleeve/udp"
)

// linkRun is the link's goroutine: it feeds linkState and does what comes out.
type linkRun struct {
	l     *Link
	log   *slog.Logger
	state *linkState
	tx    *session.TxKeys // in use; nil: none
	limit int

	logged int            // limit, last logged
	looked time.Time      // when the way to the peer was looked up
	remote netip.AddrPort // of the peer, last logged
}

const egressInterval = 10 * time.Second // the way to the peer is looked up anew

func newLinkRun(l *Link, ex *session.Exchange, now time.Time) *linkRun {
	egress := l.egress()
	h := newHeart(datagramFor(l.ov.cfg.MTU), egress.mtu, egress.ipv6, now)
	r := &linkRun{
		l:      l,
		log:    l.ov.log.With("peer", l.p.Remote.String()),
		state:  newLinkState(ex, h),
		limit:  h.limit,
		logged: h.limit,
		looked: now,
		remote: l.endpoint.Load().AddrPort(),
	}
	r.publish()
	return r
}

func (r *linkRun) loop() {
	l := r.l
	defer close(l.stopped)
	defer l.ov.forget(l)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.publish()
		select {
		case <-l.done:
			r.do(r.state.close())
			r.publish()
			return
		case <-l.inbox.signal:
		case <-timer.C:
		}
		now := time.Now()
		inputs, beats, flags := l.inbox.take()
		inputs = append(r.flagged(flags, now), inputs...)
		next := r.take(inputs, beats, now)
		if !next.IsZero() {
			timer.Reset(max(0, next.Sub(now)))
		}
	}
}

// flagged turns the inbox's flags into inputs.
func (r *linkRun) flagged(flags wake, now time.Time) (inputs []input) {
	if flags&wakeStart != 0 {
		inputs = append(inputs, input{kind: inStart})
	}
	if flags&wakeRekey != 0 {
		inputs = append(inputs, input{kind: inRekey})
	}
	if flags&(wakeMoved|wakeTooBig) != 0 || now.Sub(r.looked) >= egressInterval {
		r.looked = now
		inputs = append(inputs, r.l.egress())
	}
	if to := r.l.endpoint.Load().AddrPort(); to != r.remote {
		r.log.Info("peer moved", "from", r.remote.String(), "to", to.String())
		r.remote = to
	}
	return inputs
}

// take feeds all that happened; it returns when to come again.
func (r *linkRun) take(inputs []input, beats []timedBeat, now time.Time) time.Time {
	for _, in := range inputs {
		r.do(r.state.step(in, now))
	}
	for _, t := range beats {
		r.do(r.state.step(input{kind: inBeat, beat: t.b, size: t.size}, t.at))
	}
	o := r.state.step(input{kind: inTick}, now)
	r.do(o)
	return o.next
}

// egress asks how large packets may leave for the peer.
func (l *Link) egress() input {
	addr := l.endpoint.Load().AddrPort().Addr()
	return input{kind: inEgress, mtu: l.ov.net.MTU(addr), ipv6: addr.Is6()}
}

// do executes an output in the order of its fields.
func (r *linkRun) do(o output) {
	l := r.l
	for _, k := range o.armRx {
		l.ov.arm(&rxEntry{link: l, keys: k})
	}
	if o.useTx != nil {
		r.tx = o.useTx
	}
	if o.stopTx {
		r.tx = nil
	}
	if o.limit > 0 {
		r.limit = o.limit
	}
	if r.limit != r.logged && !r.state.heart.search.active {
		r.log.Info("link datagram size", "bytes", r.limit, "mtu", innerMTU(r.limit))
		r.logged = r.limit
	}
	if o.useTx != nil || o.stopTx || o.limit > 0 {
		r.swap()
	}
	for _, m := range o.send {
		if err := l.p.Send(m); err != nil {
			r.log.Debug("control message not sent", "error", err)
		}
	}
	l.ov.disarm(o.dropRx)
	for _, b := range o.beats {
		r.sendBeat(b)
	}
	if o.warn != nil {
		r.log.Warn("key exchange", "error", o.warn)
	}
	for _, e := range o.events {
		r.notify(e)
	}
}

// swap publishes what workers need to seal.
func (r *linkRun) swap() {
	if r.tx == nil {
		r.l.sending.Store(nil)
		return
	}
	r.l.sending.Store(&sending{keys: r.tx, limit: r.limit})
}

func (r *linkRun) notify(e overlay.Event) {
	r.publish()
	if e.Up { // who owns the link tells the user
		r.log.Debug("link up", "remote", r.l.endpoint.Load().String(), "cipher", r.l.p.Agreement.Cipher.String(),
			"mtu", innerMTU(r.limit), "rtt", r.state.heart.rtt)
	} else {
		r.log.Debug("link down", "reason", e.Reason, "err", e.Err)
	}
	r.l.p.Notify(e)
}

// sendBeat seals a heartbeat on the control lane and sends it. A request is as
// long as the size that it is to prove.
func (r *linkRun) sendBeat(b beat) {
	if r.tx == nil || r.l.closed.Load() {
		return
	}
	ep := r.l.endpoint.Load()
	err := r.l.ov.control.send(ep, r.tx.Sealer(session.LaneControl), &b)
	switch {
	case err == nil, err == udp.ErrTooBig: // a size that does not pass is an answer too
	case err == errNotSealed:
		r.l.rxDrops[dropNoKeys].Add(1)
	default:
		r.l.sendFailed(ep, err)
	}
}

// publish makes the state visible to Status.
func (r *linkRun) publish() {
	s := r.state
	r.l.status.Store(&linkStatus{
		up: s.up, reason: s.reason, limit: s.heart.limit, rtt: s.heart.rtt, epoch: s.epoch, keyedAt: s.keyedAt,
	})
}
