package e2e_test

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// canary is in all traffic of these tests, and must not be on the underlay.
const canary = "TWEET-canary-914" // 16 bytes: what ping -p takes

// canaries are what a capture looks for: the string, its parts as ping repeats
// it, and the containers' addresses of these tests' hosts as packets have them.
func canaries(sites ...*harness.Site) []string {
	out := []string{canary, canary[8:] + canary[:8], harness.Password}
	for _, s := range sites {
		for _, o := range sites {
			if o != s {
				// Source and destination of an inner header, side by side.
				out = append(out, string(append(s.In4.AsSlice(), o.In4.AsSlice()...)))
			}
		}
	}
	return out
}

// sing sends the canary from one container to another in packets of all kinds.
// What is lost does not matter: it was sent.
func sing(t *testing.T, from, to *harness.Site) {
	t.Helper()
	pattern := []string{"-W", "0.2", "-p", hex.EncodeToString([]byte(canary))}
	harness.Ping(from.Box, to.In4, 3, pattern...)
	harness.Ping(from.Box, to.In6, 3, append(pattern, "-s", "4000")...)
	for _, dst := range []netip.Addr{to.In4, to.In6, netip.AddrFrom4([4]byte{10, 55, 0, 255})} {
		c := harness.ListenUDP(t, from.Box, netip.AddrPort{})
		c.WriteToUDPAddrPort(bytes.Repeat([]byte(canary), 60), netip.AddrPortFrom(dst, 7100))
		c.WriteToUDPAddrPort(bytes.Repeat([]byte(canary), 500), netip.AddrPortFrom(dst, 7100))
		c.Close()
	}
}

// choir sends the canary without a pause, over TCP and UDP, both ways, until the
// returned function is called; it returns how many bytes arrived.
func choir(t *testing.T, a, b *harness.Site) (stop func() int) {
	t.Helper()
	var arrived [2]chan int
	var singers sync.WaitGroup
	done := make(chan struct{})
	for i, dir := range [][2]*harness.Site{{a, b}, {b, a}} {
		from, to := dir[0], dir[1]
		arrived[i] = make(chan int, 1)
		to1 := netip.AddrPortFrom(to.In4, 7101)
		var lis net.Listener
		if err := to.Box.Do(func() (err error) {
			lis, err = net.Listen("tcp", to1.String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		udp := harness.ListenUDP(t, from.Box, netip.AddrPort{})
		singers.Go(func() {
			for {
				select {
				case <-done:
					lis.Close()
					return
				case <-time.After(10 * time.Millisecond):
					udp.WriteToUDPAddrPort([]byte(canary), to1)
				}
			}
		})
		singers.Go(func() { swallow(lis, arrived[i]) })
		singers.Go(func() { tell(from.Box, to1, done) })
	}
	end := sync.OnceFunc(func() {
		close(done)
		singers.Wait()
	})
	t.Cleanup(end)
	return func() int {
		end()
		return <-arrived[0] + <-arrived[1]
	}
}

// swallow counts what comes over all connections until lis is closed.
func swallow(lis net.Listener, count chan<- int) {
	sum := 0
	defer func() { count <- sum }()
	buf := make([]byte, 64<<10)
	for {
		c, err := lis.Accept()
		if err != nil {
			return
		}
		for {
			c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := c.Read(buf)
			sum += n
			if err != nil {
				break
			}
		}
		c.Close()
	}
}

// tell writes canaries over TCP, connecting again whenever that breaks.
func tell(from *testnet.Namespace, to netip.AddrPort, done <-chan struct{}) {
	song := bytes.Repeat([]byte(canary), 512)
	for {
		var c net.Conn
		from.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", to.String(), 200*time.Millisecond)
			return err
		})
		for c != nil {
			select {
			case <-done:
				c.Close()
				return
			case <-time.After(5 * time.Millisecond):
			}
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err := c.Write(song); err != nil {
				c.Close()
				c = nil
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// With a password nothing that containers send is on the underlay, whatever the
// daemons go through.
func TestNothingInClear(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	capture := lab.Capture(canaries(sites...)...)
	// Containers talk before the peers know each other.
	a.Launch("--password-file", pw)
	sing(t, a, b)
	b.Launch("--password-file", pw, a.IP4.String())
	stop := choir(t, a, b)
	harness.Joined(t, sites...)
	sing(t, a, b)
	sing(t, b, a)
	// A crash, with traffic before, during and after.
	b.Daemon.Kill9()
	sing(t, a, b)
	sing(t, b, a)
	b.Start("--password-file", pw, a.IP4.String())
	harness.Joined(t, sites...)
	sing(t, a, b)
	// A stop and a start of the other end.
	if code := a.Daemon.Stop(); code != 0 {
		t.Errorf("stop: exit %d", code)
	}
	sing(t, b, a)
	a.Start("--password-file", pw)
	harness.Joined(t, sites...)
	sing(t, b, a)
	// Peers are cut from each other, and meet again.
	lab.Cut(a.Host, b.Host)
	sing(t, a, b)
	lab.Heal(a.Host, b.Host)
	harness.Within(t, harness.JoinLimit, "traffic after healing", func() bool { return harness.Reaches(a.Box, b.In4) })
	sing(t, a, b)

	if n := stop(); n < 100*len(canary) {
		t.Errorf("only %d bytes crossed all the while", n)
	}
	frames, size := capture.Frames()
	t.Logf("%d frames with %d kB on the underlay", frames, size>>10)
	capture.MustBeClean()
}

// Keys are changed again and again, under load, and nothing shows or is lost.
func TestNothingInClearWhileRekeying(t *testing.T) {
	t.Parallel()
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	capture := lab.Capture(canaries(sites...)...)
	for _, s := range sites {
		s.DaemonBin = quickKeys(t)
	}
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, sites...)
	p := harness.StartProbe(t, a.Box, harness.Echo(t, b.Box, b.In4))
	stop := choir(t, a, b)
	var c api.Connection
	harness.Within(t, 20*time.Second, "five changes of keys", func() bool {
		c, _ = a.To(b)
		return c.Link != nil && c.Link.KeyEpoch >= 6
	})
	p.Stop()
	gap, lost := p.Gap(time.Time{})
	t.Logf("key epoch %d, %d bytes crossed; %d of %d probes lost, longest gap %v", c.Link.KeyEpoch, stop(), lost, p.Sent(), gap)
	if lost > 0 {
		t.Errorf("%d probes were lost", lost)
	}
	for reason, n := range c.Link.Drops {
		t.Logf("%s dropped %d: %s", a.Label, n, reason)
	}
	capture.MustBeClean()
}

// Without a password the canary is seen: the capture above can find it.
func TestCaptureSeesClearText(t *testing.T) {
	lab, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	capture := lab.Capture(canaries(sites...)...)
	a.Launch()
	b.Launch(a.IP4.String())
	harness.Joined(t, sites...)
	if c, _ := a.To(b); c.Encrypted || c.Cipher != "" {
		t.Errorf("connection %+v is said to be encrypted", c)
	}
	stop := choir(t, a, b)
	sing(t, a, b)
	stop()
	capture.Stop()
	hits := capture.Hits()
	for _, c := range canaries(a, b) {
		t.Logf("%q is in %d frames", c, hits[c])
		if hits[c] == 0 && c != harness.Password {
			t.Errorf("%q was not seen", c)
		}
	}
}
