package session

import (
	"crypto/hkdf"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// SecretLen is the size in bytes of a Secret.
const SecretLen = 32

// Secret is what both ends of a control connection share after its handshake and
// nobody else knows. Data keys are derived from it. It cannot be printed and is
// not comparable with ==.
type Secret struct {
	// A func, because == of it does not compile, and because fmt shows what an
	// unexported field holds or points to without asking its methods.
	get func() *[SecretLen]byte
}

// SecretFromBytes copies b into a Secret; the caller should clear b.
func SecretFromBytes(b [SecretLen]byte) Secret {
	return Secret{get: func() *[SecretLen]byte { return &b }}
}

// bytes returns a copy.
func (s Secret) bytes() (b [SecretLen]byte) {
	if s.get != nil {
		b = *s.get()
	}
	return b
}

// clone returns a Secret that shares nothing with s.
func (s Secret) clone() Secret { return SecretFromBytes(s.bytes()) }

// wipe overwrites the bytes, which copies of s share.
func (s Secret) wipe() {
	if s.get != nil {
		clear(s.get()[:])
	}
}

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool {
	x, y := s.bytes(), o.bytes()
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// IsZero reports whether s was never set.
func (s Secret) IsZero() bool { return s.Equal(Secret{}) }

// String never shows the secret.
func (Secret) String() string { return "session.Secret(redacted)" }

// GoString never shows the secret.
func (s Secret) GoString() string { return s.String() }

// Format never shows the secret, whatever the verb: without it %d would.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue never shows the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Derive returns a key for another use of the shared secret, named by label: both
// ends get the same key for the same label, and keys of different labels, or the
// data keys, tell nothing of one another. It is HKDF-BLAKE2s-256 with no salt and
// the info "weave secret v1 " and label. Labels are protocol.
func (s Secret) Derive(label string) (key [SecretLen]byte) {
	ikm := s.bytes()
	defer clear(ikm[:])
	out, err := hkdf.Key(newBlake2s, ikm[:], nil, "weave secret v1 "+label, SecretLen)
	if err != nil {
		panic(err) // lengths are constant
	}
	defer clear(out)
	return [SecretLen]byte(out)
}
