package cage_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weave/internal/testnet"
	"weave/internal/testnet/odplab"
	"weave/odp"
	"weave/odp/cage"
	"weave/odp/keeper"
	"weave/odp/odptest"
)

const (
	device = "weavecage"
	wg     = "weavewg"
)

// inside runs a command in a host's cage.
func inside(h *odptest.Host, args ...string) (string, error) {
	return h.Run(append([]string{"ip", "netns", "exec", filepath.Base(cage.PathOf(h.In))}, args...)...)
}

// hosts leave no cage behind.
func hosts(t *testing.T, o odptest.Options) (a, b *odptest.Host) {
	t.Helper()
	a, b = odplab.Hosts(t, o)
	leaveNothing(t, a, b)
	return a, b
}

func leaveNothing(t *testing.T, hosts ...*odptest.Host) {
	for _, h := range hosts {
		t.Cleanup(func() {
			if err := h.In(cage.Remove); err != nil {
				t.Errorf("removing: %v", err)
			}
		})
	}
}

func open(t *testing.T, h *odptest.Host, adopt bool) (*cage.Backend, error) {
	return cage.Open(cage.Config{
		Bridge: odptest.Bridge, Local: h.Name, MTU: odptest.MTU, Port: odptest.Port, Adopt: adopt,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name.String()),
	})
}

// breakages are all that can be taken away.
var breakages = []struct {
	name string
	do   func(h *odptest.Host) error
}{
	{"port", func(h *odptest.Host) error { return second(h.Run("ip", "link", "del", device)) }},
	{"impostor", impostor},
	{"down", func(h *odptest.Host) error { return second(inside(h, "ip", "link", "set", wg, "down")) }},
	{"address", func(h *odptest.Host) error { return second(inside(h, "ip", "addr", "flush", "dev", wg)) }},
	{"wireguard", func(h *odptest.Host) error { return second(inside(h, "ip", "link", "del", wg)) }},
	{"namespace", noNamespace},
}

func noNamespace(h *odptest.Host) error {
	return second(h.Run("ip", "netns", "del", filepath.Base(cage.PathOf(h.In))))
}

// impostor puts a device of the name there whose socket is in the host: it would send
// in clear. A mending daemon may be faster.
func impostor(h *odptest.Host) (err error) {
	add := fmt.Sprintf("ip link del %s; ip link add %s type vxlan id %d dstport 4789 nolearning local %v",
		device, device, keeper.VNI, cage.AddressOf(h.Name))
	for range 20 {
		if _, err = h.Run("sh", "-c", add); err == nil {
			return nil
		}
	}
	return err
}

func second(_ string, err error) error { return err }

func suite(t *testing.T) odptest.Config {
	return odptest.Config{
		Hosts: hosts,
		Open: func(h *odptest.Host, adopt bool) (odp.Backend, error) {
			b, err := open(t, h, adopt)
			if err != nil {
				return nil, err
			}
			return b, nil
		},
		Break: noNamespace,
		Occupy: func(h *odptest.Host) (func() error, error) {
			var c net.PacketConn
			err := h.In(func() (err error) {
				c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", odptest.Port))
				return err
			})
			if err != nil {
				return nil, err
			}
			return c.Close, nil
		},
		Remains: func(h *odptest.Host) string {
			out, _ := h.Run("ip", "-br", "link", "show", "type", "vxlan")
			if _, err := os.Stat(cage.PathOf(h.In)); err == nil {
				out += cage.PathOf(h.In)
			}
			return strings.TrimSpace(out)
		},
		Sealed: &odptest.Sealed{
			Offer:  func(b odp.Backend) []byte { return b.(*cage.Backend).OfferData() },
			Inside: func(h *odptest.Host) netip.Addr { return cage.AddressOf(h.Name) },
		},
	}
}

func TestConformance(t *testing.T) {
	testnet.NeedModule(t, "wireguard")
	odptest.Run(t, suite(t))
}

func TestProbe(t *testing.T) {
	testnet.NeedModule(t, "wireguard")
	if err := cage.Probe(); err != nil {
		t.Error(err)
	}
}

// Without the module there is a reason, and nothing that stays.
func TestNoModule(t *testing.T) {
	testnet.NeedNoModule(t, "wireguard")
	if got := odp.ReasonOf(cage.Probe()); got != odp.ReasonNoWG {
		t.Errorf("probe: reason %q, want %q", got, odp.ReasonNoWG)
	}
	a, b := hosts(t, odptest.Options{})
	c := suite(t)
	if err := a.In(func() error {
		be, err := open(t, a, true)
		if err != nil {
			return err
		}
		defer be.Close()
		be.AddPeer(odp.Peer{Name: b.Name, Addr: netip.AddrPortFrom(b.Addr, odptest.Port), Data: strings.Repeat("k", 32), PSK: [32]byte{1}})
		if got := odp.ReasonOf(be.State(b.Name).Err); got != odp.ReasonNoWG {
			t.Errorf("reason %q, want %q (%v)", got, odp.ReasonNoWG, be.State(b.Name).Err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if left := c.Remains(a); left != "" {
		t.Errorf("left: %s", left)
	}
}
