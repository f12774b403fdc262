package ovs

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"weave/internal/testnet"
	"weave/internal/testnet/odplab"
	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/odptest"
	"weave/odp/ovs/wire"
	"weave/odp/vxlan"
)

func config(t *testing.T, h *odptest.Host, adopt bool) Config {
	return Config{
		Bridge: odptest.Bridge, Local: h.Name, MTU: odptest.MTU, Port: odptest.Port, Adopt: adopt,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name.String()),
	}
}

// within runs fn with a client of the host's datapath.
func within(h *odptest.Host, fn func(*client, wire.Datapath) error) error {
	return h.In(func() error {
		host, err := keeper.OpenHost()
		if err != nil {
			return err
		}
		defer host.Close()
		c, err := dial(host)
		if err != nil {
			return err
		}
		defer c.close()
		dp, err := c.getDatapath(datapathName)
		if err != nil {
			return err
		}
		return fn(c, dp)
	})
}

func deleteDatapath(h *odptest.Host) error {
	return within(h, func(c *client, dp wire.Datapath) error {
		return c.tell(c.datapath, wire.CmdDel, &wire.Datapath{Name: datapathName})
	})
}

func suite(open func(t *testing.T, h *odptest.Host, adopt bool) (odp.Backend, error)) func(*testing.T) odptest.Config {
	return func(t *testing.T) odptest.Config {
		return odptest.Config{
			Hosts: odplab.Hosts,
			Open:  func(h *odptest.Host, adopt bool) (odp.Backend, error) { return open(t, h, adopt) },
			Break: deleteDatapath,
			Occupy: func(h *odptest.Host) (func() error, error) {
				_, err := h.Run("ip", "link", "add", "other", "type", "vxlan", "id", "77", "gbp", "dstport", fmt.Sprint(odptest.Port))
				_, err2 := h.Run("ip", "link", "set", "other", "up")
				return func() error {
					_, err := h.Run("ip", "link", "del", "other")
					return err
				}, errors.Join(err, err2)
			},
			Remains: func(h *odptest.Host) string {
				out, _ := h.Run("ip", "-br", "link", "show", "type", "vxlan")
				dps, _ := h.Run("ip", "-br", "link", "show", "type", "openvswitch")
				rules, _ := h.Run("nft", "list", "ruleset")
				return strings.TrimSpace(out + dps + rules)
			},
		}
	}
}

func TestConformance(t *testing.T) {
	testnet.NeedModule(t, "openvswitch")
	odptest.Run(t, suite(func(t *testing.T, h *odptest.Host, adopt bool) (odp.Backend, error) {
		return Open(config(t, h, adopt))
	})(t))
}

var _ = vxlan.Open
