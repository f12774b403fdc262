package ether_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

var (
	macA = ether.MAC{0x02, 0, 0, 0, 0, 0x0a}
	macB = ether.MAC{0x02, 0, 0, 0, 0, 0x0b}
	ip6A = netip.MustParseAddr("fd00::a")
	ip6B = netip.MustParseAddr("fd00::b")
)

// packets are the shapes that every function on frames is tested with.
var packets = []struct {
	name string
	p    ethertest.Packet
}{
	{"tcp4", ethertest.Packet{Dst: macB, Src: macA, SrcPort: 1000, DstPort: 2000, Seq: 0xfffffff0, ID: 0xfffe,
		Flags: ether.ACK | ether.PSH | ether.FIN | ether.CWR, TCPOptions: bytes.Repeat([]byte{1}, 12), Payload: randBytes(4001)}},
	{"tcp6", ethertest.Packet{Dst: macB, Src: macA, SrcIP: ip6A, DstIP: ip6B, SrcPort: 1000, DstPort: 2000,
		Flags: ether.ACK, Payload: randBytes(3000)}},
	{"udp4", ethertest.Packet{Dst: macB, Src: macA, UDP: true, SrcPort: 53, DstPort: 5353, DF: true, Payload: randBytes(2999)}},
	{"udp6 vlan", ethertest.Packet{Dst: macB, Src: macA, VLANs: []uint16{5}, SrcIP: ip6A, DstIP: ip6B, UDP: true,
		Payload: randBytes(2345)}},
	{"tcp4 qinq ip options", ethertest.Packet{Dst: macB, Src: macA, VLANs: []uint16{5, 0xe006},
		IPOptions: []byte{1, 1, 1, 0}, Payload: randBytes(1500)}},
	{"tcp6 extension", ethertest.Packet{Dst: macB, Src: macA, SrcIP: ip6A, DstIP: ip6B,
		ExtType: 60, IPOptions: []byte{ether.ProtoTCP, 0, 1, 4, 0, 0, 0, 0}, Payload: randBytes(1700)}},
	{"tcp4 empty", ethertest.Packet{Dst: macB, Src: macA, Flags: ether.SYN | ether.ECE | ether.CWR}},
}

// golden are frames as they stand on the wire.
var golden = []struct {
	name string
	hex  string
	want ether.Layers
}{
	{"arp request",
		`ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 0a000001 000000000000 0a000002`,
		ether.Layers{EtherType: 0x0806, L3: 14}},
	{"ping", // 10.0.0.1 > 10.0.0.2, echo request with 2 bytes, padded to 60
		`02000000000b 02000000000a 0800 4500001e 00004000 400126dd 0a000001 0a000002 0800 e5ca 1234 0001 0000
		 0000000000000000000000000000000000`,
		ether.Layers{EtherType: 0x0800, L3: 14, IPVersion: 4, Proto: 1, L4: 34, Payload: 34, End: 44}},
	{"syn", // 10.0.0.1:4096 > 10.0.0.2:80, MSS 1336
		`02000000000b 02000000000a 0800 4500002c 00014000 400626c9 0a000001 0a000002
		 1000 0050 00000001 00000000 6002 ffff 0000 0000 02040538`,
		ether.Layers{EtherType: 0x0800, L3: 14, IPVersion: 4, Proto: 6, L4: 34, Payload: 58, End: 58}},
	{"udp in a vlan", // vlan 7, fd00::a.53 > fd00::b.53
		`02000000000b 02000000000a 8100 0007 86dd 60000000 0009 11 40
		 fd00000000000000000000000000000a fd00000000000000000000000000000b 0035 0035 0009 0000 2a`,
		ether.Layers{EtherType: 0x86dd, VLANs: 1, L3: 18, IPVersion: 6, Proto: 17, L4: 58, Payload: 66, End: 67}},
	{"stp", // 802.3 length instead of a type
		`0180c2000000 02000000000a 0026 424203 00000000`,
		ether.Layers{EtherType: 0x26, L3: 14}},
	{"later fragment",
		`02000000000b 02000000000a 0800 45000018 00010001 40110000 0a000001 0a000002 01020304`,
		ether.Layers{EtherType: 0x0800, L3: 14, IPVersion: 4, Proto: 17, Fragment: true, Payload: 34, End: 38}},
	{"first fragment of ipv6", // hop-by-hop, fragment header with M, UDP
		`02000000000b 02000000000a 86dd 60000000 0020 00 40
		 fd00000000000000000000000000000a fd00000000000000000000000000000b
		 2c00 010400000000 1100 0001 00000001 0035 0035 0100 0000 0102030405060708`,
		ether.Layers{EtherType: 0x86dd, L3: 14, IPVersion: 6, Proto: 17, Fragment: true, L4: 70, Payload: 78, End: 86}},
	{"no next header",
		`02000000000b 02000000000a 86dd 60000000 0000 3b 40
		 fd00000000000000000000000000000a fd00000000000000000000000000000b`,
		ether.Layers{EtherType: 0x86dd, L3: 14, IPVersion: 6, Proto: 59, L4: 54, Payload: 54, End: 54}},
	{"authentication header", // RFC 4302: 24 bytes
		`02000000000b 02000000000a 86dd 60000000 0020 33 40
		 fd00000000000000000000000000000a fd00000000000000000000000000000b
		 1104 0000 00000001 00000001 000102030405060708090a0b 0035 0035 0008 0000`,
		ether.Layers{EtherType: 0x86dd, L3: 14, IPVersion: 6, Proto: 17, L4: 78, Payload: 86, End: 86}},
}

