package ovs

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/ether"
	"weave/internal/testnet"
	"weave/internal/testnet/odplab"
	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/odptest"
	"weave/odp/ovs/wire"
	"weave/odp/vxlan"
)

func config(t *testing.T, h *odptest.Host, adopt bool) Config {
	return Config{
		Bridge: odptest.Bridge, Local: h.Name, MTU: odptest.MTU, Port: odptest.Port, Adopt: adopt,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name.String()),
	}
}

// within runs fn with a client of the host's datapath.
func within(h *odptest.Host, fn func(*client, wire.Datapath) error) error {
	return h.In(func() error {
		host, err := keeper.OpenHost()
		if err != nil {
			return err
		}
		defer host.Close()
		c, err := dial(host)
		if err != nil {
			return err
		}
		defer c.close()
		dp, err := c.getDatapath(datapathName)
		if err != nil {
			return err
		}
		return fn(c, dp)
	})
}

func deleteDatapath(h *odptest.Host) error {
	return within(h, func(c *client, dp wire.Datapath) error {
		return c.tell(c.datapath, wire.CmdDel, &wire.Datapath{Name: datapathName})
	})
}

// suite is the conformance suite's view of a backend.
func suite(t *testing.T, open func(h *odptest.Host, adopt bool) (odp.Backend, error)) odptest.Config {
	return odptest.Config{
		Hosts:  odplab.Hosts,
		Open:   open,
		Break:  deleteDatapath,
		Occupy: odptest.TakeVXLANPort,
		Remains: func(h *odptest.Host) string {
			out, _ := h.Run("ip", "-br", "link", "show", "type", "vxlan")
			dps, _ := h.Run("ip", "-br", "link", "show", "type", "openvswitch")
			rules, _ := h.Run("nft", "list", "ruleset")
			return strings.TrimSpace(out + dps + rules)
		},
	}
}

func TestConformance(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	c := suite(t, func(h *odptest.Host, adopt bool) (odp.Backend, error) { return Open(config(t, h, adopt)) })
	if testing.Short() { // what depends on the driver most
		c.Only = []string{"carry", "adopt", "broken"}
	}
	odptest.Run(t, c)
}

// On the wire it is a vxlan device.
func TestWithVXLAN(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	first := true
	c := suite(t, func(h *odptest.Host, adopt bool) (odp.Backend, error) {
		defer func() { first = !first }()
		if first {
			return vxlan.Open(config(t, h, adopt))
		}
		return Open(config(t, h, adopt))
	})
	c.Only = []string{"probe"}
	if !testing.Short() {
		c.Only = append(c.Only, "carry")
	}
	odptest.Run(t, c)
}

// Before Linux 5.15 upcalls go to sockets by vport.
func TestOldUpcalls(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	p := odptest.Connect(t, suite(t, func(h *odptest.Host, adopt bool) (odp.Backend, error) {
		return open(config(t, h, adopt), false, passingIdle)
	}), odptest.Options{})
	testFlowsGone(t, p)
}

// What has no flow is answered by one.
func TestMisses(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	p := odptest.Connect(t, suite(t, func(h *odptest.Host, adopt bool) (odp.Backend, error) {
		// Flows must outlive pings, which wait a second for answers that do not come.
		return open(config(t, h, adopt), true, 3*time.Second)
	}), odptest.Options{})
	t.Run("flows gone", func(t *testing.T) { testFlowsGone(t, p) })
	t.Run("tagged", func(t *testing.T) { testTagged(t, p) })
	t.Run("unsteered", func(t *testing.T) { testUnsteered(t, p) })
	t.Run("stranger", func(t *testing.T) { testStranger(t, p) })
	t.Run("tunnel device gone", func(t *testing.T) { testTunnelGone(t, p) })
}

