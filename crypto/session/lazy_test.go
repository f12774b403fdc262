package session

import (
	"sync"
	"testing"
	"time"
)

// manyLanes returns keys for all lanes there are.
func manyLanes(t testing.TB, c Cipher) (*TxKeys, *RxKeys) {
	t.Helper()
	var lanes []Lane
	for l := range Lane(NumLanes) {
		lanes = append(lanes, l)
	}
	s, err := newSchedule(c, 1, []byte{1}, SecretFromBytes([32]byte{2}), []byte{3}, []byte{4})
	if err != nil {
		t.Fatal(err)
	}
	defer s.wipe()
	tx, err := s.tx(toResponder, lanes, 7, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	rx, err := s.rx(toResponder, lanes, 7, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return tx, rx
}

// TestKeysAreMadeWhenUsed: a lane that nobody used has no key, and every lane works
// though what keys are made from was wiped at the Exchange.
func TestKeysAreMadeWhenUsed(t *testing.T) {
	tx, rx := manyLanes(t, CipherAES)
	for l := 1; l < NumLanes; l++ {
		if tx.sealers[l].Load() != nil || rx.openers[l].Load() != nil {
			t.Fatalf("lane %d has a key before its first use", l)
		}
	}
	for l := range Lane(NumLanes) {
		d, err := tx.Sealer(l).Seal(nil, 0, []byte("weave"))
		if err != nil {
			t.Fatal(err)
		}
		h, _ := ParseHeader(d)
		if p, err := rx.Opener(l).Open(h, d); err != nil || string(p) != "weave" {
			t.Errorf("lane %d: %q, %v", l, p, err)
		}
		if s, o := tx.Sealer(l), rx.Opener(l); s != tx.Sealer(l) || o != rx.Opener(l) {
			t.Errorf("lane %d: another Sealer or Opener at the second call", l)
		}
	}
}

// TestGivenUpKeysAreNotMade: what keys are made from is zero once they are given up,
// and a lane that is first used afterwards seals and opens nothing.
func TestGivenUpKeysAreNotMade(t *testing.T) {
	for _, c := range []Cipher{CipherNone, CipherChaCha, CipherAES} {
		tx, rx := manyLanes(t, c)
		d, err := tx.Sealer(5).Seal(nil, 0, []byte("weave"))
		if err != nil {
			t.Fatal(err)
		}
		txSecret, rxSecret := tx.source.prk, rx.source.prk
		if has := !txSecret.IsZero() && !rxSecret.IsZero(); has != (c != CipherNone) {
			t.Fatalf("%v: secret there before: %v", c, has)
		}
		tx.giveUp()
		rx.giveUp()
		if !txSecret.IsZero() || !rxSecret.IsZero() {
			t.Fatalf("%v: the secret is left", c)
		}
		for _, l := range []Lane{5, 6} { // used before, and not
			if out, err := tx.Sealer(l).Seal(nil, 0, []byte("weave")); err != ErrNoKey || out != nil {
				t.Errorf("%v: lane %d sealed %x, %v", c, l, out, err)
			}
			h, _ := ParseHeader(d)
			if _, err := rx.Opener(l).Open(h, d); err != ErrNoKey {
				t.Errorf("%v: lane %d: %v, want ErrNoKey", c, l, err)
			}
		}
	}
}

// TestFirstUseOfManyLanes: workers make their lanes' keys at the same time while the
// keys are given up; each lane has one Sealer, and none outlives its keys.
func TestFirstUseOfManyLanes(t *testing.T) {
	for range 200 {
		tx, _ := manyLanes(t, CipherChaCha)
		var wg sync.WaitGroup
		var got [NumLanes][2]*Sealer
		for l := range Lane(NumLanes) {
			for i := range 2 {
				wg.Go(func() { got[l][i] = tx.Sealer(l) })
			}
		}
		wg.Go(tx.giveUp)
		wg.Wait()
		for l, s := range got {
			if s[0] == nil || s[0] != s[1] {
				t.Fatalf("lane %d: %p and %p", l, s[0], s[1])
			}
			if _, err := s[0].Seal(nil, 0, nil); err != ErrNoKey {
				t.Fatalf("lane %d: %v, want ErrNoKey", l, err)
			}
		}
	}
}
