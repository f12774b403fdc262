package sleeve

import (
	"errors"
	"time"

	"weave/crypto/session"
	"weave/mesh/overlay"
)

// inputKind says what happened to a link.
type inputKind uint8

const (
	inTick     inputKind = iota // time has passed
	inStart                     // the mesh called Start
	inControl                   // a message came over the control connection
	inBeat                      // a heartbeat came, authenticated
	inFirstUse                  // a datagram was opened under new keys for the first time
	inRekey                     // a sealer is nearly used up
	inEgress                    // the way out may have another MTU
)

type input struct {
	kind  inputKind
	msg   []byte // inControl
	beat  beat   // inBeat
	size  int    // inBeat: of the datagram
	index uint32 // inFirstUse
	mtu   int    // inEgress
	ipv6  bool   // inEgress
}

// output is what the link has to do, in the order of the fields: the peer may use
// keys as soon as it has the messages, so they are armed first.
type output struct {
	armRx  []*session.RxKeys
	useTx  *session.TxKeys
	stopTx bool
	limit  int // datagram size to use from now on; 0: as before
	send   [][]byte
	dropRx []uint32
	beats  []beat
	events []overlay.Event
	warn   error     // to be logged; the link goes on
	next   time.Time // of the next inTick; zero: none
}

// linkState is all of a link that decides: it drives the key exchange and the
// heartbeat. It has no goroutine, socket or clock. After a fatal event it does nothing.
type linkState struct {
	ex      *session.Exchange
	exNext  time.Time
	heart   heart
	started bool
	waiting [][]byte // control messages that came before Start
	dead    bool

	// For status.
	up      bool
	reason  string
	epoch   uint32
	keyedAt time.Time
}

// maxWaiting bounds the control messages kept before Start; an honest peer sends one.
const maxWaiting = 4

func newLinkState(ex *session.Exchange, h heart) *linkState {
	return &linkState{ex: ex, heart: h, reason: "starting"}
}

// step takes one input.
func (s *linkState) step(in input, now time.Time) (o output) {
	if s.dead {
		return o
	}
	switch in.kind {
	case inStart:
		s.start(now, &o)
	case inControl:
		s.control(in.msg, now, &o)
	case inBeat:
		s.beats(s.heart.receive(in.beat, in.size, now), &o)
	case inFirstUse:
		s.exchange(s.ex.Authenticated(in.index, now), now, &o)
	case inRekey:
		s.exchange(s.ex.Rekey(now), now, &o)
	case inEgress:
		s.beats(s.heart.egress(in.mtu, in.ipv6, now), &o)
	case inTick:
		if s.started && !s.exNext.IsZero() && !now.Before(s.exNext) {
			s.exchange(s.ex.Tick(now), now, &o)
		}
	}
	s.beats(s.heart.tick(now), &o)
	o.next = s.next()
	return o
}

func (s *linkState) next() time.Time {
	next := time.Time{}
	if s.started && !s.dead {
		next = s.exNext
	}
	if s.heart.phase != phaseIdle && (next.IsZero() || s.heart.due().Before(next)) {
		next = s.heart.due()
	}
	return next
}

func (s *linkState) start(now time.Time, o *output) {
	if s.started {
		return
	}
	s.started, s.reason = true, "exchanging keys"
	s.exchange(s.ex.Start(now), now, o)
	for _, m := range s.waiting {
		s.control(m, now, o)
	}
	s.waiting = nil
}

func (s *linkState) control(msg []byte, now time.Time, o *output) {
	if !s.started {
		if len(s.waiting) < maxWaiting {
			s.waiting = append(s.waiting, msg)
		}
		return
	}
	x, err := s.ex.Control(msg, now)
	s.exchange(x, now, o)
	if err != nil {
		s.fail(err, o)
	}
}

// fail ends the link: the two ends will not have keys in common.
func (s *linkState) fail(err error, o *output) {
	s.dead, s.up, s.reason = true, false, "key exchange"
	x := s.ex.Close()
	o.stopTx, o.useTx, o.armRx = true, nil, nil
	o.dropRx = append(o.dropRx, x.DropRx...)
	s.heart.stop("")
	o.beats = nil
	o.events = append(o.events, overlay.Event{Reason: s.reason, Err: err, Fatal: true})
}

// exchange takes over what the key exchange wants done.
func (s *linkState) exchange(x session.Output, now time.Time, o *output) {
	s.exNext = x.Next
	if x.ArmRx != nil {
		o.armRx = append(o.armRx, x.ArmRx)
	}
	o.send = append(o.send, x.Send...)
	o.dropRx = append(o.dropRx, x.DropRx...)
	o.warn = errors.Join(o.warn, x.Err)
	if x.StopTx {
		o.stopTx, o.useTx = true, nil
		s.reason = "keys expired"
		s.beats(s.heart.stop(s.reason), o)
	}
	if x.UseTx != nil {
		o.useTx, o.stopTx = x.UseTx, false
		s.epoch, s.keyedAt = x.UseTx.Epoch, x.UseTx.Created
		if s.heart.phase == phaseIdle {
			s.reason = "proving"
			s.heart.begin(now)
		}
	}
}

// beats takes over what the heart wants done.
func (s *linkState) beats(b beats, o *output) {
	o.beats = append(o.beats, b.send...)
	if b.resize {
		o.limit = s.heart.limit
	}
	if b.down != "" {
		s.up, s.reason = false, b.down
		o.events = append(o.events, overlay.Event{Reason: b.down})
	}
	if b.up {
		s.up = true
		o.events = append(o.events, overlay.Event{Up: true})
	}
	if s.up {
		s.reason = ""
		if s.heart.limit < s.heart.need {
			s.reason = "mtu"
		}
	}
}

// close gives up keys and secret.
func (s *linkState) close() (o output) {
	o.dropRx, o.stopTx = s.ex.Close().DropRx, true
	s.dead, s.up, s.reason = true, false, "closed"
	s.heart.stop("")
	return o
}
