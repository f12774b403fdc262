package wire

import (
	"fmt"

	"weave/crypto/session"
	"weave/mesh/overlay"
)

// Limits of an offer, in bytes or entries.
const (
	maxOffer    = 512
	maxCiphers  = 8
	maxPaths    = 8
	maxPathName = 16
	maxPathData = 256
)

type offerBody struct {
	Ciphers []uint16   `cbor:"1,keyasint"` // not []uint8, which would be a byte string
	Lanes   int        `cbor:"2,keyasint"`
	Paths   []pathBody `cbor:"3,keyasint"`
}

type pathBody struct {
	Name string `cbor:"1,keyasint"`
	Port uint16 `cbor:"2,keyasint"`
	Data []byte `cbor:"3,keyasint,omitempty"`
}

// EncodeOffer returns the bytes of o, at most maxOffer, for the handshake.
func EncodeOffer(o overlay.Offer) ([]byte, error) {
	if err := checkOffer(o); err != nil {
		return nil, err
	}
	w := offerBody{Lanes: o.Lanes, Ciphers: []uint16{}, Paths: []pathBody{}}
	for _, c := range o.Ciphers {
		w.Ciphers = append(w.Ciphers, uint16(c))
	}
	for _, p := range o.Paths {
		w.Paths = append(w.Paths, pathBody(p))
	}
	b, err := encMode.Marshal(w)
	if err != nil {
		return nil, err
	}
	if len(b) > maxOffer {
		return nil, fmt.Errorf("offer of %d bytes: %w", len(b), ErrTooLong)
	}
	return b, nil
}

// DecodeOffer reads what EncodeOffer wrote. Ciphers that this version doesn't
// know are kept. The result shares no memory with b.
func DecodeOffer(b []byte) (overlay.Offer, error) {
	var w offerBody
	if err := decode("offer", maxOffer, b, &w); err != nil {
		return overlay.Offer{}, err
	}
	o := overlay.Offer{Lanes: w.Lanes}
	for _, c := range w.Ciphers {
		if c > 255 {
			return overlay.Offer{}, fmt.Errorf("offer cipher %d: %w", c, ErrMalformed)
		}
		o.Ciphers = append(o.Ciphers, session.Cipher(c))
	}
	for _, p := range w.Paths {
		if len(p.Data) == 0 {
			p.Data = nil
		}
		o.Paths = append(o.Paths, overlay.Path(p))
	}
	if err := checkOffer(o); err != nil {
		return overlay.Offer{}, err
	}
	return o, nil
}

func checkOffer(o overlay.Offer) error {
	if o.Lanes < 1 || o.Lanes > overlay.MaxLanes {
		return fmt.Errorf("offer of %d lanes: %w", o.Lanes, ErrMalformed)
	}
	if len(o.Ciphers) > maxCiphers || len(o.Paths) > maxPaths {
		return fmt.Errorf("offer lists: %w", ErrTooLong)
	}
	seen := map[any]bool{}
	for _, c := range o.Ciphers {
		if c == session.CipherNone || seen[c] {
			return fmt.Errorf("offer cipher %d: %w", c, ErrMalformed)
		}
		seen[c] = true
	}
	for _, p := range o.Paths {
		if !validPathName(p.Name) || len(p.Data) > maxPathData || seen[p.Name] {
			return fmt.Errorf("offer path %q: %w", p.Name, ErrMalformed)
		}
		seen[p.Name] = true
	}
	return nil
}

func validPathName(s string) bool {
	for _, r := range []byte(s) {
		if !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxPathName
}
