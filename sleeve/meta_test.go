package sleeve

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
)

// unhex reads hex with spaces.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

const (
	goldenEther = "020000000002 020000000001 0800 "
	goldenIPv4  = "4500 0bd8 1234 4000 40 06 0000 0a370001 0a370002 " // 20 + 20 + 2968 bytes
	goldenTCP   = "1388 1389 01020304 05060708 5018 0200 1122 0000 "
)

// golden is the wire format: what parseMeta accepts and put writes.
var golden = []struct {
	name string
	hex  string
	want meta
	data int // bytes behind the meta
}{
	{
		name: "frame with complete checksums",
		hex:  "10 00 00 00 0000 0000 " + goldenEther,
		want: meta{kind: kindFrame},
		data: 14,
	},
	{
		name: "frame with a partial TCP checksum",
		hex:  "11 00 00 22 1000 0000 " + goldenEther + goldenIPv4 + goldenTCP,
		want: meta{kind: kindFrame, flags: metaNeedsCsum, csumStart: 34, a: 16},
		data: 54,
	},
	{
		name: "first shard of a TCP superframe",
		hex:  "21 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd",
		want: meta{kind: kindShard, flags: metaNeedsCsum, gso: ether.GSOTCPv4, tmplLen: 54, csumStart: 34, b: 4},
		data: 58,
	},
	{
		name: "last shard, short, with ECN",
		hex:  "27 01 36 22 0501 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabb",
		want: meta{kind: kindShard, flags: metaNeedsCsum | metaLast | metaECN, gso: ether.GSOTCPv4, tmplLen: 54, csumStart: 34, a: 0x105, b: 4},
		data: 56,
	},
	{
		name: "padded shard",
		hex:  "29 01 36 22 0100 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd 112233",
		want: meta{kind: kindShard, flags: metaNeedsCsum | metaPadded, gso: ether.GSOTCPv4, tmplLen: 54, csumStart: 34, a: 1, b: 4},
		data: 61,
	},
	{
		name: "bundle",
		hex:  "30 00 00 00 0000 0000 0e00 1000000000000000 " + goldenEther,
		want: meta{kind: kindBundle},
		data: 24,
	},
	{
		name: "piece of a frame, more follow",
		hex:  "40 00 00 00 0180 4523 0001020304050607",
		want: meta{kind: kindFrag, a: fragMore | 1, b: 0x2345},
		data: 8,
	},
	{
		name: "last piece",
		hex:  "40 00 00 00 0200 4523 aa",
		want: meta{kind: kindFrag, a: 2, b: 0x2345},
		data: 1,
	},
	{
		name: "heartbeat request",
		hex:  "00 00 00 00 0000 0000 01 00 9605 07000000 00e1f50500000000",
		want: meta{kind: kindControl},
		data: 16,
	},
}

func TestMetaGolden(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			wire := unhex(tt.hex)
			got, data, ok := parseMeta(wire)
			if !ok {
				t.Fatal("parseMeta refuses it")
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(meta{})); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			if len(data) != tt.data {
				t.Errorf("%d bytes of data, want %d", len(data), tt.data)
			}
			var out [metaLen]byte
			tt.want.put(out[:])
			if !bytes.Equal(out[:], wire[:metaLen]) {
				t.Errorf("put wrote %x, want %x", out, wire[:metaLen])
			}
		})
	}
}

func TestMetaRefused(t *testing.T) {
	tests := []struct{ name, hex string }{
		{"empty", ""},
		{"seven bytes", "10000000000000"},
		{"unknown kind", "50 00 00 00 0000 0000 " + goldenEther},
		{"reserved flag", "18 00 00 00 0000 0000 " + goldenEther},
		{"frame shorter than an Ethernet header", "10 00 00 00 0000 0000 0200"},
		{"frame with GSO type", "10 01 00 00 0000 0000 " + goldenEther},
		{"frame with a checksum offset but no partial checksum", "10 00 00 22 1000 0000 " + goldenEther + goldenIPv4 + goldenTCP},
		{"frame with its checksum outside", "11 00 00 22 1300 0000 " + goldenEther + goldenIPv4 + goldenTCP},
		{"frame with csum_start in the Ethernet header", "11 00 00 02 0000 0000 " + goldenEther + goldenIPv4},
		{"shard without partial checksum", "20 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd"},
		{"shard with segment size 0", "21 01 36 22 0000 0000 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd"},
		{"shard without payload", "21 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP},
		{"shard with part of a segment, not last", "21 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbcc"},
		{"padded shard without padding", "29 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd"},
		{"padded shard without a whole segment", "29 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbcc"},
		{"padded shard that is the last", "2b 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccddee"},
		{"padded shard without partial checksum", "28 01 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccddee"},
		{"shard with a template of another length than its TCP header says", "21 01 38 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccddeeff"},
		{"shard of UDP with ECN", "25 05 2a 22 0000 0400 " + goldenEther + goldenIPv4 + "1388 1389 0008 0000" + "aabbccdd"},
		{"shard of unknown GSO type", "21 02 36 22 0000 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd"},
		{"shard beyond 64 KiB", "21 01 36 22 ffff 0400 " + goldenEther + goldenIPv4 + goldenTCP + "aabbccdd"},
		{"piece of odd length, more follow", "40 00 00 00 0080 0000 aabb"},
		{"piece beyond the largest frame", "40 00 00 00 0020 0000 aabb"},
		{"piece without bytes", "40 00 00 00 0000 0000"},
		{"bundle without frames", "30 00 00 00 0000 0000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if m, _, ok := parseMeta(unhex(tt.hex)); ok {
				t.Errorf("accepted as %+v", m)
			}
		})
	}
}

func TestBeatGolden(t *testing.T) {
	want := beat{kind: beatRequest, size: 1430, number: 7, stamp: 100e6}
	wire := unhex(golden[len(golden)-1].hex)
	got, ok := parseBeat(wire[metaLen:])
	if !ok || got != want {
		t.Errorf("parsed %+v, %v, want %+v", got, ok, want)
	}
	out := make([]byte, len(wire))
	want.put(out)
	if !bytes.Equal(out, wire) {
		t.Errorf("put wrote %x, want %x", out, wire)
	}
}

func FuzzMeta(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(g.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, data, ok := parseMeta(b)
		if !ok {
			return
		}
		out := make([]byte, metaLen)
		m.put(out)
		again, _, ok := parseMeta(append(out, data...))
		if !ok || again != m {
			t.Errorf("parsed %+v, after writing it %+v, %v", m, again, ok)
		}
	})
}
