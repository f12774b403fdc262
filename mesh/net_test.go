package mesh_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/crypto/handshake"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/mesh/overlay/overlaytest"
)

// Two routers on the real network of this host.
func TestSystemNet(t *testing.T) {
	changed := make(chan mesh.View, 100)
	start := func(i int, host string, targets ...string) (*mesh.Router, func()) {
		k, err := handshake.NewStaticKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := mesh.New(mesh.Config{
			Name: nameOf(i), Static: k, PSK: pskRight, Host: netip.MustParseAddr(host), Port: 16783, Targets: targets,
			Ciphers: ciphers, Lanes: 1,
			Overlays: []overlay.Overlay{overlaytest.New(overlay.Path{Name: "sleeve", Port: 16783})},
			OnChange: func(v mesh.View) {
				if i == 2 {
					changed <- v
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.Targets() // returns when it listens
		return r, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	a, stopA := start(1, "127.0.0.1")
	_, stopB := start(2, "127.0.0.2", "127.0.0.1")
	defer stopB()
	wait := func(links int) mesh.View {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			select {
			case v := <-changed:
				if len(v.Links) == links {
					return v
				}
			case <-timeout:
				t.Fatalf("never %d links", links)
			}
		}
	}
	wait(0) // the first view
	v := wait(1)
	if p := v.Links[nameOf(1)][0].(*overlaytest.Link).Params; p.RemoteAddr.String() != "127.0.0.1:16783" || p.LocalAddr.String() != "127.0.0.2" {
		t.Errorf("link from %v to %v", p.LocalAddr, p.RemoteAddr)
	}
	if s := a.Status(); s.Port != 16783 || len(s.Conns) != 1 {
		t.Errorf("status %+v", s)
	}
	stopA()
	wait(0)
}

func TestSystemResolve(t *testing.T) {
	addrs, err := mesh.SystemNet().Resolve(t.Context(), "localhost")
	if err != nil || len(addrs) == 0 || !addrs[0].IsLoopback() {
		t.Errorf("localhost: %v, %v", addrs, err)
	}
}

// Both ends of a connection have the options that help where packets are lost.
func TestSocketOptions(t *testing.T) {
	n := mesh.SystemNet()
	l, err := n.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := n.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for end, c := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
		rc, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			for option, want := range map[int]int{
				unix.TCP_USER_TIMEOUT: int(mesh.DeadAfter.Milliseconds()), unix.TCP_THIN_LINEAR_TIMEOUTS: 1, unix.TCP_NODELAY: 1,
			} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); got != want || err != nil {
					t.Errorf("%s: option %d is %d, %v, want %d", end, option, got, err, want)
				}
			}
		})
	}
}

// What is left of a connection that was dialed from the port that others dial does not
// keep the next daemon from listening there.
func TestListenAfterDialingFromPort(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	n := mesh.SystemNet()
	own := netip.MustParseAddrPort("127.0.0.7:0")
	l, err := n.Listen(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	own = netip.MustParseAddrPort(l.Addr().String())
	c, err := n.Dial(t.Context(), own, netip.MustParseAddrPort(far.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.LocalAddr().String(); got != own.String() {
		t.Errorf("dialed from %s, want %v", got, own)
	}
	c.Close()
	l.Close()
	l, err = n.Listen(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
