package session

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"weave/crypto/policy"
)

var epoch0 = time.Unix(1000, 0)

func at(d time.Duration) time.Time { return epoch0.Add(d) }

// established returns two ends that have finished their first exchange.
func established(t testing.TB, c Cipher, change ...func(*ExchangeConfig)) (a, b *testEnd) {
	t.Helper()
	a, b = newTestEnd(t, true, c, change...), newTestEnd(t, false, c, change...)
	settle(a, b, nil, a.start(at(0)), at(0))
	return a, b
}

// messages names control messages for tables: "INIT 1".
func messages(t testing.TB, sent [][]byte) (names []string) {
	t.Helper()
	for _, b := range sent {
		m, err := parseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[messageType]string{msgInit: "INIT", msgResp: "RESP", msgConfirm: "CONFIRM", msgRequest: "REQUEST"}
		names = append(names, kinds[m.kind]+" "+string('0'+rune(m.epoch)))
	}
	return names
}

// TestTransitions is the table of the machine. Each row starts from two ends in
// the named state at time 0 and lets one event happen to one of them.
func TestTransitions(t *testing.T) {
	type world struct {
		a, b       *testEnd // initiator, responder
		init, resp []byte   // of the last exchange
	}
	fresh := func(t *testing.T) *world {
		return &world{a: newTestEnd(t, true, CipherAES), b: newTestEnd(t, false, CipherAES)}
	}
	begun := func(t *testing.T) *world { w := fresh(t); w.init = w.a.start(at(0))[0]; return w }
	answered := func(t *testing.T) *world { w := begun(t); w.resp = w.b.control(w.init, at(0))[0]; return w }
	resp := func(t *testing.T) *world { w := answered(t); w.a.control(w.resp, at(0)); return w } // CONFIRM is under way
	up := func(t *testing.T) *world { w := resp(t); w.b.control(confirm(1), at(0)); return w }
	asked := func(t *testing.T) *world { w := up(t); w.b.apply(w.b.e.Rekey(at(0))); return w }
	again := func(t *testing.T) *world { w := up(t); w.init = w.a.tick(at(140 * time.Second))[0]; return w }
	againAnswered := func(t *testing.T) *world {
		w := again(t)
		w.resp = w.b.control(w.init, at(140*time.Second))[0]
		return w
	}

	const s = time.Second
	for _, tt := range []struct {
		name   string
		from   func(*testing.T) *world
		event  func(*world) [][]byte
		send   []string
		aTx    uint32 // epochs in use afterwards; 0: none
		bTx    uint32
		aRx    int // generations open afterwards
		bRx    int
		noNext bool // of either end
	}{
		{name: "fresh: responder starts", from: fresh, event: func(w *world) [][]byte { return w.b.start(at(0)) }, noNext: true},
		{name: "fresh: initiator starts", from: fresh, event: func(w *world) [][]byte { return w.a.start(at(0)) }, send: []string{"INIT 1"}},
		{name: "fresh: tick before start", from: fresh, event: func(w *world) [][]byte { return w.a.tick(at(500 * s)) }, noNext: true},
		{name: "fresh: rekey without keys", from: fresh, event: func(w *world) [][]byte { return w.b.apply(w.b.e.Rekey(at(0))) }, noNext: true},
		{name: "fresh: stray RESP", from: fresh, event: func(w *world) [][]byte { return w.a.control(respTo(1), at(0)) }, noNext: true},
		{name: "fresh: stray CONFIRM", from: fresh, event: func(w *world) [][]byte { return w.b.control(confirm(1), at(0)) }, noNext: true},
		{name: "fresh: stray REQUEST", from: fresh, event: func(w *world) [][]byte { return w.a.control(request(1), at(0)) }, noNext: true},
		{name: "begun: start twice", from: begun, event: func(w *world) [][]byte { return w.a.start(at(0)) }},
		{name: "begun: tick too early", from: begun, event: func(w *world) [][]byte { return w.a.tick(at(5*s - 1)) }},
		{name: "begun: INIT again", from: begun, event: func(w *world) [][]byte { return w.a.tick(at(5 * s)) }, send: []string{"INIT 1"}},
		{name: "begun: given up, next epoch", from: begun, event: func(w *world) [][]byte { return w.a.tick(at(180 * s)) }, send: []string{"INIT 2"}},
		{name: "begun: INIT arrives", from: begun, event: func(w *world) [][]byte { return w.b.control(w.init, at(0)) }, send: []string{"RESP 1"}, bRx: 1},
		{name: "answered: INIT twice", from: answered, event: func(w *world) [][]byte { return w.b.control(w.init, at(0)) }, send: []string{"RESP 1"}, bRx: 1},
		{name: "answered: INIT twice, keys gone", from: answered, event: func(w *world) [][]byte { return w.b.control(w.init, at(180*s)) }},
		{name: "answered: RESP of another epoch", from: answered, event: func(w *world) [][]byte { return w.a.control(respTo(2), at(0)) }, bRx: 1},
		{name: "answered: RESP arrives", from: answered, event: func(w *world) [][]byte { return w.a.control(w.resp, at(0)) }, send: []string{"CONFIRM 1"}, aTx: 1, aRx: 1, bRx: 1},
		{name: "answered: RESP too late", from: answered, event: func(w *world) [][]byte { return w.a.control(w.resp, at(180*s)) }, bRx: 1},
		{name: "answered: CONFIRM of another epoch", from: answered, event: func(w *world) [][]byte { return w.b.control(confirm(2), at(0)) }, bRx: 1},
		{name: "resp: RESP twice", from: resp, event: func(w *world) [][]byte { return w.a.control(w.resp, at(0)) }, aTx: 1, aRx: 1, bRx: 1},
		{name: "resp: CONFIRM again", from: resp, event: func(w *world) [][]byte { return w.a.tick(at(5 * s)) }, send: []string{"CONFIRM 1"}, aTx: 1, aRx: 1, bRx: 1},
		{name: "resp: CONFIRM arrives", from: resp, event: func(w *world) [][]byte { return w.b.control(confirm(1), at(0)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "resp: datagram arrives", from: resp, event: func(w *world) [][]byte { s, _ := w.b.receive(w.a.send(0), at(0)); return s }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "resp: CONFIRM too late", from: resp, event: func(w *world) [][]byte { return w.b.control(confirm(1), at(180*s)) }, aTx: 1, aRx: 1},
		{name: "up: CONFIRM twice", from: up, event: func(w *world) [][]byte { return w.b.control(confirm(1), at(0)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: datagram ends CONFIRM", from: up, event: func(w *world) [][]byte { w.a.receive(w.b.send(0), at(0)); return w.a.tick(at(5 * s)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: old INIT", from: up, event: func(w *world) [][]byte { return w.b.control(w.init, at(0)) }, send: []string{"RESP 1"}, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: initiator wants keys", from: up, event: func(w *world) [][]byte { return w.a.apply(w.a.e.Rekey(at(s))) }, send: []string{"INIT 2"}, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: initiator wants keys at once", from: up, event: func(w *world) [][]byte { return w.a.apply(w.a.e.Rekey(at(s - 1))) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: responder wants keys", from: up, event: func(w *world) [][]byte { return w.b.apply(w.b.e.Rekey(at(s))) }, send: []string{"REQUEST 1"}, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: REQUEST arrives", from: up, event: func(w *world) [][]byte { return w.a.control(request(1), at(s)) }, send: []string{"INIT 2"}, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: REQUEST for other keys", from: up, event: func(w *world) [][]byte { return w.a.control(request(2), at(s)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: not yet time", from: up, event: func(w *world) [][]byte { w.a.receive(w.b.send(0), at(0)); return w.a.tick(at(108*s - 1)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "up: responder's keys end", from: up, event: func(w *world) [][]byte { return w.b.tick(at(180 * s)) }, aTx: 1, aRx: 1},
		{name: "asked: wanted twice", from: asked, event: func(w *world) [][]byte { return w.b.apply(w.b.e.Rekey(at(s))) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "asked: REQUEST again", from: asked, event: func(w *world) [][]byte { return w.b.tick(at(5 * s)) }, send: []string{"REQUEST 1"}, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "again: REQUEST is late", from: again, event: func(w *world) [][]byte { return w.a.control(request(1), at(140*s)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 1},
		{name: "again: INIT arrives", from: again, event: func(w *world) [][]byte { return w.b.control(w.init, at(140*s)) }, send: []string{"RESP 2"}, aTx: 1, bTx: 1, aRx: 1, bRx: 2},
		{name: "again: hard stop", from: again, event: func(w *world) [][]byte { return w.a.tick(at(180 * s)) }, send: []string{"INIT 2"}, bTx: 1, bRx: 1},
		{name: "again: RESP arrives", from: againAnswered, event: func(w *world) [][]byte { return w.a.control(w.resp, at(140*s)) }, send: []string{"CONFIRM 2"}, aTx: 2, bTx: 1, aRx: 2, bRx: 2},
		{name: "again: old keys end", from: againAnswered, event: func(w *world) [][]byte { w.a.control(w.resp, at(140*s)); return w.a.tick(at(180 * s)) }, send: []string{"CONFIRM 2"}, aTx: 2, bTx: 1, aRx: 1, bRx: 2},
		{name: "again: old datagram decides nothing", from: againAnswered, event: func(w *world) [][]byte { s, _ := w.b.receive(w.a.send(0), at(140*s)); return s }, aTx: 1, bTx: 1, aRx: 1, bRx: 2},
		{name: "again: CONFIRM of the old epoch", from: againAnswered, event: func(w *world) [][]byte { return w.b.control(confirm(1), at(140*s)) }, aTx: 1, bTx: 1, aRx: 1, bRx: 2},
		{name: "again: CONFIRM arrives", from: againAnswered, event: func(w *world) [][]byte { return w.b.control(confirm(2), at(140*s)) }, aTx: 1, bTx: 2, aRx: 1, bRx: 2},
		{name: "closed", from: againAnswered, event: func(w *world) [][]byte { w.a.apply(w.a.e.Close()); return w.b.apply(w.b.e.Close()) }, noNext: true},
		{name: "closed: nothing happens", from: up, event: func(w *world) [][]byte {
			w.a.apply(w.a.e.Close())
			w.b.apply(w.b.e.Close())
			sent := append(w.b.control(w.init, at(0)), w.a.start(at(0))...)
			sent = append(sent, w.a.tick(at(900*s))...)
			sent = append(sent, w.a.apply(w.a.e.Rekey(at(0)))...)
			sent = append(sent, w.a.apply(w.a.e.Authenticated(1, at(0)))...)
			return append(sent, w.a.apply(w.a.e.Close())...)
		}, noNext: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.from(t)
			got := messages(t, tt.event(w))
			if !slices.Equal(got, tt.send) {
				t.Errorf("sent %v, want %v", got, tt.send)
			}
			if a, b := epochOf(w.a.tx), epochOf(w.b.tx); a != tt.aTx || b != tt.bTx {
				t.Errorf("initiator sends with epoch %d, responder with %d; want %d, %d", a, b, tt.aTx, tt.bTx)
			}
			if a, b := len(w.a.rx), len(w.b.rx); a != tt.aRx || b != tt.bRx {
				t.Errorf("initiator receives with %d keys, responder with %d; want %d, %d", a, b, tt.aRx, tt.bRx)
			}
			if none := w.a.next.IsZero() && w.b.next.IsZero(); none != tt.noNext {
				t.Errorf("next ticks %v and %v", w.a.next, w.b.next)
			}
		})
	}
}

func epochOf(k *TxKeys) uint32 {
	if k == nil {
		return 0
	}
	return k.Epoch
}

func confirm(epoch uint32) []byte {
	m := message{kind: msgConfirm, cipher: CipherAES, epoch: epoch}
	return m.append(nil)
}

func request(epoch uint32) []byte {
	m := message{kind: msgRequest, cipher: CipherAES, epoch: epoch}
	return m.append(nil)
}

func respTo(epoch uint32) []byte {
	m := keyMessage(msgResp)
	m.epoch = epoch
	return m.append(nil)
}

// TestControlErrors: what is refused changes nothing.
func TestControlErrors(t *testing.T) {
	lowOrder := func(kind messageType, epoch uint32) []byte {
		m := message{kind: kind, cipher: CipherAES, epoch: epoch, index: 1} // the point zero
		return m.append(nil)
	}
	otherCipher := message{kind: msgConfirm, cipher: CipherChaCha, epoch: 1}
	clearInit := message{kind: msgInit, cipher: CipherNone, epoch: 2}
	a, b := newTestEnd(t, true, CipherAES), newTestEnd(t, false, CipherAES)
	init := a.start(at(0))[0]
	b.control(init, at(0))
	otherInit := bytes.Clone(init)
	otherInit[len(otherInit)-1] ^= 1
	for _, tt := range []struct {
		name string
		end  *testEnd
		msg  []byte
		want error
	}{
		{"empty", a, nil, ErrMessage},
		{"garbage", b, []byte("garbage garbage"), ErrMessage},
		{"INIT reflected", a, init, ErrRole},
		{"CONFIRM to the initiator", a, confirm(1), ErrRole},
		{"RESP to the responder", b, respTo(1), ErrRole},
		{"REQUEST to the responder", b, request(1), ErrRole},
		{"another cipher", b, otherCipher.append(nil), ErrCipher},
		{"downgrade to clear", b, clearInit.append(nil), ErrCipher},
		{"another INIT for the epoch", b, otherInit, ErrEpoch},
		{"RESP with a bad key", a, lowOrder(msgResp, 1), ErrPublicKey},
		{"INIT with a bad key", b, lowOrder(msgInit, 2), ErrPublicKey},
	} {
		o, err := tt.end.e.Control(tt.msg, at(0))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if o.ArmRx != nil || o.UseTx != nil || o.StopTx || len(o.Send) > 0 {
			t.Errorf("%s: %+v", tt.name, o)
		}
		tt.end.apply(o)
	}
	b.noIndex = true
	next := keyMessage(msgInit)
	next.epoch = 2
	if _, err := b.e.Control(next.append(nil), at(0)); !errors.Is(err, errNoIndex) {
		t.Errorf("no index: %v", err)
	}
	b.noIndex = false
	// After all that, the exchange goes on as if nothing had been.
	settle(a, b, b.control(init, at(0)), nil, at(0))
	if a.tx == nil || b.tx == nil {
		t.Error("no keys after errors")
	}
}

func TestNewExchangeRefuses(t *testing.T) {
	good := ExchangeConfig{
		Secret: SecretFromBytes([SecretLen]byte{1}), Cipher: CipherAES, Lanes: testLanes,
		NewIndex: func() (uint32, error) { return 1, nil },
	}
	for _, tt := range []struct {
		name   string
		change func(*ExchangeConfig)
		want   error
	}{
		{"good", func(*ExchangeConfig) {}, nil},
		{"clear, permitted", func(c *ExchangeConfig) { c.Cipher, c.Permit = CipherNone, clearPermit }, nil},
		{"clear, permitted, no secret", func(c *ExchangeConfig) { c.Cipher, c.Permit, c.Secret = CipherNone, clearPermit, Secret{} }, nil},
		{"clear, no permit", func(c *ExchangeConfig) { c.Cipher = CipherNone }, policy.ErrEncryptedOnly},
		{"clear, permit of a password", func(c *ExchangeConfig) {
			c.Cipher, c.Permit = CipherNone, policy.Decide(policy.Stance{Password: true}, policy.Stance{Password: true})
		}, policy.ErrEncryptedOnly},
		{"unknown cipher", func(c *ExchangeConfig) { c.Cipher = 3 }, ErrCipher},
		{"no secret", func(c *ExchangeConfig) { c.Secret = Secret{} }, ErrConfig},
		{"zero secret", func(c *ExchangeConfig) { c.Secret = SecretFromBytes([SecretLen]byte{}) }, ErrConfig},
		{"no lanes", func(c *ExchangeConfig) { c.Lanes = nil }, ErrConfig},
		{"bad lane", func(c *ExchangeConfig) { c.Lanes = []Lane{NumLanes} }, ErrConfig},
		{"no indices", func(c *ExchangeConfig) { c.NewIndex = nil }, ErrConfig},
		{"rejects too early", func(c *ExchangeConfig) { c.RejectAfter = DefaultRekeyAfter }, ErrConfig},
		{"negative", func(c *ExchangeConfig) { c.RekeyAfter = -1 }, ErrConfig},
	} {
		c := good
		tt.change(&c)
		if _, err := NewExchange(c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestEncryptedEvenIfClearIsAllowed: a permit only permits.
func TestEncryptedEvenIfClearIsAllowed(t *testing.T) {
	a, _ := established(t, CipherChaCha)
	if d := a.send(0); bytes.Contains(d, []byte("data")) {
		t.Errorf("clear text in %x", d)
	}
}

// TestClearExchange: the same messages and indices, no keys.
func TestClearExchange(t *testing.T) {
	a, b := established(t, CipherNone)
	for range 5 {
		if _, err := b.receive(a.send(0), at(0)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.receive(b.send(LaneControl), at(0)); err != nil {
			t.Fatal(err)
		}
	}
	d := a.send(0)
	if len(d) != HeaderLen+4 || a.tx.Sealer(0).Overhead() != HeaderLen {
		t.Errorf("datagram of %d bytes", len(d))
	}
	b.receive(bytes.Clone(d), at(0))
	if _, err := b.receive(d, at(0)); err != ErrReplay {
		t.Errorf("replay in clear: %v", err)
	}
	settle(a, b, nil, a.tick(at(140*time.Second)), at(140*time.Second))
	if epochOf(a.tx) != 2 || epochOf(b.tx) != 2 {
		t.Errorf("epochs %d and %d after a rekey", epochOf(a.tx), epochOf(b.tx))
	}
}

// TestNothingToStartWith: without an index or random bytes nothing is sent, the
// reason is told, and it is tried again.
func TestNothingToStartWith(t *testing.T) {
	a, b := newTestEnd(t, true, CipherAES), newTestEnd(t, false, CipherAES)
	a.noIndex = true
	o := a.e.Start(at(0))
	if !errors.Is(o.Err, errNoIndex) || len(o.Send) > 0 || o.Next != at(retryAfter) {
		t.Fatalf("start: %+v", o)
	}
	a.noIndex = false
	settle(a, b, nil, a.tick(o.Next), o.Next)
	if epochOf(a.tx) != 1 || epochOf(b.tx) != 1 {
		t.Error("no keys when there was an index at last")
	}
	dry := newTestEnd(t, true, CipherAES, func(c *ExchangeConfig) { c.Rand = bytes.NewReader(nil) })
	if o := dry.e.Start(at(0)); !errors.Is(o.Err, io.EOF) || len(o.Send) > 0 {
		t.Errorf("without random bytes: %+v", o)
	}
}

// TestOldKeysEndForAllHolders: a worker that missed every word still cannot use
// keys that were given up.
func TestOldKeysEndForAllHolders(t *testing.T) {
	a, b := established(t, CipherAES)
	stale, staleRx := a.tx, b.e.rx[0]
	d := a.send(0)
	b.tick(at(180 * time.Second))
	h, _ := ParseHeader(d)
	if _, err := staleRx.Opener(0).Open(h, d); err != ErrNoKey {
		t.Errorf("opened after the hard stop: %v", err)
	}
	if _, err := stale.Sealer(0).Seal(nil, 0, nil); err != nil {
		t.Errorf("this end's clock has not moved: %v", err)
	}
	a.tick(at(180 * time.Second))
	if _, err := stale.Sealer(0).Seal(nil, 0, nil); err != ErrNoKey {
		t.Errorf("sealed after the hard stop: %v", err)
	}
}

// TestReplacedKeysLastOneEpoch: a batch under way ends under its keys.
func TestReplacedKeysLastOneEpoch(t *testing.T) {
	a, b := established(t, CipherAES)
	first := a.tx
	for i, want := range []error{nil, ErrNoKey} {
		now := at(time.Duration(i+1) * 140 * time.Second)
		if i == 1 { // soon after the first rekey, so that age has no part in it
			now = at(145 * time.Second)
			settle(a, b, nil, a.apply(a.e.Rekey(now)), now)
		} else {
			settle(a, b, nil, a.tick(now), now)
		}
		if _, err := first.Sealer(0).Seal(nil, 0, nil); err != want {
			t.Errorf("after %d rekeys: %v, want %v", i+1, err, want)
		}
	}
}

// TestLanesAreIndependent: the ends need not configure the same lanes.
func TestLanesAreIndependent(t *testing.T) {
	a := newTestEnd(t, true, CipherAES, func(c *ExchangeConfig) { c.Lanes = []Lane{0, 1, RelayLane0} })
	b := newTestEnd(t, false, CipherAES, func(c *ExchangeConfig) { c.Lanes = []Lane{1, LaneControl} })
	settle(a, b, nil, a.start(at(0)), at(0))
	if _, err := b.receive(a.send(1), at(0)); err != nil {
		t.Error(err)
	}
	if a.tx.Sealer(LaneControl) != nil || b.rx[a.tx.Index].Opener(0) != nil {
		t.Error("keys for lanes that were not asked for")
	}
}

func TestFirstUse(t *testing.T) {
	_, rx := fixedKeys(t, CipherAES, 0)
	if !rx.FirstUse() || rx.FirstUse() || rx.FirstUse() {
		t.Error("first use is not exactly once")
	}
}

func TestJitter(t *testing.T) {
	a := newTestEnd(t, true, CipherAES)
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		d := a.e.jittered()
		low, high = min(low, d), max(high, d)
	}
	if low < 108*time.Second || high > 132*time.Second || high-low < 20*time.Second {
		t.Errorf("rekey after %v to %v, want 108s to 132s", low, high)
	}
}

// count is a source of bytes that can be told in a golden table.
type count byte

func (c *count) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(*c)
		*c++
	}
	return len(b), nil
}

// TestGoldenExchange fixes what two ends with known random bytes say and seal.
func TestGoldenExchange(t *testing.T) {
	fixed := func(start count) func(*ExchangeConfig) {
		return func(c *ExchangeConfig) { c.Rand = &start }
	}
	a, b := newTestEnd(t, true, CipherChaCha, fixed(0)), newTestEnd(t, false, CipherChaCha, fixed(128))
	init := a.start(at(0))[0]
	resp := b.control(init, at(0))[0]
	conf := a.control(resp, at(0))[0]
	b.control(conf, at(0))

	public := func(first byte) string {
		seed := make([]byte, 32)
		for i := range seed {
			seed[i] = first + byte(i)
		}
		k, err := ecdh.X25519().NewPrivateKey(seed)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(k.PublicKey().Bytes())
	}
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"init", init, "0101010001000000" + "e9030000" + public(32) + goldenPublic},
		{"resp", resp, "0102010001000000" + "01000000" + public(160) + goldenRandom},
		{"confirm", conf, "0103010001000000"},
		{"datagram to the responder", a.send(0), "14000000" + "01000000" + "0000000000000000" + "fd79dd85245de78a4aa43f1fd03af04350207bac"},
		{"datagram to the initiator", b.send(0), "14000000" + "e9030000" + "0000000000000000" + "a205668a1fa533bdb56f9ebe913af5f94ad90602"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestThreeGenerations: the responder that hears no CONFIRM goes on with keys two
// epochs old, and the initiator can still open what it sends; a fourth epoch ends
// the first.
func TestThreeGenerations(t *testing.T) {
	a, b := established(t, CipherAES)
	late := b.send(0)
	for i := range 3 {
		if len(a.rx) != i+1 || len(b.rx) != i+1 || epochOf(b.tx) != 1 {
			t.Fatalf("after %d rekeys: %d and %d generations, responder sends with epoch %d", i, len(a.rx), len(b.rx), epochOf(b.tx))
		}
		if _, err := a.receive(b.send(0), at(0)); err != nil {
			t.Errorf("after %d rekeys: %v", i, err)
		}
		now := at(time.Duration(i+1) * 2 * time.Second)
		init := a.apply(a.e.Rekey(now))[0]
		a.control(b.control(init, now)[0], now) // its CONFIRM is lost
	}
	if len(a.rx) != rxGenerations || len(b.rx) != rxGenerations {
		t.Errorf("%d and %d generations, want %d", len(a.rx), len(b.rx), rxGenerations)
	}
	if _, err := a.receive(late, at(0)); err != ErrNoKey {
		t.Errorf("datagram of the fourth epoch back: %v", err)
	}
}

// TestStopsBeforeThePeerForgets: keys to send with are as old as the INIT, keys to
// receive with as young as the answer, so that no datagram comes to an end that
// has just dropped its keys.
func TestStopsBeforeThePeerForgets(t *testing.T) {
	a, b := newTestEnd(t, true, CipherAES), newTestEnd(t, false, CipherAES)
	init := a.start(at(0))[0]
	resp := b.control(init, at(10*time.Second))[0]
	b.control(a.control(resp, at(20*time.Second))[0], at(30*time.Second))
	for _, tt := range []struct {
		at       time.Duration
		aTx, bTx bool
		aRx, bRx int
	}{
		{at: 180*time.Second - 1, aTx: true, bTx: true, aRx: 1, bRx: 1},
		{at: 180 * time.Second, aTx: false, bTx: true, aRx: 1, bRx: 1},
		{at: 190 * time.Second, aTx: false, bTx: false, aRx: 1, bRx: 0},
		{at: 200 * time.Second, aTx: false, bTx: false, aRx: 0, bRx: 0},
	} {
		a.tick(at(tt.at))
		b.tick(at(tt.at))
		if (a.tx != nil) != tt.aTx || (b.tx != nil) != tt.bTx || len(a.rx) != tt.aRx || len(b.rx) != tt.bRx {
			t.Errorf("at %v: sending %v, %v, receiving %d, %d; want %+v", tt.at, a.tx != nil, b.tx != nil, len(a.rx), len(b.rx), tt)
		}
	}
}
