package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weave/crypto/handshake"
	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// refuseLimit is within what time whoever cannot take part must be turned away;
// the slack is for a busy machine.
const refuseLimit = 10*time.Second + time.Second

// All who cannot take part knock at one host at the same time. Each is told, and
// shown at both ends, why; meanwhile an honest host joins and works.
func TestRefused(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewSites(t, 5)
	a, wrong, without, open, honest := sites[0], sites[1], sites[2], sites[3], sites[4]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	strangers := startStrangers(t, lab, a)
	wrong.Start("--password-file", harness.PasswordFile(t, "not that one, but this"), a.IP4.String())
	without.Start(a.IP4.String())
	open.Start()
	start := time.Now()
	a.Daemon.MustWeave("connect", open.IP4.String())
	honest.Launch("--password-file", pw, a.IP4.String())

	refusals := []struct {
		at, from *harness.Site
		outbound bool
		text     string
	}{
		{wrong, a, true, "wrong password: the passwords of the two hosts differ"},
		{a, wrong, false, "wrong password: the passwords of the two hosts differ"},
		{without, a, true, "the other host has a password, this one has none"},
		{a, without, false, "this host has a password, the other one has none"},
		{a, open, true, "this host has a password, the other one has none"},
		{open, a, false, "the other host has a password, this one has none"},
	}
	for _, r := range refusals {
		what := fmt.Sprintf("%s, refused by %s: %q", r.at.Label, r.from.Label, r.text)
		took := harness.Within(t, refuseLimit, what, func() bool { return refusal(r.at, r.from.IP4, r.outbound, r.text) })
		t.Logf("%s %v after it could have been known", what, took.Round(time.Millisecond))
	}
	t.Logf("all passwords refused %v after the start", time.Since(start).Round(time.Millisecond))
	took := harness.Within(t, refuseLimit, "the honest host's connection", func() bool { _, ok := a.To(honest); return ok })
	t.Logf("the honest host is in after %v more", took.Round(time.Millisecond))
	harness.MustPing(t, honest.Box, a.In4)
	harness.Stream(t, honest.Box, a.Box, a.In4, 16<<20, 10*time.Second)

	strangers.check(t, a)
	for _, r := range refusals {
		words := []string{"connection refused", r.text, r.from.IP4.String()}
		harness.WantLine(t, "log of "+r.at.Label, r.at.Daemon.Log(), words...)
		harness.Within(t, refuseLimit, "failed in the status of "+r.at.Label, func() bool { // not while it tries again
			return harness.HasLine(r.at.Daemon.MustWeave("status", "connections"), r.from.IP4.String(), "failed", r.text)
		})
	}
	// Those who dialed try again, ever more slowly.
	for _, s := range []*harness.Site{wrong, without} {
		if r := s.Weave("status", "--check"); r.Code != harness.ExitAuth {
			t.Errorf("status --check on %s: exit %d", s.Label, r.Code)
		}
	}
	elapsed := time.Since(start)
	tries := harness.ScrapeMetrics(t, a).Sum(`weave_connections_refused_total{reason="wrong password"}`)
	if most := 2 + elapsed.Seconds()/2; tries < 2 || tries > most {
		t.Errorf("%v tries with the wrong password in %v, want 2 to %.0f", tries, elapsed, most)
	}
	t.Logf("%v tries with the wrong password in %v", tries, elapsed.Round(time.Second))
	for _, s := range []*harness.Site{wrong, without, open} {
		if n := s.Established(); n != 0 {
			t.Errorf("%s has %d connections", s.Label, n)
		}
	}

	// With the right password the host is in, and its failures are history. Those
	// who still knock do not degrade the network.
	wrong.Daemon.MustWeave("stop")
	wrong.Start("--password-file", pw, a.IP4.String())
	harness.Joined(t, a, wrong)
	if refusal(a, wrong.IP4, false, refusals[0].text) {
		t.Errorf("still shown as refused:\n%s", a.Daemon.MustWeave("status", "connections"))
	}
	a.Daemon.MustWeave("forget", open.IP4.String())
	a.Daemon.MustWeave("status", "--check")
}

// refusal looks for a failed connection with that error; one that was dialed has
// a time for the next try.
func refusal(s *harness.Site, from netip.Addr, outbound bool, text string) bool {
	for _, c := range s.Conns() {
		if strings.HasPrefix(c.Address, from.String()) && c.Outbound == outbound && c.State == api.StateFailed && c.Error == text {
			return !outbound || c.Retry.After(time.Now().Add(-time.Second))
		}
	}
	return false
}

