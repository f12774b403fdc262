package e2e_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/e2e/harness"
)

// backLimit is within what time a link has to be back after a crash.
const backLimit = 5 * time.Second

// A daemon that was killed is launched again: the link comes back by itself and
// its containers work again. The same with the end that was dialed.
func TestKillAndRelaunch(t *testing.T) {
	t.Parallel()
	for name, victim := range map[string]int{"the end that dials": 1, "the end that is dialed": 0} {
		t.Run(name, func(t *testing.T) {
			_, sites := harness.NewSites(t, 2)
			a, b := sites[0], sites[1]
			pw := harness.PasswordFile(t, harness.Password)
			flags := map[*harness.Site][]string{a: {"--password-file", pw}, b: {"--password-file", pw, a.IP4.String()}}
			a.Launch(flags[a]...)
			b.Launch(flags[b]...)
			harness.Joined(t, a, b)
			p := harness.ProbeOf(t, a, b)
			v, other := sites[victim], sites[1-victim]
			before := harness.MustSucceed(t, v.Weave("ps"))
			pid := other.Daemon.Pid()
			log := len(other.Daemon.Log())

			v.Daemon.Kill9()
			killed := time.Now()
			time.Sleep(500 * time.Millisecond) // as if a service manager started it again
			v.Start(flags[v]...)
			started := time.Now()
			harness.Within(t, backLimit, "traffic again", func() bool { return p.AnsweredSince(started) })
			t.Logf("traffic flows %v after the relaunched daemon answers, %v after the kill", time.Since(started).Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
			harness.Joined(t, a, b)
			if after := harness.MustSucceed(t, v.Weave("ps")); after != before {
				t.Errorf("ps:\n%swant:\n%s", after, before)
			}
			harness.MustPing(t, a.Box, b.In6)
			harness.Stream(t, a.Box, b.Box, b.In4, 4<<20, 5*time.Second)
			if other.Daemon.Pid() != pid || strings.Contains(other.Daemon.Log()[log:], `"level":"ERROR"`) {
				t.Errorf("the peer's log:\n%s", other.Daemon.Log()[log:])
			}
			if strings.Contains(v.Daemon.Log(), "no such bridge") {
				t.Errorf("the relaunched daemon's log:\n%s", v.Daemon.Log())
			}
		})
	}
}

// A stop leaves the host's containers talking to each other; --resume takes up
// the targets.
func TestStopAndResume(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	second := b.Container("second")
	b.Daemon.MustWeave("attach", "10.55.0.102/24", second.Ref())
	b.Daemon.MustWeave("connect", "192.0.2.9")
	harness.Joined(t, a, b)
	before := b.Daemon.MustWeave("ps")
	targets := b.Daemon.MustWeave("status", "targets")

	b.Daemon.MustWeave("stop")
	if code := b.Daemon.Wait(time.Second); code != 0 {
		t.Errorf("the stopped daemon's exit code is %d", code)
	}
	if r := b.Weave("status"); r.Code != harness.ExitNotRunning {
		t.Errorf("status after stop: exit %d, %q", r.Code, r.Stderr)
	}
	if r := b.Weave("stop"); r.Code != harness.ExitNotRunning {
		t.Errorf("stop after stop: exit %d, %q", r.Code, r.Stderr)
	}
	harness.MustPing(t, b.Box, addr("10.55.0.102"))
	harness.Within(t, 2*time.Second, "the peer noticing", func() bool { return a.Established() == 0 })
	harness.WantLine(t, "the peer's log", a.Daemon.Log(), "connection closed", "peer stopped")

	b.Start("--password-file", pw, "--resume")
	harness.Joined(t, a, b)
	if after := b.Daemon.MustWeave("ps"); after != before {
		t.Errorf("ps:\n%swant:\n%s", after, before)
	}
	if after := b.Daemon.MustWeave("status", "targets"); after != targets {
		t.Errorf("targets:\n%swant:\n%s", after, targets)
	}
	harness.MustPing(t, a.Box, b.In4)
	harness.MustPing(t, a.Box, addr("10.55.0.102"))

	// SIGTERM is a stop too, whatever the daemon is doing.
	lab.Cut(a.Host, b.Host)
	start := time.Now()
	if code := b.Daemon.Stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	t.Logf("stopped with a cut underlay in %v", time.Since(start).Round(time.Millisecond))
	harness.MustPing(t, b.Box, addr("10.55.0.102"))
}

// A daemon that stood still for a while goes on as if nothing had been, also when
// it stood still for so long that its peer gave it up.
func TestFrozenPeer(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 4)
	pw := harness.PasswordFile(t, harness.Password)
	pairs := []struct {
		frozen, peer *harness.Site
		freeze, back time.Duration
		probe        *harness.Probe
	}{
		{frozen: sites[0], peer: sites[1], freeze: 5 * time.Second, back: 2 * time.Second},
		{frozen: sites[2], peer: sites[3], freeze: 18 * time.Second, back: backLimit},
	}
	for i := range pairs {
		p := &pairs[i]
		p.frozen.Launch("--password-file", pw)
		p.peer.Launch("--password-file", pw, p.frozen.IP4.String())
		harness.Joined(t, p.frozen, p.peer)
		p.probe = harness.ProbeOf(t, p.peer, p.frozen)
	}
	start := time.Now()
	for _, p := range pairs {
		unix.Kill(p.frozen.Daemon.Pid(), unix.SIGSTOP)
	}
	for _, p := range pairs {
		time.Sleep(p.freeze - time.Since(start))
		states := connStates(p.peer)
		unix.Kill(p.frozen.Daemon.Pid(), unix.SIGCONT)
		thawed := time.Now()
		harness.Within(t, p.back, "traffic again", func() bool { return p.probe.AnsweredSince(thawed) })
		t.Logf("frozen for %v (its peer then says %q): traffic flows %v later", p.freeze, states, time.Since(thawed).Round(time.Millisecond))
		harness.Joined(t, p.frozen, p.peer)
	}
}

func connStates(s *harness.Site) (out []string) {
	for _, c := range s.Conns() {
		out = append(out, string(c.State)+" "+c.Error)
	}
	return out
}
