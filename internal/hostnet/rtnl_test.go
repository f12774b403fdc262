package hostnet

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// unhex reads hex with blanks. The messages here are of a little-endian machine.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// struct ifaddrmsg, then attributes.
const (
	addr4      = "02 18 00 00 07000000  0800 0100 0a370001  0800 0200 0a370001"
	addrPeer   = "02 20 00 00 07000000  0800 0100 0a370002  0800 0200 0a370001"
	addr6      = "0a 40 80 00 07000000  1400 0100 fd550000000000000000000000000001"
	addrLink   = "0a 40 80 fd 07000000  1400 0100 fe800000000000000000000000000001"
	addrLong   = "02 63 00 00 07000000  0800 0200 0a370001"
	addrNone   = "02 18 00 00 07000000  0400 0200"
	addrCut    = "02 18 00 00 07000000  0900 0200 0a370001"
	addrNoPad  = "02 18 00 00 07000000  0800 0200 0a370001  0500 0300 78"
	neighLocal = "07 000000 09000000 0200 00 00  0a00 0200 02aa00000001 0000  0800 0900 03000000"
	neighVLAN  = "07 000000 09000000 8000 10 00  0a00 0200 02aa00000001 0000  0600 0500 0100 0000"
)

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct {
		name, msg, want string
		scope           uint8
	}{
		{"IPv4", addr4, "10.55.0.1/24", 0},
		{"point to point", addrPeer, "10.55.0.1/32", 0},
		{"IPv6", addr6, "fd55::1/64", 0},
		{"link-local", addrLink, "fe80::1/64", scopeLink},
		{"last attribute not padded", addrNoPad, "10.55.0.1/24", 0},
		{"prefix too long", addrLong, "", 0},
		{"no address", addrNone, "", 0},
		{"attribute cut off", addrCut, "", 0},
		{"header cut off", "02 18 00 00", "", 0},
		{"nothing", "", "", 0},
	} {
		got, ok := parseAddr(unhex(t, tt.msg))
		if ok != (tt.want != "") {
			t.Errorf("%s: got %+v, %v", tt.name, got, ok)
		}
		if ok && got != (ifAddr{netip.MustParsePrefix(tt.want), 7, tt.scope}) {
			t.Errorf("%s: got %+v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestParseNeigh(t *testing.T) {
	mac := net.HardwareAddr{2, 0xaa, 0, 0, 0, 1}
	for _, tt := range []struct {
		name, msg string
		want      *netlink.Neigh
	}{
		{"local", neighLocal, &netlink.Neigh{Family: unix.AF_BRIDGE, LinkIndex: 9, State: netlink.NUD_REACHABLE, HardwareAddr: mac, MasterIndex: 3}},
		{"with VLAN", neighVLAN, &netlink.Neigh{Family: unix.AF_BRIDGE, LinkIndex: 9, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_EXT_LEARNED, HardwareAddr: mac, Vlan: 1}},
		{"cut off", "07 000000 09000000 0200", nil},
		{"nothing", "", nil},
	} {
		got, err := parseNeigh(unhex(t, tt.msg))
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzNetlink(f *testing.F) {
	for _, s := range []string{addr4, addrPeer, addr6, addrLink, addrLong, addrNone, addrCut, addrNoPad, neighLocal, neighVLAN} {
		f.Add(unhex(f, s))
	}
	f.Add([]byte("\a\x0000000")) // an attribute of 7 bytes with no padding behind it
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parseAddr(b); ok && !a.prefix.IsValid() {
			t.Errorf("accepted %v", a)
		}
		if n, err := parseNeigh(b); err == nil && ofBridge(n, 3) && len(n.HardwareAddr) != 6 {
			t.Errorf("accepted %v", n)
		}
		nested(b, unix.IFLA_LINKINFO, 2)
		linkOf(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWLINK}, Data: b})
	})
}

// A namespace that ends while its addresses are being listed is an error, not the end
// of the daemon: with extended acknowledgements on, the library reads the end of a
// failed dump as the echo of a request and panics.
func TestAddressesOfNoNamespace(t *testing.T) {
	h, err := Open()
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer h.Close()
	for _, index := range []int{0, 1, 4242} {
		if got, err := h.addrs(4242, index); err == nil {
			t.Errorf("link %d of a namespace that is not there has %v", index, got)
		}
	}
}
