package fastdp_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const (
	joinLimit = 15 * time.Second
	slowJoin  = 60 * time.Second // where a machine within a machine runs the test
	vxlanPort = "6784"
)

// site is a host of two.
type site struct {
	*harness.Site
	t *testing.T
}

func newSites(t *testing.T, opts ...testnet.HostOption) (*testnet.Lab, *site, *site) {
	t.Helper()
	lab, sites := harness.NewSites(t, 2, opts...)
	for _, s := range sites {
		s.Args = append(s.Args, "--log-level=debug")
	}
	return lab, &site{sites[0], t}, &site{sites[1], t}
}

// up starts two sites, b knowing a, and attaches their containers.
func up(a, b *site, args ...string) {
	a.Start(args...)
	b.Start(append(args, a.IP4.String())...)
	a.Attach()
	b.Attach()
}

// conn returns the connection to the other site.
func (s *site) conn() (out api.Connection) {
	conns := s.Conns()
	if i := slices.IndexFunc(conns, func(c api.Connection) bool { return c.State == api.StateEstablished }); i >= 0 {
		return conns[i]
	}
	return out
}

// on waits until both sites use a path, and returns how long that took.
func on(t *testing.T, path string, limit time.Duration, sites ...*site) time.Duration {
	t.Helper()
	return harness.Within(t, limit, "path "+path, func() bool {
		for _, s := range sites {
			if s.conn().Path != path {
				return false
			}
		}
		return true
	})
}

// pings reports how many of n full-size pings, every interval seconds, got no answer.
func (s *site) pings(o *site, n int, interval string) (lost int) {
	return s.pingsOf(o, 1376, n, interval)
}

// pingsOf is pings of so many bytes of IP.
func (s *site) pingsOf(o *site, size, n int, interval string) (lost int) {
	out := s.Box.Try("ping", "-n", "-q", "-M", "do", "-s", strconv.Itoa(size-28), "-c", strconv.Itoa(n), "-i", interval, "-W", "1", o.In4.String()).Stdout
	for line := range strings.Lines(out) {
		var sent, got int
		if k, _ := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &got); k == 2 {
			return sent - got
		}
	}
	return n
}

// stream pings until it is stopped, and then tells the longest time without an answer,
// how many were missing, and whether one came twice.
type stream struct {
	cancel context.CancelFunc
	out    strings.Builder
	done   chan struct{}
}

func (s *site) stream(o *site) *stream { return s.streamEvery(o, 10*time.Millisecond) }

func (s *site) streamEvery(o *site, every time.Duration) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stream{cancel: cancel, done: make(chan struct{})}
	cmd := s.Box.Command(ctx, "ping", "-n", "-D", "-s", "1000", "-i", fmt.Sprint(every.Seconds()), "-W", "1", o.In4.String())
	cmd.Stdout = &st.out
	go func() {
		defer close(st.done)
		cmd.Run()
	}()
	s.t.Cleanup(func() { cancel(); <-st.done })
	return st
}

// count is how many lines there were: about the number of pings.
func (st *stream) count() int { return strings.Count(st.out.String(), "icmp_seq=") }

// stop ends the stream. What has been overtaken, as by frames that change to a faster
// path, is not lost.
func (st *stream) stop() (gap time.Duration, lost int, dup bool) {
	st.cancel()
	<-st.done
	var last float64
	first, newest, seen := 0, 0, map[int]bool{}
	for line := range strings.Lines(st.out.String()) {
		var at float64
		if _, err := fmt.Sscanf(line, "[%f]", &at); err != nil {
			continue
		}
		_, rest, ok := strings.Cut(line, "icmp_seq=")
		seq, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(seq)
		if !ok || err != nil || strings.Contains(line, "nreachable") {
			continue
		}
		dup = dup || strings.Contains(line, "DUP!")
		if len(seen) == 0 {
			first = n
		}
		newest, seen[n] = max(newest, n), true
		if last != 0 {
			gap = max(gap, time.Duration((at-last)*float64(time.Second)))
		}
		last = at
	}
	return gap, max(0, newest-first+1-len(seen)), dup
}

// packets reads how many packets left through a device.
func (s *site) packets(device string) int {
	_, tx, ok := strings.Cut(s.Try("ip", "-s", "link", "show", "dev", device).Stdout, "TX:")
	f := strings.Fields(tx)
	if !ok || len(f) < 8 {
		return 0
	}
	n, _ := strconv.Atoi(f[7])
	return n
}

// ifindex of a device; 0: there is none.
func (s *site) ifindex(device string) int {
	index, _, _ := strings.Cut(s.Try("ip", "-o", "link", "show", "dev", device).Stdout, ":")
	n, _ := strconv.Atoi(index)
	return n
}

// block makes hosts drop the vxlan packets that come in, as a firewall on the way to
// them would; more is a further condition, in the words of nft.
func block(more string, at ...*site) (undo func()) { return blockPort(vxlanPort, more, at...) }

func blockPort(port, more string, at ...*site) (undo func()) {
	for _, s := range at {
		s.Exec("nft", "add table inet test; add chain inet test in { type filter hook prerouting priority -300; }; add rule inet test in udp dport "+port+" "+more+" drop")
	}
	return func() {
		for _, s := range at {
			s.Exec("nft", "delete table inet test")
		}
	}
}

// reason is why the kernel path is not used, as status and metrics say it.
func (s *site) reason() string {
	for line := range strings.Lines(s.metrics()) {
		if rest, ok := strings.CutPrefix(line, "weave_connection_path{"); ok {
			_, r, _ := strings.Cut(rest, `reason="`)
			r, _, _ = strings.Cut(r, `"`)
			return r
		}
	}
	return "?"
}

func (s *site) metrics() string {
	s.t.Helper()
	return harness.ScrapeMetrics(s.t, s).Text
}
