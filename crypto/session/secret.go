package session

import (
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
	_ [0]func() // == isn't constant-time
	b [SecretLen]byte
}

// SecretFromBytes copies b into a Secret; the caller should clear b.
func SecretFromBytes(b [SecretLen]byte) Secret { return Secret{b: b} }

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.b[:], o.b[:]) == 1 }

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
