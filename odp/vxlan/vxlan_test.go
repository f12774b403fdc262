package vxlan_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/internal/testnet"
	"weave/odp"
	"weave/odp/odptest"
	"weave/odp/vxlan"
)

func TestConformance(t *testing.T) {
	odptest.Run(t, odptest.Config{
		Hosts: hosts,
		Open: func(h *odptest.Host, adopt bool) (odp.Backend, error) {
			return vxlan.Open(vxlan.Config{
				Bridge: odptest.Bridge, Local: h.Name, MTU: odptest.MTU, Port: odptest.Port, Adopt: adopt,
				Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name.String()),
			})
		},
		Break: func(h *odptest.Host) error {
			_, err := h.Run("ip", "link", "del", "weavevx")
			return err
		},
		Occupy: func(h *odptest.Host) (func() error, error) {
			_, err := h.Run("ip", "link", "add", "other", "type", "vxlan", "id", "77", "gbp", "dstport", fmt.Sprint(odptest.Port))
			_, err2 := h.Run("ip", "link", "set", "other", "up")
			return func() error {
				_, err := h.Run("ip", "link", "del", "other")
				return err
			}, errors.Join(err, err2)
		},
		Remains: func(h *odptest.Host) string {
			out, _ := h.Run("ip", "-br", "link", "show", "type", "vxlan")
			rules, _ := h.Run("nft", "list", "ruleset")
			return strings.TrimSpace(out + rules)
		},
	})
}

// hosts are two namespaces on one wire, with a bridge and a container each.
func hosts(t *testing.T, o odptest.Options) (a, b *odptest.Host) {
	t.Helper()
	if o.Underlay == 0 {
		o.Underlay = 1500
	}
	lab := testnet.New(t)
	ha, hb := lab.Pair("a", "b", testnet.MTU(o.Underlay))
	return host(t, ha, 1, o), host(t, hb, 2, o)
}

func host(t *testing.T, h *testnet.Host, n byte, o odptest.Options) *odptest.Host {
	t.Helper()
	box := h.Container("box")
	out := &odptest.Host{
		Name: mustName(t, n), Addr: h.IP4, In: h.Do, MAC: ether.MAC{2, 0xbb, 0, 0, 0, n},
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

func mustName(t *testing.T, n byte) peer.Name {
	t.Helper()
	name, err := peer.ParseName(fmt.Sprintf("02:00:00:00:00:%02x", n))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func result(r testnet.Result) (string, error) {
	if r.Code != 0 {
		return r.Stdout + r.Stderr, fmt.Errorf("exit %d", r.Code)
	}
	return r.Stdout, nil
}