// strangers are connections to a daemon's port that do not follow the protocol,
// each from an address of its own.
type strangers struct {
	all  []*stranger
	done sync.WaitGroup
}

type stranger struct {
	name string
	text string // what status shall say
	from netip.Addr
	act  func(net.Conn) error

	took time.Duration // until the daemon closed the connection
	err  error
}

// startStrangers lets them all knock at once.
func startStrangers(t *testing.T, lab *testnet.Lab, at *harness.Site) *strangers {
	t.Helper()
	s := &strangers{all: []*stranger{
		{name: "garbage", text: "the other end is not a weave peer", act: func(c net.Conn) error {
			b := make([]byte, 4096)
			rand.Read(b)
			return send(c, b)
		}},
		{name: "a browser", text: "the other end is not a weave peer", act: func(c net.Conn) error {
			return send(c, []byte("GET / HTTP/1.1\r\nHost: weave\r\n\r\n"))
		}},
		{name: "silence", text: "handshake not finished in 10s", act: func(net.Conn) error { return nil }},
		{name: "half a preamble", text: "handshake not finished in 10s", act: func(c net.Conn) error {
			return send(c, opening(t)[:7])
		}},
		{name: "half a handshake", text: "handshake not finished in 10s", act: halfHandshake},
		{name: "an oversized length", text: "handshake", act: func(c net.Conn) error {
			return send(c, append(opening(t), 0xff, 0xff, 1))
		}},
		{name: "length zero", text: "handshake", act: func(c net.Conn) error {
			return send(c, append(opening(t), 0, 0, 1))
		}},
		{name: "a trickle", text: "handshake not finished in 10s", act: func(c net.Conn) error {
			for _, b := range opening(t)[:14] {
				if err := send(c, []byte{b}); err != nil {
					return err
				}
				time.Sleep(300 * time.Millisecond)
			}
			return nil
		}},
	}}
	host := lab.Host("stranger")
	link, err := host.NL.LinkByName(testnet.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range s.all {
		x.from = netip.AddrFrom4([4]byte{10, 77, 99, byte(i + 1)})
		addr, err := netlink.ParseAddr(x.from.String() + "/16")
		if err != nil {
			t.Fatal(err)
		}
		if err := host.NL.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
		var c net.Conn
		if err := host.Do(func() (err error) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(x.from, 0)), Timeout: 5 * time.Second}
			c, err = d.Dial("tcp", netip.AddrPortFrom(at.IP4, 6783).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		s.done.Go(func() { x.run(c) })
	}
	return s
}

func send(c net.Conn, b []byte) error {
	_, err := c.Write(b)
	return err
}

// run acts and waits until the daemon closes the connection.
func (x *stranger) run(c net.Conn) {
	defer c.Close()
	start := time.Now()
	c.SetDeadline(start.Add(20 * time.Second))
	if x.err = x.act(c); x.err != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			break
		}
	}
	x.took = time.Since(start)
}

// check waits for all and looks at what the daemon says of them.
func (s *strangers) check(t *testing.T, at *harness.Site) {
	t.Helper()
	s.done.Wait()
	status := at.Daemon.MustWeave("status", "connections")
	for _, x := range s.all {
		if x.err != nil || x.took > refuseLimit {
			t.Errorf("%s: closed after %v, %v", x.name, x.took, x.err)
		}
		t.Logf("%s: closed after %v", x.name, x.took.Round(time.Millisecond))
		harness.WantLine(t, "status", status, "<- "+x.from.String(), "failed", x.text)
		harness.WantLine(t, "log", at.Daemon.Log(), "connection refused", x.from.String(), x.text)
	}
}

// machine is the dialing end of a handshake with the right password.
func machine() (*handshake.Machine, error) {
	key, err := handshake.NewStaticKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return handshake.New(handshake.Config{Initiator: true, Static: key, PSK: handshake.PSKFromPassword([]byte(harness.Password)), Offer: []byte("offer")})
}

// opening is the first thing a peer sends.
func opening(t *testing.T) []byte {
	t.Helper()
	m, err := machine()
	if err != nil {
		t.Fatal(err)
	}
	return m.Start()
}

// halfHandshake follows the protocol up to the last message, and keeps that.
func halfHandshake(c net.Conn) error {
	m, err := machine()
	if err != nil {
		return err
	}
	out := m.Start()
	for range 2 { // preamble, then message 1
		if err := send(c, out); err != nil {
			return err
		}
		in := make([]byte, m.Need())
		if _, err := c.Read(in); err != nil {
			return err
		}
		if out, _, err = m.Step(in); err != nil {
			return err
		}
	}
	return nil
}
