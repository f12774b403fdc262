package wire

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weave/internal/ether"
)

func ptr[T any](v T) *T { return &v }

var (
	peer4 = netip.MustParseAddr("10.0.0.2")
	peer6 = netip.MustParseAddr("fd00::2")
	mac   = ether.MAC{2, 0xbb, 0, 0, 0, 2}
	all   = ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// message is any of the messages.
type message interface{ Append([]byte) []byte }

// golden messages in hex, on a little-endian machine. Those marked "captured" were sent
// by the Open vSwitch project's own tool, or by Linux 6.1 to it.
var golden = []struct {
	name  string
	parse func([]byte) (message, error)
	want  message
	hex   string
}{
	{
		"make a datapath, captured", parserOf(ParseDatapath),
		&Datapath{Name: "weave-ovs", UpcallPID: ptr(uint32(0)), Features: ptr(uint32(FeatureUnaligned | FeaturePerCPU))},
		"00000000 0e000100 77656176652d6f7673000000 0800020000000000 0800050009000000",
	},
	{
		"sockets by processor", parserOf(ParseDatapath),
		&Datapath{Name: "weave-ovs", Features: ptr(uint32(FeatureUnaligned | FeaturePerCPU)), PIDs: []uint32{0x1111, 0x2222}},
		"00000000 0e000100 77656176652d6f7673000000 0800050009000000 0c000800 11110000 22220000",
	},
	{
		"make a vport of a device, captured", parserOf(ParseVport),
		&Vport{Datapath: 5, Type: VportNetdev, Name: "vx0", PIDs: []uint32{0}},
		"05000000 0800020001000000 0800030076783000 0800050000000000",
	},
	{
		"make a vport of a number", parserOf(ParseVport),
		&Vport{Datapath: 5, Port: ptr(uint32(1)), Type: VportNetdev, Name: "vx0", PIDs: []uint32{7, 8}},
		"05000000 0800010001000000 0800020001000000 0800030076783000 0c000500 07000000 08000000",
	},
	{
		"make a vxlan vport", parserOf(ParseVport),
		&Vport{Datapath: 5, Type: VportVXLAN, Name: "vx0", DstPort: 6784},
		"05000000 0800020004000000 0800030076783000 0c000400 06000100801a0000",
	},
	{
		"make a flow to a peer, captured", parserOf(ParseFlow),
		&Flow{
			Datapath: 5,
			Key:      Key{Has: HasInPort | HasEthernet, Dst: mac},
			Mask:     &Key{Has: HasInPort | HasEthernet, InPort: 0xffffffff, Dst: all},
			Actions: []Action{
				SetTunnel(Tunnel{Has: TunnelID | TunnelDst | TunnelTTL, ID: 0x776576, Dst: peer4, TTL: 64, DF: true}),
				Output(1),
			},
		},
		"05000000 1c000100 0800030000000000 10000400 000000000000 02bb00000002" +
			"1c000700 08000300ffffffff 10000400 000000000000 ffffffffffff" +
			"34000200 28000300 24001000 0c000000 0000000000776576 08000200 0a000002 0500040040000000 04000500 0800010001000000",
	},
	{
		"make a flow from a peer, IPv6", parserOf(ParseFlow),
		&Flow{
			Datapath: 5,
			Key: Key{Has: HasInPort | HasEthernet | HasTunnel, InPort: 1, Tunnel: Tunnel{
				Has: TunnelID | TunnelSrc | TunnelDst | TunnelTTL, ID: 0x776576, Src: peer6, Dst: peer6, TTL: 64}},
			Mask: &Key{Has: HasInPort | HasEthernet | HasTunnel, InPort: 0xffffffff, Tunnel: Tunnel{
				Has: TunnelSrcPort | TunnelDstPort | TunnelTOS}},
			Actions: []Action{Output(0)},
			UFID:    []byte{0x77, 0x76, 1, 2},
		},
		"05000000 5c000100 40001000 0c000000 0000000000776576" +
			"14000c00 fd000000000000000000000000000002 14000d00 fd000000000000000000000000000002 0500040040000000" +
			"0800030001000000 10000400 000000000000000000000000" +
			"38000700 1c001000 0500030000000000 0600090000000000 06000a0000000000 08000300ffffffff 10000400 000000000000000000000000" +
			"0c000200 0800010000000000 08000900 77760102",
	},
	{
		"drop a tagged frame", parserOf(ParseFlow),
		&Flow{
			Datapath: 5,
			Key:      Key{Has: HasInPort | HasEthernet | HasVLAN | HasEtherType, Dst: mac, TPID: 0x8100, TCI: TagPresent | 7, EtherType: 0x0800},
			Drop:     true, UFID: []byte{9}, Probe: true,
		},
		"05000000 38000100 0800030000000000 10000400 000000000000 02bb00000002 06000600 81000000 06000500 10070000 0c000100 06000600 08000000" +
			"04000200 05000900 09000000 04000800",
	},
	{
		"ask for flows", parserOf(ParseFlow), &Flow{Datapath: 5, UFIDFlags: OmitKey | OmitMask, Clear: true},
		"05000000 08000a0003000000 04000600",
	},
	{
		"execute", parserOf(ParsePacket),
		&Packet{
			Datapath: 5, Data: []byte{1, 2, 3, 4, 5},
			Key:     Key{Has: HasInPort | HasEthernet, InPort: 1, Src: mac},
			Actions: []Action{{Userspace: &Userspace{PID: 9, Userdata: []byte("ab")}}, Output(0)},
		},
		"05000000 09000100 0102030405000000 1c000200 0800030001000000 10000400 02bb00000002 000000000000" +
			"20000300 14000200 0800010009000000 060002006162 0000 0800010000000000",
	},
}

func parserOf[T any, P interface {
	*T
	message
}](parse func([]byte) (T, error)) func([]byte) (message, error) {
	return func(b []byte) (message, error) {
		m, err := parse(b)
		return P(&m), err
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares messages; a parsed one has the raw bytes of its key besides.
var same = cmp.Options{
	cmpopts.IgnoreFields(Flow{}, "RawKey"), cmpopts.IgnoreFields(Packet{}, "RawKey"),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestGolden(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			if native.Uint16([]byte{1, 0}) != 1 {
				t.Skip("the golden bytes are those of a little-endian machine")
			}
			want := unhex(t, tt.hex)
			if got := tt.want.Append(nil); string(got) != string(want) {
				t.Errorf("append:\n got %x\nwant %x", got, want)
			}
			got, err := tt.parse(want)
			if err != nil {
				t.Fatalf("parse: %v", err)
			}
			if d := cmp.Diff(tt.want, got, same); d != "" {
				t.Errorf("parse (-want +got):\n%s", d)
			}
		})
	}
}

// What the kernel says has attributes that are not of interest.
func TestFromKernel(t *testing.T) {
	d, err := ParseDatapath(unhex(t, "05000000 0e000100 77656176652d6f7673000000"+
		"24000300 0000000000000000 0000000000000000 0000000000000000 0100000000000000"+
		"24000400 0000000000000000 01000000 00000000 0000000000000000 0000000000000000 0800050009000000 0800070000010000"))
	want := Datapath{Index: 5, Name: "weave-ovs", Features: ptr(uint32(9)), Stats: DatapathStats{Flows: 1}}
	if diff := cmp.Diff(want, d); err != nil || diff != "" {
		t.Errorf("datapath: %v\n%s", err, diff)
	}
	v, err := ParseVport(unhex(t, "05000000 0800010001000000 0800020001000000 0800030076783000 0800080003000000 44000600"+
		"0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 0600000000000000 0700000000000000 0800000000000000"+
		"0800050000000000"))
	wantV := Vport{Datapath: 5, Port: ptr(uint32(1)), Type: VportNetdev, Name: "vx0", PIDs: []uint32{0}, Stats: VportStats{1, 2, 3, 4, 5, 6, 7, 8}}
	if diff := cmp.Diff(wantV, v); err != nil || diff != "" {
		t.Errorf("vport: %v\n%s", err, diff)
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range []struct{ name, hex string }{
		{"empty", ""},
		{"no header", "050000"},
		{"half an attribute", "05000000 0800"},
		{"attribute too short for itself", "05000000 03000100"},
		{"attribute beyond the end", "05000000 0c000100 00000000"},
		{"key within is cut off", "05000000 08000100 0800030000"},
		{"port of 2 bytes", "05000000 0a000100 060003000000"},
		{"addresses of 11 bytes", "05000000 13000100 0f000400 0000000000000000000000"},
		{"action of 3 bytes", "05000000 0b000200 07000100 000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			if _, err := ParseFlow(b); !errors.Is(err, ErrMessage) {
				t.Errorf("flow: got %v, want %v", err, ErrMessage)
			}
		})
	}
}

// fuzz checks that parse survives all input, and that what it read can be written and
// read again.
func fuzz(f *testing.F, parse func([]byte) (message, error)) {
	for _, tt := range golden {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil || len(b) > 32<<10 {
			return
		}
		once := m.Append(nil)
		m, err = parse(once)
		if err != nil {
			t.Fatalf("reading %x again: %v", once, err)
		}
		if twice := m.Append(nil); string(twice) != string(once) {
			t.Errorf("first %x, then %x", once, twice)
		}
	})
}

func FuzzDatapath(f *testing.F) { fuzz(f, parserOf(ParseDatapath)) }
func FuzzVport(f *testing.F)    { fuzz(f, parserOf(ParseVport)) }
func FuzzFlow(f *testing.F)     { fuzz(f, parserOf(ParseFlow)) }
func FuzzPacket(f *testing.F)   { fuzz(f, parserOf(ParsePacket)) }
