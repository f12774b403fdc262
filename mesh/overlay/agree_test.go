package overlay

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weave/crypto/session"
)

const (
	chacha = session.CipherChaCha
	aes    = session.CipherAES
	future = session.Cipher(9)
)

func offer(lanes int, ciphers []session.Cipher, paths ...string) Offer {
	o := Offer{Ciphers: ciphers, Lanes: lanes}
	for i, p := range paths {
		o.Paths = append(o.Paths, Path{Name: p, Port: uint16(6783 + i)})
	}
	return o
}

func ciphers(c ...session.Cipher) []session.Cipher { return c }

func TestAgree(t *testing.T) {
	tests := []struct {
		name                 string
		initiator, responder Offer
		want                 Agreement
	}{
		{"nothing", Offer{}, Offer{}, Agreement{Lanes: 1}},
		{"same", offer(4, ciphers(aes, chacha), "fastdp", "sleeve"), offer(4, ciphers(aes, chacha), "fastdp", "sleeve"),
			Agreement{aes, 4, []string{"fastdp", "sleeve"}}},
		{"fewer lanes of the responder", offer(4, ciphers(aes)), offer(2, ciphers(aes)), Agreement{aes, 2, nil}},
		{"too many lanes", offer(99, nil), offer(99, nil), Agreement{Lanes: MaxLanes}},
		{"first choices differ", offer(1, ciphers(aes, chacha)), offer(1, ciphers(chacha, aes)), Agreement{Cipher: chacha, Lanes: 1}},
		{"one can't do the other's first", offer(1, ciphers(aes, chacha)), offer(1, ciphers(chacha)), Agreement{Cipher: chacha, Lanes: 1}},
		{"first choices differ, no chacha", offer(1, ciphers(future, aes)), offer(1, ciphers(aes, future)), Agreement{Cipher: future, Lanes: 1}},
		{"same first choice of a later version", offer(1, ciphers(future, chacha)), offer(1, ciphers(future, chacha)), Agreement{Cipher: future, Lanes: 1}},
		{"nothing in common", offer(1, ciphers(aes), "fastdp"), offer(1, ciphers(chacha), "sleeve"), Agreement{Lanes: 1}},
		{"none is no cipher", offer(1, ciphers(0)), offer(1, ciphers(0)), Agreement{Lanes: 1}},
		{"order of paths is the initiator's", offer(1, nil, "a", "b", "c"), offer(1, nil, "c", "x", "b"), Agreement{Lanes: 1, Paths: []string{"b", "c"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Agree(tt.initiator, tt.responder)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// Whatever the offers, both ends can do what they agree on.
func TestAgreeIsInBothOffers(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) Offer {
		cs := rapid.SliceOfDistinct(rapid.ByteRange(1, 4), rapid.ID[byte]).Draw(t, "ciphers")
		o := offer(rapid.IntRange(-1, 20).Draw(t, "lanes"), nil,
			rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.ID[string]).Draw(t, "paths")...)
		for _, c := range cs {
			o.Ciphers = append(o.Ciphers, session.Cipher(c))
		}
		return o
	})
	has := func(o Offer, c session.Cipher) bool {
		for _, x := range o.Ciphers {
			if x == c {
				return true
			}
		}
		return false
	}
	rapid.Check(t, func(t *rapid.T) {
		i, r := gen.Draw(t, "initiator"), gen.Draw(t, "responder")
		a := Agree(i, r)
		if a.Lanes < 1 || a.Lanes > MaxLanes || a.Lanes > max(1, i.Lanes) || a.Lanes > max(1, r.Lanes) {
			t.Fatalf("%d lanes", a.Lanes)
		}
		if a.Cipher != session.CipherNone && !(has(i, a.Cipher) && has(r, a.Cipher)) {
			t.Fatalf("cipher %s is not in both", a.Cipher)
		}
		if b := Agree(r, i); b.Cipher != a.Cipher && has(i, chacha) && has(r, chacha) {
			t.Fatalf("cipher depends on who dials: %s, %s", a.Cipher, b.Cipher)
		}
	})
}
