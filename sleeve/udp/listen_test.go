package udp

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestSteering(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, n := range []int{2, 3, 4, 16} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			gb := b.listen(t, Config{Sockets: n})
			if got := len(gb.Sockets()); got != n || !gb.Features().Steered {
				t.Fatalf("got %d sockets, features %+v", got, gb.Features())
			}
			var in []*inbox
			for _, s := range gb.Sockets() {
				in = append(in, newInbox(t, s))
			}
			// Lanes of bridge traffic, lanes of relayed traffic, control.
			for _, dst := range []string{"10.77.0.2", "fd77::2"} {
				s := a.listen(t, Config{}).Sockets()[0].NewSender()
				ep := endpoint(t, dst, gb.Port(), "")
				for lane := range 64 {
					want := lane % 32 % n
					if lane == 63 {
						want = 0
					}
					if err := s.Send(ep, train(byte(lane), 3, 200, 0), 200); err != nil {
						t.Fatal(err)
					}
					got, _, _ := in[want].read(t, 3)
					if got[0][1] != byte(lane) {
						t.Fatalf("%s lane %d: got lane %d", dst, lane, got[0][1])
					}
				}
				if err := s.Send(ep, []byte{0x14}, 0); err != nil { // too short to have a lane
					t.Fatal(err)
				}
				if slots := in[0].next(t); len(slots) != 1 || slots[0].Next() != nil {
					t.Errorf("datagram of one byte: got %d slots", len(slots))
				}
			}
			for _, in := range in {
				in.empty(t)
			}
		})
	}
}

func TestSteeringOfMixedTrain(t *testing.T) {
	a, b := newPair(t, 1500)
	gb := b.listen(t, Config{Sockets: 4})
	sent := slices.Concat(train(2, 1, 200, 0), train(3, 1, 200, 0), train(1, 1, 200, 0))
	s := a.listen(t, Config{}).Sockets()[0].NewSender()
	if err := s.Send(endpoint(t, "10.77.0.2", gb.Port(), ""), sent, 200); err != nil {
		t.Fatal(err)
	}
	got, _, slots := newInbox(t, gb.Sockets()[2]).read(t, 3)
	if diff := cmp.Diff(cut(sent, 200), got); diff != "" || slots != 1 {
		t.Errorf("got %d slots, datagrams differ:\n%s", slots, diff)
	}
}

func TestNoSteering(t *testing.T) {
	a, b := newPair(t, 1500)
	run(t, "ip netns exec "+b.name+" sysctl -qw net.core.optmem_max=64")
	var log bytes.Buffer
	gb := b.listen(t, Config{Sockets: 4, Log: slog.New(slog.NewTextHandler(&log, nil))})
	run(t, "ip netns exec "+b.name+" sysctl -qw net.core.optmem_max=131072")
	if len(gb.Sockets()) != 1 || gb.Features().Steered {
		t.Fatalf("got %d sockets, features %+v", len(gb.Sockets()), gb.Features())
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "one udp socket") {
		t.Errorf("log: got %q, want one line that says so", got)
	}
	in, s := newInbox(t, gb.Sockets()[0]), a.listen(t, Config{}).Sockets()[0].NewSender()
	for lane := range byte(64) {
		if err := s.Send(endpoint(t, "10.77.0.2", gb.Port(), ""), train(lane, 2, 200, 0), 200); err != nil {
			t.Fatal(err)
		}
		in.read(t, 2)
	}
}

func TestListenErrors(t *testing.T) {
	h := newHost(t)
	first := h.listen(t, Config{Sockets: 4})
	for _, n := range []int{1, 4} {
		for _, addr := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1")} {
			h.in(t, func() {
				_, err := Listen(Config{Addr: addr, Port: first.Port(), Sockets: n})
				if !errors.Is(err, ErrPortInUse) || !strings.Contains(fmt.Sprint(err), fmt.Sprint(first.Port())) {
					t.Errorf("%d sockets on %v: got %v, want ErrPortInUse with the port", n, addr, err)
				}
			})
		}
	}
	h.in(t, func() {
		if _, err := Listen(Config{Addr: netip.MustParseAddr("192.0.2.1")}); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("foreign address: got %v, want EADDRNOTAVAIL", err)
		}
	})
	if _, err := Listen(Config{Sockets: MaxSockets + 1}); err == nil {
		t.Error("too many sockets: got no error")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	h.listen(t, Config{Port: first.Port(), Sockets: 4})
}

func TestFeatures(t *testing.T) {
	h := newHost(t)
	got := h.listen(t, Config{Sockets: 2, RcvBuf: 6 << 20, SndBuf: 5 << 20}).Features()
	want := Features{
		GSO: true, MaxSegments: 64, GRO: true, DualStack: true, Steered: true, RcvBuf: 6 << 20, SndBuf: 5 << 20,
		Filler: needsFiller(kernelRelease()),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("features differ:\n%s", diff)
	}
}

func TestBareHost(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, h := range []host{a, b} {
		run(t, "ip -n "+h.name+" link set lo down")
		run(t, "ip netns exec "+h.name+" sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	}
	ga, gb := a.listen(t, Config{}), b.listen(t, Config{})
	if f := ga.Features(); !f.GSO || f.MaxSegments < 63 {
		t.Errorf("got features %+v", f)
	}
	if err := ga.Sockets()[0].NewSender().Send(endpoint(t, "10.77.0.2", gb.Port(), ""), train(0, 64, 300, 0), 300); err != nil {
		t.Fatal(err)
	}
	newInbox(t, gb.Sockets()[0]).read(t, 64)
}

func TestSmallBuffers(t *testing.T) {
	h := newHost(t)
	var log bytes.Buffer
	h.in(t, func() { // the thread ends with its lost capabilities
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Error(err)
		}
		g, err := Listen(Config{Sockets: 2, RcvBuf: 64 << 20, SndBuf: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Error(err)
			return
		}
		defer g.Close()
		if f := g.Features(); f.RcvBuf >= 64<<20 || f.SndBuf != 1<<20 {
			t.Errorf("got features %+v", f)
		}
	})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "net.core.rmem_max") {
		t.Errorf("log: got %q, want one line that names the sysctl", got)
	}
}

func TestMTUOf(t *testing.T) {
	a, _ := newPair(t, 1420)
	run(t, "ip -n "+a.name+" route add 10.88.0.0/16 via 10.77.0.2 mtu 1300")
	run(t, "ip -n "+a.name+" route add 10.89.0.0/16 nexthop via 10.77.0.2 nexthop via 10.77.0.3")
	tests := []struct {
		dst  string
		want int
	}{
		{"10.77.0.2", 1420},
		{"fd77::2", 1420},
		{"::ffff:10.77.0.2", 1420},
		{"fe80::1%w0", 1420},
		{"10.88.0.1", 1300},
		{"10.89.0.1", 1420},
		{"127.0.0.1", 65535},
		{"10.99.0.1", 0},
		{"fd99::1", 0},
	}
	for _, tt := range tests {
		a.in(t, func() {
			got, err := MTUOf(netip.MustParseAddr(tt.dst))
			if got != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("%s: got %d, %v, want %d", tt.dst, got, err, tt.want)
			}
		})
	}
	if _, err := MTUOf(netip.Addr{}); err == nil {
		t.Error("no address: got no error")
	}
}