func TestParseGolden(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ether.Parse(unhex(t, tt.hex))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Layers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	set := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	tcp4 := ethertest.Packet{Payload: []byte("x")}.Frame()
	tcp6 := ethertest.Packet{SrcIP: ip6A, DstIP: ip6B, Payload: []byte("x")}.Frame()
	for _, tt := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"empty", nil, ether.ErrTruncated},
		{"short ethernet", tcp4[:13], ether.ErrTruncated},
		{"short tag", append(bytes.Clone(tcp4[:12]), 0x81, 0, 0), ether.ErrTruncated},
		{"nine tags", append(bytes.Clone(tcp4[:12]), bytes.Repeat([]byte{0x81, 0}, 40)...), ether.ErrMalformed},
		{"version 6 in ipv4", set(tcp4, 14, 0x65), ether.ErrMalformed},
		{"ihl 4", set(tcp4, 14, 0x44), ether.ErrMalformed},
		{"ihl beyond the end", set(tcp4[:14+20], 14, 0x4f, 0, 0, 60), ether.ErrTruncated},
		{"total length below the header", set(tcp4, 16, 0, 19), ether.ErrMalformed},
		{"total length beyond the end", set(tcp4, 16, 0, 42), ether.ErrTruncated},
		{"total length cuts tcp", set(tcp4, 16, 0, 39), ether.ErrMalformed},
		{"short tcp", tcp4[:14+20+19], ether.ErrTruncated},
		{"tcp offset 4", set(tcp4, 34+12, 0x40), ether.ErrMalformed},
		{"tcp offset beyond the end", set(tcp4, 34+12, 0xf0), ether.ErrTruncated},
		{"short ipv6", tcp6[:14+39], ether.ErrTruncated},
		{"version 4 in ipv6", set(tcp6, 14, 0x45), ether.ErrMalformed},
		{"short extension", set(tcp6[:14+40+7], 14+6, 0), ether.ErrTruncated},
		{"extension beyond the end", set(tcp6, 14+6, 0, 64), ether.ErrTruncated},
		{"endless extensions", extensions(17), ether.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := ether.Parse(tt.frame)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v (%+v)", err, tt.want, l)
			}
		})
	}
	if _, err := ether.Parse(extensions(15)); err != nil {
		t.Errorf("15 extension headers: %v", err)
	}
}

