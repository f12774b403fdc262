package handshake_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"weave/crypto/handshake"
)

// transcript is what both ends of a good handshake wrote, write by write.
type transcript struct{ initiator, responder [][]byte }

func record(t testing.TB, psk *handshake.PSK) (tr transcript) {
	t.Helper()
	a, b := meet(newMachine(t, config(t, true, psk)), newMachine(t, config(t, false, psk)), func(fromInitiator bool, out []byte) []byte {
		if len(out) > 0 && fromInitiator {
			tr.initiator = append(tr.initiator, out)
		} else if len(out) > 0 {
			tr.responder = append(tr.responder, out)
		}
		return out
	})
	if !a.done || !b.done || len(tr.initiator) != 3 || len(tr.responder) != 3 {
		t.Fatalf("initiator %v, responder %v", a.err, b.err)
	}
	return tr
}

// feed gives a stream of bytes to a machine until it ends or wants more.
func feed(m *handshake.Machine, in []byte) (out []byte, done bool, err error) {
	out = bytes.Clone(m.Start())
	for n := m.Need(); n > 0 && n <= len(in) && err == nil; n = m.Need() {
		var o []byte
		o, done, err = m.Step(in[:n])
		out, in = append(out, o...), in[n:]
	}
	return out, done, err
}

// rejectFrame is a REJECT as it is on the wire.
func rejectFrame(c handshake.RejectCode) []byte { return []byte{0, 2, 3, byte(c)} }

func frame(kind byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(body)+1))
	return append(append(b, kind), body...)
}

