package session

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"weave/crypto/policy"
)

const (
	// DefaultRekeyAfter is the age of keys at which the initiator starts to
	// replace them, give or take a tenth.
	DefaultRekeyAfter = 120 * time.Second
	// DefaultRejectAfter is the age at which keys are given up in any case.
	DefaultRejectAfter = 180 * time.Second

	retryAfter      = 5 * time.Second // unanswered messages are sent again
	minRekeyAge     = time.Second     // younger keys are not replaced on request
	jitterPart      = 10              // RekeyAfter varies by 1/jitterPart each way
	rxGenerations   = 3               // previous, current, next
	maxControlEpoch = 1<<32 - 1
)

// ErrConfig: NewExchange was given something that makes no sense.
var ErrConfig = errors.New("session: bad exchange configuration")

// ExchangeConfig is what an Exchange needs to know of its link.
type ExchangeConfig struct {
	Initiator bool   // this end dialed the control connection
	Secret    Secret // of the control connection; not used in clear mode
	Cipher    Cipher // CipherNone needs a Permit that allows clear data
	Permit    policy.Permit
	// Lanes that keys are made for, in both directions. The two ends need not
	// name the same ones: a lane's key does not depend on the others.
	Lanes []Lane
	// NewIndex reserves a receiver index that none of this end's keys has now.
	// It is called from the Exchange's methods. DropRx gives indices back.
	NewIndex func() (uint32, error)
	Rand     io.Reader // nil: the system's random source

	RekeyAfter  time.Duration // 0: DefaultRekeyAfter
	RejectAfter time.Duration // 0: DefaultRejectAfter; at least 5/4 of RekeyAfter
}

// Output is what the owner of an Exchange has to do, in the order of the fields:
// receive keys must be in place before the messages in Send leave, for the other
// end may use them at once.
type Output struct {
	ArmRx  *RxKeys  // receive with these too
	UseTx  *TxKeys  // send with these from now on
	StopTx bool     // send nothing: there are no keys
	Send   [][]byte // messages for the other end, in order
	DropRx []uint32 // receiver indices to forget; some may never have been armed
	Err    error    // why no exchange could be started; it is tried again at Next
	Next   time.Time
}

// Exchange agrees on the keys of one link with the Exchange at the other end, and
// replaces them in time. It has no goroutine, socket or clock: its owner passes
// in what happens and does what the Output says, also when it comes with an error.
// A message that Control refuses changes nothing. Every Output has in Next the
// time of the next Tick; zero: none.
type Exchange struct {
	// Set once.
	initiator   bool
	secret      Secret
	cipher      Cipher
	lanes       []Lane
	newIndex    func() (uint32, error)
	rand        io.Reader
	rekeyAfter  time.Duration
	rejectAfter time.Duration

	epoch  uint32    // highest started (initiator) or accepted (responder)
	rx     []*RxKeys // oldest first, epochs rise, at most rxGenerations
	tx     *TxKeys   // in use; nil: none
	oldTx  *TxKeys   // in use before tx; a worker may still hold it
	closed bool

	// Initiator only.
	started   bool
	attempt   *attempt  // INIT sent, RESP awaited
	rekeyAt   time.Time // when to start the next attempt; zero: not scheduled
	confirmAt time.Time // when to send CONFIRM for tx again; zero: it arrived

	// Responder only.
	nextTx    *TxKeys   // made, but the initiator is not known to have its half
	lastInit  []byte    // what the newest rx keys were made from, so that an
	lastResp  []byte    // INIT that comes twice gets the same answer
	requestAt time.Time // when to send REQUEST for tx again; zero: not wanted
}

// attempt is an exchange that the initiator has begun.
type attempt struct {
	created time.Time
	resend  time.Time
	index   uint32
	private *ecdh.PrivateKey // nil in clear mode
	init    []byte
}

// NewExchange checks the configuration; it sends nothing.
func NewExchange(c ExchangeConfig) (*Exchange, error) {
	e := &Exchange{
		initiator:   c.Initiator,
		cipher:      c.Cipher,
		lanes:       slices.Clone(c.Lanes),
		newIndex:    c.NewIndex,
		rand:        c.Rand,
		rekeyAfter:  c.RekeyAfter,
		rejectAfter: c.RejectAfter,
	}
	if e.rand == nil {
		e.rand = rand.Reader
	}
	if e.rekeyAfter == 0 {
		e.rekeyAfter = DefaultRekeyAfter
	}
	if e.rejectAfter == 0 {
		e.rejectAfter = DefaultRejectAfter
	}
	switch {
	case c.Cipher > CipherAES:
		return nil, fmt.Errorf("%v: %w", c.Cipher, ErrCipher)
	case c.Cipher == CipherNone && !c.Permit.Clear():
		return nil, policy.ErrEncryptedOnly
	case c.Cipher != CipherNone && c.Secret.IsZero():
		return nil, fmt.Errorf("no secret: %w", ErrConfig)
	case e.newIndex == nil || len(e.lanes) == 0:
		return nil, fmt.Errorf("no lanes or no indices: %w", ErrConfig)
	case slices.ContainsFunc(e.lanes, func(l Lane) bool { return l >= NumLanes }):
		return nil, fmt.Errorf("lane out of range: %w", ErrConfig)
	case e.rekeyAfter < 0 || e.rejectAfter < e.rekeyAfter+e.rekeyAfter/4:
		return nil, fmt.Errorf("keys rejected after %v, replaced after %v: %w", e.rejectAfter, e.rekeyAfter, ErrConfig)
	}
	if e.cipher != CipherNone {
		e.secret = c.Secret.clone()
	}
	return e, nil
}

