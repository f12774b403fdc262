package session

import "fmt"

// Cipher names how the data of a link is sealed. The values go over the wire in
// offers and into key derivation labels; append only.
type Cipher uint8

const (
	// CipherNone seals nothing. A link with it can only be built from a
	// policy.Permit that allows clear data.
	CipherNone Cipher = 0
	// CipherChaCha is ChaCha20-Poly1305 (RFC 8439).
	CipherChaCha Cipher = 1
	// CipherAES is AES-256-GCM (NIST SP 800-38D).
	CipherAES Cipher = 2
)

// String returns the name used in status and by --cipher.
func (c Cipher) String() string {
	switch c {
	case CipherNone:
		return "none"
	case CipherChaCha:
		return "chacha20-poly1305"
	case CipherAES:
		return "aes-256-gcm"
	}
	return fmt.Sprintf("cipher(%d)", uint8(c))
}
