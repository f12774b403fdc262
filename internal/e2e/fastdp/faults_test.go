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
	"weave/odp/keeper"
)

// joined makes two sites whose containers talk by a vxlan device.
func joined(t *testing.T, args ...string) (*testnet.Lab, *site, *site) {
	t.Helper()
	return kinds[0].joined(t, args...)
}

// A firewall that swallows the kernel path's packets, on both ways or on one, costs
// pings less than 2 s; when it is gone the kernel is used again within 30 s, without a
// gap and without duplicates. TCP, which tries again after 1.5 s and then after 3 s, may
// just miss its turn, and a path that fails once more on a busy machine waits longer.
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
			if gap > 2100*time.Millisecond || dup || tcp.Longest() > 4*time.Second {
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
			took = on(t, "fastdp", 60*time.Second, a, b)
			time.Sleep(time.Second)
			gap, lost, dup := ping.stop()
			t.Logf("%s: back on fastdp after %v, longest silence %v of pings, %v of TCP", at.name, took, gap, tcp.Longest())
			if gap > 2*time.Second || lost > 0 || dup || tcp.Longest() > 2*time.Second {
				t.Errorf("%s: return: longest silence %v of pings, %v of TCP, %d lost, duplicates: %v", at.name, gap, tcp.Longest(), lost, dup)
			}
			tcp.Stop()
		}
	})
}

// Somebody else has the port, or a device of the name: sleeve is used, and the reason
// told; when it is free the kernel is used.
func TestTaken(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		_, a, b := newSites(t)
		var sock net.PacketConn
		err := a.Do(func() (err error) {
			sock, err = net.ListenPacket("udp4", ":"+k.port)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		b.Exec("ip", "link", "add", k.device, "type", "bridge")
		up(a, b, k.flags(t)...)
		on(t, "sleeve", k.limit(), a, b)
		for _, want := range []struct {
			at     *site
			reason string
		}{{a, "port-in-use"}, {b, "device"}} {
			if got := want.at.reason(); got != want.reason {
				t.Errorf("%s: reason %q, want %q", want.at.Label, got, want.reason)
			}
		}
		harness.Within(t, k.limit(), "pings", func() bool { return a.pings(b, 3, "0.1") == 0 })
		sock.Close()
		b.Exec("ip", "link", "del", k.device)
		took := on(t, "fastdp", 30*time.Second, a, b)
		t.Logf("on fastdp after %v", took)
	})
}

// Damage done to a host under traffic is repaired, and strangers stay out: all of it
// one after the other.
func TestDamage(t *testing.T) {
	t.Parallel()
	each(t, "ovs cage", func(t *testing.T, k kind) {
		lab, a, b := k.joined(t)
		c := lab.Host("c")
		t.Run("stranger", func(t *testing.T) { k.testStranger(t, c, a, b) })
		t.Run("rules flushed", func(t *testing.T) { k.testFlushed(t, a, b) })
		t.Run("device deleted", func(t *testing.T) {
			k.testDeleted(t, a, b, k.tunnel, "ip", "link", "del", k.tunnel)
		})
		if k.sealed {
			t.Run("cage deleted", func(t *testing.T) { k.testDeleted(t, a, b, k.tunnel, "ip", "netns", "del", a.cage()) })
		}
		t.Run("bridge deleted", func(t *testing.T) {
			a.Exec("ip", "link", "del", "weave")
			took := harness.Within(t, 5*time.Second, "port", func() bool {
				return strings.Contains(a.Try("ip", "link", "show", k.device).Stdout, "master weave")
			})
			t.Logf("port back after %v", took)
			on(t, "fastdp", 30*time.Second, a, b)
			harness.Within(t, k.limit(), "pings", func() bool { return a.pings(b, 2, "0.1") == 0 })
		})
		t.Run("reset", func(t *testing.T) {
			a.MustWeave("reset", "--force")
			if out := a.Exec("ip", "-br", "link"); strings.Contains(out, "weave") {
				t.Errorf("links after reset:\n%s", out)
			}
			if out := a.Exec("nft", "list", "ruleset"); strings.Contains(out, "weave") {
				t.Errorf("rules after reset:\n%s", out)
			}
			if out := a.Exec("ip", "netns", "list"); strings.Contains(out, a.cage()) {
				t.Errorf("namespaces after reset:\n%s", out)
			}
		})
	})
}

// What others delete is made again, and the containers hardly notice.
func (k kind) testDeleted(t *testing.T, a, b *site, device string, remove ...string) {
	s := a.streamEvery(b, k.pace())
	time.Sleep(300 * time.Millisecond)
	before := a.ifindex(device)
	a.Exec(remove[0], remove[1:]...)
	took := harness.Within(t, 5*time.Second, "device", func() bool { n := a.ifindex(device); return n != 0 && n != before })
	sent := a.packets(device)
	carried := harness.Within(t, 5*time.Second-took, "traffic on the device", func() bool { return a.packets(device) > sent+20 })
	gap, lost, dup := s.stop()
	t.Logf("device back after %v, 20 packets later after %v more; longest silence %v, %d lost", took, carried, gap, lost)
	if gap > 2*time.Second || dup {
		t.Errorf("longest silence %v, duplicates: %v", gap, dup)
	}
	on(t, "fastdp", 30*time.Second, a, b)
}

