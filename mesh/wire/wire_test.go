package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh/overlay"
)

// zeroSealer seals with sixteen zero bytes.
type zeroSealer struct{}

func (zeroSealer) Seal(dst, pt []byte) ([]byte, error) {
	return append(append(dst, pt...), make([]byte, sealLen)...), nil
}

func name(t testing.TB, s string) peer.Name {
	n, err := peer.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

type golden struct {
	name  string
	value any
	hex   string
}

func goldens(t testing.TB) []golden {
	return []golden{
		{"hello, least", Hello{Name: name(t, "::1"), UID: 1},
			"a301460000000000010301" + "0400"},
		{"hello, most", Hello{
			Name: name(t, "02:aa:bb:cc:dd:ee"), NickName: "h2", UID: 0x1122334455667788, ConnID: 0xffffffffffffffff,
			Trusts: true, Port: 6783, Version: "1.2.3", Caps: map[Cap][]byte{1: {1}, 300: {}},
		}, "a8" + "014602aabbccddee" + "02626832" + "031b1122334455667788" + "041bffffffffffffffff" + "05f5" + "06191a7f" + "0765312e322e33" + "08a2014101" + "19012c40"},
		{"close, least", Close{}, "a10100"},
		{"close, full", Close{Code: CodeCollision, Text: "peer name used"}, "a20104026e" + hex.EncodeToString([]byte("peer name used"))},
		{"close with addresses", Close{Code: CodeLimit, Instead: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.1:6783"), netip.MustParseAddrPort("[2001:db8::1]:1"),
		}}, "a2010603" + "8246c00002011a7f" + "52" + "20010db8000000000000000000000001" + "0001"},
		{"hello, found", Hello{Name: name(t, "::1"), UID: 1, Found: true}, "a401460000000000010301" + "0400" + "09f5"},
		{"hello, full", Hello{Name: name(t, "::1"), UID: 1, Room: RoomFull | RoomNone}, "a401460000000000010301" + "0400" + "0a03"},
		{"offer, least", overlay.Offer{Lanes: 1}, "a3018002010380"},
		{"offer, full", overlay.Offer{
			Ciphers: []session.Cipher{session.CipherAES, session.CipherChaCha}, Lanes: 16,
			Paths: []overlay.Path{{Name: "fastdp", Port: 6784, Data: []byte{0xde, 0xad}}, {Name: "sleeve", Port: 6783}},
		}, "a301820201" + "0210" + "0382" + "a301666661737464700219" + "1a80" + "0342dead" + "a20166736c6565766502191a7f"},
	}
}

func encodeAny(v any) ([]byte, error) {
	switch v := v.(type) {
	case Hello:
		m, err := v.Msg()
		return m.Body, err
	case Close:
		m, err := v.Msg()
		return m.Body, err
	case overlay.Offer:
		return EncodeOffer(v)
	}
	return nil, errors.New("no codec")
}

func decodeLike(v any, b []byte) (any, error) {
	switch v.(type) {
	case Hello:
		return ParseHello(b)
	case Close:
		return ParseClose(b)
	}
	return DecodeOffer(b)
}

func TestGoldenBodies(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			b, err := encodeAny(g.value)
			if got := hex.EncodeToString(b); err != nil || got != g.hex {
				t.Errorf("encoded %s, %v\nwant    %s", got, err, g.hex)
			}
			want, _ := hex.DecodeString(g.hex)
			v, err := decodeLike(g.value, want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(g.value, v, cmp.AllowUnexported(peer.Name{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Errorf("decoded (-want +got):\n%s", d)
			}
		})
	}
}