// TestHostileInput has a row for each way that what comes in can be wrong, at
// each step of each role.
func TestHostileInput(t *testing.T) {
	tr := record(t, pskRight)
	clear := record(t, nil)
	pre := func(role string, change ...func([]byte)) []byte {
		b := bytes.Clone(tr.initiator[0])
		if role == "responder" {
			b = bytes.Clone(tr.responder[0])
		}
		for _, f := range change {
			f(b)
		}
		return b
	}
	set := func(off int, v byte) func([]byte) { return func(b []byte) { b[off] = v } }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	const preambleLen = 16
	long := binary.BigEndian.AppendUint16(nil, handshake.MaxFrame+1)
	i2, r1, r2, i3 := tr.initiator[1], tr.responder[0], tr.responder[1], tr.initiator[2]
	type row struct {
		name     string
		in       []byte
		want     error
		lastSent []byte // nil: nothing is sent in answer to it
	}
	reject := rejectFrame(handshake.RejectMessage)
	responder := []row{
		{"garbage", []byte("GET / HTTP/1.1\r\n"), handshake.ErrNotWeave, nil},
		{"zeros", make([]byte, preambleLen), handshake.ErrNotWeave, nil},
		{"TLS", join([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 5)), handshake.ErrNotWeave, nil},
		{"magic spoilt by a text mode", pre("initiator", set(6, '\n')), handshake.ErrNotWeave, nil},
		{"versions the wrong way round", pre("initiator", set(8, 2)), handshake.ErrNotWeave, nil},
		{"older only", pre("initiator", set(8, 0), set(9, 0)), handshake.ErrVersion, r1},
		{"newer only", pre("initiator", set(8, 2), set(9, 9)), handshake.ErrVersion, r1},
		{"no password there", clear.initiator[0], handshake.ErrPasswordOneSided, r1},
		{"empty frame", join(pre("initiator"), []byte{0, 0}), handshake.ErrMalformed, reject},
		{"frame too long", join(pre("initiator"), long), handshake.ErrTooLong, reject},
		{"longest length", join(pre("initiator"), []byte{255, 255}), handshake.ErrTooLong, reject},
		{"unknown type", join(pre("initiator"), frame(9, 1, 2, 3)), handshake.ErrMalformed, reject},
		{"type zero", join(pre("initiator"), frame(0)), handshake.ErrMalformed, reject},
		{"ACCEPT first", join(pre("initiator"), frame(2, 1, 2, 3)), handshake.ErrMalformed, reject},
		{"rejected first", join(pre("initiator"), rejectFrame(handshake.RejectBusy)), handshake.ErrRejected, nil},
		{"reject without code", join(pre("initiator"), frame(3)), handshake.ErrMalformed, nil},
		{"reject with more", join(pre("initiator"), frame(3, 1, 1)), handshake.ErrMalformed, nil},
		{"message 1 empty", join(pre("initiator"), frame(1)), handshake.ErrMalformed, reject},
		{"message 1 short", join(pre("initiator"), frame(1, i2[3:34]...)), handshake.ErrMalformed, reject},
		{"message 1 without tag", join(pre("initiator"), frame(1, i2[3:35]...)), handshake.ErrAuth, reject},
		{"message 1 of the other pattern", join(pre("initiator"), clear.initiator[1]), handshake.ErrAuth, reject},
		{"message 1 of low order", join(pre("initiator"), frame(1, make([]byte, 48)...)), handshake.ErrAuth, reject},
		{"message 3 first", join(pre("initiator"), i3), handshake.ErrAuth, reject},
		{"message 1 twice", join(pre("initiator"), i2, i2), handshake.ErrMalformed, reject},
		{"message 3 short", join(pre("initiator"), i2, frame(1, i3[3:20]...)), handshake.ErrMalformed, reject},
		{"message 3 cut", join(pre("initiator"), i2, frame(1, i3[3:len(i3)-1]...)), handshake.ErrWrongPassword, rejectFrame(handshake.RejectPassword)},
		{"message 3 and more", join(pre("initiator"), i2, frame(1, append(bytes.Clone(i3[3:]), 0)...)), handshake.ErrWrongPassword, rejectFrame(handshake.RejectPassword)},
		{"message 2 reflected as 3", join(pre("initiator"), i2, r2), handshake.ErrWrongPassword, rejectFrame(handshake.RejectPassword)},
		{"rejected at message 3", join(pre("initiator"), i2, rejectFrame(handshake.RejectNotAdmitted)), handshake.ErrRejected, nil},
	}
	initiator := []row{
		{"garbage", []byte("SSH-2.0-OpenSSH_"), handshake.ErrNotWeave, tr.initiator[0]},
		{"older only", pre("responder", set(8, 0), set(9, 0)), handshake.ErrVersion, tr.initiator[0]},
		{"newer only", pre("responder", set(8, 3), set(9, 4)), handshake.ErrVersion, tr.initiator[0]},
		{"no password there", clear.responder[0], handshake.ErrPasswordOneSided, tr.initiator[0]},
		{"frame too long", join(r1, long), handshake.ErrTooLong, reject},
		{"message 1 reflected", join(r1, i2), handshake.ErrMalformed, reject},
		{"message 2 cut", join(r1, frame(1, r2[3:len(r2)-1]...)), handshake.ErrAuth, reject},
		{"message 2 of low order", join(r1, frame(1, make([]byte, 96)...)), handshake.ErrAuth, reject},
		{"message 2 of the other pattern", join(r1, clear.responder[1]), handshake.ErrAuth, reject},
		{"ACCEPT without message 2", join(r1, tr.responder[2]), handshake.ErrMalformed, reject},
		{"busy", join(r1, rejectFrame(handshake.RejectBusy)), handshake.ErrRejected, i2},
		{"told of a wrong password", join(r1, r2, rejectFrame(handshake.RejectPassword)), handshake.ErrWrongPassword, i3},
		{"told of a version", join(r1, r2, rejectFrame(handshake.RejectVersion)), handshake.ErrVersion, i3},
		{"told of one side", join(r1, r2, rejectFrame(handshake.RejectPasswordOneSided)), handshake.ErrPasswordOneSided, i3},
		{"told something new", join(r1, r2, rejectFrame(200)), handshake.ErrRejected, i3},
		{"ACCEPT cut", join(r1, r2, frame(2, tr.responder[2][3:20]...)), handshake.ErrAuth, i3},
		{"ACCEPT empty", join(r1, r2, frame(2)), handshake.ErrAuth, i3},
		{"message 2 again for ACCEPT", join(r1, r2, r2), handshake.ErrMalformed, reject},
	}
	run := func(isInitiator bool, rows []row) {
		for _, tt := range rows {
			m := newMachine(t, config(t, isInitiator, pskRight))
			out, done, err := feed(m, tt.in)
			if done || !errors.Is(err, tt.want) {
				t.Errorf("initiator %v, %s: done %v, %v, want %v", isInitiator, tt.name, done, err, tt.want)
			}
			if tt.lastSent == nil && bytes.Contains(out, []byte{0, 2, 3}) || !bytes.HasSuffix(out, tt.lastSent) {
				t.Errorf("initiator %v, %s: sent %x, want %x at last", isInitiator, tt.name, out, tt.lastSent)
			}
			if tt.lastSent == nil && errors.Is(tt.want, handshake.ErrNotWeave) && len(out) != 0 {
				t.Errorf("initiator %v, %s: not silent: %x", isInitiator, tt.name, out)
			}
			checkEnded(t, m)
		}
	}
	run(false, responder)
	run(true, initiator)
}

