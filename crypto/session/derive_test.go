package session_test

import (
	"encoding/hex"
	"hash"
	"io"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/hkdf"

	"weave/crypto/session"
)

func TestDerive(t *testing.T) {
	var raw [session.SecretLen]byte
	for i := range raw {
		raw[i] = byte(i)
	}
	s := session.SecretFromBytes(raw)
	a, b := s.Derive("a"), s.Derive("b")
	if a == b {
		t.Error("two labels, one key")
	}
	if a != session.SecretFromBytes(raw).Derive("a") {
		t.Error("two ends, two keys")
	}
	const golden = "79eb449059e81c88f83d6887c00f2ea36b8c840d911b6a63933684977ebfb099"
	if got := hex.EncodeToString(a[:]); got != golden {
		t.Errorf("got %s, want %s", got, golden)
	}
	// Another implementation of RFC 5869.
	var want [session.SecretLen]byte
	newHash := func() hash.Hash { h, _ := blake2s.New256(nil); return h }
	if _, err := io.ReadFull(hkdf.New(newHash, raw[:], nil, []byte("weave secret v1 a")), want[:]); err != nil || a != want {
		t.Errorf("got %x, want %x, %v", a, want, err)
	}
}