func flowsOf(t *testing.T, h *odptest.Host) (flows []wire.Flow) {
	t.Helper()
	err := within(h, func(c *client, dp wire.Datapath) (err error) {
		flows, err = c.flows(dp.Index, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return flows
}

// carrying names the flows that carry frames. Those that drop come and go with the
// bridge's IPv6 multicast.
func carrying(flows []wire.Flow) map[ufid]bool {
	out := map[ufid]bool{}
	for _, f := range flows {
		if id, ok := ours(f.UFID); ok && !f.Drop {
			out[id] = true
		}
	}
	return out
}

// Flows that somebody else deleted are made again by the frames that need them, and
// those frames arrive.
func testFlowsGone(t *testing.T, p *odptest.Pair) {
	want := carrying(flowsOf(t, p.Host(0)))
	if len(want) == 0 {
		t.Fatal("no flows")
	}
	repaired := func(i int) bool { return p.Backend(i).Counters()["flow_repairs"] > 0 }
	for range 3 { // the backend may find out by itself before a frame comes
		for i := range 2 {
			err := within(p.Host(i), func(c *client, dp wire.Datapath) error {
				return c.tell(c.flow, wire.CmdDel, &wire.Flow{Datapath: dp.Index}) // all of them
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if !p.Carries(3, odptest.MTU) {
			t.Error("pings lost")
		}
		if repaired(0) && repaired(1) {
			break
		}
	}
	for i := range 2 {
		if !repaired(i) {
			t.Errorf("host %d: no repair counted: %v", i, p.Backend(i).Counters())
		}
	}
	eventually(t, "all flows", func() bool { return maps.Equal(carrying(flowsOf(t, p.Host(0))), want) })
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for start := time.Now(); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// tagged counts flows of frames with VLAN tags.
func tagged(flows []wire.Flow) (n int) {
	for _, f := range flows {
		if f.Key.Has&wire.HasVLAN != 0 {
			n++
		}
	}
	return n
}

func testTagged(t *testing.T, p *odptest.Pair) {
	for i := range 2 {
		h, o := p.Host(i), p.Host(1-i)
		for _, args := range [][]string{
			{"ip", "link", "add", "link", "ethwe", "name", "tag7", "type", "vlan", "id", "7"},
			{"ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "tag7"},
			{"ip", "link", "set", "tag7", "mtu", "1300", "up"},
			{"ip", "neigh", "replace", fmt.Sprintf("10.77.0.%d", 2-i), "lladdr", o.MAC.String(), "dev", "tag7", "nud", "permanent"},
		} {
			if out, err := h.Container(args...); err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
	}
	if out, err := p.Host(0).Container("ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "2", "10.77.0.2"); err != nil {
		t.Errorf("tagged pings lost: %s", out)
	}
	if n := tagged(flowsOf(t, p.Host(0))); n == 0 {
		t.Error("no flow for tagged frames")
	}
	for i := range 2 {
		p.Host(i).Container("ip", "link", "del", "tag7")
	}
	eventually(t, "flows of tagged frames expire", func() bool { return tagged(flowsOf(t, p.Host(0))) == 0 })
}

// drops counts flows that drop what a test made: the bridge's IPv6 multicast has some
// too.
func drops(flows []wire.Flow, made func(*wire.Key) bool) (n int) {
	for _, f := range flows {
		if f.Drop && made(&f.Key) {
			n++
		}
	}
	return n
}

func testUnsteered(t *testing.T, p *odptest.Pair) {
	h, mac := p.Host(0), ether.MAC{2, 0x77, 0x77, 0x77, 0x77, 0x77}
	toMAC := func(k *wire.Key) bool { return k.Dst == mac }
	h.Run("bridge", "fdb", "replace", mac.String(), "dev", datapathName, "master", "dynamic", "extern_learn")
	h.Container("ip", "neigh", "replace", "10.99.0.77", "lladdr", mac.String(), "dev", "ethwe", "nud", "permanent")
	h.Container("ping", "-n", "-q", "-c", "5", "-i", "0.1", "-W", "0.1", "10.99.0.77")
	if n := drops(flowsOf(t, h), toMAC); n != 1 {
		t.Errorf("%d flows that drop, want 1", n)
	}
	eventually(t, "expiry", func() bool { return drops(flowsOf(t, h), toMAC) == 0 })
	if n := p.Backend(0).Counters()[dropUnsteered]; n < 5 {
		t.Errorf("%d frames counted of 5 or more: %v", n, p.Backend(0).Counters())
	}
}

// The nft filter is not what keeps strangers out: here it lets packets in that change
// their source behind it.
func testStranger(t *testing.T, p *odptest.Pair) {
	h, stranger := p.Host(1), netip.MustParseAddr("203.0.113.9")
	for _, args := range [][]string{
		{"nft", "add", "table", "ip", "mask"},
		{"nft", "add", "chain", "ip", "mask", "in", "{ type filter hook input priority 0; }"},
		{"nft", "add", "rule", "ip", "mask", "in", "udp", "dport", fmt.Sprint(odptest.Port), "ip", "saddr", "set", stranger.String()},
	} {
		if out, err := h.Run(args...); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	if p.Pings(3, 100) {
		t.Error("pings of a stranger came back")
	}
	fromStranger := func(k *wire.Key) bool { return k.Has&wire.HasTunnel != 0 && k.Tunnel.Src == stranger }
	if n := drops(flowsOf(t, h), fromStranger); n != 1 {
		t.Errorf("%d flows that drop, want 1", n)
	}
	h.Run("nft", "delete", "table", "ip", "mask")
	if !p.Carries(3, 100) {
		t.Error("pings lost")
	}
	eventually(t, "counting", func() bool { return p.Backend(1).Counters()[dropStranger] >= 3 })
}

// The datapath stays where it is, with its flows.
func testTunnelGone(t *testing.T, p *odptest.Pair) {
	if out, err := p.Host(0).Run("ip", "link", "del", tunnelName); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "repair", func() bool { return p.Pings(1, odptest.MTU) })
}

// The filter of the other backend is not ours to remove.
func TestRemoveLeavesVXLAN(t *testing.T) {
	p := odptest.Connect(t, suite(t, func(h *odptest.Host, adopt bool) (odp.Backend, error) {
		return vxlan.Open(config(t, h, adopt))
	}), odptest.Options{})
	h := p.Host(0)
	rules := func() string {
		out, _ := h.Run("nft", "list", "ruleset")
		return out
	}
	before := rules()
	if err := h.In(Remove); err != nil {
		t.Fatal(err)
	}
	if after := rules(); before == "" || after != before {
		t.Errorf("rules before:\n%s\nafter:\n%s", before, after)
	}
	if err := h.In(vxlan.Remove); err != nil {
		t.Fatal(err)
	}
	// The backend that still runs may have made them again; without a device it is not
	// so after a second removal.
	p.Backend(0).RemovePeer(p.Host(1).Name)
	if left := rules(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// Without the module there is a reason, and nothing else happens.
func TestNoModule(t *testing.T) {
	testnet.NeedNoModule(t, "openvswitch")
	h, o := odplab.Hosts(t, odptest.Options{})
	err := h.In(func() error {
		if err := Remove(); err != nil {
			t.Errorf("remove: %v", err)
		}
		if err := Probe(); odp.ReasonOf(err) != odp.ReasonOVS {
			t.Errorf("probe: %v, want reason %s", err, odp.ReasonOVS)
		}
		be, err := Open(config(t, h, true))
		if err != nil {
			return err
		}
		defer be.Close()
		be.AddPeer(odp.Peer{Name: o.Name, Addr: netip.AddrPortFrom(o.Addr, odptest.Port)})
		if st := be.State(o.Name); odp.ReasonOf(st.Err) != odp.ReasonOVS || st.Port != 0 {
			t.Errorf("state: %+v, want reason %s", st, odp.ReasonOVS)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
