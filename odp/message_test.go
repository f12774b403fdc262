package odp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"

	"weave/internal/ether"
	"weave/internal/peer"
)

var helloGolden = []struct {
	name string
	h    hello
	hex  string
}{
	{"no address", hello{version: 1, vni: 0x776576, mtu: 1376}, "0101776576056000"},
	{"IPv4", hello{version: 1, vni: 1, mtu: 9000, source: netip.MustParseAddr("192.0.2.7")}, "0101000001232804c0000207"},
	{"IPv6", hello{version: 2, vni: 0xffffff, mtu: 65535, source: netip.MustParseAddr("2001:db8::7")}, "0102ffffffffff1020010db8000000000000000000000007"},
}

func TestHelloGolden(t *testing.T) {
	for _, tt := range helloGolden {
		if got := hex.EncodeToString(tt.h.append(nil)); got != tt.hex {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.hex)
		}
		b, _ := hex.DecodeString(tt.hex)
		if got, err := parseHello(append(b, 0xee)); err != nil || got != tt.h {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
		for n := range b {
			if _, err := parseHello(b[:n]); err == nil {
				t.Errorf("%s: %d bytes of it accepted", tt.name, n)
			}
		}
	}
}

func TestMACsRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, maxMACs, maxMACs + 1, 2*maxMACs + 7} {
		var want, got []ether.MAC
		for i := range n {
			want = append(want, ether.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})
		}
		for _, msg := range appendMACs(want) {
			part, err := parseMACs(msg)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d MACs: got %d", n, len(got))
		}
	}
	if got, err := parseMACs([]byte{2, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0}); err != nil || len(got) != 0 {
		t.Errorf("group and zero addresses: %v, %v", got, err)
	}
}

func FuzzMessages(f *testing.F) {
	for _, tt := range helloGolden {
		b, _ := hex.DecodeString(tt.hex)
		f.Add(b)
	}
	f.Add([]byte{2, 2, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil {
			again, err := parseHello(h.append(nil))
			if err != nil || again != h {
				t.Errorf("%+v became %+v, %v", h, again, err)
			}
		}
		if macs, err := parseMACs(b); err == nil && len(macs) == (len(b)-1)/6 && len(macs) > 0 {
			if out := appendMACs(macs); len(out) != 1 || !bytes.Equal(out[0], b) {
				t.Errorf("%x became %x", b, out)
			}
		}
	})
}

func TestProbeMAC(t *testing.T) {
	a, _ := peer.ParseName("02:00:00:00:00:01")
	b, _ := peer.ParseName("02:00:00:00:00:02")
	seen := map[ether.MAC]bool{}
	for _, n := range []peer.Name{a, b} {
		for _, ipv6 := range []bool{false, true} {
			m := ProbeMAC(n, ipv6)
			if m.IsMulticast() || m[0]&2 == 0 || seen[m] || m != ProbeMAC(n, ipv6) {
				t.Errorf("%v of %v, %v", m, n, ipv6)
			}
			seen[m] = true
		}
	}
}