// Start begins the first exchange if this end is the initiator. The responder may
// get messages before its Start.
func (e *Exchange) Start(now time.Time) (o Output) {
	if e.closed || e.started {
		return e.finish(o)
	}
	e.started = true
	if e.initiator {
		e.begin(now, &o)
	}
	return e.finish(o)
}

// Tick does what is due at now; calling it early does no harm.
func (e *Exchange) Tick(now time.Time) (o Output) {
	if e.closed {
		return o
	}
	e.expire(now, &o)
	if e.initiator {
		e.tickInitiator(now, &o)
	} else {
		e.tickResponder(now, &o)
	}
	return e.finish(o)
}

// Control takes a message from the Exchange at the other end.
func (e *Exchange) Control(msg []byte, now time.Time) (o Output, err error) {
	if e.closed {
		return o, nil
	}
	m, err := parseMessage(msg)
	if err != nil {
		return e.finish(o), err
	}
	if m.cipher != e.cipher {
		return e.finish(o), fmt.Errorf("%v here, %v there: %w", e.cipher, m.cipher, ErrCipher)
	}
	if toInitiator := m.kind == msgResp || m.kind == msgRequest; toInitiator != e.initiator {
		return e.finish(o), ErrRole
	}
	e.expire(now, &o)
	switch m.kind {
	case msgInit:
		err = e.onInit(m, msg, now, &o)
	case msgResp:
		err = e.onResp(m, msg, now, &o)
	case msgConfirm:
		e.onConfirm(m.epoch, &o)
	case msgRequest:
		e.onRequest(m.epoch, now, &o)
	}
	return e.finish(o), err
}

// Authenticated reports that a datagram was opened under the receive keys with
// the given index; the first for each RxKeys is enough (RxKeys.FirstUse).
func (e *Exchange) Authenticated(index uint32, now time.Time) (o Output) {
	if e.closed {
		return o
	}
	e.expire(now, &o)
	for _, k := range e.rx {
		if k.Index != index {
			continue
		}
		if e.initiator && e.tx != nil && k.Epoch == e.tx.Epoch {
			e.confirmAt = time.Time{}
		}
		if !e.initiator {
			e.onConfirm(k.Epoch, &o)
		}
	}
	return e.finish(o)
}

// Rekey asks for new keys before their time, because a Sealer NeedsRekey. The
// initiator starts, the responder asks it to. It may be called any number of times.
func (e *Exchange) Rekey(now time.Time) (o Output) {
	if e.closed {
		return o
	}
	e.expire(now, &o)
	switch {
	case e.tx == nil:
	case e.initiator:
		e.onRequest(e.tx.Epoch, now, &o)
	case e.nextTx == nil && e.requestAt.IsZero():
		e.request(now, &o)
	}
	return e.finish(o)
}

// Close gives up all keys and the secret. The Exchange does nothing afterwards.
func (e *Exchange) Close() (o Output) {
	if e.closed {
		return o
	}
	e.closed = true
	for len(e.rx) > 0 {
		e.dropOldestRx(&o)
	}
	e.abandon(&o)
	e.stopTx(&o)
	e.secret.wipe()
	return o
}

// Initiator.

func (e *Exchange) tickInitiator(now time.Time, o *Output) {
	switch {
	case e.attempt != nil:
		if !now.Before(e.attempt.resend) {
			e.attempt.resend = now.Add(retryAfter)
			o.Send = append(o.Send, e.attempt.init)
		}
	case !e.rekeyAt.IsZero() && !now.Before(e.rekeyAt):
		e.begin(now, o)
	}
	if e.tx != nil && !e.confirmAt.IsZero() && !now.Before(e.confirmAt) {
		e.confirm(now, o)
	}
}

// begin sends INIT for the next epoch. When it cannot, it will be tried again.
func (e *Exchange) begin(now time.Time, o *Output) {
	a, err := e.newAttempt(now)
	if err != nil {
		o.Err = fmt.Errorf("starting key exchange: %w", err)
		e.rekeyAt = now.Add(retryAfter)
		return
	}
	e.epoch++
	e.attempt = a
	e.rekeyAt = time.Time{}
	o.Send = append(o.Send, a.init)
}

