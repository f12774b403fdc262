package ether_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// small is a packet whose answers are written out below.
var small = ethertest.Packet{Dst: macB, Src: macA, VLANs: []uint16{7}, ID: 0x1234, DF: true,
	UDP: true, SrcPort: 53, DstPort: 5353, Payload: []byte("weave")}

func TestAppendTooBigGolden(t *testing.T) {
	v6 := small
	v6.SrcIP, v6.DstIP = ip6A, ip6B
	for _, tt := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"ipv4", small.Frame(), `02000000000a 02000000000b 8100 0007 0800
			45c0003d 00004000 400125fe 0a000002 0a000001
			0304 0bbd 0000 0560
			45000021 12344000 40111496 0a000001 0a000002
			0035 14e9 000d 98d7 7765617665`},
		{"ipv6", v6.Frame(), `02000000000a 02000000000b 8100 0007 86dd
			60000000 003d 3a 40 fd00000000000000000000000000000b fd00000000000000000000000000000a
			0200 8ce2 00000560
			60000000 000d 11 40 fd00000000000000000000000000000a fd00000000000000000000000000000b
			0035 14e9 000d b2c3 7765617665`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ether.AppendTooBig([]byte("x"), tt.frame, 1376)
			if err != nil {
				t.Fatal(err)
			}
			want := append([]byte("x"), unhex(t, tt.want)...)
			if diff := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(got)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// checkICMP fails unless frame holds one whole ICMP message with right checksums.
func checkICMP(t testing.TB, frame []byte) {
	t.Helper()
	l, err := ether.Parse(frame)
	if err != nil || l.End != len(frame) {
		t.Fatalf("answer %x: %+v, %v", frame, l, err)
	}
	sum := ethertest.SlowSum(frame[l.L4:])
	if l.IPVersion == 6 {
		sum = ether.AddSums(sum, ether.PseudoSum(frame[l.L3+8:l.L3+24], frame[l.L3+24:l.L3+40], l.Proto, l.End-l.L4))
	} else if ethertest.SlowSum(frame[l.L3:l.L4]) != 0xffff {
		t.Fatalf("wrong IPv4 checksum in %x", frame)
	}
	if sum != 0xffff {
		t.Fatalf("wrong ICMP checksum in %x", frame)
	}
}

// The answer to a superframe quotes no more than the RFCs allow, and fits.
func TestAppendTooBigLong(t *testing.T) {
	for _, tt := range packets {
		frame := tt.p.Frame()
		got, err := ether.AppendTooBig(nil, frame, 1376)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		checkICMP(t, got)
		l, _ := ether.Parse(got)
		limit := 576
		if l.IPVersion == 6 {
			limit = 1280
		}
		if want := min(limit, len(frame)-l.L3+l.L4-l.L3+8); l.End-l.L3 != want || len(got) > ether.MaxTooBig {
			t.Errorf("%s: answer of %d bytes, want %d", tt.name, l.End-l.L3, want)
		}
		if n := 14 + 4*l.VLANs; got[n-2] != frame[n-2] || l.VLANs != len(tt.p.VLANs) {
			t.Errorf("%s: %d VLAN tags, want %d", tt.name, l.VLANs, len(tt.p.VLANs))
		}
	}
}

func TestAppendTooBigRefuses(t *testing.T) {
	edit := func(p ethertest.Packet, at int, b ...byte) []byte {
		f := p.Frame()
		copy(f[at:], b)
		return f
	}
	v4 := ethertest.Packet{Dst: macB, Src: macA, UDP: true, Payload: []byte("weave")}
	v6 := v4
	v6.SrcIP, v6.DstIP = ip6A, ip6B
	for _, tt := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"broadcast", edit(v4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ether.ErrNoAnswer},
		{"multicast source", edit(v4, 6, 1), ether.ErrNoAnswer},
		{"ipv4 multicast", edit(v4, 30, 224), ether.ErrNoAnswer},
		{"ipv4 broadcast", edit(v4, 30, 255, 255, 255, 255), ether.ErrNoAnswer},
		{"ipv4 no source", edit(v4, 26, 0, 0, 0, 0), ether.ErrNoAnswer},
		{"ipv4 loopback source", edit(v4, 26, 127), ether.ErrNoAnswer},
		{"ipv6 multicast", edit(v6, 38, 0xff), ether.ErrNoAnswer},
		{"ipv6 no source", edit(v6, 22, make([]byte, 16)...), ether.ErrNoAnswer},
		{"later fragment", edit(v4, 20, 0, 1), ether.ErrNoAnswer},
		{"icmp error", edit(v4, 23, ether.ProtoICMP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3), ether.ErrNoAnswer},
		{"icmpv6 error", icmp6(v6, 2), ether.ErrNoAnswer},
		{"icmpv6 redirect", icmp6(v6, 137), ether.ErrNoAnswer},
		{"arp", unhex(t, golden[0].hex), ether.ErrNoAnswer},
		{"broken", v4.Frame()[:20], ether.ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ether.AppendTooBig(nil, tt.frame, 1376)
			if !errors.Is(err, tt.want) || got != nil {
				t.Errorf("error %v, %d bytes; want %v, none", err, len(got), tt.want)
			}
		})
	}
	for _, f := range [][]byte{
		edit(v4, 23, ether.ProtoICMP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8), // echo request
	} {
		if _, err := ether.AppendTooBig(nil, f, 1376); err != nil {
			t.Errorf("%x: %v", f, err)
		}
	}
}

