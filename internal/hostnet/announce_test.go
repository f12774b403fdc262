package hostnet

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"weave/internal/ether"
)

// The frames are drawn field by field from RFC 826 and RFC 4861 §4.4; the ICMPv6
// checksum was computed by hand over the pseudo header of RFC 8200 §8.1.
func TestAnnouncement(t *testing.T) {
	mac := ether.MAC{2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}
	for _, tt := range []struct{ addr, want string }{
		{"10.55.0.1", `
			ffffffffffff 02aabbccddee 0806
			0001 0800 06 04 0001
			02aabbccddee 0a370001
			000000000000 0a370001`},
		{"fd55::1", `
			333300000001 02aabbccddee 86dd
			60000000 0020 3a ff
			fd550000000000000000000000000001
			ff020000000000000000000000000001
			88 00 CSUM 20000000
			fd550000000000000000000000000001
			02 01 02aabbccddee`},
	} {
		want := strings.Join(strings.Fields(tt.want), "")
		got := hex.EncodeToString(announcement(mac, netip.MustParseAddr(tt.addr)))
		if i := strings.Index(want, "CSUM"); i >= 0 {
			want = want[:i] + sumOf(t, want) + want[i+4:]
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.addr, got, want)
		}
	}
}

// sumOf is the slow twin of icmpv6Sum over a whole frame with a hole for the sum.
func sumOf(t *testing.T, frame string) string {
	b, err := hex.DecodeString(strings.Replace(frame, "CSUM", "0000", 1))
	if err != nil {
		t.Fatal(err)
	}
	ip := b[14:]
	// Source, destination, upper-layer length, next header, then the message.
	text := append(append([]byte{}, ip[8:40]...), 0, 0, ip[4], ip[5], 0, 0, 0, ip[6])
	text = append(text, ip[40:]...)
	sum := 0
	for i := 0; i < len(text); i += 2 {
		sum += int(text[i])*256 + int(text[i+1])
		if sum >= 65536 {
			sum -= 65535
		}
	}
	sum = 65535 - sum
	return hex.EncodeToString([]byte{byte(sum >> 8), byte(sum)})
}

func TestHostName(t *testing.T) {
	seen := make(map[string]bool)
	for ino := range uint64(1000) {
		for try := range 2 {
			name := hostName(nsID{4, ino}, try)
			if !validIfName(name) || seen[name] {
				t.Fatalf("%q for inode %d is no new interface name", name, ino)
			}
			seen[name] = true
		}
	}
	if name := hostName(nsID{4, 7}, 0); name != hostName(nsID{4, 7}, 0) {
		t.Error("names are not stable")
	}
}

func FuzzParseContainer(f *testing.F) {
	for _, s := range []string{"netns:web", "netns:/a", "pid:1", "", "netns:..", "pid:-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContainer(s)
		if err != nil {
			return
		}
		if c.String() != s || !strings.HasPrefix(c.path, "/") || len(aliasPrefix+s) > 255 {
			t.Errorf("%q became %+v", s, c)
		}
	})
}