// checkEnded: after an error there is nothing to be had from a machine.
func checkEnded(t *testing.T, m *handshake.Machine) {
	t.Helper()
	if r := m.Result(); r.Transport != nil || !r.Secret.IsZero() || !r.RemoteStatic.IsZero() || r.RemoteOffer != nil {
		t.Errorf("result after an error: %+v", r)
	}
	if m.Need() != 0 {
		t.Errorf("wants %d bytes after an error", m.Need())
	}
	if out, done, err := m.Step([]byte{1}); len(out) > 0 || done || err == nil {
		t.Errorf("step after an error: %x, %v, %v", out, done, err)
	}
}

func TestOneSidedPassword(t *testing.T) {
	for _, tt := range []struct {
		a, b             *handshake.PSK
		aRemote, bRemote bool
	}{
		{pskRight, nil, false, true},
		{nil, pskRight, true, false},
	} {
		a, b := meet(newMachine(t, config(t, true, tt.a)), newMachine(t, config(t, false, tt.b)), nil)
		for _, end := range []struct {
			name   string
			err    error
			remote bool
		}{{"initiator", a.err, tt.aRemote}, {"responder", b.err, tt.bRemote}} {
			var one *handshake.OneSidedError
			if !errors.As(end.err, &one) || one.Remote != end.remote || !errors.Is(end.err, handshake.ErrPasswordOneSided) {
				t.Errorf("%s: %v", end.name, end.err)
			}
		}
	}
}

func TestWrongPassword(t *testing.T) {
	for seed := range uint64(50) {
		ca, cb := config(t, true, pskWrong), config(t, false, pskRight)
		ca.Rand, cb.Rand = &seeded{seed}, &seeded{seed + 1000}
		a, b := meet(newMachine(t, ca), newMachine(t, cb), nil)
		if a.done || b.done || !errors.Is(a.err, handshake.ErrWrongPassword) || !errors.Is(b.err, handshake.ErrWrongPassword) {
			t.Fatalf("initiator %v %v, responder %v %v", a.done, a.err, b.done, b.err)
		}
		var r *handshake.RejectError
		if !errors.As(a.err, &r) || !r.Remote || r.Code != handshake.RejectPassword {
			t.Errorf("initiator: %v", a.err)
		}
	}
}

// TestResponderWithoutPassword: one that goes along with XXpsk3 and a guess of its
// own, and then claims to accept, is not believed.
func TestResponderWithoutPassword(t *testing.T) {
	var accepted []byte
	a, b := meet(newMachine(t, config(t, true, pskRight)), newMachine(t, config(t, false, pskWrong)), func(fromInitiator bool, out []byte) []byte {
		if bytes.Equal(out, rejectFrame(handshake.RejectPassword)) && !fromInitiator {
			out = frame(2, make([]byte, 6+handshake.RecordOverhead)...)
			accepted = out
		}
		return out
	})
	if a.done || !errors.Is(a.err, handshake.ErrAuth) || b.done || accepted == nil {
		t.Errorf("initiator %v %v", a.done, a.err)
	}
}