func (e *Exchange) newAttempt(now time.Time) (*attempt, error) {
	if e.epoch == maxControlEpoch {
		return nil, ErrExhausted
	}
	m := message{kind: msgInit, cipher: e.cipher, epoch: e.epoch + 1}
	private, err := e.fill(&m)
	if err != nil {
		return nil, err
	}
	return &attempt{
		created: now,
		resend:  now.Add(retryAfter),
		index:   m.index,
		private: private,
		init:    m.append(make([]byte, 0, keyMessageLen)),
	}, nil
}

func (e *Exchange) abandon(o *Output) {
	if e.attempt != nil {
		o.DropRx = append(o.DropRx, e.attempt.index)
		e.attempt = nil
	}
}

// onResp completes the attempt: from here on the initiator has both halves.
func (e *Exchange) onResp(m message, raw []byte, now time.Time, o *Output) error {
	a := e.attempt
	if a == nil || m.epoch != e.epoch {
		return nil // late or twice
	}
	s, err := e.schedule(m, a.private, a.init, raw)
	if err != nil {
		return err
	}
	defer s.wipe()
	rx, err := s.rx(toInitiator, e.lanes, a.index, now)
	if err != nil {
		return err
	}
	tx, err := s.tx(toResponder, e.lanes, m.index, a.created)
	if err != nil {
		return err
	}
	e.attempt = nil
	e.armRx(rx, o)
	e.useTx(tx, o)
	e.rekeyAt = a.created.Add(e.jittered())
	e.confirm(now, o)
	return nil
}

func (e *Exchange) confirm(now time.Time, o *Output) {
	m := message{kind: msgConfirm, cipher: e.cipher, epoch: e.tx.Epoch}
	o.Send = append(o.Send, m.append(nil))
	e.confirmAt = now.Add(retryAfter)
}

func (e *Exchange) onRequest(epoch uint32, now time.Time, o *Output) {
	if e.attempt != nil || e.tx == nil || epoch != e.tx.Epoch || now.Before(e.tx.Created.Add(minRekeyAge)) {
		return
	}
	e.begin(now, o)
}

// Responder.

func (e *Exchange) tickResponder(now time.Time, o *Output) {
	if e.tx != nil && !e.requestAt.IsZero() && !now.Before(e.requestAt) {
		e.request(now, o)
	}
}

func (e *Exchange) request(now time.Time, o *Output) {
	m := message{kind: msgRequest, cipher: e.cipher, epoch: e.tx.Epoch}
	o.Send = append(o.Send, m.append(nil))
	e.requestAt = now.Add(retryAfter)
}

// onInit makes the keys of the epoch and answers. It sends nothing with them: the
// initiator cannot open it before it has RESP.
func (e *Exchange) onInit(m message, raw []byte, now time.Time, o *Output) error {
	if m.epoch == e.epoch && e.lastInit != nil {
		if !bytes.Equal(raw, e.lastInit) {
			return ErrEpoch
		}
		o.Send = append(o.Send, e.lastResp)
		return nil
	}
	if m.epoch <= e.epoch {
		return nil // late
	}
	answer := message{kind: msgResp, cipher: e.cipher, epoch: m.epoch}
	private, err := e.fill(&answer)
	if err != nil {
		return fmt.Errorf("answering key exchange: %w", err)
	}
	resp := answer.append(make([]byte, 0, keyMessageLen))
	rx, tx, err := e.respond(m, private, answer.index, raw, resp, now)
	if err != nil {
		o.DropRx = append(o.DropRx, answer.index)
		return err
	}
	e.epoch = m.epoch
	e.armRx(rx, o)
	if e.nextTx != nil {
		e.nextTx.giveUp() // never used
	}
	e.nextTx = tx
	e.lastInit, e.lastResp = bytes.Clone(raw), resp
	o.Send = append(o.Send, resp)
	return nil
}

func (e *Exchange) respond(m message, private *ecdh.PrivateKey, index uint32, init, resp []byte, now time.Time) (*RxKeys, *TxKeys, error) {
	s, err := e.schedule(m, private, init, resp)
	if err != nil {
		return nil, nil, err
	}
	defer s.wipe()
	rx, err := s.rx(toResponder, e.lanes, index, now)
	if err != nil {
		return nil, nil, err
	}
	tx, err := s.tx(toInitiator, e.lanes, m.index, now)
	return rx, tx, err
}

// onConfirm learns that the initiator has both halves of the epoch's keys.
func (e *Exchange) onConfirm(epoch uint32, o *Output) {
	if e.nextTx == nil || e.nextTx.Epoch != epoch {
		return
	}
	tx := e.nextTx
	e.nextTx = nil
	e.requestAt = time.Time{}
	e.useTx(tx, o)
}

