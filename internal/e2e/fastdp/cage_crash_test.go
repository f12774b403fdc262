package fastdp_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// cage is the name of a host's.
func (s *site) cage() (name string) {
	s.Do(func() error {
		id, err := os.Readlink("/proc/thread-self/ns/net")
		name = "weave-cage-" + strings.Trim(id, "net:[]")
		return err
	})
	return name
}

// A crashed daemon's cage goes on, and the next daemon takes it over as it is. One that
// is taken away while nobody looks after it takes the path away. (That nothing is lost in
// between is up to the conformance suite: here a machine within a machine starts daemons.)
func TestCageSurvivesCrash(t *testing.T) {
	testnet.NeedModule(t, "wireguard")
	lab, a, b := newSites(t)
	pw := "--password-file=" + harness.PasswordFile(t, harness.Password)
	const canary = "canary-while-crashed"
	seen := lab.Capture(canary, harness.Password)
	up(a, b, pw, "--encrypted-path=kernel")
	on(t, "fastdp", time.Minute, a, b)
	harness.Within(t, 10*time.Second, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })
	port := a.ifindex("weavecage")
	a.Daemon.Kill9()
	a.sing(b, canary)
	a.Start(pw, "--encrypted-path=kernel")
	on(t, "fastdp", time.Minute, a, b)
	if now := a.ifindex("weavecage"); now != port {
		t.Errorf("the device was made anew: %d, before %d", now, port)
	}
	harness.Within(t, 10*time.Second, "pings", func() bool { return a.pings(b, 3, "0.2") == 0 })

	a.Daemon.Kill9()
	b.Daemon.Kill9()
	a.Exec("ip", "netns", "del", a.cage())
	for range 5 {
		a.sing(b, canary)
		b.sing(a, canary)
	}
	seen.MustBeClean()
}
