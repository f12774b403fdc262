package mesh_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// Data travels in clear where both ends trust the other's subnet, and nowhere else; what
// daemons say to one another stays encrypted all the same.
func TestTrustedSubnets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		password bool
		a, b     bool // who trusts the underlay's subnets
		clear    bool
	}{
		{"both sides", true, true, true, true},
		{"dialed side only", true, true, false, false},
		{"dialing side only", true, false, true, false},
		{"no password", false, false, false, true},
	} {
		for via, underlay := range []string{"IPv4", "IPv6"} {
			t.Run(tt.name+", "+underlay, func(t *testing.T) {
				t.Parallel()
				trust(t, via, tt.password, tt.a, tt.b, tt.clear)
			})
		}
	}
}

const (
	nickname = "heron-nickname-471" // what daemons say to one another
	preamble = "weave\x00\r\n"      // what they say first, in clear: the capture sees them talk
	secret4  = "canary-of-an-IPv4-container-914"
	secret6  = "canary-of-an-IPv6-container-915"
)

func trust(t *testing.T, via int, password, byA, byB, clear bool) {
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	flags := func(trusts bool) (out []string) {
		out = []string{"--no-fastdp", "--nickname", nickname}
		if password {
			out = append(out, "--password-file", harness.PasswordFile(t, harness.Password))
		}
		if trusts {
			out = append(out, "--trusted-subnets", "10.77.0.0/16,fd77::/64")
		}
		return out
	}
	capture := lab.Capture(preamble, nickname, secret4, secret6, harness.Password)
	a.Launch(flags(byA)...)
	b.Launch(append(flags(byB), a.Via(via))...)
	harness.Meet(t, startLimit, a, b)
	for _, from := range sites {
		for to, text := range map[netip.Addr]string{a.In4: secret4, b.In4: secret4, a.In6: secret6, b.In6: secret6} {
			conn := harness.ListenUDP(t, from.Box, netip.AddrPort{})
			conn.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(to, 7110))
		}
	}
	if clear {
		harness.Within(t, startLimit, "both texts", func() bool {
			hits := capture.Hits()
			return hits[secret4] > 0 && hits[secret6] > 0
		})
	}
	time.Sleep(200 * time.Millisecond)
	capture.Stop()
	hits := capture.Hits()
	t.Logf("seen on the underlay: %v", hits)
	for text, want := range map[string]bool{preamble: true, secret4: clear, secret6: clear, nickname: false, harness.Password: false} {
		if got := hits[text] > 0; got != want {
			t.Errorf("%q is in %d frames, want some: %v", text, hits[text], want)
		}
	}
	for _, s := range sites {
		word := map[bool]string{true: " unencrypted ", false: " encrypted "}[clear]
		if status := s.MustWeave("status", "connections"); password && !harness.HasLine(status, "established", word) {
			t.Errorf("%s says, want %q:\n%s", s.Label, word, status)
		}
	}
	if want := "Encryption: " + map[bool]string{true: "enabled", false: "disabled"}[password]; !strings.Contains(a.MustWeave("status"), want) {
		t.Errorf("status has no %q", want)
	}
	if capture.Dropped() > 0 {
		t.Errorf("the capture missed %d frames", capture.Dropped())
	}
}
