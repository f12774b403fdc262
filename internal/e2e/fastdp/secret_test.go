package fastdp_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
)

// With a password no frame is in clear, whatever happens, and there is no device that
// could send one.
func TestPasswordMeansNoDevice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		onA, onB     []string
		path         string
		canary       bool // may be seen
		device       bool
		reasonA      string
		encryptedNow bool
	}{
		{"no trust", nil, nil, "sleeve", false, false, "encryption", true},
		{"trust on one side", []string{"--trusted-subnets=10.77.0.0/16"}, nil, "sleeve", false, false, "not-offered", true},
		{"trust on the other", nil, []string{"--trusted-subnets=10.77.0.0/16"}, "sleeve", false, false, "encryption", true},
		{"trust of others", []string{"--trusted-subnets=10.99.0.0/16"}, []string{"--trusted-subnets=10.77.0.0/16"}, "sleeve", false, false, "encryption", true},
		{"trust on both", []string{"--trusted-subnets=10.77.0.0/16"}, []string{"--trusted-subnets=10.77.0.0/16"}, "fastdp", true, true, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab, a, b := newSites(t)
			canary := "canary-" + strings.ReplaceAll(tt.name, " ", "-")
			seen := lab.Capture(canary, harness.Password)
			pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
			a.Start(append(tt.onA, pw)...)
			b.Start(append(tt.onB, pw, a.IP4.String())...)
			a.Attach()
			b.Attach()
			on(t, tt.path, joinLimit, a, b)
			a.sing(b, canary)
			if got := a.reason(); got != tt.reasonA {
				t.Errorf("reason %q, want %q", got, tt.reasonA)
			}
			for _, s := range []*site{a, b} {
				if has := s.Try("ip", "link", "show", "weavevx").Code == 0; has != tt.device {
					t.Errorf("%s: device is there: %v, want %v", s.Label, has, tt.device)
				}
				if got := s.conn().Encrypted; got != tt.encryptedNow {
					t.Errorf("%s: encrypted %v, want %v", s.Label, got, tt.encryptedNow)
				}
			}
			if tt.canary {
				return
			}
			b.Daemon.Kill9()
			a.sing(b, canary)
			b.Start(append(tt.onB, pw, a.IP4.String())...)
			on(t, tt.path, joinLimit, a, b)
			a.sing(b, canary)
			seen.MustBeClean()
		})
	}
}

// A host that ran without a password sends nothing in clear once it has one.
func TestPasswordAfterNone(t *testing.T) {
	t.Parallel()
	lab, a, b := newSites(t)
	up(a, b)
	on(t, "fastdp", joinLimit, a, b)
	a.sing(b, "in clear")
	a.Daemon.Kill9()
	b.Daemon.Kill9()
	pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
	a.Start(pw)
	b.Start(pw, a.IP4.String())
	seen := lab.Capture("canary-later")
	stop := time.Now().Add(3 * time.Second)
	for time.Now().Before(stop) {
		a.sing(b, "canary-later")
		b.sing(a, "canary-later")
	}
	on(t, "sleeve", joinLimit, a, b)
	for _, s := range []*site{a, b} {
		if s.Try("ip", "link", "show", "weavevx").Code == 0 {
			t.Errorf("%s has the device", s.Label)
		}
	}
	if lost := a.pings(b, 3, "0.1"); lost == 3 {
		t.Error("no ping came back")
	}
	seen.MustBeClean()
}

// sing sends datagrams with a text. A container's own programs are not asked to: where
// they lack one nothing would be sent, and nobody would notice.
func (s *site) sing(o *site, text string) {
	err := s.Box.Do(func() error {
		for range 20 {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.In4, 9)))
			if err != nil {
				return err
			}
			c.Write([]byte(text)) // an error is about one before
			c.Close()
		}
		return nil
	})
	if err != nil {
		s.t.Errorf("sending from %s: %v", s.Label, err)
	}
}
