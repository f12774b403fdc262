package handshake

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"encoding/binary"
	"hash"
	"io"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/hkdf"

	"weave/crypto/session"
)

// slowInitiator is an initiator written from the Noise specification (revision
// 34) and from this package's comment alone: a second opinion on both.
type slowInitiator struct {
	t     *testing.T
	h, ck []byte
	k     []byte
	n     uint64
}

func slowHash() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err)
	}
	return h
}

func (s *slowInitiator) mixHash(b []byte) {
	h := slowHash()
	h.Write(s.h)
	h.Write(b)
	s.h = h.Sum(nil)
}

// kdf is HKDF as section 4.3 of the specification has it.
func (s *slowInitiator) kdf(input []byte, n int) (out [][]byte) {
	mac := func(key []byte, parts ...[]byte) []byte {
		m := hmac.New(slowHash, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	temp := mac(s.ck, input)
	var last []byte
	for i := range n {
		last = mac(temp, last, []byte{byte(i + 1)})
		out = append(out, last)
	}
	return out
}

func (s *slowInitiator) mixKey(b []byte) {
	out := s.kdf(b, 2)
	s.ck, s.k, s.n = out[0], out[1], 0
}

func (s *slowInitiator) mixKeyAndHash(b []byte) {
	out := s.kdf(b, 3)
	s.ck = out[0]
	s.mixHash(out[1])
	s.k, s.n = out[2], 0
}

func slowSeal(t *testing.T, k []byte, n uint64, ad, plain []byte, open bool) []byte {
	t.Helper()
	aead, err := chacha20poly1305.New(k)
	if err != nil {
		t.Fatal(err)
	}
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), n)
	if !open {
		return aead.Seal(nil, nonce, plain, ad)
	}
	out, err := aead.Open(nil, nonce, plain, ad)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *slowInitiator) encryptAndHash(plain []byte) []byte {
	out := plain
	if s.k != nil {
		out = slowSeal(s.t, s.k, s.n, s.h, plain, false)
		s.n++
	}
	s.mixHash(out)
	return out
}

func (s *slowInitiator) decryptAndHash(sealed []byte) []byte {
	out := sealed
	if s.k != nil {
		out = slowSeal(s.t, s.k, s.n, s.h, sealed, true)
		s.n++
	}
	s.mixHash(sealed)
	return out
}

func (s *slowInitiator) dh(private *ecdh.PrivateKey, public []byte) []byte {
	p, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := private.ECDH(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TestSecondOpinion runs a Machine against the slow initiator.
func TestSecondOpinion(t *testing.T) {
	for _, password := range []bool{false, true} {
		static, err := NewStaticKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		config := Config{Static: static, Offer: []byte("offer of the responder")}
		name, flag := "Noise_XX_25519_ChaChaPoly_BLAKE2s", byte(0)
		if password {
			psk := PSK{redact([KeyLen]byte{1, 2, 3})}
			config.PSK = &psk
			name, flag = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s", 1
		}
		m, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		step := func(in []byte) []byte {
			out, _, err := m.Step(in)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Clone(out)
		}
		send := func(kind byte, body []byte) []byte {
			step([]byte{byte((len(body) + 1) >> 8), byte(len(body) + 1)})
			return step(append([]byte{kind}, body...))
		}
		body := func(frame []byte, kind byte) []byte {
			if len(frame) < 3 || int(binary.BigEndian.Uint16(frame)) != len(frame)-2 || frame[2] != kind {
				t.Fatalf("frame %x", frame)
			}
			return frame[3:]
		}
		newKey := func() *ecdh.PrivateKey {
			k, err := ecdh.X25519().GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}

		preamble := []byte{'w', 'e', 'a', 'v', 'e', 0, '\r', '\n', 1, 1, flag, 0, 0, 0, 0, 0}
		answer := step(preamble)
		s := &slowInitiator{t: t}
		if len(name) <= 32 {
			t.Fatal("name is short: h is the name itself")
		}
		h := slowHash()
		h.Write([]byte(name))
		s.h = h.Sum(nil)
		s.ck = s.h
		s.mixHash(append(bytes.Clone(preamble), answer...))

		e, st := newKey(), newKey()
		mixE := func(public []byte) {
			s.mixHash(public)
			if password {
				s.mixKey(public)
			}
		}
		// -> e
		mixE(e.PublicKey().Bytes())
		msg := append(e.PublicKey().Bytes(), s.encryptAndHash(nil)...)
		msg = body(send(1, msg), 1)
		// <- e, ee, s, es
		re := msg[:32]
		mixE(re)
		s.mixKey(s.dh(e, re))
		rs := s.decryptAndHash(msg[32:80])
		s.mixKey(s.dh(e, rs))
		if offer := s.decryptAndHash(msg[80:]); !bytes.Equal(offer, config.Offer) {
			t.Errorf("offer %q", offer)
		}
		if p := static.Public().Bytes(); !bytes.Equal(rs, p[:]) {
			t.Errorf("static key %x", rs)
		}
		// -> s, se [, psk]
		msg = s.encryptAndHash(st.PublicKey().Bytes())
		s.mixKey(s.dh(st, re))
		if password {
			s.mixKeyAndHash(config.PSK.bytes())
		}
		msg = append(msg, s.encryptAndHash([]byte("offer of the initiator"))...)
		accept := body(send(1, msg), 2)

		keys := s.kdf(nil, 2)
		if text := slowSeal(t, keys[1], 0, nil, accept, true); string(text) != "accept" {
			t.Errorf("accept says %q", text)
		}
		secret := make([]byte, 32)
		ikm := append(bytes.Clone(keys[0]), keys[1]...)
		if _, err := io.ReadFull(hkdf.New(slowHash, ikm, s.h, []byte("weave handshake v1 data secret")), secret); err != nil {
			t.Fatal(err)
		}
		r := m.Result()
		if !r.Secret.Equal(session.SecretFromBytes([32]byte(secret))) {
			t.Errorf("password %v: secret is not as documented", password)
		}
		if !bytes.Equal(r.Binding[:], s.h) || string(r.RemoteOffer) != "offer of the initiator" {
			t.Errorf("password %v: binding %x, offer %q", password, r.Binding, r.RemoteOffer)
		}
		if got := r.RemoteStatic.Bytes(); !bytes.Equal(got[:], st.PublicKey().Bytes()) {
			t.Errorf("password %v: remote static %x", password, got)
		}
		// The Transport goes on where ACCEPT stopped.
		record, err := r.Transport.Seal(nil, []byte("hello"))
		if err != nil || string(slowSeal(t, keys[1], 1, nil, record, true)) != "hello" {
			t.Errorf("password %v: first record does not open", password)
		}
		if p, err := r.Transport.Open(nil, slowSeal(t, keys[0], 0, nil, []byte("hello"), false)); err != nil || string(p) != "hello" {
			t.Errorf("password %v: first record: %q, %v", password, p, err)
		}
	}
}
