package session

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fixedKeys returns matching keys with one lane, made from fixed bytes.
func fixedKeys(t testing.TB, c Cipher, lane Lane) (*TxKeys, *RxKeys) {
	t.Helper()
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	s, err := newSchedule(c, 1, fill(1, 32), SecretFromBytes([32]byte(fill(2, 32))), fill(3, keyMessageLen), fill(4, keyMessageLen))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := s.tx(toResponder, []Lane{lane}, 0x04030201, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	rx, err := s.rx(toResponder, []Lane{lane}, 0x04030201, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return tx, rx
}

// TestGoldenDatagrams fixes the bytes of a datagram: header, nonce and key.
func TestGoldenDatagrams(t *testing.T) {
	const header = "14" + "21" + "0180" + "01020304" + "0500000000000000"
	for _, tt := range []struct {
		cipher Cipher
		want   string
	}{
		{CipherNone, header + "77656176"},
		{CipherChaCha, header + "441305289945df1cc3fa3a5572bd71d99fddcbfd"},
		{CipherAES, header + "ae862af2e4ce2f25d589a968b8a5c52d3e4bee83"},
	} {
		tx, rx := fixedKeys(t, tt.cipher, 33)
		sealer := tx.Sealer(33)
		sealer.next = 5
		d, err := sealer.Seal(nil, 0x8001, []byte("weav"))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(d); got != tt.want {
			t.Errorf("%v: sealed %s, want %s", tt.cipher, got, tt.want)
		}
		want, err := hex.DecodeString(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		h, ok := ParseHeader(want)
		if !ok || h != (Header{Lane: 33, Flags: 0x8001, Index: 0x04030201, Counter: 5}) {
			t.Errorf("%v: header %+v, %v", tt.cipher, h, ok)
		}
		if got, err := rx.Opener(33).Open(h, want); err != nil || string(got) != "weav" {
			t.Errorf("%v: opened %q, %v", tt.cipher, got, err)
		}
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	good := appendHeader(nil, Header{Lane: NumLanes - 1})
	if _, ok := ParseHeader(good); !ok {
		t.Fatal("a good header is refused")
	}
	change := func(off int, v byte) []byte { b := bytes.Clone(good); b[off] = v; return b }
	for name, b := range map[string][]byte{
		"empty":    nil,
		"short":    good[:HeaderLen-1],
		"type":     change(offType, 0x11),
		"lane 64":  change(offLane, NumLanes),
		"lane 255": change(offLane, 255),
	} {
		if h, ok := ParseHeader(b); ok || h != (Header{}) {
			t.Errorf("%s: %+v, %v", name, h, ok)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(appendHeader(nil, Header{Lane: 33, Flags: 0x8001, Index: 0x04030201, Counter: 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseHeader(b)
		if ok && !bytes.Equal(appendHeader(nil, h), b[:HeaderLen]) {
			t.Errorf("%x parses to %+v, which is %x", b, h, appendHeader(nil, h))
		}
	})
}

func TestZeroValuesDoNothing(t *testing.T) {
	var s Sealer
	if d, err := s.Seal(nil, 0, []byte("secret")); err != ErrNoKey || len(d) != 0 {
		t.Errorf("zero Sealer: %q, %v", d, err)
	}
	var o Opener
	d := append(appendHeader(nil, Header{}), "forged"...)
	if p, err := o.Open(Header{}, d); err != ErrNoKey || p != nil {
		t.Errorf("zero Opener: %q, %v", p, err)
	}
	var tx TxKeys
	var rx RxKeys
	for _, l := range []Lane{0, LaneControl, NumLanes, 255} {
		if tx.Sealer(l) != nil || rx.Opener(l) != nil {
			t.Errorf("zero keys have lane %d", l)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		cipher     Cipher
		soft, hard uint64
	}{
		{CipherNone, 1 << 59, 1 << 60},
		{CipherChaCha, 1 << 59, 1 << 60},
		{CipherAES, 1 << 33, 1 << 34},
	} {
		t.Run(tt.cipher.String(), func(t *testing.T) {
			tx, rx := fixedKeys(t, tt.cipher, 0)
			s, o := tx.Sealer(0), rx.Opener(0)
			s.next = tt.soft - 1
			if s.NeedsRekey() {
				t.Error("needs new keys too early")
			}
			s.next = tt.soft
			if !s.NeedsRekey() {
				t.Error("does not need new keys at the soft limit")
			}
			s.next = tt.hard - 1
			if s.Remaining() != 1 {
				t.Errorf("%d remain, want 1", s.Remaining())
			}
			last, err := s.Seal(nil, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if d, err := s.Seal([]byte("keep"), 0, []byte("secret")); err != ErrExhausted || string(d) != "keep" {
					t.Errorf("beyond the limit: %q, %v", d, err)
				}
			}
			if s.Remaining() != 0 || s.next != tt.hard {
				t.Errorf("%d remain, next %d", s.Remaining(), s.next)
			}
			h, _ := ParseHeader(last)
			if _, err := o.Open(h, last); err != nil {
				t.Errorf("the last datagram of a key: %v", err)
			}
			for _, c := range []uint64{tt.hard, tt.hard + 1, 1<<64 - 1} {
				d := appendHeader(nil, Header{Index: tx.Index, Counter: c})
				d = append(d, make([]byte, TagLen)...)
				h, _ := ParseHeader(d)
				if _, err := o.Open(h, d); err != ErrCounter {
					t.Errorf("counter %#x: %v", c, err)
				}
			}
		})
	}
}

// TestOpenRefuses has one row per reason, in the order of the checks.
func TestOpenRefuses(t *testing.T) {
	for _, c := range []Cipher{CipherNone, CipherChaCha, CipherAES} {
		tx, rx := fixedKeys(t, c, 0)
		s, o := tx.Sealer(0), rx.Opener(0)
		datagram := func() []byte {
			d, err := s.Seal(nil, 0, []byte("plain"))
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		first := datagram()
		h, _ := ParseHeader(first)
		if _, err := o.Open(h, bytes.Clone(first)); err != nil {
			t.Fatal(err)
		}
		otherTx, _ := fixedKeys(t, c, 1)
		foreign, err := otherTx.Sealer(1).Seal(nil, 0, []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		wrongIndex := datagram()
		wrongIndex[offIndex] ^= 1
		flipped := datagram()
		flipped[len(flipped)-1] ^= 1
		type row struct {
			name string
			d    []byte
			want error
		}
		rows := []row{
			{"another lane", foreign, ErrMismatch},
			{"another index", wrongIndex, ErrMismatch},
			{"replay", bytes.Clone(first), ErrReplay},
		}
		if c != CipherNone {
			rows = append(rows,
				row{"no room for a tag", datagram()[:HeaderLen+TagLen-1], ErrShort},
				row{"header alone", datagram()[:HeaderLen], ErrShort},
				row{"flipped bit", flipped, ErrAuth},
				row{"truncated", datagram()[:HeaderLen+TagLen+1], ErrAuth},
				row{"extended", append(datagram(), 0), ErrAuth},
			)
		}
		before := o.win
		for _, tt := range rows {
			h, ok := ParseHeader(tt.d)
			if !ok {
				t.Fatal(tt.name)
			}
			if p, err := o.Open(h, tt.d); err != tt.want || p != nil {
				t.Errorf("%v, %s: %q, %v, want %v", c, tt.name, p, err, tt.want)
			}
			if o.win != before {
				t.Errorf("%v, %s: the window moved", c, tt.name)
			}
		}
		rx.gone.Store(true)
		tx.gone.Store(true)
		if _, err := o.Open(h, first); err != ErrNoKey {
			t.Errorf("%v: opening with keys given up: %v", c, err)
		}
		if d, err := s.Seal(nil, 0, nil); err != ErrNoKey || d != nil {
			t.Errorf("%v: sealing with keys given up: %x, %v", c, d, err)
		}
	}
}

// TestSealInPlace: the plaintext may lie where the sealed bytes go.
func TestSealInPlace(t *testing.T) {
	for _, c := range []Cipher{CipherNone, CipherChaCha, CipherAES} {
		tx, rx := fixedKeys(t, c, 0)
		buf := make([]byte, HeaderLen+5, 100)
		copy(buf[HeaderLen:], "plain")
		d, err := tx.Sealer(0).Seal(buf[:0], 0, buf[HeaderLen:])
		if err != nil || &d[0] != &buf[0] {
			t.Fatalf("%v: %v, or moved", c, err)
		}
		h, _ := ParseHeader(d)
		if p, err := rx.Opener(0).Open(h, d); err != nil || string(p) != "plain" {
			t.Errorf("%v: %q, %v", c, p, err)
		}
	}
}

// TestSealGrows: too little room costs an allocation, nothing else.
func TestSealGrows(t *testing.T) {
	for _, c := range []Cipher{CipherNone, CipherChaCha, CipherAES} {
		for room := range 60 {
			tx, rx := fixedKeys(t, c, 0)
			d, err := tx.Sealer(0).Seal(append(make([]byte, 0, 3+room), "pre"...), 7, []byte("plain text"))
			if err != nil || string(d[:3]) != "pre" {
				t.Fatal(err)
			}
			h, _ := ParseHeader(d[3:])
			if p, err := rx.Opener(0).Open(h, d[3:]); err != nil || string(p) != "plain text" {
				t.Errorf("%v, room %d: %q, %v", c, room, p, err)
			}
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	s := SecretFromBytes([SecretLen]byte(bytes.Repeat([]byte{0xab}, SecretLen)))
	config := ExchangeConfig{Secret: s, Cipher: CipherAES, Lanes: []Lane{0}, NewIndex: func() (uint32, error) { return 1, nil }}
	exchange, err := NewExchange(config)
	if err != nil {
		t.Fatal(err)
	}
	tx, rx := fixedKeys(t, CipherAES, 0)
	prk := tx.source.prk.bytes()
	leaks := append(spellings(bytes.Repeat([]byte{0xab}, 4)), spellings(prk[:4])...)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c"} {
		for name, v := range map[string]any{
			"value": s, "pointer": &s, "inside": struct{ S Secret }{s}, "config": config, "exchange": exchange,
			"tx": tx, "rx": rx, "sealer": tx.Sealer(0), "opener": rx.Opener(0), "output": Output{UseTx: tx, ArmRx: rx},
			"schedule": tx.source.schedule,
		} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range leaks {
				if strings.Contains(got, leak) {
					t.Errorf("%s %s: %q in %.300s", name, verb, leak, got)
				}
			}
		}
	}
}

// spellings is how fmt may write b, with enough of it that no address looks alike.
func spellings(b []byte) (all []string) {
	for _, verb := range []string{"%x", "%X", "% x", "% X", "%d", "%o", "%b", "%#v", "%c"} {
		text := fmt.Sprintf(verb, b)
		text = strings.TrimSuffix(strings.TrimPrefix(text, "[]byte{"), "}")
		all = append(all, strings.Trim(text, "[]"))
	}
	return all
}

func TestCipherString(t *testing.T) {
	for c, want := range map[Cipher]string{
		CipherNone: "none", CipherChaCha: "chacha20-poly1305", CipherAES: "aes-256-gcm", 9: "cipher(9)",
	} {
		if got := c.String(); got != want {
			t.Errorf("Cipher(%d) is %q, want %q", c, got, want)
		}
	}
	if _, err := newAEAD(9, make([]byte, keyLen)); !errors.Is(err, ErrCipher) {
		t.Errorf("unknown cipher: %v", err)
	}
}
