package clock_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const (
	limit = 30 * time.Second // for what takes a second elsewhere: the machine is slow
	year  = 365 * 24 * time.Hour

	probes = int(3 * time.Second / harness.ProbeEvery)
)

// The time of day may jump by years, to and fro: connections, addresses and names stay,
// no packet waits for it, and whoever comes meanwhile is let in.
func TestJumps(t *testing.T) {
	testnet.NeedModule(t, testnet.OwnClock)
	_, sites := harness.NewSites(t, 3)
	a, b, c := sites[0], sites[1], sites[2]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	client, _ := b.NewBox("client")
	_, webAddr := a.NewBox("web", "-h", "web.weave.local")
	server := b.Expose()
	probe := harness.ProbeOf(t, b, a)
	named := func() bool {
		r := client.Try("dig", "+short", "+tries=1", "+time=2", "@"+server.String(), "web.weave.local")
		return strings.TrimSpace(r.Stdout) == webAddr.String()
	}
	harness.Within(t, limit, "the name", named)
	for _, jump := range []time.Duration{10 * year, -20 * year} {
		begin, sent := time.Now(), probe.Sent()
		setClock(t, jump)
		harness.Within(t, limit, "probes for longer than a path may be silent", func() bool { return probe.Sent() > sent+probes })
		harness.Within(t, limit, "traffic", func() bool { return probe.AnsweredSince(time.Now().Add(-time.Second)) })
		if gap, lost := probe.Gap(begin); lost > 0 {
			t.Errorf("a jump of %v: %d probes lost, no traffic for %v", jump, lost, gap)
		}
		if !named() {
			t.Errorf("a jump of %v: the name is gone", jump)
		}
	}
	c.Launch("--password-file", pw, a.IP4.String())
	harness.Meet(t, limit, sites...)
	for _, s := range sites {
		if r := s.Weave("status", "--check"); r.Code != 0 {
			t.Errorf("%s: status --check: %d\n%s", s.Label, r.Code, r.Stdout)
		}
		for _, bad := range []string{"link down", "connection closed", "ERROR"} {
			if strings.Contains(s.Daemon.Log(), bad) {
				t.Errorf("%s: %q in the log:\n%s", s.Label, bad, s.Daemon.Log())
			}
		}
	}
}

// setClock moves the time of day until the end of the test.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	move := func(by time.Duration) {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Error(err)
		}
		to := unix.NsecToTimespec(now.Nano() + by.Nanoseconds())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &to); err != nil {
			t.Errorf("moving the clock by %v: %v", by, err)
		}
	}
	move(by)
	t.Cleanup(func() { move(-by) })
}
