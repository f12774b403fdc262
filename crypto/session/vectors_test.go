package session

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	xhkdf "golang.org/x/crypto/hkdf"
)

// hexBytes is hex in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "wycheproof", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func TestWycheproofAEAD(t *testing.T) {
	for _, tt := range []struct {
		file   string
		cipher Cipher
		cases  int
	}{
		{"chacha20_poly1305.json", CipherChaCha, 316},
		{"aes_256_gcm.json", CipherAES, 66},
	} {
		var vectors []struct {
			TcID                       int
			Comment, Result            string
			Key, IV, AAD, Msg, Ct, Tag hexBytes
		}
		readVectors(t, tt.file, &vectors)
		if len(vectors) != tt.cases {
			t.Errorf("%s: %d cases, want %d", tt.file, len(vectors), tt.cases)
		}
		for _, v := range vectors {
			aead, err := newAEAD(tt.cipher, v.Key)
			if err != nil {
				t.Fatal(err)
			}
			sealed := append(bytes.Clone(v.Ct), v.Tag...)
			valid := v.Result == "valid"
			if got := aead.Seal(nil, v.IV, v.Msg, v.AAD); bytes.Equal(got, sealed) != valid {
				t.Errorf("%v case %d (%s): sealed %x, want %x, %s", tt.cipher, v.TcID, v.Comment, got, sealed, v.Result)
			}
			got, err := aead.Open(nil, v.IV, sealed, v.AAD)
			if (err == nil) != valid || valid && !bytes.Equal(got, v.Msg) {
				t.Errorf("%v case %d (%s): opened %x, %v, want %x, %s", tt.cipher, v.TcID, v.Comment, got, err, v.Msg, v.Result)
			}
		}
	}
}

func TestWycheproofX25519(t *testing.T) {
	var vectors []struct {
		TcID                    int
		Comment, Result         string
		Public, Private, Shared hexBytes
	}
	readVectors(t, "x25519.json", &vectors)
	if len(vectors) != 518 {
		t.Errorf("%d cases, want 518", len(vectors))
	}
	for _, v := range vectors {
		private, err := ecdh.X25519().NewPrivateKey(v.Private)
		if err != nil {
			t.Fatal(err)
		}
		public, err := ecdh.X25519().NewPublicKey(v.Public)
		if err != nil {
			t.Fatal(err)
		}
		got, err := private.ECDH(public)
		// A result of zero is right by RFC 7748, but nothing to make a key of.
		if zero := bytes.Equal(v.Shared, make([]byte, 32)); zero != (err != nil) || !zero && !bytes.Equal(got, v.Shared) {
			t.Errorf("case %d (%s): %x, %v, want %x, %s", v.TcID, v.Comment, got, err, v.Shared, v.Result)
		}
	}
}

// TestHKDF compares HKDF-BLAKE2s with one written from RFC 5869 and with a second
// implementation. Wycheproof has none for this hash.
func TestHKDF(t *testing.T) {
	mac := func(key []byte, parts ...[]byte) []byte {
		m := hmac.New(newBlake2s, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	for _, n := range []int{1, 32, 33, 96} {
		salt, ikm, info := bytes.Repeat([]byte{1}, n), bytes.Repeat([]byte{2}, 2*n), bytes.Repeat([]byte{3}, n)
		prk := mac(salt, ikm)
		t1 := mac(prk, info, []byte{1})
		want := append(t1, mac(prk, t1, info, []byte{2})...)

		ourPRK, err := hkdf.Extract(newBlake2s, ikm, salt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hkdf.Expand(newBlake2s, ourPRK, string(info), len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: %x, %v, want %x", n, got, err, want)
		}
		other := make([]byte, len(want))
		if _, err := xhkdf.New(newBlake2s, ikm, salt, info).Read(other); err != nil || !bytes.Equal(got, other) {
			t.Errorf("%d: %x, %v, want %x", n, got, err, other)
		}
	}
}

// TestBlake2s is the example of RFC 7693, appendix B.
func TestBlake2s(t *testing.T) {
	h := newBlake2s()
	h.Write([]byte("abc"))
	const want = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKeySchedule holds the schedule to what the package comment says, built here
// from its parts, and to fixed bytes.
func TestKeySchedule(t *testing.T) {
	init, resp := bytes.Repeat([]byte{0xaa}, keyMessageLen), bytes.Repeat([]byte{0xbb}, keyMessageLen)
	dh, secret := bytes.Repeat([]byte{0x11}, 32), [SecretLen]byte(bytes.Repeat([]byte{0x22}, SecretLen))
	h := newBlake2s()
	h.Write(append(bytes.Clone(init), resp...))
	salt, ikm := h.Sum(nil), append(bytes.Clone(dh), secret[:]...)

	const epoch, lane = 0x01020304, 33
	s, err := newSchedule(CipherAES, epoch, bytes.Clone(dh), SecretFromBytes(secret), init, resp)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		d    direction
		want string
	}{
		{toResponder, "785b78233d5d9bdb14234d736277a37d4fac2fb4d3e297f627bd9b41dda3f322"},
		{toInitiator, "1f13928b71cc85e8b2845bc79ef4e481661ada4a01e6ae9da2b267d067c615c9"},
	} {
		got, err := s.key(tt.d, lane)
		if err != nil {
			t.Fatal(err)
		}
		info := append([]byte("weave session v1 lane"), 2, 4, 3, 2, 1, byte(tt.d), lane)
		parts := make([]byte, keyLen)
		if _, err := xhkdf.New(newBlake2s, ikm, salt, info).Read(parts); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, parts) {
			t.Errorf("direction %d: key %x, want %x as documented", tt.d, got, parts)
		}
		if hex.EncodeToString(got) != tt.want {
			t.Errorf("direction %d: key %x, want %s", tt.d, got, tt.want)
		}
	}
}

// TestKeySeparation: every input of the schedule changes every key.
func TestKeySeparation(t *testing.T) {
	type in struct {
		c      Cipher
		epoch  uint32
		dh     byte
		secret byte
		init   byte
		resp   byte
		d      direction
		l      Lane
	}
	base := in{CipherChaCha, 1, 1, 1, 1, 1, toResponder, 0}
	variants := map[string]in{"base": base}
	change := func(name string, f func(*in)) { v := base; f(&v); variants[name] = v }
	change("cipher", func(v *in) { v.c = CipherAES })
	change("epoch", func(v *in) { v.epoch = 2 })
	change("dh", func(v *in) { v.dh = 2 })
	change("secret", func(v *in) { v.secret = 2 })
	change("init", func(v *in) { v.init = 2 })
	change("resp", func(v *in) { v.resp = 2 })
	change("swapped", func(v *in) { v.init, v.resp = 7, 8 })
	change("swapped back", func(v *in) { v.init, v.resp = 8, 7 })
	change("direction", func(v *in) { v.d = toInitiator })
	change("lane", func(v *in) { v.l = 1 })
	seen := map[string]string{}
	for name, v := range variants {
		fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
		s, err := newSchedule(v.c, v.epoch, fill(v.dh), SecretFromBytes([32]byte(fill(v.secret))), fill(v.init), fill(v.resp))
		if err != nil {
			t.Fatal(err)
		}
		k, err := s.key(v.d, v.l)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(k)]; ok {
			t.Errorf("%s and %s have the same key", name, other)
		}
		seen[string(k)] = name
	}
}
