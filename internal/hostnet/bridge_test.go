package hostnet_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"weave/internal/ether"
	"weave/internal/hostnet"
	"weave/internal/peer"
)

func TestBridgeMAC(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"::1", "02:00:00:00:00:01"},
		{"02:aa:bb:cc:dd:ee", "02:aa:bb:cc:dd:ee"},
		{"ff:ff:ff:ff:ff:ff", "fe:ff:ff:ff:ff:ff"},
		{"01:00:5e:00:00:01", "02:00:5e:00:00:01"},
	} {
		name, err := peer.ParseName(tt.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := hostnet.BridgeMAC(name).String(); got != tt.want {
			t.Errorf("BridgeMAC(%s) = %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestEnsureBridgeCreatesOnce(t *testing.T) {
	w := newWorld(t)
	b, err := w.host.EnsureBridge(config)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Created || len(b.Repaired) != 0 || len(b.Warnings) != 0 {
		t.Errorf("first call: %+v, want created and nothing else", b)
	}
	a := link(t, w.Namespace, bridge).Attrs()
	if a.MTU != 1376 || ether.MAC(a.HardwareAddr) != bridgeMAC || a.Flags&net.FlagUp == 0 {
		t.Errorf("bridge is %+v", a)
	}
	detail := w.Exec("ip", "-d", "link", "show", bridge)
	for _, want := range []string{"stp_state 0", "mcast_snooping 0", "vlan_filtering 0", "ageing_time 30000"} {
		if !strings.Contains(detail, want) {
			t.Errorf("no %q in\n%s", want, detail)
		}
	}
	for key, want := range map[string]string{
		"net/ipv6/conf/weave/accept_ra":               "0",
		"net/ipv4/neigh/weave/base_reachable_time_ms": "5000",
		"net/ipv4/neigh/weave/ucast_solicit":          "1",
	} {
		if got := sysctl(t, w.Namespace, key); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	again, err := w.host.EnsureBridge(config)
	if err != nil || again.Created || len(again.Repaired) != 0 || again.Index != b.Index {
		t.Errorf("second call: %+v, %v, want the same bridge untouched", again, err)
	}
}

func TestEnsureBridgeRepairs(t *testing.T) {
	w := newBridged(t)
	break1 := func(args ...string) func() {
		return func() { w.Exec("ip", append([]string{"link", "set", bridge}, args...)...) }
	}
	for _, tt := range []struct {
		name string
		harm func()
		want []string
	}{
		{"down", break1("down"), []string{"down"}},
		{"mtu", break1("mtu", "1500"), []string{"mtu"}},
		{"mac", break1("address", "02:00:00:00:00:99"), []string{"mac"}},
		{"stp", break1("type", "bridge", "stp_state", "1"), []string{"stp"}},
		{"snooping", break1("type", "bridge", "mcast_snooping", "1"), []string{"multicast snooping"}},
		{"ageing", break1("type", "bridge", "ageing_time", "100"), []string{"ageing time"}},
		{"down and mtu", break1("down", "mtu", "1400"), []string{"mtu", "down"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.harm()
			b, err := w.host.EnsureBridge(config)
			if err != nil || b.Created {
				t.Fatalf("got %+v, %v", b, err)
			}
			if diff := cmp.Diff(tt.want, b.Repaired); diff != "" {
				t.Errorf("repaired (-want +got):\n%s", diff)
			}
			b, err = w.host.EnsureBridge(config)
			if err != nil || len(b.Repaired) != 0 {
				t.Errorf("afterwards: %+v, %v, want nothing to repair", b, err)
			}
		})
	}
	t.Run("deleted", func(t *testing.T) {
		w.Exec("ip", "link", "del", bridge)
		if b, err := w.host.EnsureBridge(config); err != nil || !b.Created {
			t.Errorf("got %+v, %v, want a new bridge", b, err)
		}
	})
}

// A bridge takes the least MTU of its ports unless its own was set by hand.
func TestBridgeKeepsMTU(t *testing.T) {
	for _, mtu := range []int{1376, 1500, 8916} {
		w := newWorld(t)
		cfg := config
		cfg.MTU = mtu
		if _, err := w.host.EnsureBridge(cfg); err != nil {
			t.Fatal(err)
		}
		w.Exec("ip", "link", "add", "small", "mtu", "1280", "type", "veth", "peer", "name", "other")
		w.Exec("ip", "link", "set", "small", "master", bridge, "up")
		if got := link(t, w.Namespace, bridge).Attrs().MTU; got != mtu {
			t.Errorf("MTU %d became %d with a port of 1280", mtu, got)
		}
	}
}

func TestEnsureBridgeAdoptsForeignBridge(t *testing.T) {
	w := newWorld(t)
	w.Exec("ip", "link", "add", bridge, "type", "bridge", "stp_state", "1")
	b, err := w.host.EnsureBridge(config)
	if err != nil || b.Created {
		t.Fatalf("got %+v, %v", b, err)
	}
	for _, want := range []string{"stp", "mtu", "mac", "down", "multicast snooping"} {
		if !slices.Contains(b.Repaired, want) {
			t.Errorf("repaired %q, want %q among them", b.Repaired, want)
		}
	}
}

func TestEnsureBridgeRefuses(t *testing.T) {
	w := newWorld(t)
	w.tap(t, "taken")
	for _, tt := range []struct {
		name string
		cfg  hostnet.BridgeConfig
		want error
	}{
		{"not a bridge", hostnet.BridgeConfig{Name: "taken", MTU: 1376, MAC: bridgeMAC}, hostnet.ErrNotBridge},
		{"no name", hostnet.BridgeConfig{MTU: 1376, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"long name", hostnet.BridgeConfig{Name: "sixteen-bytes-xx", MTU: 1376, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"slash", hostnet.BridgeConfig{Name: "we/ave", MTU: 1376, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"parent", hostnet.BridgeConfig{Name: "..", MTU: 1376, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"no MTU", hostnet.BridgeConfig{Name: bridge, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"large MTU", hostnet.BridgeConfig{Name: bridge, MTU: 65536, MAC: bridgeMAC}, hostnet.ErrBadOption},
		{"no MAC", hostnet.BridgeConfig{Name: bridge, MTU: 1376}, hostnet.ErrBadOption},
		{"group MAC", hostnet.BridgeConfig{Name: bridge, MTU: 1376, MAC: ether.Broadcast}, hostnet.ErrBadOption},
	} {
		if _, err := w.host.EnsureBridge(tt.cfg); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := links(t, w.Namespace); !slices.Equal(got, []string{"taken"}) {
		t.Errorf("links %q, want none made", got)
	}
}

func TestBridgeWarnsOfNetfilter(t *testing.T) {
	w := newWorld(t)
	const key = "net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat("/proc/sys/" + key); err != nil {
		t.Skip("the kernel has no br_netfilter loaded, so there is nothing to warn of")
	}
	setSysctl(t, w.Namespace, key, "1")
	b, err := w.host.EnsureBridge(config)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], "net.bridge.bridge-nf-call-iptables") {
		t.Errorf("warnings %q, want one that names the setting", b.Warnings)
	}
}

func TestAddRouterPort(t *testing.T) {
	w := newBridged(t)
	w.tap(t, "tap0")
	before := link(t, w.Namespace, "tap0").Attrs()
	p, err := w.host.AddRouterPort(bridge, "tap0")
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		a := link(t, w.Namespace, "tap0").Attrs()
		if p.Name != "tap0" || p.Index != a.Index {
			t.Errorf("port %+v, want index %d", p, a.Index)
		}
		if a.MTU != 1376 || a.Flags&net.FlagUp == 0 || a.MasterIndex == 0 {
			t.Errorf("port is %+v", a)
		}
		if a.GSOMaxSize != before.GSOMaxSize || a.GSOIPv4MaxSize != before.GSOIPv4MaxSize {
			t.Errorf("gso_max_size went from %d to %d", before.GSOMaxSize, a.GSOMaxSize)
		}
		detail := w.Exec("bridge", "-d", "link", "show", "dev", "tap0")
		for _, want := range []string{"learning off", "flood on", "mcast_flood on", "bcast_flood on", "isolated on", "neigh_suppress off", "hairpin off"} {
			if !strings.Contains(detail, want) {
				t.Errorf("no %q in\n%s", want, detail)
			}
		}
		if addrs, _ := w.NL.AddrList(link(t, w.Namespace, "tap0"), netlink.FAMILY_ALL); len(addrs) != 0 {
			t.Errorf("the port has addresses %v", addrs)
		}
	}
	check()
	if _, err := w.host.AddRouterPort(bridge, "tap0"); err != nil {
		t.Fatal(err)
	}
	check()
	if _, err := w.host.AddRouterPort(bridge, "tap9"); err == nil || !strings.Contains(err.Error(), "tap9") {
		t.Errorf("an absent device: got %v, want an error that names it", err)
	}
	if _, err := w.host.AddRouterPort("nobridge", "tap0"); !errors.Is(err, hostnet.ErrNoBridge) {
		t.Errorf("an absent bridge: got %v", err)
	}
}

func TestWatchLink(t *testing.T) {
	w := newWorld(t)
	states := make(chan hostnet.LinkState, 64)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- w.host.WatchLink(ctx, bridge, func(s hostnet.LinkState) { states <- s }) }()

	if got := <-states; got != (hostnet.LinkState{}) {
		t.Fatalf("first state %+v, want none", got)
	}
	// until waits for a state and returns it; states on the way there may come.
	until := func(what string, ok func(hostnet.LinkState) bool) (s hostnet.LinkState) {
		t.Helper()
		eventually(t, what, func() bool {
			select {
			case s = <-states:
				return ok(s)
			default:
				return false
			}
		})
		return s
	}
	if _, err := w.host.EnsureBridge(config); err != nil {
		t.Fatal(err)
	}
	first := until("created", func(s hostnet.LinkState) bool { return s.Up && s.MTU == 1376 && s.MAC == bridgeMAC })
	w.Exec("ip", "link", "set", bridge, "down")
	until("down", func(s hostnet.LinkState) bool { return s.Index == first.Index && !s.Up })
	w.Exec("ip", "link", "del", bridge)
	until("deleted", func(s hostnet.LinkState) bool { return s == hostnet.LinkState{} })
	if _, err := w.host.EnsureBridge(config); err != nil {
		t.Fatal(err)
	}
	until("made again", func(s hostnet.LinkState) bool { return s.Up && s.Index != first.Index })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchLink returned %v", err)
	}
}
