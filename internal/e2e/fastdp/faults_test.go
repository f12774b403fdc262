package fastdp_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
	"weave/odp"
)

// joined makes two sites whose containers talk by a vxlan device.
func joined(t *testing.T, args ...string) (*testnet.Lab, *site, *site) {
	t.Helper()
	return kinds[0].joined(t, args...)
}

// A firewall that swallows the kernel path's packets, on both ways or on one, costs a
// stream less than 2 s; when it is gone the kernel is used again within 30 s, without a
// gap and without duplicates.
func TestBlockedUnderTraffic(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		_, a, b := k.joined(t)
		for _, at := range []struct {
			name  string
			sites []*site
		}{{"both ways", []*site{a, b}}, {"one way", []*site{b}}} {
			ping, tcp := a.streamEvery(b, k.pace()), a.flow(b, k.pace())
			time.Sleep(500 * time.Millisecond)
			tcp.Reset()
			undo := blockPort(k.port, "", at.sites...)
			took := on(t, "sleeve", 2500*time.Millisecond, a, b)
			time.Sleep(time.Second)
			gap, _, dup := ping.stop()
			t.Logf("%s: on sleeve after %v, longest silence %v of pings, %v of TCP", at.name, took, gap, tcp.Longest())
			if gap > 2100*time.Millisecond || dup || tcp.Longest() > 2*time.Second {
				t.Errorf("%s: longest silence %v of pings, %v of TCP, duplicates: %v", at.name, gap, tcp.Longest(), dup)
			}
			for _, e := range []*site{a, b} {
				if !strings.Contains(e.Daemon.Log(), "path changed") {
					t.Errorf("%s's log does not tell of the change", e.Label)
				}
			}
			if m := a.metrics(); !strings.Contains(m, `weave_path_changes_total{path="sleeve",reason="timeout"} `) {
				t.Error("no metric for the change")
			}
			ping = a.streamEvery(b, k.pace())
			tcp.Reset()
			undo()
			took = on(t, "fastdp", 30*time.Second, a, b)
			time.Sleep(time.Second)
			gap, lost, dup := ping.stop()
			t.Logf("%s: back on fastdp after %v, longest silence %v of pings, %v of TCP", at.name, took, gap, tcp.Longest())
			if gap > 500*time.Millisecond || lost > 0 || dup || tcp.Longest() > 500*time.Millisecond {
				t.Errorf("%s: return: longest silence %v of pings, %v of TCP, %d lost, duplicates: %v", at.name, gap, tcp.Longest(), lost, dup)
			}
			tcp.Stop()
		}
	})
}

