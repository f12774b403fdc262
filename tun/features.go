package tun

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// Features says what the kernel agreed to do. It is constant for a Device.
type Features struct {
	MultiQueue bool
	ReadCsum   bool // Read may return partial checksums
	ReadTSO    bool // Read may return TCP superframes
	ReadECN    bool // and those with ECN
	ReadUSO    bool // Read may return UDP superframes
	WriteTSO   bool // TCP superframes are written whole; otherwise Write cuts them
	WriteUSO   bool // the same for UDP
}

// String lists the features as status shows them.
func (f Features) String() string {
	var words []string
	for _, w := range []struct {
		on   bool
		word string
	}{
		{f.MultiQueue, "multi-queue"}, {f.ReadCsum, "csum"}, {f.ReadTSO, "tso"}, {f.ReadECN, "ecn"}, {f.ReadUSO, "uso"},
		{f.WriteTSO, "tso-write"}, {f.WriteUSO, "uso-write"},
	} {
		if w.on {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

// takes reports whether the kernel takes such a frame in one write.
func (f *Features) takes(g ether.GSO) bool {
	switch g {
	case ether.GSOTCPv4, ether.GSOTCPv6:
		return f.WriteTSO
	case ether.GSOUDPL4:
		return f.WriteUSO
	}
	return true
}

// offloads are the sets to ask of TUNSETOFFLOAD, best first. The kernel takes a
// set or refuses it whole.
var offloads = []struct {
	flags int
	can   Features
}{
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
		Features{ReadCsum: true, ReadTSO: true, ReadECN: true, ReadUSO: true}},
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN, // no USO before 6.2
		Features{ReadCsum: true, ReadTSO: true, ReadECN: true}},
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, Features{ReadCsum: true, ReadTSO: true}},
	{unix.TUN_F_CSUM, Features{ReadCsum: true}},
	{0, Features{}},
}

// release is a kernel version.
type release [3]int

// minWriteUSO is the first kernel on which UDP superframes that were written to a
// TAP survive a vxlan or geneve device behind it.
var minWriteUSO = release{6, 8, 5}

// parseRelease reads the numbers that a uname release begins with; what is missing
// is 0.
func parseRelease(s string) release {
	var r release
	for i := range r {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		r[i], _ = strconv.Atoi(s[:digits])
		s = s[digits:]
		if !strings.HasPrefix(s, ".") {
			break
		}
		s = s[1:]
	}
	return r
}

// atLeast reports whether r is m or later.
func (r release) atLeast(m release) bool {
	for i := range r {
		if r[i] != m[i] {
			return r[i] > m[i]
		}
	}
	return true
}
