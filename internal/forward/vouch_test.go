package forward

import (
	"log/slog"
	"testing"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
)

func TestVouchedRefreshesAndNeverMoves(t *testing.T) {
	local, a, b := peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1}), peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2}), peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 3})
	s := &Switch{cfg: Config{Local: local, Start: time.Now(), Log: slog.New(slog.DiscardHandler)}, macs: newMACTable(), events: make(chan MACEvent, 10)}
	m, home := ether.MAC{2, 9, 9, 9, 9, 9}, ether.MAC{2, 8, 8, 8, 8, 8}
	s.learn(home, local, 0)
	for _, step := range []struct {
		mac   ether.MAC
		from  peer.Name
		owner peer.Name // afterwards
		known bool
	}{
		{m, local, peer.Name{}, false},
		{ether.Broadcast, a, peer.Name{}, false},
		{m, a, a, true},
		{m, b, a, true},
		{m, a, a, true},
		{home, b, local, true},
	} {
		s.Vouched(step.mac, step.from)
		if got, ok := s.macs.lookup(step.mac); got != step.owner || ok != step.known {
			t.Errorf("%v vouched for by %v: at %v (%v), want %v (%v)", step.mac, step.from, got, ok, step.owner, step.known)
		}
	}
	e, _ := s.macs.cur.Load().find(macKey(m))
	e.seen.Store(-500)
	s.Vouched(m, a)
	if e.seen.Load() < 0 {
		t.Error("an address that was vouched for stays old")
	}
}