func TestGoldenRecords(t *testing.T) {
	seal := strings.Repeat("00", sealLen)
	long := bytes.Repeat([]byte{7}, maxPiece+1)
	ov, err := Overlay(1, []byte{0xca, 0xfe})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		msg  Msg
		hex  string
	}{
		{"heartbeat", Heartbeat(0x0102030405060708), "001a" + "0200" + "0102030405060708" + seal},
		{"echo", Echo(1), "001a" + "0300" + "0000000000000001" + seal},
		{"overlay", ov, "0015" + "0400" + "01cafe" + seal},
		{"empty", Msg{Tag: TagGossip}, "0012" + "0600" + seal},
		{"split", Msg{TagDigest, long}, "4000" + "0701" + strings.Repeat("07", maxPiece) + seal + "0013" + "0700" + "07" + seal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := NewEncoder(zeroSealer{}).Append(nil, tt.msg)
			if got := hex.EncodeToString(b); err != nil || got != tt.hex {
				t.Errorf("encoded %v, %s\nwant %s", err, got, tt.hex)
			}
			want, _ := hex.DecodeString(tt.hex)
			msgs, err := readAll(want)
			if err != nil || len(msgs) != 1 {
				t.Fatalf("%d messages, %v; want one", len(msgs), err)
			}
			if d := cmp.Diff(Msg{tt.msg.Tag, append([]byte{}, tt.msg.Body...)}, msgs[0]); d != "" {
				t.Error(d)
			}
		})
	}
}

// readAll splits a stream sealed by zeroSealer into messages.
func readAll(b []byte) (out []Msg, err error) {
	var a Assembler
	for len(b) >= LengthLen {
		n, err := SealedLen([LengthLen]byte(b))
		if err != nil {
			return out, err
		}
		if b = b[LengthLen:]; len(b) < n {
			return out, ErrMalformed
		}
		m, ok, err := a.Push(b[:n-sealLen])
		if err != nil {
			return out, err
		}
		if ok {
			out = append(out, Msg{m.Tag, append([]byte{}, m.Body...)})
		}
		b = b[n:]
	}
	return out, nil
}

