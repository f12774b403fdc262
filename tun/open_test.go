package tun

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// fakeHost is a host with the features that a test gives it. Its errnos are those
// of drivers/net/tun.c.
type fakeHost struct {
	openErr, attachErr, headerErr, ipv6Err, upErr error
	noMulti                                       bool
	maxQueues                                     int                 // 0: no limit
	offloads                                      int                 // the flags that TUNSETOFFLOAD knows
	refuse                                        map[ether.GSO]error // what write answers
	version                                       string

	fds   map[int]bool // open ones
	next  int
	calls []string
}

func (h *fakeHost) log(format string, args ...any) {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *fakeHost) open() (int, error) {
	if h.openErr != nil {
		return -1, h.openErr
	}
	if h.fds == nil {
		h.fds = make(map[int]bool)
	}
	h.next++
	h.fds[h.next] = true
	return h.next, nil
}

func (h *fakeHost) attach(fd int, name string, flags uint16) (string, error) {
	h.log("attach %s %#x", name, flags)
	switch {
	case h.attachErr != nil:
		return "", h.attachErr
	case h.noMulti && flags&unix.IFF_MULTI_QUEUE != 0:
		return "", unix.EINVAL
	case h.maxQueues > 0 && len(h.fds) > h.maxQueues:
		return "", unix.E2BIG
	}
	return strings.ReplaceAll(name, "%d", "0"), nil
}

func (h *fakeHost) setHeaderSize(_, n int) error {
	h.log("header %d", n)
	return h.headerErr
}

func (h *fakeHost) setOffload(_, flags int) error {
	h.log("offload %#x", flags)
	if flags&^h.offloads != 0 {
		return unix.EINVAL
	}
	return nil
}

func (h *fakeHost) disableIPv6(string) error { return h.ipv6Err }

func (h *fakeHost) linkUp(name string, mtu, queueLen int) (int, error) {
	h.log("up %s %d %d", name, mtu, queueLen)
	return 7, h.upErr
}

func (h *fakeHost) write(_ int, b []byte) error {
	h.log("write gso %d", b[1])
	return h.refuse[ether.GSO(b[1])]
}

func (h *fakeHost) close(fd int)    { delete(h.fds, fd) }
func (h *fakeHost) release() string { return h.version }

const (
	allOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6
	oldOffloads = allOffloads &^ (unix.TUN_F_USO4 | unix.TUN_F_USO6)
)

