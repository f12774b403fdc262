package netem_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// weathers are what the network does to the packets of each host, in the words of tc.
// They follow one another under running daemons.
var weathers = []struct {
	netem string
	loses int // of a hundred packets
}{
	{"loss 1%", 1},
	{"loss 5% delay 5ms", 5},
	{"delay 20ms 10ms reorder 25% 50%", 0},
	{"duplicate 25%", 0},
	{"rate 5mbit delay 40ms 5ms loss 1%", 1},
}

// size is small because the machine is slow, and still some hundred segments.
const (
	size  = 512 << 10
	limit = 60 * time.Second
)

// sky is two hosts and the network between them.
type sky struct {
	lab  *testnet.Lab
	a, b *harness.Site
}

func (k *sky) weather(netem string) {
	k.lab.Weather(k.a.Host, netem)
	k.lab.Weather(k.b.Host, netem)
}

// pair starts two hosts in bad weather already.
func pair(t *testing.T, args ...string) *sky {
	testnet.NeedModule(t, "netem")
	lab, sites := harness.NewSites(t, 2)
	k := &sky{lab, sites[0], sites[1]}
	k.weather("loss 3% delay 5ms")
	k.a.Launch(args...)
	k.b.Launch(append(args, k.a.IP4.String())...)
	harness.Within(t, limit, "a connection", func() bool { return k.a.Established() == 1 && k.b.Established() == 1 })
	return k
}

// The user-space path stays up in any weather: streams arrive whole, and what the
// network repeats reaches nobody twice.
func TestSleeve(t *testing.T) {
	k := pair(t, "--no-fastdp", "--password-file", harness.PasswordFile(t, harness.Password))
	for _, w := range weathers {
		t.Run(w.netem, func(t *testing.T) {
			k.weather(w.netem)
			k.carry(t, w.loses)
			if n := k.repeated(t); n > 0 {
				t.Errorf("%d pings were answered more than once", n)
			}
			k.a, k.b = k.b, k.a
		})
	}
	for _, s := range []*harness.Site{k.a, k.b} {
		if log := s.Daemon.Log(); strings.Contains(log, "link down") {
			t.Errorf("%s: the link went down", s.Label)
		}
		if n := s.Established(); n != 1 {
			t.Errorf("%s has %d connections", s.Label, n)
		}
	}
}

// The kernel path carries streams whole as well. It is not held to staying up where
// one packet in ten makes no round trip, but to coming back.
func TestFastdp(t *testing.T) {
	k := pair(t, "--fastdp=vxlan")
	on := func(s *harness.Site) bool {
		conns := s.Conns()
		return len(conns) == 1 && conns[0].Path == "fastdp"
	}
	k.weather("")
	harness.Within(t, limit, "the kernel path", func() bool { return on(k.a) && on(k.b) })
	for _, w := range weathers {
		t.Run(w.netem, func(t *testing.T) {
			k.weather(w.netem)
			k.carry(t, w.loses)
			k.a, k.b = k.b, k.a
		})
	}
	k.weather("")
	harness.Within(t, limit, "the kernel path", func() bool { return on(k.a) && on(k.b) })
	harness.MustPing(t, k.a.Box, k.b.In4)
}

// carry sends a stream, whose content is compared, while the network loses that many
// of a hundred packets.
func (k *sky) carry(t *testing.T, loses int) {
	t.Helper()
	before := k.lab.WeatherLoss(k.b.Host)
	r := harness.Stream(t, k.a.Box, k.b.Box, k.b.In4, size, limit)
	lost := k.lab.WeatherLoss(k.b.Host) - before
	t.Logf("%.1f Mb/s, %d of %d segments sent again, %d packets lost", r.Mbps(), r.Resent, r.Segments, lost)
	if want := size / 1400 * loses / 100 / 4; lost < want {
		t.Errorf("%d packets were lost, want %d at least: the test shows nothing", lost, want)
	}
}

// repeated pings and counts the answers that came more than once. Most have to come.
func (k *sky) repeated(t *testing.T) (n int) {
	t.Helper()
	const count = 20
	out := k.a.Box.Try("ping", "-n", "-i", "0.02", "-c", fmt.Sprint(count), "-W", "2", k.b.In4.String()).Stdout
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "icmp_seq="); ok {
			seq, _, _ := strings.Cut(rest, " ")
			if seen[seq] {
				n++
			}
			seen[seq] = true
		}
	}
	if len(seen) < count/2 {
		t.Errorf("%d of %d pings were answered:\n%s", len(seen), count, out)
	}
	return n
}
