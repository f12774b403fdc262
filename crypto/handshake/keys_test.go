package handshake_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"weave/crypto/handshake"
)

// The key pair of Alice in RFC 7748, section 6.1.
const (
	alicePrivate = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
	alicePublic  = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
	aliceText    = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStaticKey(t *testing.T) {
	private := unhex(t, alicePrivate)
	k, err := handshake.ParseStaticKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Public().Bytes(); !bytes.Equal(got[:], unhex(t, alicePublic)) {
		t.Errorf("public key %x, want %s", got, alicePublic)
	}
	if got := k.AppendPrivate([]byte("x")); !bytes.Equal(got, append([]byte("x"), private...)) {
		t.Errorf("private key %x", got)
	}
	clear(private) // it was copied
	if got := k.AppendPrivate(nil); !bytes.Equal(got, unhex(t, alicePrivate)) {
		t.Errorf("private key %x after its source was cleared", got)
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := handshake.ParseStaticKey(make([]byte, n)); !errors.Is(err, handshake.ErrBadKey) {
			t.Errorf("key of %d bytes: %v", n, err)
		}
	}
	a, errA := handshake.NewStaticKey(nil)
	b, errB := handshake.NewStaticKey(nil)
	if errA != nil || errB != nil || a.Public() == b.Public() || a.Public().IsZero() {
		t.Errorf("new keys %v, %v; %v, %v", a.Public(), b.Public(), errA, errB)
	}
	if _, err := handshake.NewStaticKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key from too few random bytes")
	}
}

func TestPublicKeyText(t *testing.T) {
	p := handshake.PublicKeyFromBytes([32]byte(unhex(t, alicePublic)))
	if p.String() != aliceText || p.ShortString() != aliceText[:8] {
		t.Errorf("text %q, short %q", p, p.ShortString())
	}
	got, err := handshake.ParsePublicKey(aliceText)
	if err != nil || got != p {
		t.Errorf("parsed %v, %v", got, err)
	}
	for _, s := range []string{"", "x", aliceText[:43], aliceText + "=", aliceText[:40], alicePublic, strings.Replace(aliceText, "mo=", "mp=", 1), "\n" + aliceText} {
		if got, err := handshake.ParsePublicKey(s); !errors.Is(err, handshake.ErrBadKey) || !got.IsZero() {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	type doc struct{ A, B handshake.PublicKey }
	in := doc{A: p}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"A":"`+aliceText+`","B":""}` {
		t.Errorf("JSON %s, %v", text, err)
	}
	out := doc{B: p}
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("from JSON %+v, %v", out, err)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(aliceText)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := handshake.ParsePublicKey(s); err == nil && p.String() != s {
			t.Errorf("%q parses to %q", s, p)
		}
	})
}

func TestSecretsAreNotPrinted(t *testing.T) {
	secret := bytes.Repeat([]byte{0xab}, 32)
	static, err := handshake.ParseStaticKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	psk := handshake.PSKFromPassword([]byte("hunter2"))
	pskHex := hex.EncodeToString(argon2.IDKey([]byte("hunter2"), []byte("weave network password v1"), 3, 64*1024, 2, 32))
	c := handshake.Config{Static: static, PSK: psk}
	m := newMachine(t, c)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "static", static, "psk", psk, "config", c, "machine", m)
	texts := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c"} {
		for _, v := range []any{static, *static, psk, *psk, c, &c, m, *m, []any{c}} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	for _, text := range texts {
		for _, leak := range []string{"abababab", "ABABABAB", "171 171", "0xab, 0xab", "253 253", "hunter2", pskHex[:16], strings.ToUpper(pskHex[:16])} {
			if strings.Contains(text, leak) {
				t.Errorf("%q in %.200s", leak, text)
			}
		}
	}
}

// TestPSK fixes the way from a password to the network's key: the parameters of
// the package comment, and the bytes.
func TestPSK(t *testing.T) {
	for _, tt := range []struct{ password, want string }{
		{"right", "7525f1195e06f4468b875b1a12da358cfc2a02cbfbe402934e9c5772a1cb9515"},
	} {
		want := argon2.IDKey([]byte(tt.password), []byte("weave network password v1"), 3, 64*1024, 2, 32)
		if got := hex.EncodeToString(want); got != tt.want {
			t.Errorf("%q becomes %s, want %s", tt.password, got, tt.want)
		}
		if got := handshake.PSKBytes(pskRight); !bytes.Equal(got, want) {
			t.Errorf("%q becomes %x, want %x", tt.password, got, want)
		}
	}
}
