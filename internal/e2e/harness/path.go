package harness

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"weave/internal/testnet"
)

// Bytes of an outer packet that are not the inner one's, over IPv4 and IPv6.
const (
	Outer4 = 20 + 8 + 16 + 8 + 14 + 16
	Outer6 = 40 + 8 + 16 + 8 + 14 + 16
)

// Narrow makes a host lose, without a word, what comes in packets larger than mtu,
// as a path does that filters ICMP; 0 makes it wide again. It counts fragments and
// large packets.
func Narrow(h *testnet.Host, mtu int) {
	rules := "table inet path\ndelete table inet path\n"
	rules += "table inet path {\n chain in {\n  type filter hook prerouting priority -450;\n" +
		"  iifname eth0 ip frag-off & 0x3fff != 0 counter\n" +
		"  iifname eth0 exthdr frag exists counter\n" +
		"  iifname eth0 udp length > 7500 counter\n" +
		"  iifname eth0 udp length 1401-7500 counter\n"
	if mtu > 0 {
		rules += fmt.Sprintf("  iifname eth0 meta length > %d counter drop\n", mtu)
	}
	rules += " }\n}\n"
	h.Exec("sh", "-c", "printf '"+strings.ReplaceAll(rules, "\n", `\n`)+"' | nft -f -")
}

// PathCounts reads what Narrow's rules counted: IPv4 fragments, IPv6 fragments,
// datagrams of more than 7500 bytes, of more than 1400 to 7500, and, if the path is narrow,
// packets lost to that.
func PathCounts(h *testnet.Host) (counts []int) {
	for line := range strings.Lines(h.Exec("nft", "list", "table", "inet", "path")) {
		if _, rest, ok := strings.Cut(line, "counter packets "); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			counts = append(counts, n)
		}
	}
	return counts
}

// Watched prepares hosts for Narrow: their trains leave in single packets, as on a
// wire.
func Watched(sites ...*Site) {
	for _, s := range sites {
		s.Exec("ip", "link", "set", testnet.Uplink, "gso_max_segs", "1")
		Narrow(s.Host, 0)
	}
}

// NoFragments fails the test if any site got a fragment on the underlay.
func NoFragments(t testing.TB, sites ...*Site) {
	t.Helper()
	for _, s := range sites {
		if c := PathCounts(s.Host); c[0]+c[1] > 0 {
			t.Errorf("%s received %d fragments on the underlay", s.Label, c[0]+c[1])
		}
	}
}
