package session

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func keyMessage(kind messageType) message {
	m := message{kind: kind, cipher: CipherAES, epoch: 0x01020304, index: 0xa1a2a3a4}
	for i := range m.public {
		m.public[i], m.random[i] = byte(i), byte(0x80+i)
	}
	return m
}

const (
	goldenPublic = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	goldenRandom = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
)

// goldenMessages must be satisfied in both directions.
var goldenMessages = []struct {
	name string
	m    message
	hex  string
}{
	{"init", keyMessage(msgInit), "01010200" + "04030201" + "a4a3a2a1" + goldenPublic + goldenRandom},
	{"resp", keyMessage(msgResp), "01020200" + "04030201" + "a4a3a2a1" + goldenPublic + goldenRandom},
	{"confirm", message{kind: msgConfirm, cipher: CipherChaCha, epoch: 1}, "0103010001000000"},
	{"request", message{kind: msgRequest, cipher: CipherNone, epoch: maxControlEpoch}, "01040000ffffffff"},
}

func TestGoldenMessages(t *testing.T) {
	for _, tt := range goldenMessages {
		if got := hex.EncodeToString(tt.m.append(nil)); got != tt.hex {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.hex)
		}
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseMessage(b)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.m, got, cmp.AllowUnexported(message{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for _, g := range goldenMessages {
		good := g.m.append(nil)
		for n := range good {
			if _, err := parseMessage(good[:n]); !errors.Is(err, ErrMessage) {
				t.Errorf("%s of %d bytes: %v", g.name, n, err)
			}
		}
		for _, tt := range []struct {
			name string
			off  int
			v    byte
		}{
			{"version 0", 0, 0}, {"version 2", 0, 2}, {"type 0", 1, 0}, {"type 5", 1, 5}, {"padding", 3, 1},
		} {
			b := bytes.Clone(good)
			b[tt.off] = tt.v
			if _, err := parseMessage(b); !errors.Is(err, ErrMessage) {
				t.Errorf("%s, %s: %v", g.name, tt.name, err)
			}
		}
		if _, err := parseMessage(append(bytes.Clone(good), 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s with a trailing byte: %v", g.name, err)
		}
		b := bytes.Clone(good)
		clear(b[offMsgEpoch : offMsgEpoch+4])
		if _, err := parseMessage(b); !errors.Is(err, ErrMessage) {
			t.Errorf("%s of epoch 0: %v", g.name, err)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, g := range goldenMessages {
		f.Add(g.m.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err == nil && !bytes.Equal(m.append(nil), b) {
			t.Errorf("%x parses to %+v, which is %x", b, m, m.append(nil))
		}
	})
}