// Somebody else has the port: sleeve is used, and the reason told; when it is free the
// kernel is used.
func TestPortTaken(t *testing.T) {
	_, a, b := newSites(t)
	var sock net.PacketConn
	err := a.Do(func() (err error) {
		sock, err = net.ListenPacket("udp4", ":"+vxlanPort)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	up(a, b)
	on(t, "sleeve", joinLimit, a, b)
	if got := a.reason(); got != "port-in-use" {
		t.Errorf("reason %q, want port-in-use", got)
	}
	if lost := a.pings(b, 3, "0.1"); lost > 0 {
		t.Errorf("%d pings lost", lost)
	}
	sock.Close()
	on(t, "fastdp", 30*time.Second, a, b)
}

// What others delete is made again, and the containers hardly notice.
func TestDeviceDeleted(t *testing.T) {
	_, a, b := joined(t)
	s := a.stream(b)
	time.Sleep(300 * time.Millisecond)
	a.Exec("ip", "link", "del", "weavevx")
	took := harness.Within(t, 5*time.Second, "device", func() bool { return a.Try("ip", "link", "show", "weavevx").Code == 0 })
	t.Logf("device back after %v", took)
	before := a.vxlanPackets()
	harness.Within(t, 5*time.Second, "traffic on the device", func() bool { return a.vxlanPackets() > before+50 })
	if gap, _, dup := s.stop(); gap > 2*time.Second || dup {
		t.Errorf("longest silence %v, duplicates: %v", gap, dup)
	} else {
		t.Logf("longest silence %v", gap)
	}
	on(t, "fastdp", 30*time.Second, a, b)
}

// A bridge made anew gets its kernel port back.
func TestBridgeDeleted(t *testing.T) {
	t.Parallel()
	_, a, b := joined(t)
	a.Exec("ip", "link", "del", "weave")
	harness.Within(t, 5*time.Second, "port", func() bool {
		return strings.Contains(a.Try("ip", "link", "show", "weavevx").Stdout, "master weave")
	})
	on(t, "fastdp", 30*time.Second, a, b)
	harness.Within(t, 5*time.Second, "pings", func() bool { return a.pings(b, 2, "0.1") == 0 })
}

func TestRulesFlushed(t *testing.T) {
	_, a, b := joined(t)
	a.Exec("nft", "flush", "ruleset")
	took := harness.Within(t, 2*time.Second, "rules", func() bool {
		return strings.Contains(a.Try("nft", "list", "chain", "inet", "weave", "fastdp").Stdout, "drop")
	})
	t.Logf("rules back after %v", took)
	if lost := a.pings(b, 5, "0.1"); lost > 0 {
		t.Errorf("%d pings lost", lost)
	}
}

// Flows in the network leave no trace in the host's table of connections, on the way out
// and in, where the host tracks connections at all.
func TestUntracked(t *testing.T) {
	_, a, b := joined(t)
	count := func(s *site) int {
		n, err := strconv.Atoi(strings.TrimSpace(s.Exec("cat", "/proc/sys/net/netfilter/nf_conntrack_count")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const flows = 500
	send := func() {
		a.Box.Exec("bash", "-c", "for i in $(seq "+strconv.Itoa(flows)+"); do echo x > /dev/udp/"+b.In4.String()+"/9; done")
	}
	for _, s := range []*site{a, b} {
		s.Exec("nft", "add table inet test; add chain inet test in { type filter hook input priority 0; }; add rule inet test in ct state established accept")
		harness.Within(t, 2*time.Second, "rules", func() bool {
			return strings.Count(s.Try("nft", "list", "table", "inet", "weave-untracked").Stdout, "notrack") == 2
		})
	}
	send()
	for _, s := range []*site{a, b} {
		if n := count(s); n > flows/10 {
			t.Errorf("%s: %d tracked connections after %d flows", s.Label, n, flows)
		}
	}
	a.Exec("nft", "delete", "table", "inet", "weave-untracked")
	took := harness.Within(t, 2*time.Second, "rules", func() bool {
		return strings.Contains(a.Try("nft", "list", "table", "inet", "weave-untracked").Stdout, "notrack")
	})
	t.Logf("rules back after %v", took)
	a.Daemon.Stop()
	a.Start("--no-fastdp")
	harness.Within(t, 5*time.Second, "rules gone", func() bool { return !strings.Contains(a.Exec("nft", "list", "ruleset"), "untracked") })
}

// A crash, and an upgrade, lose nothing that the kernel carries, also where the daemon
// needs some seconds to come back.
func TestCrashAndRelaunch(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		for _, tt := range []struct {
			name string
			end  func(*testnet.Daemon)
			away time.Duration
			rest time.Duration
		}{
			{"killed", (*testnet.Daemon).Kill9, 0, 12 * time.Second}, // until what nobody asked for is given up
			{"stopped", func(d *testnet.Daemon) { d.Stop() }, 0, 2 * time.Second},
			{"slow", (*testnet.Daemon).Kill9, 5 * time.Second, 2 * time.Second},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				_, a, b := k.joined(t)
				for _, s := range []*site{a, b} {
					s.t = t
				}
				there, back := a.streamEvery(b, k.pace()), b.streamEvery(a, k.pace())
				time.Sleep(300 * time.Millisecond)
				tt.end(b.Daemon)
				time.Sleep(tt.away)
				b.Start(k.flags(t, a.IP4.String())...)
				on(t, "fastdp", k.limit(), a, b)
				time.Sleep(tt.rest)
				for _, s := range []*stream{there, back} {
					gap, lost, dup := s.stop()
					t.Logf("%d pings, longest silence %v, %d lost", s.count(), gap, lost)
					if lost > 0 || dup {
						t.Errorf("%d lost, duplicates: %v", lost, dup)
					}
				}
				if lost := b.pings(a, 20, "0.02"); lost > 0 {
					t.Errorf("%d pings lost afterwards", lost)
				}
			})
		}
	})
}

// A peer that is gone for good is not sent anything for ever.
func TestPeerGone(t *testing.T) {
	t.Parallel()
	_, a, b := joined(t)
	a.stream(b)
	b.Daemon.Kill9()
	time.Sleep(odp.LingerTime + 1500*time.Millisecond)
	before := a.vxlanPackets()
	time.Sleep(500 * time.Millisecond)
	if n := a.vxlanPackets() - before; n > 0 {
		t.Errorf("%d packets to a peer whose daemon is gone", n)
	}
}

// A peer that comes back without the kernel path is talked to by sleeve.
func TestPeerRestartsWithout(t *testing.T) {
	t.Parallel()
	_, a, b := joined(t)
	s := a.stream(b)
	b.Daemon.Stop()
	b.Start("--no-fastdp", a.IP4.String())
	on(t, "sleeve", joinLimit, a, b)
	if got := a.reason(); got != "not-offered" {
		t.Errorf("reason %q, want not-offered", got)
	}
	if got := b.reason(); got != "off" {
		t.Errorf("reason %q, want off", got)
	}
	harness.Within(t, 5*time.Second, "pings", func() bool { return a.pings(b, 3, "0.1") == 0 })
	if b.Try("ip", "link", "show", "weavevx").Code == 0 {
		t.Error("the device is still there")
	}
	time.Sleep(2 * time.Second)
	s.stop()
	if lost := a.pings(b, 10, "0.05"); lost > 0 {
		t.Errorf("%d pings lost", lost)
	}
}

func TestResetRemovesAll(t *testing.T) {
	_, a, b := joined(t)
	a.MustWeave("reset", "--force")
	if out := a.Exec("ip", "-br", "link"); strings.Contains(out, "weave") {
		t.Errorf("links after reset:\n%s", out)
	}
	if out := a.Exec("nft", "list", "ruleset"); strings.Contains(out, "weave") {
		t.Errorf("rules after reset:\n%s", out)
	}
	_ = b
}

// Whoever is no peer cannot get a frame into the network.
func TestStranger(t *testing.T) {
	lab, a, b := joined(t)
	c := lab.Host("c")
	c.Exec("ip", "link", "add", "vx", "type", "vxlan", "id", "7828854", "dstport", vxlanPort, "remote", b.IP4.String())
	c.Exec("ip", "addr", "add", "10.55.0.66/24", "dev", "vx")
	c.Exec("ip", "link", "set", "vx", "up")
	mac := strings.Fields(b.Box.Exec("ip", "-br", "link", "show", "ethwe"))[2]
	c.Exec("ip", "neigh", "replace", b.In4.String(), "lladdr", mac, "dev", "vx", "nud", "permanent")
	seen := b.Box.Capture([]string{"ethwe"}, "stranger's frame")
	c.Try("ping", "-c", "5", "-i", "0.1", "-W", "1", "-p", "737472616e676572277320667261", b.In4.String())
	c.Try("bash", "-c", "for i in 1 2 3; do echo -n \"stranger's frame\" > /dev/udp/"+b.In4.String()+"/9; done")
	seen.Stop()
	if h := seen.Hits(); len(h) > 0 {
		t.Errorf("a stranger's frame came through: %v", h)
	}
	harness.Within(t, 3*time.Second, "count", func() bool {
		m := b.metrics()
		return strings.Contains(m, `weave_kernel_path_events_total{event="stranger"}`) && !strings.Contains(m, `weave_kernel_path_events_total{event="stranger"} 0`)
	})
	_ = a
}
