package fastdp_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// Two hosts without a password use the kernel, for containers that have just met too.
func TestComesUp(t *testing.T) {
	_, a, b := newSites(t)
	up(a, b)
	took := on(t, "fastdp", joinLimit, a, b)
	t.Logf("both on fastdp after %v", took)
	if lost := a.pings(b, 3, "0.1"); lost > 0 {
		t.Fatalf("%d pings lost", lost)
	}
	time.Sleep(200 * time.Millisecond)
	before := [2]int{a.packets("weavevx"), b.packets("weavevx")}
	if lost := a.pings(b, 100, "0.01"); lost > 0 {
		t.Errorf("%d pings lost", lost)
	}
	if n := [2]int{a.packets("weavevx") - before[0], b.packets("weavevx") - before[1]}; n[0] < 100 || n[1] < 100 {
		t.Errorf("%v packets of 100 pings went by the kernel", n)
	}
	if speed := a.iperf(b, 2); speed < 2e9 {
		t.Errorf("TCP at %.2f Gb/s", speed/1e9)
	} else {
		t.Logf("TCP at %.2f Gb/s", speed/1e9)
	}
}

// iperf returns the bits per second of a TCP stream.
func (s *site) iperf(o *site, seconds int) float64 {
	s.t.Helper()
	srv := o.Box.Command(s.t.Context(), "iperf3", "-s", "-1")
	if err := srv.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer srv.Wait()
	time.Sleep(300 * time.Millisecond)
	out := s.Box.Exec("iperf3", "-J", "-c", o.In4.String(), "-t", strconv.Itoa(seconds))
	var r struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatal(err)
	}
	return r.End.Received.Bits
}

// Hosts without IPv4 do as well; what the cage needs more is taken from the overlay.
func TestIPv6Underlay(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		_, a, b := newSites(t, testnet.NoIPv4())
		var more []string
		if k.sealed {
			more = append(more, "--mtu=1370")
		}
		a.Start(k.flags(t, more...)...)
		b.Start(k.flags(t, append(more, a.IP6.String())...)...)
		a.Attach()
		b.Attach()
		on(t, "fastdp", k.limit(), a, b)
		size := 1376
		if k.sealed {
			size = 1370
		}
		harness.Within(t, k.limit(), "pings", func() bool { return a.pingsOf(b, size, 5, "0.1") == 0 })
		if sent := a.packets(k.device6); sent == 0 {
			t.Errorf("nothing left by %s", k.device6)
		}
	})
}

// A way that is too narrow by a byte is left to sleeve, with the reason, whether the
// host can see that or only the network knows.
func TestNarrowUnderlay(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) {
		need := 1376 + k.over
		t.Run("interface", func(t *testing.T) {
			_, a, b := newSites(t, testnet.MTU(need-1))
			up(a, b, k.flags(t)...)
			on(t, "sleeve", k.limit(), a, b)
			harness.Within(t, 5*time.Second, "reason mtu", func() bool { return a.reason() == "mtu" && b.reason() == "mtu" })
			if out := a.MustWeave("status", "connections"); !strings.Contains(out, " why=mtu") {
				t.Errorf("status connections does not tell:\n%s", out)
			}
		})
		t.Run("on the way", func(t *testing.T) {
			_, a, b := newSites(t)
			defer blockPort(k.port, "meta length > "+strconv.Itoa(need-1), a, b)()
			up(a, b, k.flags(t)...)
			on(t, "sleeve", k.limit(), a, b)
			harness.Within(t, 10*time.Second, "reason mtu", func() bool { return a.reason() == "mtu" && b.reason() == "mtu" })
		})
	})
}

// `weave why` tells what the path is, and what a fault is.
func TestWhy(t *testing.T) {
	t.Parallel()
	_, a, b := joined(t, "--min-path=kernel")
	var w api.Why
	ask := func() api.Why {
		w = api.Why{}
		if err := json.Unmarshal([]byte(a.MustWeave("why", "b", "--json")), &w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	last := func() api.Candidate { return w.Candidates[len(w.Candidates)-1] }
	if ask(); w.Candidates[0].Path != "fastdp" || w.Candidates[0].Backend != "vxlan" || w.Candidates[0].Verdict != api.VerdictInUse ||
		w.Candidates[0].MTU != 1376 || w.Candidates[0].RTT == 0 || last().Path != "sleeve" || last().Verdict != api.VerdictStandBy {
		t.Errorf("%+v", w)
	}
	if r := a.Weave("status", "--check"); r.Code != 0 {
		t.Errorf("status --check: exit %d: %s", r.Code, r.Stderr)
	}
	defer block("", a, b)()
	on(t, "sleeve", 3*time.Second, a, b)
	harness.Within(t, 10*time.Second, "reason no-reply", func() bool { return ask().Candidates[0].Reason == "no-reply" })
	if w.Candidates[0].Verdict != api.VerdictDown || last().Verdict != api.VerdictInUse {
		t.Errorf("%+v", w)
	}
	if text := a.MustWeave("why", "b"); !strings.Contains(text, "fastdp/vxlan  down     no-reply: ") || !strings.Contains(text, "below it") {
		t.Error(text)
	}
	if r := a.Weave("status", "--check"); r.Code != harness.ExitDegraded || !strings.Contains(r.Stderr, "min-path") {
		t.Errorf("status --check below --min-path: exit %d: %s", r.Code, r.Stderr)
	}
	if r := a.Weave("why", "nobody"); r.Code != harness.ExitNotFound {
		t.Errorf("why nobody: exit %d", r.Code)
	}
}