// TestEveryByteCounts flips bits of each byte of each end's transcript in turn.
// The initiator never finishes; the responder does only if ACCEPT, which comes
// after its decision, was changed.
func TestEveryByteCounts(t *testing.T) {
	flips := []byte{0x01, 0x02, 0x80, 0xff}
	if testing.Short() {
		flips = []byte{0x01}
	}
	for _, psk := range []*handshake.PSK{nil, pskRight} {
		tr := record(t, psk)
		accept := len(bytes.Join(tr.responder[:2], nil))
		for _, side := range []bool{true, false} {
			total := len(bytes.Join(tr.initiator, nil))
			if !side {
				total = len(bytes.Join(tr.responder, nil))
			}
			for pos := range total {
				for _, bits := range flips {
					seen := 0
					a, b := meet(newMachine(t, config(t, true, psk)), newMachine(t, config(t, false, psk)), func(fromInitiator bool, out []byte) []byte {
						if fromInitiator == side {
							if at := pos - seen; at >= 0 && at < len(out) {
								out[at] ^= bits
							}
							seen += len(out)
						}
						return out
					})
					mayFinish := !side && pos >= accept
					if a.done || b.done && !mayFinish {
						t.Errorf("password %v, byte %d of initiator=%v changed by %#x: finished %v, %v", psk != nil, pos, side, bits, a.done, b.done)
					}
				}
			}
		}
	}
}

// TestDowngrade: what an attacker changes in both preambles, so that they fit each
// other, still ends the handshake.
func TestDowngrade(t *testing.T) {
	for _, psk := range []*handshake.PSK{nil, pskRight} {
		for _, tt := range []struct {
			name string
			off  int
			bits byte
		}{
			{"version", 9, 3}, {"password", 10, 1}, {"flag to come", 10, 2}, {"reserved", 12, 1},
		} {
			count := [2]int{}
			a, b := meet(newMachine(t, config(t, true, psk)), newMachine(t, config(t, false, psk)), func(fromInitiator bool, out []byte) []byte {
				i := 0
				if fromInitiator {
					i = 1
				}
				if len(out) > 0 {
					if count[i]++; count[i] == 1 {
						out[tt.off] ^= tt.bits
					}
				}
				return out
			})
			if a.done || b.done {
				t.Errorf("password %v, %s: finished %v, %v", psk != nil, tt.name, a.done, b.done)
			}
		}
	}
}

// TestReplay feeds what one end once wrote to a new machine of the other.
func TestReplay(t *testing.T) {
	for _, psk := range []*handshake.PSK{nil, pskRight} {
		tr := record(t, psk)
		for _, isInitiator := range []bool{true, false} {
			c := config(t, isInitiator, psk)
			c.Rand = &seeded{99} // otherwise the keys would be the same again
			in := tr.initiator
			if isInitiator {
				in = tr.responder
			}
			if _, done, err := feed(newMachine(t, c), bytes.Join(in, nil)); done || err == nil {
				t.Errorf("password %v, initiator %v: replay gives %v, %v", psk != nil, isInitiator, done, err)
			}
		}
	}
}