func TestAppendAnnouncementGolden(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"10.0.0.1", `ffffffffffff 02000000000a 0806 0001 0800 06 04 0001
			02000000000a 0a000001 000000000000 0a000001`},
		{"::ffff:10.0.0.1", `ffffffffffff 02000000000a 0806 0001 0800 06 04 0001
			02000000000a 0a000001 000000000000 0a000001`},
		{"fd00::a", `333300000001 02000000000a 86dd 60000000 0020 3a ff
			fd00000000000000000000000000000a ff020000000000000000000000000001
			8800 5a80 20000000 fd00000000000000000000000000000a 0201 02000000000a`},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			got := ether.AppendAnnouncement(nil, macA, netip.MustParseAddr(tt.addr))
			if diff := cmp.Diff(hex.EncodeToString(unhex(t, tt.want)), hex.EncodeToString(got)); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
			if len(got) > ether.MaxAnnouncement {
				t.Errorf("%d bytes, more than MaxAnnouncement", len(got))
			}
			if got[12] == 0x86 {
				checkICMP(t, got)
			}
		})
	}
	if got := ether.AppendAnnouncement(nil, macA, netip.Addr{}); got != nil {
		t.Errorf("no address: %x", got)
	}
}

func TestBuildNoAllocs(t *testing.T) {
	buf := make([]byte, 0, ether.MaxTooBig)
	frame, addr := packets[1].p.Frame(), ip6A
	if n := testing.AllocsPerRun(100, func() {
		ether.AppendTooBig(buf, frame, 1376)
		ether.AppendAnnouncement(buf, macA, addr)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzAppendTooBig(f *testing.F) {
	addFrames(f, func(frame []byte, _ ether.Offload) { f.Add(frame, 1376) })
	f.Fuzz(func(t *testing.T, frame []byte, mtu int) {
		before := bytes.Clone(frame)
		got, err := ether.AppendTooBig(nil, frame, mtu)
		if err != nil {
			return
		}
		checkICMP(t, got)
		if len(got) > ether.MaxTooBig || !bytes.Equal(before, frame) {
			t.Fatalf("answer of %d bytes to a frame of %d", len(got), len(frame))
		}
		if _, err := ether.AppendTooBig(nil, got, mtu); !errors.Is(err, ether.ErrNoAnswer) {
			t.Fatalf("answers its own answer: %v", err)
		}
	})
}

// icmp6 makes of a UDP packet an ICMPv6 message of a type.
func icmp6(p ethertest.Packet, typ byte) []byte {
	f := p.Frame()
	f[20], f[54] = ether.ProtoICMPv6, typ
	return f
}
