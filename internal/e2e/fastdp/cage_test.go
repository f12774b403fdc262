package fastdp_test

import (
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const cagePort = "6785"

// Encrypted connections take the kernel where both ends want it, leave it when it fails,
// and come back; through all of that nothing is in clear on the underlay.
func TestEncryptedByTheKernel(t *testing.T) {
	testnet.NeedModule(t, "wireguard")
	lab, a, b := newSites(t)
	pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
	const canary = "canary-in-the-cage"
	seen := lab.Capture(append(innerHeaders(a, b), canary, harness.Password)...)
	seen.Sort(frameKind)
	up(a, b, pw, "--encrypted-path=kernel")
	on(t, "fastdp", slowJoin, a, b)
	harness.Within(t, slowJoin, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })
	goesByCage(t, seen, a, b, canary)
	stop := sings(a, b, canary)
	for _, s := range []*site{a, b} {
		harness.Within(t, slowJoin, "an encrypted connection", func() bool {
			c := s.conn()
			return c.Encrypted && c.Path == "fastdp" && c.Cipher == "chacha20-poly1305" && c.Why == ""
		})
		if s.Try("ip", "link", "show", "weavevx").Code == 0 {
			t.Errorf("%s has the device for data in clear", s.Label)
		}
	}
	harness.Within(t, slowJoin, "why tells", func() bool {
		out := a.MustWeave("why", "b")
		return strings.Contains(out, "fastdp/cage   in-use") && strings.Contains(out, "fastdp/vxlan  absent   encryption")
	})
	if !testing.Short() {
		undo := blockPort(cagePort, "", a, b)
		took := on(t, "sleeve", 10*time.Second, a, b)
		t.Logf("on sleeve after %v", took)
		harness.Within(t, slowJoin, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })
		undo()
		took = on(t, "fastdp", slowJoin, a, b)
		t.Logf("back in the cage after %v", took)
	}
	// The peer comes back with another capability: user space only.
	b.Daemon.Kill9()
	b.Start(pw, a.IP4.String())
	on(t, "sleeve", slowJoin, a, b)
	if got := a.conn().Why; got != "not-offered" {
		t.Errorf("reason %q, want not-offered", got)
	}
	harness.Within(t, slowJoin, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })
	b.Daemon.Stop()
	b.Start(pw, "--encrypted-path=auto", a.IP4.String()) // a wants it
	on(t, "fastdp", slowJoin, a, b)
	harness.Within(t, slowJoin, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })
	stop()
	seen.MustBeClean()
	mustBeSealed(t, seen)
	a.MustWeave("reset", "--force")
	if out := a.Exec("ip", "-br", "link"); strings.Contains(out, "weave") {
		t.Errorf("links after reset:\n%s", out)
	}
}

// sings goes on singing until it is told to stop.
func sings(a, b *site, text string) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
				a.sing(b, text)
			}
		}
	}()
	return func() { close(done); <-gone }
}