// Each kernel gets what it can do, and no more.
func TestOpenFallback(t *testing.T) {
	read := Features{ReadCsum: true, ReadTSO: true, ReadECN: true}
	with := func(f Features, change func(*Features)) Features { change(&f); return f }
	for _, tt := range []struct {
		name   string
		host   fakeHost
		queues int
		want   Features
		wantN  int
	}{
		{"all", fakeHost{offloads: allOffloads, version: "6.18.44"}, 2,
			Features{true, true, true, true, true, true, true}, 2},
		{"one queue", fakeHost{offloads: allOffloads, version: "6.18.44"}, 0,
			Features{false, true, true, true, true, true, true}, 1},
		{"no multi-queue", fakeHost{offloads: allOffloads, version: "6.18.44", noMulti: true}, 4,
			Features{false, true, true, true, true, true, true}, 1},
		{"few queues", fakeHost{offloads: allOffloads, version: "6.18.44", maxQueues: 3}, 4,
			Features{true, true, true, true, true, true, true}, 3},
		{"uso is read only", fakeHost{offloads: allOffloads, version: "6.8.4-amd64"}, 1,
			with(read, func(f *Features) { f.ReadUSO, f.WriteTSO = true, true }), 1},
		{"before uso", fakeHost{offloads: oldOffloads, version: "6.1.0-37-cloud-amd64"}, 1,
			with(read, func(f *Features) { f.WriteTSO = true }), 1},
		{"no ecn", fakeHost{offloads: oldOffloads &^ unix.TUN_F_TSO_ECN, version: "5.4.0"}, 1,
			Features{ReadCsum: true, ReadTSO: true, WriteTSO: true}, 1},
		{"checksums", fakeHost{offloads: unix.TUN_F_CSUM, version: "5.4.0"}, 1,
			Features{ReadCsum: true, WriteTSO: true}, 1},
		{"nothing", fakeHost{version: "5.4.0", refuse: map[ether.GSO]error{ether.GSOTCPv4: unix.EINVAL}}, 1, Features{}, 1},
		{"superframes refused", fakeHost{offloads: allOffloads, version: "6.18.44",
			refuse: map[ether.GSO]error{ether.GSOTCPv6: unix.EINVAL, ether.GSOUDPL4: unix.EINVAL}}, 1,
			with(read, func(f *Features) { f.ReadUSO = true }), 1},
		{"tcp refused", fakeHost{offloads: allOffloads, version: "6.18.44",
			refuse: map[ether.GSO]error{ether.GSOTCPv4: unix.EIO}}, 1,
			with(read, func(f *Features) { f.ReadUSO, f.WriteUSO = true, true }), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := open(Config{Name: "weave%d", Queues: tt.queues, MTU: 1376, TxQueueLen: 128, Log: discard()}, &tt.host)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d.Features()); diff != "" {
				t.Errorf("features (-want +got):\n%s", diff)
			}
			if d.Queues() != tt.wantN || len(tt.host.fds) != tt.wantN || d.Name() != "weave0" || d.Index() != 7 {
				t.Errorf("%d queues on %d descriptors, want %d; name %q", d.Queues(), len(tt.host.fds), tt.wantN, d.Name())
			}
			for i := range d.Queues() {
				if q := d.Queue(i); q.can != d.Features() || q.FD() <= 0 {
					t.Errorf("queue %d: descriptor %d, features %v", i, q.FD(), q.can)
				}
			}
			d.Close()
			if d.Close(); len(tt.host.fds) != 0 || d.Queue(0).FD() != -1 {
				t.Errorf("descriptors %v left open", tt.host.fds)
			}
		})
	}
}

// The order matters: the link goes up only when it is silent, and the probes come
// when it is up. Only the first queue may find no device there.
func TestOpenOrder(t *testing.T) {
	h := &fakeHost{offloads: oldOffloads, version: "6.18.0"}
	if _, err := open(Config{Name: "tap", Queues: 2, MTU: 1376, TxQueueLen: 128, Log: discard()}, h); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"attach tap 0xd102", // IFF_TUN_EXCL, VNET_HDR, NO_PI, MULTI_QUEUE, TAP
		"attach tap 0x5102",
		"header 10", "offload 0x6f", "offload 0xf", "up tap 1376 128",
		"write gso 1", "write gso 4", "write gso 5",
	}
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestOpenErrors(t *testing.T) {
	other := errors.New("other")
	for _, tt := range []struct {
		name string
		host fakeHost
		want error
		text string
	}{
		{"no device", fakeHost{openErr: unix.ENOENT}, ErrNoDevice, "load module tun or create /dev/net/tun"},
		{"no module", fakeHost{openErr: unix.ENODEV}, ErrNoDevice, "/dev/net/tun"},
		{"device node without driver", fakeHost{openErr: unix.ENXIO}, ErrNoDevice, "/dev/net/tun"},
		{"no access", fakeHost{openErr: unix.EACCES}, ErrPermission, "CAP_NET_ADMIN"},
		{"open", fakeHost{openErr: other}, other, "/dev/net/tun"},
		{"no capability", fakeHost{attachErr: unix.EPERM}, ErrPermission, "CAP_NET_ADMIN"},
		{"busy", fakeHost{attachErr: unix.EBUSY}, ErrBusy, `"tap"`},
		{"no headers", fakeHost{attachErr: unix.EINVAL}, ErrUnsupported, `"tap"`},
		{"attach", fakeHost{attachErr: other}, other, `"tap"`},
		{"header size", fakeHost{headerErr: unix.EINVAL}, ErrUnsupported, "tap"},
		{"link", fakeHost{upErr: other}, other, "tap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := open(Config{Name: "tap", Queues: 2, Log: discard()}, &tt.host)
			if d != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %v with %q", err, tt.want, tt.text)
			}
			if len(tt.host.fds) != 0 {
				t.Errorf("descriptors %v left open", tt.host.fds)
			}
		})
	}
}

