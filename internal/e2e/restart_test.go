package e2e_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const probePort = 7200

// probeOf starts an echo on one site and probes it from another.
func probeOf(t *testing.T, from, to *site) *probe {
	t.Helper()
	at := netip.AddrPortFrom(to.in4, probePort)
	echo(t, to.box, at)
	p := startProbe(t, from.box, at)
	within(t, joinLimit, "the first probe's answer", func() bool { return p.answeredSince(time.Time{}) })
	return p
}

// backLimit is within what time a link has to be back after a crash.
const backLimit = 5 * time.Second

// A daemon that was killed is launched again: the link comes back by itself and
// its containers work again. The same with the end that was dialed.
func TestKillAndRelaunch(t *testing.T) {
	for name, victim := range map[string]int{"the end that dials": 1, "the end that is dialed": 0} {
		t.Run(name, func(t *testing.T) {
			_, sites := newSites(t, 2)
			a, b := sites[0], sites[1]
			pw := passwordFile(t, password)
			flags := map[*site][]string{a: {"--password-file", pw}, b: {"--password-file", pw, a.IP4.String()}}
			a.launch(flags[a]...)
			b.launch(flags[b]...)
			joined(t, a, b)
			p := probeOf(t, a, b)
			v, other := sites[victim], sites[1-victim]
			before := mustSucceed(t, v.weave("ps"))
			pid := other.d.Pid()
			log := len(other.d.Log())

			v.d.Kill9()
			killed := time.Now()
			time.Sleep(500 * time.Millisecond) // as if a service manager started it again
			v.start(flags[v]...)
			started := time.Now()
			within(t, backLimit, "traffic again", func() bool { return p.answeredSince(started) })
			t.Logf("traffic flows %v after the relaunched daemon answers, %v after the kill", time.Since(started).Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
			joined(t, a, b)
			if after := mustSucceed(t, v.weave("ps")); after != before {
				t.Errorf("ps:\n%swant:\n%s", after, before)
			}
			mustPing(t, a.box, b.in6)
			stream(t, a.box, b.box, b.in4, 4<<20, 5*time.Second)
			if other.d.Pid() != pid || strings.Contains(other.d.Log()[log:], `"level":"ERROR"`) {
				t.Errorf("the peer's log:\n%s", other.d.Log()[log:])
			}
			if strings.Contains(v.d.Log(), "no such bridge") {
				t.Errorf("the relaunched daemon's log:\n%s", v.d.Log())
			}
		})
	}
}

// A stop leaves the host's containers talking to each other; --resume takes up
// the targets.
func TestStopAndResume(t *testing.T) {
	lab, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	pw := passwordFile(t, password)
	a.launch("--password-file", pw)
	b.launch("--password-file", pw, a.IP4.String())
	second := b.Container("second")
	b.d.MustWeave("attach", "10.55.0.102/24", second.Ref())
	b.d.MustWeave("connect", "192.0.2.9")
	joined(t, a, b)
	before := b.d.MustWeave("ps")
	targets := b.d.MustWeave("status", "targets")

	b.d.MustWeave("stop")
	if code := b.d.Wait(time.Second); code != 0 {
		t.Errorf("the stopped daemon's exit code is %d", code)
	}
	if r := b.weave("status"); r.Code != 3 {
		t.Errorf("status after stop: exit %d, %q", r.Code, r.Stderr)
	}
	if r := b.weave("stop"); r.Code != 3 {
		t.Errorf("stop after stop: exit %d, %q", r.Code, r.Stderr)
	}
	mustPing(t, b.box, addr("10.55.0.102"))
	within(t, 2*time.Second, "the peer noticing", func() bool { return a.established() == 0 })
	wantLine(t, "the peer's log", a.d.Log(), "connection closed", "peer stopped")

	b.start("--password-file", pw, "--resume")
	joined(t, a, b)
	if after := b.d.MustWeave("ps"); after != before {
		t.Errorf("ps:\n%swant:\n%s", after, before)
	}
	if after := b.d.MustWeave("status", "targets"); after != targets {
		t.Errorf("targets:\n%swant:\n%s", after, targets)
	}
	mustPing(t, a.box, b.in4)
	mustPing(t, a.box, addr("10.55.0.102"))

	// SIGTERM is a stop too, whatever the daemon is doing.
	lab.Cut(a.Host, b.Host)
	start := time.Now()
	if code := b.d.Stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	t.Logf("stopped with a cut underlay in %v", time.Since(start).Round(time.Millisecond))
	mustPing(t, b.box, addr("10.55.0.102"))
}

// A daemon that stood still for a while goes on as if nothing had been, also when
// it stood still for so long that its peer gave it up.
func TestFrozenPeer(t *testing.T) {
	_, sites := newSites(t, 4)
	pw := passwordFile(t, password)
	pairs := []struct {
		frozen, peer *site
		freeze, back time.Duration
		probe        *probe
	}{
		{frozen: sites[0], peer: sites[1], freeze: 5 * time.Second, back: 2 * time.Second},
		{frozen: sites[2], peer: sites[3], freeze: 18 * time.Second, back: backLimit},
	}
	for i := range pairs {
		p := &pairs[i]
		p.frozen.launch("--password-file", pw)
		p.peer.launch("--password-file", pw, p.frozen.IP4.String())
		joined(t, p.frozen, p.peer)
		p.probe = probeOf(t, p.peer, p.frozen)
	}
	start := time.Now()
	for _, p := range pairs {
		unix.Kill(p.frozen.d.Pid(), unix.SIGSTOP)
	}
	for _, p := range pairs {
		time.Sleep(p.freeze - time.Since(start))
		states := connStates(p.peer)
		unix.Kill(p.frozen.d.Pid(), unix.SIGCONT)
		thawed := time.Now()
		within(t, p.back, "traffic again", func() bool { return p.probe.answeredSince(thawed) })
		t.Logf("frozen for %v (its peer then says %q): traffic flows %v later", p.freeze, states, time.Since(thawed).Round(time.Millisecond))
		joined(t, p.frozen, p.peer)
	}
}

func connStates(s *site) (out []string) {
	for _, c := range s.conns() {
		out = append(out, string(c.State)+" "+c.Error)
	}
	return out
}
