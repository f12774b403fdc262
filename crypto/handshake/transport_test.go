package handshake_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"weave/crypto/handshake"
)

func transports(t testing.TB) (initiator, responder *handshake.Transport) {
	t.Helper()
	a, b := meet(newMachine(t, config(t, true, pskRight)), newMachine(t, config(t, false, pskRight)), nil)
	if !a.done || !b.done {
		t.Fatal(a.err, b.err)
	}
	return a.result.Transport, b.result.Transport
}

// TestTransportRekeys goes over the points where keys are replaced, in both
// directions, with different numbers of records each way.
func TestTransportRekeys(t *testing.T) {
	a, b := transports(t)
	for _, way := range []struct {
		name     string
		from, to *handshake.Transport
		records  uint32
	}{{"forth", a, b, 1<<17 + 10}, {"back", b, a, 1<<16 + 10}} {
		var plain [4]byte
		buf, out := make([]byte, 0, 64), make([]byte, 0, 64)
		for i := range way.records {
			binary.BigEndian.PutUint32(plain[:], i)
			record, err := way.from.Seal(buf, plain[:])
			if err != nil {
				t.Fatal(err)
			}
			got, err := way.to.Open(out, record)
			if err != nil || !bytes.Equal(got, plain[:]) {
				t.Fatalf("%s: record %d: %x, %v", way.name, i, got, err)
			}
		}
	}
}

// TestTransportKeysDiffer: the same nonce and plaintext before and after a
// replacement make different records, so there was one.
func TestTransportKeysDiffer(t *testing.T) {
	with, without := transports(t)
	_ = without
	before := handshake.SendKey(with)
	for i := range 1<<16 + 1 {
		if i == 1<<16 && handshake.SendKey(with) != before {
			t.Error("key replaced too early")
		}
		if _, err := with.Seal(nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if handshake.SendKey(with) == before {
		t.Error("key not replaced after 2^16 records")
	}
}

// TestTransportEnds: one record that is wrong is the end of what is opened.
func TestTransportEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(records [][]byte) []byte // the first of these is next
		want   error
	}{
		{"flipped bit", func(r [][]byte) []byte { r[0][0] ^= 1; return r[0] }, handshake.ErrAuth},
		{"cut", func(r [][]byte) []byte { return r[0][:len(r[0])-1] }, handshake.ErrAuth},
		{"longer", func(r [][]byte) []byte { return append(r[0], 0) }, handshake.ErrAuth},
		{"out of order", func(r [][]byte) []byte { return r[1] }, handshake.ErrAuth},
		{"empty", func([][]byte) []byte { return nil }, handshake.ErrAuth},
		{"too long", func([][]byte) []byte { return make([]byte, handshake.MaxRecord+1) }, handshake.ErrTooLong},
	} {
		a, b := transports(t)
		var records [][]byte
		for range 2 {
			r, err := a.Seal(nil, []byte("record"))
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
		good := bytes.Clone(records[0])
		if p, err := b.Open([]byte("keep"), tt.change(records)); !errors.Is(err, tt.want) || string(p) != "keep" {
			t.Errorf("%s: %q, %v, want %v", tt.name, p, err, tt.want)
		}
		if _, err := b.Open(nil, good); !errors.Is(err, handshake.ErrAuth) {
			t.Errorf("%s: a good record afterwards: %v", tt.name, err)
		}
		if _, err := b.Seal(nil, nil); err != nil {
			t.Errorf("%s: sealing afterwards: %v", tt.name, err)
		}
	}
	a, b := transports(t)
	r, err := a.Seal(nil, []byte("twice"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(nil, r); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(nil, r); !errors.Is(err, handshake.ErrAuth) {
		t.Errorf("replay: %v", err)
	}
	if _, err := a.Open(nil, r); !errors.Is(err, handshake.ErrAuth) {
		t.Errorf("reflection: %v", err)
	}
}

// TestGoldenHandshake fixes what two ends with known keys and random bytes write.
func TestGoldenHandshake(t *testing.T) {
	for _, tt := range []struct {
		name string
		psk  *handshake.PSK
		want []string // in the order of writing
	}{
		{"XX", nil, goldenXX},
		{"XXpsk3", pskRight, goldenXXpsk3},
	} {
		tr := record(t, tt.psk)
		var got [][]byte
		for i := range tr.initiator {
			got = append(got, tr.initiator[i], tr.responder[i])
		}
		for i := range got {
			if g := hex.EncodeToString(got[i]); i >= len(tt.want) || g != tt.want[i] {
				t.Errorf("%s write %d: %s", tt.name, i, g)
			}
		}
	}
}

var goldenXX = []string{
	"7765617665000d0a0101000000000000",
	"7765617665000d0a0101000000000000",
	"002101e6903f563977752dcac4271f81264dac3d44b39099447ffba8c292e66760416b",
	"007701350668087a44e3c074f00b568c8a49fea1ee1596318692ea23fe95d91fd2506b49a4474b76b7f7d61124697e23989e628b69caf3e3440f33fe4177b28885efd513996c8959fe2b4ef82fa7a6ca894d308f7341739a4135017defe5b173062f3677595865f497ff9f5fa887d14d71cc755ed5d3a41d94",
	"0057018de432d51870e3c3d6cddfb091d0597b9be9f666703d90782294852092255d6060521e1582a2e4f34143f18dc0aab905b2cfa3653aaba83059e9c0f9ad9d4ab2e060038f2feb6400f10578b914a1a96fddaa468bb22b",
	"001702b63f095767b2d2172a30d138e0c4101f5cedd4982914",
}

var goldenXXpsk3 = []string{
	"7765617665000d0a0101010000000000",
	"7765617665000d0a0101010000000000",
	"003101e6903f563977752dcac4271f81264dac3d44b39099447ffba8c292e66760416ba2926bfd11a3d195bc111a17440fe3d4",
	"007701350668087a44e3c074f00b568c8a49fea1ee1596318692ea23fe95d91fd2506b389f21c42ad7f64fba8ff25185e2b34fef3939000cfb4f5fca9d3cd4e272e73c23b641884fab86f7a26a10518413062e2313f6257675a3f04ac8c06115b352e4d99dc385475f2133b587ddc389b0a347faf8b0842652",
	"0057018d75107579b91015d6ac636ef102118afc4793e23a574c6470a1174dd42285b8fb4d639bbc502e11c006516822fa048f5c800ee944c0f82c0a5f7825811376040df5b938d4a996723f27589236311f06f9a1deb9d92d",
	"001702c79de5dd77ffd15de8031c24344b765d4afb58dec31c",
}