// What cannot be had is named in the log once, and what was never there is not.
func TestOpenLog(t *testing.T) {
	for _, tt := range []struct {
		name string
		host fakeHost
		want []string
	}{
		{"all", fakeHost{offloads: allOffloads, version: "6.18.0", ipv6Err: fs.ErrNotExist}, nil},
		{"little", fakeHost{offloads: oldOffloads, version: "6.1.0", noMulti: true, ipv6Err: unix.EROFS},
			[]string{"no multi-queue TAP", "kernel lacks TAP offloads", "IPv6 stays enabled", "kernel loses UDP superframes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if _, err := open(Config{Name: "tap", Queues: 2, Log: log}, &tt.host); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "\n"); got != len(tt.want) {
				t.Errorf("%d lines, want %d:\n%s", got, len(tt.want), &out)
			}
			for _, w := range tt.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no line %q in:\n%s", w, &out)
				}
			}
		})
	}
}

func TestParseRelease(t *testing.T) {
	for _, tt := range []struct {
		s       string
		want    release
		atLeast bool
	}{
		{"6.18.44-fc-v445", release{6, 18, 44}, true},
		{"6.8.5", release{6, 8, 5}, true},
		{"6.8.4-amd64", release{6, 8, 4}, false},
		{"6.8.0-rc1", release{6, 8, 0}, false},
		{"6.9-rc1", release{6, 9, 0}, true},
		{"6.1.0-37-cloud-amd64", release{6, 1, 0}, false},
		{"10.0", release{10, 0, 0}, true},
		{"5.10.200+", release{5, 10, 200}, false},
		{"", release{}, false},
		{"linux", release{}, false},
	} {
		got := parseRelease(tt.s)
		if got != tt.want || got.atLeast(minWriteUSO) != tt.atLeast {
			t.Errorf("parseRelease(%q) = %v, at least 6.8.5 %v; want %v, %v", tt.s, got, got.atLeast(minWriteUSO), tt.want, tt.atLeast)
		}
	}
}

func TestFeaturesString(t *testing.T) {
	if got := (Features{}).String(); got != "none" {
		t.Errorf("no features: %q", got)
	}
	if got, want := (Features{true, true, true, true, true, true, true}).String(),
		"multi-queue,csum,tso,ecn,uso,tso-write,uso-write"; got != want {
		t.Errorf("all features: %q, want %q", got, want)
	}
}

// The probes are superframes that a sound kernel must take, with the short tail
// that the broken ones refuse.
func TestProbeFrame(t *testing.T) {
	for _, g := range []ether.GSO{ether.GSOTCPv4, ether.GSOTCPv6, ether.GSOUDPL4} {
		frame, off := probeFrame(g)
		if h := ether.Header(frame); h.Dst().IsMulticast() || h.Dst()[0]&2 == 0 || h.Src()[0]&2 == 0 {
			t.Errorf("gso %d: from %v to %v, want local unicast addresses", g, h.Src(), h.Dst())
		}
		n, err := ether.TemplateLen(frame, off)
		if err != nil || off.GSO != g {
			t.Fatalf("gso %d: %+v, %v", g, off, err)
		}
		if tail := (len(frame) - n) % int(off.Size); tail == 0 || tail > n || int(off.Size) <= n {
			t.Errorf("gso %d: tail of %d bytes behind %d of headers", g, tail, n)
		}
		var s ether.Segmenter
		if err := s.Reset(frame, off); err != nil {
			t.Fatal(err)
		}
		for {
			hdr, payload, off, ok := s.Next()
			if !ok {
				break
			}
			f := append(bytes.Clone(hdr), payload...)
			l, err := ether.Parse(f)
			if err == nil {
				err = ether.FinishChecksum(f, off)
			}
			src, dst := f[l.L3+12:l.L3+16], f[l.L3+16:l.L3+20]
			if l.IPVersion == 6 {
				src, dst = f[l.L3+8:l.L3+24], f[l.L3+24:l.L3+40]
			}
			if sum := ether.Sum(f[l.L4:l.End], ether.PseudoSum(src, dst, l.Proto, l.End-l.L4)); err != nil || sum != 0xffff {
				t.Errorf("gso %d: segment %x: sum %#x, %v", g, f[:n], sum, err)
			}
		}
	}
}