// TestAdmit: either end can refuse the other by its key, before it tells more.
func TestAdmit(t *testing.T) {
	type asked struct {
		key   handshake.PublicKey
		offer string
	}
	for _, who := range []string{"initiator", "responder", "nobody"} {
		var got [2]asked
		ca, cb := config(t, true, pskRight), config(t, false, pskRight)
		for i, c := range []*handshake.Config{&ca, &cb} {
			refuses := who == "initiator" && i == 0 || who == "responder" && i == 1
			c.Admit = func(k handshake.PublicKey, offer []byte) handshake.RejectCode {
				got[i] = asked{k, string(offer)}
				if refuses {
					return handshake.RejectNotAdmitted
				}
				return handshake.RejectNone
			}
		}
		sent := 0
		a, b := meet(newMachine(t, ca), newMachine(t, cb), func(fromInitiator bool, out []byte) []byte {
			if fromInitiator {
				sent += len(out)
			}
			return out
		})
		if want := (asked{cb.Static.Public(), string(cb.Offer)}); got[0] != want {
			t.Errorf("%s refuses: initiator was asked about %+v, want %+v", who, got[0], want)
		}
		if who == "nobody" {
			if !a.done || !b.done {
				t.Errorf("nobody refuses: %v, %v", a.err, b.err)
			}
			continue
		}
		if who == "initiator" && (sent != 16+51+4 || got[1] != asked{}) {
			t.Errorf("initiator refuses: it sent %d bytes, responder was asked about %+v", sent, got[1])
		}
		for i, end := range []outcome{a, b} {
			var r *handshake.RejectError
			remote := (i == 0) != (who == "initiator")
			if end.done || !errors.As(end.err, &r) || r.Code != handshake.RejectNotAdmitted || r.Remote != remote {
				t.Errorf("%s refuses: end %d: %v, %v", who, i, end.done, end.err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]handshake.Config{
		"no static key":    {},
		"empty static key": {Static: &handshake.StaticKey{}},
		"empty PSK":        {Static: staticKey(t, 1), PSK: &handshake.PSK{}},
	} {
		if _, err := handshake.New(c); !errors.Is(err, handshake.ErrBadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := handshake.New(handshake.Config{Static: staticKey(t, 1), Offer: make([]byte, handshake.MaxOffer+1)}); !errors.Is(err, handshake.ErrTooLong) {
		t.Errorf("long offer: %v", err)
	}
	dry := config(t, true, nil)
	dry.Rand = bytes.NewReader(nil)
	if _, _, err := feed(newMachine(t, dry), record(t, nil).responder[0]); err == nil {
		t.Error("no random bytes, no error")
	}
}

// TestMisuse: a caller that does not listen gets an error, not a panic.
func TestMisuse(t *testing.T) {
	for _, in := range [][]byte{nil, make([]byte, 15), make([]byte, 17)} {
		m := newMachine(t, config(t, false, nil))
		if _, _, err := m.Step(in); err == nil {
			t.Errorf("step with %d bytes: no error", len(in))
		}
		checkEnded(t, m)
	}
}

func TestLongestOffers(t *testing.T) {
	ca, cb := config(t, true, pskRight), config(t, false, pskRight)
	ca.Offer, cb.Offer = bytes.Repeat([]byte{1}, handshake.MaxOffer), nil
	a, b := meet(newMachine(t, ca), newMachine(t, cb), nil)
	if !a.done || !bytes.Equal(b.result.RemoteOffer, ca.Offer) || len(a.result.RemoteOffer) != 0 {
		t.Errorf("%v, %v, offers of %d and %d bytes", a.err, b.err, len(a.result.RemoteOffer), len(b.result.RemoteOffer))
	}
}

// TestOfferTooLong: a peer that sends more than it may is refused by either end.
func TestOfferTooLong(t *testing.T) {
	for _, isInitiator := range []bool{true, false} {
		a, b := config(t, true, nil), config(t, false, nil)
		ends := []*handshake.Config{&b, &a}
		if isInitiator {
			ends = []*handshake.Config{&a, &b}
		}
		m := newMachine(t, *ends[0])
		handshake.SetOffer(m, make([]byte, handshake.MaxOffer+1))
		other := newMachine(t, *ends[1])
		var victim outcome
		if isInitiator {
			_, victim = meet(m, other, nil)
		} else {
			victim, _ = meet(other, m, nil)
		}
		if victim.done || !errors.Is(victim.err, handshake.ErrTooLong) {
			t.Errorf("offer of the initiator %v: %v", isInitiator, victim.err)
		}
	}
}

// TestMemory: what a responder holds while the other end is not authenticated.
func TestMemory(t *testing.T) {
	const n, limit = 500, 4096
	tr := record(t, pskRight)
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"silent", nil},
		{"preamble", tr.initiator[0]},
		{"message 1", slices.Concat(tr.initiator[0], tr.initiator[1])},
		{"length of message 3", slices.Concat(tr.initiator[0], tr.initiator[1], []byte{4, 0})},
	} {
		c := config(t, false, pskRight)
		machines := make([]*handshake.Machine, n)
		before := heap()
		for i := range machines {
			machines[i] = newMachine(t, c)
			feed(machines[i], tt.in)
		}
		each := (heap() - before) / n
		if each > limit-handshake.MaxFrame { // the caller's buffer counts too
			t.Errorf("%s: %d bytes for each, want %d", tt.name, each, limit-handshake.MaxFrame)
		}
		t.Logf("%s: %d bytes for each", tt.name, each)
		runtime.KeepAlive(machines)
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// fuzzMachine checks what holds for any input: bounded wants and answers, and no
// end but by the very bytes that the genuine other end would send.
func fuzzMachine(f *testing.F, isInitiator bool) {
	var genuine [2][]byte
	for i, psk := range []*handshake.PSK{nil, pskRight} {
		tr := record(f, psk)
		writes := tr.initiator
		if isInitiator {
			writes = tr.responder
		}
		genuine[i] = bytes.Join(writes, nil)
		for n := range len(writes) + 1 {
			f.Add(i == 1, bytes.Join(writes[:n], nil))
			f.Add(i == 1, append(bytes.Join(writes[:n], nil), rejectFrame(handshake.RejectBusy)...))
			f.Add(i == 1, append(bytes.Join(writes[:n], nil), 0xff, 0xff))
		}
	}
	f.Fuzz(func(t *testing.T, password bool, in []byte) {
		psk, want := (*handshake.PSK)(nil), genuine[0]
		if password {
			psk, want = pskRight, genuine[1]
		}
		m := newMachine(t, config(t, isInitiator, psk))
		m.Start()
		rest := in
		for {
			n := m.Need()
			if n < 0 || n > handshake.MaxFrame {
				t.Fatalf("wants %d bytes", n)
			}
			if n == 0 || n > len(rest) {
				return
			}
			out, done, err := m.Step(rest[:n])
			rest = rest[n:]
			if len(out) > handshake.MaxFrame+2 || done && err != nil {
				t.Fatalf("%d bytes out, done %v, %v", len(out), done, err)
			}
			if done != (m.Result().Transport != nil) || err != nil && m.Need() != 0 {
				t.Fatalf("done %v, %v, result %+v", done, err, m.Result())
			}
			if done && !bytes.HasPrefix(in, want) {
				t.Fatalf("finished by %x", in)
			}
		}
	})
}

func FuzzInitiator(f *testing.F) { fuzzMachine(f, true) }
func FuzzResponder(f *testing.F) { fuzzMachine(f, false) }

func TestErrorTexts(t *testing.T) {
	for err, want := range map[error]string{
		&handshake.RejectError{Code: handshake.RejectBusy, Remote: true}: "handshake: rejected by the other end: busy",
		&handshake.RejectError{Code: handshake.RejectNotAdmitted}:        "handshake: other end rejected: not admitted",
		&handshake.RejectError{Code: 77}:                                 "handshake: other end rejected: code 77",
		&handshake.OneSidedError{Remote: true}:                           "handshake: the other end has a password, this end has none",
		&handshake.OneSidedError{}:                                       "handshake: this end has a password, the other end has none",
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	seen := map[string]bool{}
	for c := range handshake.RejectBusy + 2 {
		s := fmt.Sprint(c)
		if s == "" || seen[s] {
			t.Errorf("code %d is %q", uint8(c), s)
		}
		seen[s] = true
	}
}

// TestMessage1Payload: in XX, message 1 is in clear, and could carry anything.
func TestMessage1Payload(t *testing.T) {
	tr := record(t, nil)
	in := slices.Concat(tr.initiator[0], frame(1, append(bytes.Clone(tr.initiator[1][3:]), "payload"...)...))
	if _, done, err := feed(newMachine(t, config(t, false, nil)), in); done || !errors.Is(err, handshake.ErrMalformed) {
		t.Errorf("done %v, %v", done, err)
	}
}

// TestAcceptSaysSomethingElse: the right keys are not enough.
func TestAcceptSaysSomethingElse(t *testing.T) {
	for text, want := range map[string]bool{"accept": true, "accepted": false, "": false, "reject": false} {
		responder := newMachine(t, config(t, false, pskRight))
		a, b := meet(newMachine(t, config(t, true, pskRight)), responder, func(fromInitiator bool, out []byte) []byte {
			if r := responder.Result(); !fromInitiator && r.Transport != nil && len(out) > 0 {
				return frame(2, handshake.FirstRecord(r.Transport, []byte(text))...)
			}
			return out
		})
		if !b.done || a.done != want || !want && !errors.Is(a.err, handshake.ErrAuth) {
			t.Errorf("%q: initiator %v %v, responder %v %v", text, a.done, a.err, b.done, b.err)
		}
	}
}
