package fastdp_test

import (
	"strings"
	"testing"

	"weave/internal/e2e/harness"
)

// Hosts of one network differ: one wants the cage, one has no objection, one does not
// have it, as where the module is missing. Each pair takes the best that both have, and
// all containers reach one another.
func TestMixedHosts(t *testing.T) {
	each(t, "", func(t *testing.T, k kind) {
		lab, a, b := newSites(t)
		c := &site{harness.SiteOn(t, lab.Host("c"), 3), t}
		pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
		seen := lab.Capture("canary-of-three", harness.Password)
		a.Start(pw, "--encrypted-path=kernel")
		b.Start(pw, "--encrypted-path=auto", a.IP4.String())
		c.Start(pw, "--encrypted-path=sleeve", a.IP4.String(), b.IP4.String())
		all := []*site{a, b, c}
		for _, s := range all {
			s.Attach()
		}
		want := map[[2]string]string{
			{"a", "b"}: "fastdp", {"b", "a"}: "fastdp",
			{"a", "c"}: "sleeve", {"c", "a"}: "sleeve", {"b", "c"}: "sleeve", {"c", "b"}: "sleeve",
		}
		for _, s := range all {
			for _, o := range all {
				if s == o {
					continue
				}
				harness.Within(t, k.limit(), s.Label+" to "+o.Label+" by "+want[[2]string{s.Label, o.Label}], func() bool {
					w := s.why(o.Label)
					return w.Path == want[[2]string{s.Label, o.Label}] && w.Encrypted
				})
				harness.Within(t, k.limit(), "pings", func() bool { return s.pings(o, 3, "0.1") == 0 })
				s.sing(o, "canary-of-three")
			}
		}
		if got := a.why("c").Reason; got != "not-offered" {
			t.Errorf("reason %q, want not-offered", got)
		}
		seen.MustBeClean()
	}, "cage")
}

// With another password a host gets no cage, and has none.
func TestTwoPasswords(t *testing.T) {
	each(t, "", func(t *testing.T, k kind) {
		lab, a, b := newSites(t)
		seen := lab.Capture("canary-of-two")
		a.Start(k.flags(t)...)
		b.Start("--encrypted-path=kernel", "--password-file="+harness.PasswordFile(t, "quite another one"), a.IP4.String())
		a.Attach()
		b.Attach()
		harness.Within(t, k.limit(), "word of the password", func() bool {
			return strings.Contains(b.MustWeave("status", "connections"), "password")
		})
		a.sing(b, "canary-of-two")
		for _, s := range []*site{a, b} {
			if s.ifindex(k.device) != 0 {
				t.Errorf("%s has a cage", s.Label)
			}
		}
		if lost := a.pings(b, 3, "0.1"); lost != 3 {
			t.Errorf("%d of 3 pings lost, want all", lost)
		}
		seen.MustBeClean()
	}, "cage")
}
