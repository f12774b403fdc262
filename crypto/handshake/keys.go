package handshake

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/argon2"
)

// KeyLen is the size in bytes of every key here.
const KeyLen = 32

// ErrBadKey reports bytes or text that are not a key.
var ErrBadKey = errors.New("handshake: not a key")

// redacted holds a secret that cannot be printed or compared with ==.
type redacted struct {
	get func() *[KeyLen]byte // a func: fmt shows what other unexported fields hold
}

func redact(b [KeyLen]byte) redacted {
	return redacted{func() *[KeyLen]byte { return &b }}
}

// bytes is the secret itself, not a copy.
func (r redacted) bytes() []byte { return r.get()[:] }

const redactedText = "(redacted)"

// String never shows the secret.
func (redacted) String() string { return redactedText }

// GoString never shows the secret.
func (redacted) GoString() string { return redactedText }

// Format never shows the secret, whatever the verb.
func (redacted) Format(f fmt.State, _ rune) { io.WriteString(f, redactedText) }

// LogValue never shows the secret.
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }

// StaticKey is the private X25519 key that a peer keeps over restarts. It shows
// itself only to AppendPrivate.
type StaticKey struct {
	redacted
	public PublicKey
}

// NewStaticKey draws a key from r; nil means the system's random source.
func NewStaticKey(r io.Reader) (*StaticKey, error) {
	if r == nil {
		r = rand.Reader
	}
	var b [KeyLen]byte
	defer clear(b[:])
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, fmt.Errorf("drawing static key: %w", err)
	}
	return ParseStaticKey(b[:])
}

// ParseStaticKey is the inverse of AppendPrivate. It copies b.
func ParseStaticKey(b []byte) (*StaticKey, error) {
	private, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrBadKey)
	}
	k := &StaticKey{redacted: redact([KeyLen]byte(b))}
	copy(k.public.k[:], private.PublicKey().Bytes())
	return k, nil
}

// AppendPrivate appends the KeyLen bytes of the private key, for the store alone.
func (k *StaticKey) AppendPrivate(b []byte) []byte { return append(b, k.bytes()...) }

// Public returns the half that others know the peer by.
func (k *StaticKey) Public() PublicKey { return k.public }

// PublicKey names the holder of a StaticKey. It is a comparable value; the zero
// PublicKey is nobody's.
type PublicKey struct{ k [KeyLen]byte }

// PublicKeyFromBytes copies b.
func PublicKeyFromBytes(b [KeyLen]byte) PublicKey { return PublicKey{b} }

// Bytes returns the key as it is on the wire.
func (p PublicKey) Bytes() [KeyLen]byte { return p.k }

// IsZero reports whether p is nobody's key.
func (p PublicKey) IsZero() bool { return p == PublicKey{} }

// String returns the text form: 44 characters of base64.
func (p PublicKey) String() string { return base64.StdEncoding.EncodeToString(p.k[:]) }

// ShortString returns the first 8 characters of the text form, for people. Half
// of 2^48 tries make a key with a given one, so it decides nothing.
func (p PublicKey) ShortString() string { return p.String()[:8] }

// ParsePublicKey reads the text form.
func ParsePublicKey(s string) (PublicKey, error) {
	var p PublicKey
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != KeyLen {
		return p, fmt.Errorf("%q: %w", s, ErrBadKey)
	}
	copy(p.k[:], b)
	if p.String() != s { // the decoder skips line ends and spare bits; one key has one text
		return PublicKey{}, fmt.Errorf("%q: %w", s, ErrBadKey)
	}
	return p, nil
}

// MarshalText gives the text form; the zero PublicKey gives "".
func (p PublicKey) MarshalText() ([]byte, error) {
	if p.IsZero() {
		return nil, nil
	}
	return []byte(p.String()), nil
}

// UnmarshalText accepts the text form, and "" for the zero PublicKey.
func (p *PublicKey) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*p = PublicKey{}
		return nil
	}
	*p, err = ParsePublicKey(string(b))
	return err
}

// PSK is what a password becomes: the pre-shared key of the whole network.
type PSK struct{ redacted }

// Argon2id parameters and salt are protocol: every peer must come from the same
// password to the same PSK before it has talked to anybody, so the salt is fixed.
// It still keeps tables made for other programs from being of use.
const (
	pskSalt    = "weave network password v1"
	pskTime    = 3
	pskMemory  = 64 * 1024 // KiB
	pskThreads = 2
)

// PSKFromPassword stretches a password with Argon2id (RFC 9106): a fifth of a
// second and 64 MiB, so it is done once, at start. The caller should clear
// password.
func PSKFromPassword(password []byte) *PSK {
	key := argon2.IDKey(password, []byte(pskSalt), pskTime, pskMemory, pskThreads, KeyLen)
	defer clear(key)
	return &PSK{redact([KeyLen]byte(key))}
}
