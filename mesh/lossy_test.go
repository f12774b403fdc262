package mesh_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/sleeve"
	"weave/sleeve/sleevetest"
)

// The relay between two hosts that join loses and damages that share of the packets,
// both ways, but not more than so many in a row.
const (
	lossyLoss    = 0.3
	lossyCorrupt = 0.3
	lossyBurst   = 3
	lossyLimit   = 60 * time.Second // for a join
)

// sleeveOn gives host i the real overlay, on a network for its datagrams.
func (w *world) sleeveOn(net *sleevetest.Net, i int) option {
	w.t.Helper()
	ov, err := sleeve.New(sleeve.Config{
		Network:  net.Host(netip.AddrPortFrom(netip.MustParseAddr(addrOf(i)), 6783), 1),
		Receiver: nobody{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { ov.Run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
	return func(c *mesh.Config) { c.Overlays = []overlay.Overlay{ov} }
}

type nobody struct{}

func (nobody) Receive(int, peer.Name, peer.Route, ether.Offload, [][]byte) {}

// TestLossyJoins: every host joins another through a relay that loses 30 % of the
// packets and damages 30 %: TCP's checksum turns damage into loss, the sleeve's
// authentication does. Control connections and links are the production code.
//
//	WEAVE_JOINS=1000 go test -run TestLossyJoins -v -timeout 60m ./mesh
func TestLossyJoins(t *testing.T) {
	joins := 50
	if n, err := strconv.Atoi(os.Getenv("WEAVE_JOINS")); err == nil {
		joins = n
	}
	first := uint64(time.Now().UnixNano())
	var took []time.Duration
	for i := range joins {
		seed := first + uint64(i)
		inWorld(t, func(w *world) {
			w.net.SetLoss(seed, 1-(1-lossyLoss)*(1-lossyCorrupt), lossyBurst)
			data := sleevetest.NewNet(seed)
			data.SetFaults(sleevetest.Faults{Loss: lossyLoss, Corrupt: lossyCorrupt})
			start := time.Now()
			a := w.start(1, psk(pskRight), w.sleeveOn(data, 1))
			b := w.start(2, psk(pskRight), w.sleeveOn(data, 2), targets(addrOf(1)))
			for a.view().Links[b.name] == nil || b.view().Links[a.name] == nil {
				if time.Since(start) > lossyLimit {
					w.t.Fatalf("seed %d: not joined: %+v\n%+v", seed, a.Status().Conns, b.Status().Conns)
				}
				w.run(50 * time.Millisecond)
			}
			took = append(took, time.Since(start))
		})
		if t.Failed() {
			return
		}
	}
	slices.Sort(took)
	t.Logf("%d joins of %d: half within %v, 99 %% within %v, all within %v", len(took), joins,
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}
