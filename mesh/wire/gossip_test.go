package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"weave/mesh/gossip"
)

func TestGoldenGossip(t *testing.T) {
	u := Unicast{Hops: 31, Origin: name(t, "02:00:00:00:00:01"), Dest: name(t, "02:00:00:00:00:02"), Channel: "ip", Payload: []byte{0xca, 0xfe}}
	msg := func(m Msg, err error) Msg {
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	tests := []struct {
		name string
		msg  Msg
		tag  Tag
		hex  string
	}{
		{"unicast", msg(u.Msg()), TagUnicast, "1f" + "020000000001" + "020000000002" + "026970" + "cafe"},
		{"gossip", msg(Gossip("topology", []byte{1})), TagGossip, "08746f706f6c6f6779" + "01"},
		{"digest, empty", msg(Digest("x", nil)), TagDigest, "0178"},
	}
	for _, tt := range tests {
		if got := hex.EncodeToString(tt.msg.Body); got != tt.hex || tt.msg.Tag != tt.tag {
			t.Errorf("%s: %s %s, want %s %s", tt.name, tt.msg.Tag, got, tt.tag, tt.hex)
		}
	}
	back, err := ParseUnicast(tests[0].msg.Body)
	if err != nil || back.Origin != u.Origin || back.Dest != u.Dest || back.Hops != 31 || back.Channel != "ip" || !bytes.Equal(back.Payload, u.Payload) {
		t.Errorf("came back as %+v, %v", back, err)
	}
	if c, p, err := ParseChannel(tests[1].msg.Body); c != "topology" || !bytes.Equal(p, []byte{1}) || err != nil {
		t.Errorf("came back as %q %x %v", c, p, err)
	}
}

func TestGossipLimits(t *testing.T) {
	big := make([]byte, gossip.MaxMessage)
	long := string(bytes.Repeat([]byte{'c'}, maxChannel))
	m, err := Unicast{Origin: name(t, "::1"), Dest: name(t, "::2"), Channel: long, Payload: big}.Msg()
	if err != nil || len(m.Body) != TagUnicast.Limit() {
		t.Errorf("largest unicast: %d bytes, %v; limit %d", len(m.Body), err, TagUnicast.Limit())
	}
	if m, err = Gossip(long, big); err != nil || len(m.Body) != TagGossip.Limit() {
		t.Errorf("largest gossip: %d bytes, %v", len(m.Body), err)
	}
	for what, err := range map[string]error{
		"payload": second(Gossip("c", append(big, 0))), "channel": second(Digest(long+"c", nil)), "no channel": second(Gossip("", nil)),
	} {
		if !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, in := range []string{"", "00", "21", "0261", "01"} {
		b, _ := hex.DecodeString(in)
		if _, _, err := ParseChannel(b); err == nil {
			t.Errorf("%q is a channel", in)
		}
		if _, err := ParseUnicast(append(make([]byte, unicastFix), b...)); err == nil {
			t.Errorf("%q is a unicast's channel", in)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzGossip(f *testing.F) {
	m, _ := Unicast{Hops: 1, Origin: name(f, "::1"), Dest: name(f, "::2"), Channel: "c", Payload: []byte("p")}.Msg()
	f.Add(m.Body)
	m, _ = Gossip("topology", []byte("p"))
	f.Add(m.Body)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, p, err := ParseChannel(b); err == nil {
			if m, err := Gossip(c, p); err != nil || !bytes.Equal(m.Body, b) {
				t.Fatalf("%x came back as %x, %v", b, m.Body, err)
			}
		}
		if u, err := ParseUnicast(b); err == nil {
			if m, err := u.Msg(); err != nil || !bytes.Equal(m.Body, b) {
				t.Fatalf("%x came back as %x, %v", b, m.Body, err)
			}
		}
	})
}