// A host's firewall is loaded anew. The cage has no rules, and does not care.
func (k kind) testFlushed(t *testing.T, a, b *site) {
	s := a.streamEvery(b, k.pace())
	time.Sleep(300 * time.Millisecond)
	a.Exec("nft", "flush", "ruleset")
	if !k.sealed {
		took := harness.Within(t, 2*time.Second, "rules", func() bool {
			return strings.Contains(a.Try("nft", "list", "chain", "inet", "weave", "fastdp").Stdout, "drop")
		})
		t.Logf("rules back after %v", took)
	}
	time.Sleep(300 * time.Millisecond)
	if gap, lost, _ := s.stop(); lost > 0 {
		t.Errorf("%d pings lost, longest silence %v", lost, gap)
	}
}

// Whoever is no peer cannot get a frame into the network, by whatever port.
func (k kind) testStranger(t *testing.T, c *testnet.Host, a, b *site) {
	const text = "stranger's frame"
	frame := spoofed(b, text)
	seen := b.Box.Capture([]string{"ethwe"}, text)
	for _, port := range []string{k.port, "4789"} {
		for range 5 {
			sendUDP(t, c.Namespace, net.JoinHostPort(b.IP4.String(), port), frame)
		}
	}
	if !k.sealed {
		harness.Within(t, 3*time.Second, "count", func() bool {
			return strings.Contains(b.metrics(), `weave_kernel_path_events_total{event="stranger"} 5`)
		})
	}
	time.Sleep(200 * time.Millisecond)
	seen.Stop()
	if h := seen.Hits(); len(h) > 0 {
		t.Errorf("a stranger's frame came through: %v", h)
	}
	if k.sealed {
		return
	}
	seen = b.Box.Capture([]string{"ethwe"}, text)
	harness.Within(t, 5*time.Second, "the same frame of a peer", func() bool {
		sendUDP(t, a.Namespace, net.JoinHostPort(b.IP4.String(), k.port), frame)
		return len(seen.Hits()) > 0
	})
	seen.Stop()
}

// spoofed is a vxlan packet with a frame for a site's container.
func spoofed(to *site, text string) []byte {
	mac, err := net.ParseMAC(strings.Fields(to.Box.Exec("ip", "-br", "link", "show", "ethwe"))[2])
	if err != nil {
		to.t.Fatal(err)
	}
	p := []byte{0x08, 0, 0, 0, keeper.VNI >> 16, keeper.VNI >> 8 & 0xff, keeper.VNI & 0xff, 0}
	p = append(append(p, mac...), 2, 0, 0, 0x66, 0x66, 0x66, 0x88, 0xb6) // a local experimental ethertype
	return append(append(p, text...), make([]byte, 60)...)
}

func sendUDP(t *testing.T, from *testnet.Namespace, to string, data []byte) {
	t.Helper()
	if err := from.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.Write(data) // a refused port is told by the next write
		return nil
	}); err != nil {
		t.Fatal(err)
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
				relaunch := func() (died time.Duration, lost int) {
					return k.testRelaunch(t, tt.end, tt.away, tt.rest)
				}
				died, lost := relaunch()
				for range 2 {
					// The kernel ends connections last: where that takes a second, the
					// path was given up before.
					if lost > 0 && died > 800*time.Millisecond {
						t.Logf("%d lost by a daemon that took %v to die: again", lost, died)
						died, lost = relaunch()
					}
				}
				if lost > 0 {
					t.Errorf("%d lost, the daemon having died in %v", lost, died)
				}
			})
		}
	})
}

// testRelaunch ends a daemon under traffic and starts it again.
func (k kind) testRelaunch(t *testing.T, end func(*testnet.Daemon), away, rest time.Duration) (died time.Duration, lost int) {
	_, a, b := k.joined(t)
	streams := []*stream{a.streamEvery(b, k.pace()), b.streamEvery(a, k.pace())}
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	end(b.Daemon)
	died = time.Since(start)
	time.Sleep(away)
	b.Start(k.flags(t, a.IP4.String())...)
	on(t, "fastdp", k.limit(), a, b)
	time.Sleep(rest)
	for _, s := range streams {
		gap, n, dup := s.stop()
		t.Logf("%d pings, longest silence %v, %d lost", s.count(), gap, n)
		if lost += n; dup {
			t.Error("duplicates")
		}
	}
	return died, lost + b.pings(a, 20, "0.02")
}

// A peer that is gone for good is not sent anything for ever.
func TestPeerGone(t *testing.T) {
	t.Parallel()
	_, a, b := joined(t)
	a.stream(b)
	b.Daemon.Kill9()
	time.Sleep(odp.LingerTime + 1500*time.Millisecond)
	before := a.packets("weavevx")
	time.Sleep(500 * time.Millisecond)
	if n := a.packets("weavevx") - before; n > 0 {
		t.Errorf("%d packets to a peer whose daemon is gone", n)
	}
}

// A peer that comes back without the kernel path is talked to by sleeve.
func TestPeerRestartsWithout(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		_, a, b := k.joined(t)
		s := a.streamEvery(b, k.pace())
		b.Daemon.Stop()
		without := []string{"--no-fastdp", a.IP4.String()}
		if k.sealed {
			without = append(without, "--password-file="+harness.PasswordFile(t, harness.Password))
		}
		b.Start(without...)
		on(t, "sleeve", k.limit(), a, b)
		if got := a.reason(); got != "not-offered" {
			t.Errorf("reason %q, want not-offered", got)
		}
		if got, want := b.reason(), "off"; got != want && !k.sealed {
			t.Errorf("reason %q, want %q", got, want)
		}
		harness.Within(t, k.limit(), "pings", func() bool { return a.pings(b, 3, "0.1") == 0 })
		if b.ifindex(k.device) != 0 {
			t.Error("the device is still there")
		}
		time.Sleep(2 * time.Second)
		s.stop()
		if lost := a.pings(b, 10, "0.05"); lost > 0 {
			t.Errorf("%d pings lost", lost)
		}
	})
}
