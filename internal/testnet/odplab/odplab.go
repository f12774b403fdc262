// Package odplab makes the hosts that the conformance suite of kernel backends wants
// (package odptest), out of the namespaces of package testnet.
package odplab

import (
	"fmt"
	"net/netip"
	"testing"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/internal/testnet"
	"weave/odp/odptest"
)

// Hosts are two namespaces on one wire, with a bridge and a container each. It skips the
// test where namespaces cannot be made.
func Hosts(t *testing.T, o odptest.Options) (a, b *odptest.Host) {
	t.Helper()
	ha, hb := pair(t, o)
	return host(t, ha, 1, o), host(t, hb, 2, o)
}

// Watched are Hosts with a look at all that each of them receives from the other.
func Watched(t *testing.T, o odptest.Options, canaries ...string) (a, b *odptest.Host, seen [2]*testnet.Capture) {
	t.Helper()
	ha, hb := pair(t, o)
	for i, h := range []*testnet.Host{ha, hb} {
		seen[i] = h.Capture([]string{testnet.Uplink}, canaries...)
	}
	return host(t, ha, 1, o), host(t, hb, 2, o), seen
}

func pair(t *testing.T, o odptest.Options) (a, b *testnet.Host) {
	t.Helper()
	if o.Underlay == 0 {
		o.Underlay = 1500
	}
	return testnet.New(t).Pair("a", "b", testnet.MTU(o.Underlay))
}

func host(t *testing.T, h *testnet.Host, n byte, o odptest.Options) *odptest.Host {
	t.Helper()
	name, err := peer.ParseName(fmt.Sprintf("02:00:00:00:00:%02x", n))
	if err != nil {
		t.Fatal(err)
	}
	box := h.Container("box")
	out := &odptest.Host{
		Name: name, Addr: h.IP4, In: h.Do, MAC: ether.MAC{2, 0xbb, 0, 0, 0, n},
		IP: netip.AddrFrom4([4]byte{10, 99, 0, n}),
		Run: func(args ...string) (string, error) {
			return result(h.Try(args[0], args[1:]...))
		},
		Container: func(args ...string) (string, error) {
			return result(box.Try(args[0], args[1:]...))
		},
	}
	if o.IPv6 {
		out.Addr = h.IP6
	}
	mtu := fmt.Sprint(odptest.MTU)
	h.Exec("ip", "link", "add", odptest.Bridge, "mtu", mtu, "type", "bridge")
	h.Exec("ip", "link", "set", odptest.Bridge, "up")
	h.Exec("ip", "link", "add", "vbox", "mtu", mtu, "type", "veth", "peer", "name", "ethwe", "netns", box.Name)
	h.Exec("ip", "link", "set", "vbox", "master", odptest.Bridge, "up")
	box.Exec("ip", "link", "set", "ethwe", "address", out.MAC.String(), "mtu", mtu, "up")
	box.Exec("ip", "addr", "add", out.IP.String()+"/24", "dev", "ethwe")
	return out
}

func result(r testnet.Result) (string, error) {
	if r.Code != 0 {
		return r.Stdout + r.Stderr, fmt.Errorf("exit %d", r.Code)
	}
	return r.Stdout, nil
}
