package fastdp_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

func (s *site) why(peer string) (w api.Why) {
	json.Unmarshal([]byte(s.Weave("why", peer, "--json").Stdout), &w)
	return w
}

// Below a minimum that refuses, a connection carries nothing, in either direction, and
// says so; above it all is as ever.
func TestMinPathRefuses(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, k kind) { k.testRefuses(t) }, "vxlan", "cage")
}

func (k kind) testRefuses(t *testing.T) {
	_, a, b := newSites(t)
	a.Start(k.flags(t, "--min-path=kernel,refuse")...)
	b.Start(k.flags(t, a.IP4.String())...)
	a.Attach()
	b.Attach()
	k.settled(t, a, b)
	a.MustWeave("status", "--check")
	undo := blockPort(k.port, "", a, b)
	on(t, "sleeve", 5*time.Second, a, b)
	if lost := a.pings(b, 5, "0.1"); lost != 5 {
		t.Errorf("%d of 5 pings lost below the minimum, want all", lost)
	}
	if lost := b.pings(a, 5, "0.1"); lost != 5 {
		t.Errorf("%d of 5 pings of the other side lost, want all", lost)
	}
	w := a.why("b")
	if !w.Refused || w.RefusedFrames == 0 || w.Reason == "" || w.State != api.StateEstablished {
		t.Errorf("why says %+v", w)
	}
	if c := a.conn(); !c.Refused || c.Why == "" {
		t.Errorf("status says %+v", c)
	}
	if out := a.MustWeave("status", "connections"); !strings.Contains(out, " refused") {
		t.Errorf("status connections does not tell:\n%s", out)
	}
	if r := a.Weave("status", "--check"); r.Code != harness.ExitDegraded || !strings.Contains(r.Stderr, "carries nothing") {
		t.Errorf("status --check: exit %d: %s", r.Code, r.Stderr)
	}
	for _, direction := range []string{"in", "out"} {
		found := false
		for line := range strings.Lines(a.metrics()) {
			found = found || strings.HasPrefix(line, `weave_min_path_refused_frames_total{direction="`+direction) && !strings.HasSuffix(line, " 0\n")
		}
		if !found {
			t.Errorf("no frames %s are counted", direction)
		}
	}
	if c := b.conn(); c.Refused {
		t.Error("the other side says that it refuses")
	}
	undo()
	on(t, "fastdp", 30*time.Second, a, b)
	harness.Within(t, k.limit(), "pings", func() bool { return a.pings(b, 3, "0.1") == 0 })
	if w := a.why("b"); w.Refused {
		t.Errorf("still refused: %+v", w)
	}
	a.MustWeave("status", "--check")
}

// What is asked for by name is there or the launch fails with the module's name; left
// to itself the daemon does without, and says why.
func TestModuleAbsent(t *testing.T) {
	for _, tt := range []struct{ module, flag string }{
		{"openvswitch", "--fastdp=ovs"},
		{"wireguard", "--encrypted-path=kernel"},
	} {
		t.Run(tt.module, func(t *testing.T) {
			testnet.NeedNoModule(t, tt.module)
			lab := testnet.New(t)
			h := lab.Host("a")
			pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
			r := h.Weave(testnet.Binary(t), "launch", tt.flag, pw, "--trusted-subnets=10.77.0.0/16")
			if r.Code != harness.ExitKernel || !strings.Contains(r.Stderr, tt.module) || strings.Count(strings.TrimSpace(r.Stderr), "\n") != 0 {
				t.Errorf("launch %s: exit %d: %s", tt.flag, r.Code, r.Stderr)
			}
			if out := h.Exec("ip", "-br", "link"); strings.Contains(out, "weave") {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
	t.Run("auto", func(t *testing.T) {
		testnet.NeedNoModule(t, "wireguard")
		_, a, b := newSites(t)
		pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
		up(a, b, pw, "--encrypted-path=auto")
		on(t, "sleeve", joinLimit, a, b)
		if got := a.reason(); got != "no-wireguard" {
			t.Errorf("reason %q, want no-wireguard", got)
		}
		if out := a.MustWeave("status"); !strings.Contains(out, "EncryptedPath: sleeve (no-wireguard)") {
			t.Errorf("status does not tell:\n%s", out)
		}
		if out := a.MustWeave("why", "b"); !strings.Contains(out, "fastdp/cage   absent   no-wireguard: ") {
			t.Errorf("why does not tell:\n%s", out)
		}
	})
}

// A daemon that died again and again as soon as it used the kernel does without, until
// it is told to.
func TestQuarantine(t *testing.T) {
	_, a, b := newSites(t)
	a.Start()
	for range 3 {
		b.Start(a.IP4.String())
		on(t, "fastdp", joinLimit, b)
		b.Daemon.Kill9()
	}
	b.Start(a.IP4.String())
	on(t, "sleeve", joinLimit, a, b)
	if got := b.reason(); got != "quarantine" {
		t.Errorf("reason %q, want quarantine", got)
	}
	if out := b.MustWeave("status"); !strings.Contains(out, "FastDP: off (quarantine)") {
		t.Errorf("status does not tell:\n%s", out)
	}
	if b.Try("ip", "link", "show", "weavevx").Code == 0 {
		t.Error("the device is there")
	}
	b.Daemon.Stop()
	b.Start("--fastdp=vxlan", a.IP4.String())
	on(t, "fastdp", joinLimit, a, b)
	b.Daemon.Stop()
	b.Start(a.IP4.String())
	on(t, "fastdp", joinLimit, a, b)
}