// Both.

// fill gives a key message its index, public key and random bytes.
func (e *Exchange) fill(m *message) (*ecdh.PrivateKey, error) {
	var seed [32]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(e.rand, m.random[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(e.rand, seed[:]); err != nil {
		return nil, err
	}
	var private *ecdh.PrivateKey
	if e.cipher != CipherNone {
		var err error
		if private, err = ecdh.X25519().NewPrivateKey(seed[:]); err != nil {
			return nil, err
		}
		copy(m.public[:], private.PublicKey().Bytes())
	}
	index, err := e.newIndex()
	m.index = index
	return private, err
}

// schedule does the X25519 with the other end's key in m.
func (e *Exchange) schedule(m message, private *ecdh.PrivateKey, init, resp []byte) (schedule, error) {
	var dh []byte
	if e.cipher != CipherNone {
		public, err := ecdh.X25519().NewPublicKey(m.public[:])
		if err != nil {
			return schedule{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
		}
		if dh, err = private.ECDH(public); err != nil { // refuses points of low order
			return schedule{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
		}
	}
	return newSchedule(e.cipher, m.epoch, dh, e.secret, init, resp)
}

func (e *Exchange) armRx(k *RxKeys, o *Output) {
	for len(e.rx) >= rxGenerations {
		e.dropOldestRx(o)
	}
	e.rx = append(e.rx, k)
	o.ArmRx = k
}

func (e *Exchange) dropOldestRx(o *Output) {
	k := e.rx[0]
	k.giveUp()
	e.rx = slices.Delete(e.rx, 0, 1)
	o.DropRx = append(o.DropRx, k.Index)
	if k.Epoch == e.epoch { // the newest: its answer is worth nothing now
		e.lastInit, e.lastResp = nil, nil
		if e.nextTx != nil {
			e.nextTx.giveUp()
			e.nextTx = nil
		}
	}
}

// useTx replaces the keys to send with. A worker may be in the middle of a batch
// under the old ones, so these end one replacement later.
func (e *Exchange) useTx(k *TxKeys, o *Output) {
	if e.oldTx != nil {
		e.oldTx.giveUp()
	}
	e.oldTx, e.tx = e.tx, k
	o.UseTx, o.StopTx = k, false
}

func (e *Exchange) stopTx(o *Output) {
	for _, k := range []*TxKeys{e.oldTx, e.tx, e.nextTx} {
		if k != nil {
			k.giveUp()
		}
	}
	o.StopTx = e.tx != nil
	e.oldTx, e.tx, e.nextTx = nil, nil, nil
	e.confirmAt, e.requestAt = time.Time{}, time.Time{}
}

// expire gives up what is too old at now. It comes before anything else that may
// use it, so a late caller cannot keep a key alive.
func (e *Exchange) expire(now time.Time, o *Output) {
	old := func(created time.Time) bool { return !now.Before(created.Add(e.rejectAfter)) }
	for len(e.rx) > 0 && old(e.rx[0].created) {
		e.dropOldestRx(o)
	}
	if e.oldTx != nil && old(e.oldTx.Created) {
		e.oldTx.giveUp()
		e.oldTx = nil
	}
	if e.tx != nil && old(e.tx.Created) {
		e.tx.giveUp()
		e.tx = nil
		o.StopTx = true
		e.confirmAt, e.requestAt = time.Time{}, time.Time{}
	}
	if e.attempt != nil && old(e.attempt.created) {
		e.abandon(o)
		e.rekeyAt = now
	}
}

// jittered is RekeyAfter, give or take a tenth, so that links made at the same
// time do not all rekey at the same time.
func (e *Exchange) jittered() time.Duration {
	span := int64(e.rekeyAfter) / jitterPart * 2
	var b [8]byte
	if _, err := io.ReadFull(e.rand, b[:]); err != nil || span == 0 {
		return e.rekeyAfter
	}
	return e.rekeyAfter - time.Duration(span/2) + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(span))
}

// finish fills in when the next Tick is due.
func (e *Exchange) finish(o Output) Output {
	due := func(t time.Time) {
		if !t.IsZero() && (o.Next.IsZero() || t.Before(o.Next)) {
			o.Next = t
		}
	}
	if len(e.rx) > 0 {
		due(e.rx[0].created.Add(e.rejectAfter))
	}
	for _, k := range []*TxKeys{e.oldTx, e.tx} {
		if k != nil {
			due(k.Created.Add(e.rejectAfter))
		}
	}
	if e.attempt != nil {
		due(e.attempt.resend)
		due(e.attempt.created.Add(e.rejectAfter))
	}
	due(e.rekeyAt)
	due(e.confirmAt)
	due(e.requestAt)
	return o
}
