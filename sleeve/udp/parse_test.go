package udp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNeedsFiller(t *testing.T) {
	tests := []struct {
		release string
		want    bool
	}{
		{"", false},
		{"5.10.0-28-cloud-amd64", false},
		{"6.18.44-fc-v445", false},
		{"6.99.99", false},
		{"7.0.0-rc1", true},
		{"7.0", true},
		{"7.0.14-4-pve", true},
		{"7.1", true},
		{"7.1.0", true},
		{"7.1.4", true},
		{"7.1.4-arch1-1", true},
		{"7.1.5", false},
		{"7.1.10", false},
		{"7.2.0", false},
		{"70.1.0", false},
		{"8.0.1", false},
		{"linux", false},
		{"7.x", true}, // as 7.0
		{"99999999999999999999.1", false},
	}
	for _, tt := range tests {
		if got := needsFiller(tt.release); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.release, got, tt.want)
		}
	}
}

func TestSendError(t *testing.T) {
	tests := []struct {
		e                    unix.Errno
		noSource, withSource error
	}{
		{unix.EMSGSIZE, ErrTooBig, ErrTooBig},
		{unix.EAGAIN, ErrCongested, ErrCongested},
		{unix.ENOBUFS, ErrCongested, ErrCongested},
		{unix.ENOMEM, ErrCongested, ErrCongested},
		{unix.EPERM, ErrUnreachable, ErrUnreachable},
		{unix.EACCES, ErrUnreachable, ErrUnreachable},
		{unix.ENETUNREACH, ErrUnreachable, ErrSource},
		{unix.EHOSTUNREACH, ErrUnreachable, ErrUnreachable},
		{unix.ENETDOWN, ErrUnreachable, ErrUnreachable},
		{unix.EAFNOSUPPORT, ErrUnreachable, ErrUnreachable},
		{unix.EINVAL, ErrRejected, ErrSource},
		{unix.EADDRNOTAVAIL, ErrRejected, ErrSource},
		{unix.EBADF, ErrClosed, ErrClosed},
		{unix.EIO, ErrRejected, ErrRejected},
	}
	for _, tt := range tests {
		if got := sendError(tt.e, false); got != tt.noSource {
			t.Errorf("%v: got %v, want %v", tt.e, got, tt.noSource)
		}
		if got := sendError(tt.e, true); got != tt.withSource {
			t.Errorf("%v with source: got %v, want %v", tt.e, got, tt.withSource)
		}
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct{ dst, source, wantDst, wantSource string }{
		{"192.0.2.1:6783", "", "192.0.2.1:6783", ""},
		{"192.0.2.1:6783", "192.0.2.9", "192.0.2.1:6783", "192.0.2.9"},
		{"192.0.2.1:6783", "0.0.0.0", "192.0.2.1:6783", ""},
		{"[::ffff:192.0.2.1]:1", "::ffff:192.0.2.9", "192.0.2.1:1", "192.0.2.9"},
		{"[2001:db8::1]:65535", "2001:db8::9", "[2001:db8::1]:65535", "2001:db8::9"},
		{"[fe80::1%3]:1", "fe80::9", "[fe80::1%3]:1", "fe80::9"},
		{"[fe80::1%lo]:1", "", "[fe80::1%1]:1", ""},
		{"[fe80::1%nosuch]:1", "", "", ""},
		{"192.0.2.1:0", "", "", ""},
		{"192.0.2.1:1", "2001:db8::9", "", ""},
		{"[2001:db8::1]:1", "192.0.2.9", "", ""},
	}
	for _, tt := range tests {
		var source netip.Addr
		if tt.source != "" {
			source = netip.MustParseAddr(tt.source)
		}
		ep, err := NewEndpoint(netip.MustParseAddrPort(tt.dst), source)
		if (err == nil) != (tt.wantDst != "") || ep.IsValid() != (err == nil) {
			t.Errorf("%s from %s: got error %v", tt.dst, tt.source, err)
			continue
		}
		if err != nil {
			continue
		}
		var gotSource string
		if s := ep.Source(); s.IsValid() {
			gotSource = s.String()
		}
		if ep.String() != tt.wantDst || gotSource != tt.wantSource {
			t.Errorf("%s from %s: got %s from %s", tt.dst, tt.source, ep, gotSource)
		}
		again, err := NewEndpoint(ep.AddrPort(), ep.Source())
		if err != nil || again != ep {
			t.Errorf("%s from %s: not the same after a round trip: %v, %v", tt.dst, tt.source, again, err)
		}
	}
	if _, err := NewEndpoint(netip.AddrPort{}, netip.Addr{}); err == nil {
		t.Error("zero address: got no error")
	}
}

// Control messages as a little-endian kernel writes them: struct cmsghdr, data,
// padding.
var controls = []struct {
	name, hex string
	want      control
}{
	{"none", "", control{}},
	{"train",
		"1400000000000000 11000000 68000000 96050000 00000000",
		control{segSize: 1430}},
	{"IPv4 address",
		"1c00000000000000 00000000 08000000 02000000 0a4d0002 0a4d0002 00000000",
		control{local: localAddr{bits: 32, raw: [16]byte{10, 77, 0, 2}}}},
	{"IPv6 address",
		"2400000000000000 29000000 32000000 fd770000000000000000000000000002 02000000 00000000",
		control{local: localAddr{bits: 128, raw: [16]byte{0: 0xfd, 1: 0x77, 15: 2}}}},
	{"losses, address, train",
		"1400000000000000 01000000 28000000 07000000 00000000" +
			"1c00000000000000 00000000 08000000 02000000 0a4d0002 0a4d0002 00000000" +
			"1400000000000000 11000000 68000000 64000000 00000000",
		control{segSize: 100, drops: 7, hasDrops: true, local: localAddr{bits: 32, raw: [16]byte{10, 77, 0, 2}}}},
	{"unknown first, no padding at the end",
		"1100000000000000 01000000 02000000 ff 00000000000000" +
			"1400000000000000 11000000 68000000 64000000",
		control{segSize: 100}},
	{"negative segment size", "1400000000000000 11000000 68000000 ffffffff 00000000", control{}},
	{"short data", "1200000000000000 11000000 68000000 9605", control{}},
	{"longer than the buffer", "1500000000000000 11000000 68000000 96050000", control{}},
	{"shorter than its header", "0f00000000000000 11000000 68000000 96050000 00000000", control{}},
	{"huge", "ffffffffffffffff 11000000 68000000 96050000 00000000", control{}},
	{"cut header", "14000000000000001100000068", control{}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseControl(t *testing.T) {
	for _, tt := range controls {
		if got := parseControl(unhex(t, tt.hex)); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	// What is sent is what the kernel documents, and reads back.
	for i, want := range map[int]string{2: "10.77.0.2", 3: "fd77::2"} {
		var b [sourceCtlMax]byte
		n := putSource(b[:], netip.MustParseAddr(want), 0)
		if got := parseControl(b[:n]); got != controls[i].want {
			t.Errorf("source %s: got %+v, want %+v", want, got, controls[i].want)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	for _, tt := range controls {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := parseControl(b)
		if c.segSize < 0 || c.segSize > 1<<31-1 {
			t.Errorf("segment size %d", c.segSize)
		}
		addr := c.local.addr()
		if addr.IsValid() != (c.local.bits != 0) {
			t.Errorf("address %v of %d bits", addr, c.local.bits)
		}
		if !addr.IsValid() {
			return
		}
		var out [sourceCtlMax]byte
		n := putSource(out[:], addr, 0)
		if got := parseControl(out[:n]).local.addr(); got != addr {
			t.Errorf("got %v, want %v", got, addr)
		}
	})
}

func TestSlotNext(t *testing.T) {
	tests := []struct {
		name string
		data string
		seg  int
		want []string
	}{
		{"empty", "", 0, nil},
		{"single", "abc", 0, []string{"abc"}},
		{"train", "abcdef", 2, []string{"ab", "cd", "ef"}},
		{"tail", "abcde", 2, []string{"ab", "cd"}}, // one byte is no datagram of ours
		{"longer tail", "abcdefgh", 3, []string{"abc", "def", "gh"}},
		{"segment size of the whole", "abc", 3, []string{"abc"}},
		{"segment size above the whole", "abc", 4, []string{"abc"}},
		{"one byte", "a", 0, nil},
		{"filler", "abcd\x00\x00\x00", 4, []string{"abcd"}},
		{"filler in front", "\x00\x00abcd", 2, []string{"ab", "cd"}},
	}
	for _, tt := range tests {
		s := Slot{Data: []byte(tt.data), SegSize: tt.seg}
		var got []string
		for d := s.Next(); d != nil; d = s.Next() {
			if cap(d) != len(d) {
				t.Errorf("%s: a datagram can grow into the next", tt.name)
			}
			got = append(got, string(d))
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
	}
}

func TestDecode(t *testing.T) {
	var name rawName
	putName(&name, netip.MustParseAddr("::ffff:192.0.2.1"), 99, 0)
	s := decode(name, localAddr{bits: 128, raw: netip.MustParseAddr("::ffff:192.0.2.2").As16()})
	want, err := NewEndpoint(netip.MustParseAddrPort("192.0.2.1:99"), netip.MustParseAddr("192.0.2.2"))
	if err != nil || s.reply != want || s.to != want.Source() {
		t.Errorf("got %v to %v, reply %v, want %v", s.from, s.to, s.reply, want)
	}
	// A group cannot be the source of an answer.
	s = decode(name, localAddr{bits: 32, raw: [16]byte{224, 0, 0, 1}})
	if !s.reply.IsValid() || s.reply.Source().IsValid() {
		t.Errorf("reply from multicast: got source %v, want none", s.reply.Source())
	}
	// An unknown family, and a port that nobody can answer to.
	if s := decode(rawName{9}, localAddr{}); s.from.IsValid() || s.reply.IsValid() {
		t.Errorf("unknown family: got %v", s.from)
	}
}
