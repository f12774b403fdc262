package handshake_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"weave/crypto/handshake"
)

// seeded is a random source whose bytes depend on its seed alone.
type seeded struct{ state uint64 }

func (s *seeded) Read(b []byte) (int, error) {
	for i := range b {
		s.state = s.state*6364136223846793005 + 1442695040888963407
		b[i] = byte(s.state >> 56)
	}
	return len(b), nil
}

func staticKey(t testing.TB, seed uint64) *handshake.StaticKey {
	t.Helper()
	k, err := handshake.NewStaticKey(&seeded{seed})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Passwords are stretched once for all tests.
var (
	pskRight = handshake.PSKFromPassword([]byte("right"))
	pskWrong = handshake.PSKFromPassword([]byte("wrong"))
)

func config(t testing.TB, initiator bool, psk *handshake.PSK) handshake.Config {
	c := handshake.Config{Initiator: initiator, PSK: psk, Static: staticKey(t, 2), Offer: []byte("offer of the responder"), Rand: &seeded{20}}
	if initiator {
		c.Static, c.Offer, c.Rand = staticKey(t, 1), []byte("offer of the initiator"), &seeded{10}
	}
	return c
}

func newMachine(t testing.TB, c handshake.Config) *handshake.Machine {
	t.Helper()
	m, err := handshake.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// outcome is how one end finished.
type outcome struct {
	result handshake.Result
	done   bool
	err    error
}

// meet runs two machines against each other in memory. hook sees, and may
// replace, what each end writes.
func meet(a, b *handshake.Machine, hook func(fromInitiator bool, out []byte) []byte) (initiator, responder outcome) {
	if hook == nil {
		hook = func(_ bool, out []byte) []byte { return out }
	}
	ends := [2]struct {
		m  *handshake.Machine
		in []byte
		o  *outcome
	}{{m: a, o: &initiator}, {m: b, o: &responder}}
	ends[1].in = hook(true, bytes.Clone(a.Start()))
	ends[0].in = hook(false, bytes.Clone(b.Start()))
	for progress := true; progress; {
		progress = false
		for i := range ends {
			e := &ends[i]
			need := e.m.Need()
			if need == 0 || len(e.in) < need {
				continue
			}
			progress = true
			out, done, err := e.m.Step(e.in[:need])
			e.in = e.in[need:]
			e.o.done, e.o.err = done, err
			e.o.result = e.m.Result()
			other := &ends[1-i]
			other.in = append(other.in, hook(i == 0, bytes.Clone(out))...)
		}
	}
	return initiator, responder
}

func TestHandshake(t *testing.T) {
	for _, psk := range []*handshake.PSK{nil, pskRight} {
		t.Run(fmt.Sprintf("password=%v", psk != nil), func(t *testing.T) {
			ca, cb := config(t, true, psk), config(t, false, psk)
			a, b := meet(newMachine(t, ca), newMachine(t, cb), nil)
			if !a.done || !b.done || a.err != nil || b.err != nil {
				t.Fatalf("initiator %v %v, responder %v %v", a.done, a.err, b.done, b.err)
			}
			checkEnd(t, a.result, cb, psk != nil)
			checkEnd(t, b.result, ca, psk != nil)
			if !a.result.Secret.Equal(b.result.Secret) || a.result.Secret.IsZero() {
				t.Error("secrets differ, or there is none")
			}
			if a.result.Binding != b.result.Binding || a.result.Binding == [32]byte{} {
				t.Error("bindings differ, or there is none")
			}
			converse(t, a.result.Transport, b.result.Transport)
			converse(t, b.result.Transport, a.result.Transport)
		})
	}
}

// checkEnd compares what one end learnt with what the other was configured with.
func checkEnd(t *testing.T, got handshake.Result, other handshake.Config, password bool) {
	t.Helper()
	if got.RemoteStatic != other.Static.Public() {
		t.Errorf("remote static %v, want %v", got.RemoteStatic, other.Static.Public())
	}
	if !bytes.Equal(got.RemoteOffer, other.Offer) {
		t.Errorf("remote offer %q, want %q", got.RemoteOffer, other.Offer)
	}
	if got.RemotePassword != password || got.Version != 1 {
		t.Errorf("remote password %v, version %d", got.RemotePassword, got.Version)
	}
}

func converse(t *testing.T, from, to *handshake.Transport) {
	t.Helper()
	for _, n := range []int{0, 1, 1000, handshake.MaxPlaintext} {
		plain := bytes.Repeat([]byte{7}, n)
		record, err := from.Seal(nil, plain)
		if err != nil || len(record) != n+handshake.RecordOverhead {
			t.Fatalf("sealed %d as %d bytes, %v", n, len(record), err)
		}
		got, err := to.Open(record[:0], record)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %d of %d bytes, %v", len(got), n, err)
		}
	}
	if _, err := from.Seal(nil, make([]byte, handshake.MaxPlaintext+1)); !errors.Is(err, handshake.ErrTooLong) {
		t.Errorf("sealing too much: %v", err)
	}
}

func TestRun(t *testing.T) {
	x, y := net.Pipe()
	type answer struct {
		r   handshake.Result
		err error
	}
	got := make(chan answer)
	go func() {
		r, err := handshake.Run(x, newMachine(t, config(t, true, pskRight)))
		if err == nil { // what follows the handshake is not Run's to read
			_, err = x.Write([]byte("next"))
		}
		got <- answer{r, err}
	}()
	r, err := handshake.Run(y, newMachine(t, config(t, false, pskRight)))
	if err != nil {
		t.Fatal(err)
	}
	next := make([]byte, 4)
	if _, err := io.ReadFull(y, next); err != nil || string(next) != "next" {
		t.Errorf("after the handshake: %q, %v", next, err)
	}
	other := <-got
	if other.err != nil || !other.r.Secret.Equal(r.Secret) {
		t.Errorf("initiator: %v", other.err)
	}
}