// extensions returns a UDP frame with n destination options headers.
func extensions(n int) []byte {
	p := ethertest.Packet{SrcIP: ip6A, DstIP: ip6B, UDP: true, ExtType: 60}
	for range n {
		p.IPOptions = append(p.IPOptions, 60, 0, 1, 4, 0, 0, 0, 0)
	}
	p.IPOptions[8*n-8] = ether.ProtoUDP
	return p.Frame()
}

func TestViews(t *testing.T) {
	f := unhex(t, golden[2].hex)
	l, _ := ether.Parse(f)
	eth, ip, tcp := ether.Header(f), ether.IPv4(f[l.L3:]), ether.TCP(f[l.L4:])
	type view struct {
		Dst, Src         ether.MAC
		SrcIP, DstIP     string
		ID               uint16
		DF, MF           bool
		SrcPort, DstPort uint16
		Seq              uint32
		Flags            ether.TCPFlags
		Check            uint16
	}
	want := view{macB, macA, "10.0.0.1", "10.0.0.2", 1, true, false, 0x1000, 80, 1, ether.SYN, 0x26c9}
	got := view{eth.Dst(), eth.Src(), ip.Src().String(), ip.Dst().String(), ip.ID(), ip.DontFragment(), ip.MoreFragments(),
		tcp.SrcPort(), tcp.DstPort(), tcp.Seq(), tcp.Flags(), ip.Checksum()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header fields (-want +got):\n%s", diff)
	}
	if ip.UpdateChecksum(); ip.Checksum() != want.Check {
		t.Errorf("IPv4 checksum %#04x, want %#04x", ip.Checksum(), want.Check)
	}

	f = unhex(t, golden[3].hex)
	l, _ = ether.Parse(f)
	if ip := ether.IPv6(f[l.L3:]); ip.Src() != ip6A || ip.Dst() != ip6B || ip.NextHeader() != ether.ProtoUDP || ip.PayloadLen() != 9 {
		t.Errorf("IPv6 header: %v > %v, next %d, %d bytes", ip.Src(), ip.Dst(), ip.NextHeader(), ip.PayloadLen())
	}
	if udp := ether.UDP(f[l.L4:]); udp.SrcPort() != 53 || udp.DstPort() != 53 || udp.Len() != 9 || udp.Checksum() != 0 {
		t.Errorf("UDP header: %d > %d, %d bytes", udp.SrcPort(), udp.DstPort(), udp.Len())
	}
}

func TestParseNoAllocs(t *testing.T) {
	f := packets[5].p.Frame()
	if n := testing.AllocsPerRun(100, func() { ether.Parse(f) }); n != 0 {
		t.Errorf("Parse: %v allocations", n)
	}
}

// addFrames seeds f with the golden frames and those of packets.
func addFrames(t *testing.F, add func(frame []byte, off ether.Offload)) {
	for _, g := range golden {
		add(unhex(t, g.hex), ether.Offload{})
	}
	for _, p := range packets {
		frame, off := p.p.Superframe(1000)
		add(frame, off)
	}
}

func FuzzParse(f *testing.F) {
	addFrames(f, func(frame []byte, _ ether.Offload) { f.Add(frame) })
	f.Fuzz(func(t *testing.T, frame []byte) {
		l, err := ether.Parse(frame)
		if l.L3 > len(frame) || l.L4 > len(frame) || l.Payload > len(frame) || l.End > len(frame) {
			t.Fatalf("offset beyond %d bytes: %+v", len(frame), l)
		}
		if err != nil || l.IPVersion == 0 {
			return
		}
		if l.L4 != 0 && (l.L4 < l.L3+ether.IPv4HeaderLen || l.L4 > l.Payload) || l.Payload > l.End {
			t.Fatalf("layers out of order: %+v", l)
		}
		again, err := ether.Parse(frame[:l.End])
		if err != nil || again != l {
			t.Fatalf("without padding: %+v, %v; before %+v", again, err, l)
		}
	})
}
