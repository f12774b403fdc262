package session_test

import (
	"bytes"
	"fmt"
	"testing"

	"weave/crypto/session"
	"weave/crypto/session/sessiontest"
)

var ciphers = []session.Cipher{session.CipherNone, session.CipherChaCha, session.CipherAES}

func mustParse(t testing.TB, d []byte) session.Header {
	t.Helper()
	h, ok := session.ParseHeader(d)
	if !ok {
		t.Fatalf("not a datagram: %x", d)
	}
	return h
}

func TestRoundTrip(t *testing.T) {
	for _, c := range ciphers {
		t.Run(c.String(), func(t *testing.T) {
			a, b := sessiontest.Pair(t, c, 0, session.RelayLane0, session.LaneControl)
			for _, dir := range []struct {
				name     string
				from, to sessiontest.End
			}{{"forth", a, b}, {"back", b, a}} {
				for _, lane := range []session.Lane{0, session.RelayLane0, session.LaneControl} {
					sealer, opener := dir.from.Tx.Sealer(lane), dir.to.Rx.Opener(lane)
					for n := range 3 {
						plain := bytes.Repeat([]byte{byte(n + 1)}, n*700)
						d, err := sealer.Seal([]byte("head"), 0x8001, plain)
						if err != nil {
							t.Fatal(err)
						}
						d = d[len("head"):]
						if got, want := len(d), len(plain)+sealer.Overhead(); got != want {
							t.Errorf("%s: datagram of %d bytes, want %d", dir.name, got, want)
						}
						h := mustParse(t, d)
						want := session.Header{Lane: lane, Flags: 0x8001, Index: dir.to.Rx.Index, Counter: uint64(n)}
						if h != want {
							t.Errorf("%s: header %+v, want %+v", dir.name, h, want)
						}
						got, err := opener.Open(h, d)
						if err != nil || !bytes.Equal(got, plain) {
							t.Errorf("%s lane %d: opened %d bytes, %v", dir.name, lane, len(got), err)
						}
						if opener.Highest() != uint64(n) {
							t.Errorf("highest %d, want %d", opener.Highest(), n)
						}
					}
				}
			}
		})
	}
}

func TestNoAllocs(t *testing.T) {
	plain := make([]byte, 1400)
	buf := make([]byte, 0, 2000)
	for _, c := range ciphers {
		a, b := sessiontest.Pair(t, c, 0)
		sealer, opener := a.Tx.Sealer(0), b.Rx.Opener(0)
		got := testing.AllocsPerRun(100, func() {
			d, err := sealer.Seal(buf, 0, plain)
			if err != nil {
				t.Fatal(err)
			}
			h, _ := session.ParseHeader(d)
			if _, err := opener.Open(h, d); err != nil {
				t.Fatal(err)
			}
			if _, err := opener.Open(h, d); err != session.ErrReplay {
				t.Fatal(err)
			}
			b.Rx.FirstUse()
		})
		if got != 0 {
			t.Errorf("%v: %v allocations per datagram, want 0", c, got)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	forEachSize(b, func(b *testing.B, a, _ sessiontest.End, plain []byte) {
		sealer, buf := a.Tx.Sealer(0), make([]byte, 0, len(plain)+session.HeaderLen+session.TagLen)
		for b.Loop() {
			if _, err := sealer.Seal(buf, 0, plain); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSealOpen copies nothing but what Seal copies, so Open's share is the
// difference to BenchmarkSeal.
func BenchmarkSealOpen(b *testing.B) {
	forEachSize(b, func(b *testing.B, a, z sessiontest.End, plain []byte) {
		sealer, opener := a.Tx.Sealer(0), z.Rx.Opener(0)
		buf := make([]byte, 0, len(plain)+session.HeaderLen+session.TagLen)
		for b.Loop() {
			d, err := sealer.Seal(buf, 0, plain)
			if err != nil {
				b.Fatal(err)
			}
			h, _ := session.ParseHeader(d)
			if _, err := opener.Open(h, d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func forEachSize(b *testing.B, run func(*testing.B, sessiontest.End, sessiontest.End, []byte)) {
	for _, c := range ciphers {
		for _, size := range []int{1400, 8900, 60000} {
			b.Run(fmt.Sprintf("%v/%d", c, size), func(b *testing.B) {
				x, y := sessiontest.Pair(b, c, 0)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, x, y, make([]byte, size))
			})
		}
	}
}