func TestSealedLen(t *testing.T) {
	tests := []struct {
		in   [2]byte
		want int
		err  error
	}{
		{[2]byte{0, 0}, 0, ErrMalformed},
		{[2]byte{0, 17}, 0, ErrMalformed},
		{[2]byte{0, 18}, 18, nil},
		{[2]byte{0x40, 0}, 16384, nil},
		{[2]byte{0x40, 1}, 0, ErrTooLong},
		{[2]byte{0xff, 0xff}, 0, ErrTooLong},
	}
	for _, tt := range tests {
		if got, err := SealedLen(tt.in); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("SealedLen(%x) = %d, %v; want %d, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestAssembler(t *testing.T) {
	piece := bytes.Repeat([]byte{1}, maxPiece)
	rec := func(tag Tag, flags byte, body ...byte) []byte { return append([]byte{byte(tag), flags}, body...) }
	tests := []struct {
		name    string
		records [][]byte
		want    int // messages
		err     error
	}{
		{"nothing", [][]byte{{}}, 0, ErrMalformed},
		{"tag only", [][]byte{{1}}, 0, ErrMalformed},
		{"unknown flag", [][]byte{rec(TagEcho, 2)}, 0, ErrMalformed},
		{"interleaved", [][]byte{rec(TagDigest, 1, 1), rec(TagEcho, 0, 1)}, 0, ErrMalformed},
		{"empty with more", [][]byte{rec(TagDigest, 1)}, 0, ErrMalformed},
		{"empty at the end", [][]byte{rec(TagDigest, 1, 1), rec(TagDigest, 0)}, 1, nil},
		{"over the limit in one", [][]byte{rec(TagEcho, 0, make([]byte, 9)...)}, 0, ErrTooLong},
		{"over the limit in two", [][]byte{rec(TagEcho, 1, make([]byte, 8)...), rec(TagEcho, 0, 1)}, 0, ErrTooLong},
		{"over the limit at once", [][]byte{rec(TagClose, 1, piece...)}, 0, ErrTooLong},
		{"unknown tag", [][]byte{rec(99, 0, piece...)}, 1, nil},
		{"unknown tag in two", [][]byte{rec(99, 1, piece...), rec(99, 0, piece...), rec(TagEcho, 0)}, 2, nil},
		{"next message after one", [][]byte{rec(TagDigest, 1, 1), rec(TagDigest, 0, 1), rec(TagEcho, 0)}, 2, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a Assembler
			got := 0
			for i, r := range tt.records {
				_, ok, err := a.Push(r)
				if ok {
					got++
				}
				if err != nil && i < len(tt.records)-1 {
					t.Fatalf("record %d: %v", i, err)
				}
				if i == len(tt.records)-1 && !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			}
			if got != tt.want {
				t.Errorf("%d messages, want %d", got, tt.want)
			}
		})
	}
}

// A peer that never ends its message costs its limit and no more.
func TestAssemblerBound(t *testing.T) {
	for _, tag := range []Tag{TagHello, TagOverlay, TagDigest, 77} {
		var a Assembler
		rec := append([]byte{byte(tag), flagMore}, make([]byte, maxPiece)...)
		var err error
		for range MaxMessage/maxPiece + 2 {
			if _, _, err = a.Push(rec); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: error %v, want %v", tag, err, ErrTooLong)
		}
		if cap(a.buf) > 2*MaxMessage {
			t.Errorf("%s: %d bytes kept", tag, cap(a.buf))
		}
	}
}

func TestEncodeLimits(t *testing.T) {
	long := strings.Repeat("é", 400)
	h := Hello{Name: name(t, "::1"), UID: 1, NickName: long, Version: long + "\x1b[2J"}
	m, err := h.Msg()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseHello(m.Body)
	if err != nil || got.NickName != long[:256] || got.Version != long[:64] {
		t.Errorf("%+v, %v", got, err)
	}
	if got := clip("a\x1b[31m\nb\xff", 99); got != "a?[31m?b\ufffd" {
		t.Errorf("clip = %q", got)
	}
	h.Caps = map[Cap][]byte{}
	for i := range Cap(maxCaps) {
		h.Caps[i] = make([]byte, maxCap)
	}
	if _, err := h.Msg(); !errors.Is(err, ErrTooLong) {
		t.Errorf("large capabilities: %v", err)
	}
	if _, err := NewEncoder(zeroSealer{}).Append(nil, Msg{99, nil}); err != nil {
		t.Errorf("empty message of an unknown tag: %v", err)
	}
	if _, err := NewEncoder(zeroSealer{}).Append(nil, Msg{TagEcho, make([]byte, 9)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("long echo: %v", err)
	}
	if _, err := Overlay(0, make([]byte, TagOverlay.Limit())); !errors.Is(err, ErrTooLong) {
		t.Errorf("long overlay message: %v", err)
	}
	if _, err := Overlay(256, nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("path 256: %v", err)
	}
}

func TestOfferLimits(t *testing.T) {
	big := make([]byte, 256)
	tests := []struct {
		name string
		o    overlay.Offer
		err  error
	}{
		{"no lanes", overlay.Offer{}, ErrMalformed},
		{"17 lanes", overlay.Offer{Lanes: 17}, ErrMalformed},
		{"none as cipher", overlay.Offer{Lanes: 1, Ciphers: []session.Cipher{0}}, ErrMalformed},
		{"cipher twice", overlay.Offer{Lanes: 1, Ciphers: []session.Cipher{1, 1}}, ErrMalformed},
		{"unnamed path", overlay.Offer{Lanes: 1, Paths: []overlay.Path{{}}}, ErrMalformed},
		{"path twice", overlay.Offer{Lanes: 1, Paths: []overlay.Path{{Name: "a"}, {Name: "a"}}}, ErrMalformed},
		{"path with a capital", overlay.Offer{Lanes: 1, Paths: []overlay.Path{{Name: "A"}}}, ErrMalformed},
		{"data too long", overlay.Offer{Lanes: 1, Paths: []overlay.Path{{Name: "a", Data: make([]byte, 257)}}}, ErrMalformed},
		{"together too long", overlay.Offer{Lanes: 1, Paths: []overlay.Path{{Name: "a", Data: big}, {Name: "b", Data: big}}}, ErrTooLong},
		{"largest of one path", overlay.Offer{Lanes: 16, Paths: []overlay.Path{{Name: "abcdefghijklmnop", Data: big}}}, nil},
	}
	for _, tt := range tests {
		if _, err := EncodeOffer(tt.o); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestParseRejects(t *testing.T) {
	tests := []struct {
		name, hex string
		parse     func([]byte) error
	}{
		{"hello: nothing", "", hello},
		{"hello: zero name", "a3014600000000000003010400", hello},
		{"hello: short name", "a30141010301" + "0400", hello},
		{"hello: zero uid", "a30146000000000001" + "03000400", hello},
		{"hello: trailing byte", "a301460000000000010301040000", hello},
		{"hello: key twice", "a401460000000000010301040003" + "02", hello},
		{"hello: indefinite map", "bf0146000000000001030104" + "00ff", hello},
		{"hello: array", "8101", hello},
		{"offer: 9 ciphers", "a30189" + "010203040506070809" + "02010380", offer},
		{"offer: cipher 256", "a30181190100" + "02010380", offer},
		{"offer: huge array", "a3019affffffff", offer},
		{"offer: deep", "a301" + strings.Repeat("81", 40) + "01", offer},
		{"close: text not UTF-8", "a201000261ff", func(b []byte) error { _, err := ParseClose(b); return err }},
		{"token: seven bytes", "00010203040506", func(b []byte) error { _, err := ParseToken(b); return err }},
		{"overlay: nothing", "", func(b []byte) error { _, _, err := ParseOverlay(b); return err }},
	}
	for _, tt := range tests {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.parse(b); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func hello(b []byte) error { _, err := ParseHello(b); return err }
func offer(b []byte) error { _, err := DecodeOffer(b); return err }

// An unknown key is how a later version adds a field.
func TestUnknownKeysAreIgnored(t *testing.T) {
	b, _ := hex.DecodeString("a401460000000000010301" + "0400" + "18636161")
	if _, err := ParseHello(b); err != nil {
		t.Error(err)
	}
}

func fuzzBody[T any](f *testing.F, parse func([]byte) (T, error)) {
	for _, g := range goldens(f) {
		b, _ := hex.DecodeString(g.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil {
			return
		}
		b1, err := encodeAny(v)
		if err != nil {
			t.Fatalf("can't encode what was parsed: %v", err)
		}
		v2, err := parse(b1)
		if err != nil {
			t.Fatalf("can't parse what was encoded: %v", err)
		}
		if b2, err := encodeAny(v2); err != nil || !bytes.Equal(b1, b2) {
			t.Fatalf("not a fixpoint: %x, then %x, %v", b1, b2, err)
		}
	})
}

func FuzzHello(f *testing.F) { fuzzBody(f, ParseHello) }
func FuzzClose(f *testing.F) { fuzzBody(f, ParseClose) }
func FuzzOffer(f *testing.F) { fuzzBody(f, DecodeOffer) }

func FuzzOverlay(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		path, payload, err := ParseOverlay(b)
		if err != nil {
			return
		}
		m, err := Overlay(path, payload)
		if err != nil || !bytes.Equal(m.Body, b) {
			t.Fatalf("%x became %x, %v", b, m.Body, err)
		}
	})
}

// FuzzRecords reads any stream and writes what it understood again.
func FuzzRecords(f *testing.F) {
	for _, m := range []Msg{Heartbeat(1), {TagDigest, make([]byte, maxPiece+9)}, {TagClose, []byte{0xa1, 1, 0}}} {
		b, _ := NewEncoder(zeroSealer{}).Append(nil, m)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		msgs, _ := readAll(b)
		var out []byte
		var known []Msg
		for _, m := range msgs {
			if m.Tag.Limit() == 0 {
				continue
			}
			known = append(known, m)
			var err error
			if out, err = NewEncoder(zeroSealer{}).Append(out, m); err != nil {
				t.Fatal(err)
			}
		}
		again, err := readAll(out)
		if d := cmp.Diff(known, again); err != nil || d != "" {
			t.Fatalf("%v\n%s", err, d)
		}
	})
}
