package session

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"weave/crypto/policy"
)

var errNoIndex = errors.New("no index")

var clearPermit = policy.Decide(policy.Stance{}, policy.Stance{})

var testLanes = []Lane{0, LaneControl}

// testEnd is an Exchange with an owner that does what each Output says and holds
// it to its promises.
type testEnd struct {
	t       testing.TB
	e       *Exchange
	rx      map[uint32]*RxKeys // as a socket's table would be
	tx      *TxKeys
	next    time.Time
	indices map[uint32]bool // reserved by NewIndex and not dropped
	last    uint32
	noIndex bool // NewIndex fails
}

func newTestEnd(t testing.TB, initiator bool, c Cipher, change ...func(*ExchangeConfig)) *testEnd {
	t.Helper()
	end := &testEnd{t: t, rx: map[uint32]*RxKeys{}, indices: map[uint32]bool{}}
	if initiator {
		end.last = 1000
	}
	config := ExchangeConfig{
		Initiator: initiator,
		Secret:    SecretFromBytes([SecretLen]byte(bytes.Repeat([]byte{0x22}, SecretLen))),
		Cipher:    c,
		Permit:    clearPermit,
		Lanes:     testLanes,
		NewIndex: func() (uint32, error) {
			if end.noIndex {
				return 0, errNoIndex
			}
			end.last++
			end.indices[end.last] = true
			return end.last, nil
		},
	}
	for _, f := range change {
		f(&config)
	}
	var err error
	if end.e, err = NewExchange(config); err != nil {
		t.Fatal(err)
	}
	return end
}

// apply does what o says, in the order that it promises, and returns what to send.
func (end *testEnd) apply(o Output) [][]byte {
	end.t.Helper()
	if k := o.ArmRx; k != nil {
		if end.rx[k.Index] != nil || !end.indices[k.Index] {
			end.t.Fatalf("armed index %d, which is in use or not reserved", k.Index)
		}
		end.rx[k.Index] = k
	}
	if o.UseTx != nil && o.StopTx {
		end.t.Fatal("told both to send and to stop")
	}
	if o.UseTx != nil {
		end.tx = o.UseTx
	}
	if o.StopTx {
		if end.tx == nil || !end.tx.gone.Load() {
			end.t.Fatal("told to stop with keys that still work, or with none")
		}
		end.tx = nil
	}
	for _, i := range o.DropRx {
		if !end.indices[i] {
			end.t.Fatalf("dropped index %d, which is not reserved", i)
		}
		if k := end.rx[i]; k != nil && !k.gone.Load() {
			end.t.Fatalf("dropped index %d, whose keys still work", i)
		}
		delete(end.indices, i)
		delete(end.rx, i)
	}
	end.next = o.Next
	end.checkInvariants()
	return o.Send
}

// checkInvariants holds the state of the machine to what its fields promise, and
// the owner's view to the machine's.
func (end *testEnd) checkInvariants() {
	end.t.Helper()
	e, bad := end.e, end.t.Fatalf
	if len(e.rx) > rxGenerations || len(e.rx) != len(end.rx) {
		bad("%d receive keys, owner has %d", len(e.rx), len(end.rx))
	}
	reserved := len(e.rx)
	var newest uint32
	for _, k := range e.rx {
		if k.Epoch <= newest || k.Epoch > e.epoch || k.gone.Load() || end.rx[k.Index] != k {
			bad("receive keys of epoch %d after %d, at epoch %d, gone %v", k.Epoch, newest, e.epoch, k.gone.Load())
		}
		newest = k.Epoch
	}
	if e.tx != end.tx {
		bad("owner sends with other keys")
	}
	if e.tx != nil && (e.tx.gone.Load() || e.tx.Epoch > e.epoch) {
		bad("keys in use of epoch %d at %d, gone %v", e.tx.Epoch, e.epoch, e.tx.gone.Load())
	}
	if e.tx != nil && e.oldTx != nil && e.oldTx.Epoch >= e.tx.Epoch {
		bad("old keys of epoch %d, new ones of %d", e.oldTx.Epoch, e.tx.Epoch)
	}
	if e.initiator {
		if e.nextTx != nil || e.lastInit != nil || !e.requestAt.IsZero() {
			bad("initiator has responder's state")
		}
		if e.attempt != nil {
			reserved++
		}
		if e.tx != nil && newest != e.tx.Epoch {
			bad("initiator sends with epoch %d and receives with %d", e.tx.Epoch, newest)
		}
	} else {
		if e.attempt != nil || !e.rekeyAt.IsZero() || !e.confirmAt.IsZero() {
			bad("responder has initiator's state")
		}
		if e.nextTx != nil && (e.nextTx.gone.Load() || e.nextTx.Epoch != newest || e.lastInit == nil) {
			bad("next keys of epoch %d, newest to receive %d", e.nextTx.Epoch, newest)
		}
		if e.tx != nil && e.tx.Epoch > newest {
			bad("responder sends with epoch %d before it can receive with it", e.tx.Epoch)
		}
	}
	if len(end.indices) != reserved {
		bad("%d indices reserved, want %d", len(end.indices), reserved)
	}
}

func (end *testEnd) start(now time.Time) [][]byte { end.t.Helper(); return end.apply(end.e.Start(now)) }
func (end *testEnd) tick(now time.Time) [][]byte  { end.t.Helper(); return end.apply(end.e.Tick(now)) }

func (end *testEnd) control(msg []byte, now time.Time) [][]byte {
	end.t.Helper()
	o, err := end.e.Control(msg, now)
	if err != nil {
		end.t.Fatal(err)
	}
	return end.apply(o)
}

// receive opens a datagram as a worker would, and reports the first use of keys.
func (end *testEnd) receive(d []byte, now time.Time) (sent [][]byte, err error) {
	end.t.Helper()
	h, ok := ParseHeader(d)
	if !ok {
		end.t.Fatalf("not a datagram: %x", d)
	}
	k := end.rx[h.Index]
	if k == nil {
		return nil, ErrNoKey
	}
	if _, err := k.Opener(h.Lane).Open(h, d); err != nil {
		return nil, err
	}
	if k.FirstUse() {
		sent = end.apply(end.e.Authenticated(h.Index, now))
	}
	return sent, nil
}

// send seals one datagram, nil without keys.
func (end *testEnd) send(l Lane) []byte {
	end.t.Helper()
	if end.tx == nil {
		return nil
	}
	d, err := end.tx.Sealer(l).Seal(nil, 0, []byte("data"))
	if err != nil {
		end.t.Fatal(err)
	}
	return d
}

// settle carries messages between the ends, without delay, until there are none.
func settle(a, b *testEnd, toA, toB [][]byte, now time.Time) {
	a.t.Helper()
	for len(toA)+len(toB) > 0 {
		var nextA, nextB [][]byte
		for _, m := range toA {
			nextB = append(nextB, a.control(m, now)...)
		}
		for _, m := range toB {
			nextA = append(nextA, b.control(m, now)...)
		}
		toA, toB = nextA, nextB
	}
}
