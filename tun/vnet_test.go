package tun

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// headers are virtio headers with what they stand for, little endian. The frame
// is TCP or UDP over IPv4; hdr_len is what we write and what reading must ignore.
var headers = []struct {
	name string
	hex  string
	udp  bool
	off  ether.Offload
}{
	{"plain", "00 00 0000 0000 0000 0000", false, ether.Offload{}},
	{"partial", "01 00 0000 0000 2200 1000", false, ether.Offload{NeedsCsum: true, CsumStart: 34, CsumOff: 16}},
	{"tso4", "01 01 3600 3805 2200 1000", false,
		ether.Offload{GSO: ether.GSOTCPv4, NeedsCsum: true, CsumStart: 34, CsumOff: 16, Size: 1336}},
	{"tso4 ecn", "01 81 3600 3805 2200 1000", false,
		ether.Offload{GSO: ether.GSOTCPv4, ECN: true, NeedsCsum: true, CsumStart: 34, CsumOff: 16, Size: 1336}},
	{"uso", "01 05 2a00 b004 2200 0600", true,
		ether.Offload{GSO: ether.GSOUDPL4, NeedsCsum: true, CsumStart: 34, CsumOff: 6, Size: 1200}},
}

func vnetHeader(t testing.TB, s string) *[vnetHdrLen]byte {
	t.Helper()
	var b []byte
	for _, c := range s {
		if c != ' ' {
			b = append(b, byte(c))
		}
	}
	h := new([vnetHdrLen]byte)
	if n, err := hex.Decode(h[:], b); err != nil || n != vnetHdrLen {
		t.Fatal(s, err)
	}
	return h
}

func TestVnetGolden(t *testing.T) {
	for _, tt := range headers {
		t.Run(tt.name, func(t *testing.T) {
			frame := ethertest.Packet{UDP: tt.udp, Payload: make([]byte, 3000)}.Frame()
			hdr := vnetHeader(t, tt.hex)
			got, ok := readVnet(hdr, frame)
			if diff := cmp.Diff(tt.off, got); diff != "" || !ok {
				t.Errorf("read: ok %v (-want +got):\n%s", ok, diff)
			}
			var back [vnetHdrLen]byte
			for i := range back {
				back[i] = 0xee // what the last frame left
			}
			writeVnet(&back, tt.off, frame)
			if diff := cmp.Diff(*hdr, back); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			hdr[2], hdr[3] = 0xff, 0xff
			if got, ok := readVnet(hdr, frame); !ok || got != tt.off {
				t.Errorf("with another hdr_len: %+v, %v", got, ok)
			}
		})
	}
}

func TestVnetRefuses(t *testing.T) {
	frame := ethertest.Packet{Payload: make([]byte, 3000)}.Frame()
	for _, tt := range []struct{ name, hex string }{
		{"ufo", "01 03 3600 3805 2200 0600"},
		{"unknown kind", "01 07 3600 3805 2200 1000"},
		{"ecn alone is no kind", "01 82 3600 3805 2200 1000"},
		{"gso without checksum", "00 01 3600 3805 2200 1000"},
		{"gso without size", "01 01 3600 0000 2200 1000"},
		{"tcp with udp's offset", "01 01 3600 3805 2200 0600"},
		{"udp with tcp's offset", "01 05 2a00 3805 2200 1000"},
		{"udp with ecn", "01 85 2a00 3805 2200 0600"},
		{"checksum beyond the end", "01 00 0000 0000 ff0f 1000"},
		{"sum that wraps", "01 00 0000 0000 ffff ffff"},
	} {
		if off, ok := readVnet(vnetHeader(t, tt.hex), frame); ok {
			t.Errorf("%s: accepted as %+v", tt.name, off)
		}
	}
}

// The header length is a hint only, so a short first piece must not matter.
func TestVnetShortHead(t *testing.T) {
	for _, tt := range headers {
		for n := range 60 {
			var hdr [vnetHdrLen]byte
			writeVnet(&hdr, tt.off, make([]byte, n))
			if hdr[1]&^vnetECN != byte(tt.off.GSO) {
				t.Errorf("%s: %x", tt.name, hdr)
			}
		}
	}
}

func FuzzVnet(f *testing.F) {
	frame := ethertest.Packet{Payload: make([]byte, 100)}.Frame()
	for _, tt := range headers {
		f.Add(vnetHeader(f, tt.hex)[:], frame)
	}
	f.Fuzz(func(t *testing.T, b, frame []byte) {
		if len(b) < vnetHdrLen {
			return
		}
		hdr := (*[vnetHdrLen]byte)(b)
		off, ok := readVnet(hdr, frame)
		if !ok {
			return
		}
		if off.NeedsCsum && int(off.CsumStart)+int(off.CsumOff)+2 > len(frame) {
			t.Fatalf("checksum outside of %d bytes: %+v", len(frame), off)
		}
		var back [vnetHdrLen]byte
		writeVnet(&back, off, frame)
		if again, ok := readVnet(&back, frame); !ok || again != off {
			t.Fatalf("%+v, written and read again %+v, %v", off, again, ok)
		}
	})
}
