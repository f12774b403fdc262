package vxlan_test

import (
	"log/slog"
	"strings"
	"testing"

	"weave/internal/testnet/odplab"
	"weave/odp"
	"weave/odp/odptest"
	"weave/odp/vxlan"
)

func TestConformance(t *testing.T) {
	odptest.Run(t, odptest.Config{
		Hosts: odplab.Hosts,
		Open: func(h *odptest.Host, adopt bool) (odp.Backend, error) {
			return vxlan.Open(vxlan.Config{
				Bridge: odptest.Bridge, Local: h.Name, MTU: odptest.MTU, Port: odptest.Port, Adopt: adopt,
				Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name.String()),
			})
		},
		Break: func(h *odptest.Host) error {
			_, err := h.Run("ip", "link", "del", "weavevx")
			return err
		},
		Occupy: odptest.TakeVXLANPort,
		Remains: func(h *odptest.Host) string {
			out, _ := h.Run("ip", "-br", "link", "show", "type", "vxlan")
			rules, _ := h.Run("nft", "list", "ruleset")
			return strings.TrimSpace(out + rules)
		},
	})
}
