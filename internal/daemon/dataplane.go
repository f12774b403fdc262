package daemon

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"weave/internal/forward"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/sleeve"
	"weave/sleeve/udp"
	"weave/tun"
)

// tapName is the router's port on the bridge.
const tapName = "weavetap"

// dataplane is the TAP device, the sockets, and the switch between them.
type dataplane struct {
	tap  *tun.Device
	net  *sleeve.UDPNetwork
	ov   *sleeve.Overlay
	sw   *forward.Switch
	gate gate

	gen atomic.Uint64 // of the last snapshot
}

// openDataplane opens TAP and sockets and joins them; nothing moves before its
// parts run. On failure nothing stays open.
func openDataplane(cfg *Config, local peer.Name, onMAC func(forward.MACEvent)) (_ *dataplane, err error) {
	dp := &dataplane{}
	if dp.gate.min, err = parseMinPath(cfg.MinPath); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			dp.close()
		}
	}()
	if dp.tap, err = tun.Open(tun.Config{Name: tapName, Queues: cfg.Lanes, MTU: cfg.MTU, Log: cfg.Log.With("part", "tun")}); err != nil {
		return nil, fmt.Errorf("opening the TAP device: %w", err)
	}
	// One socket per queue the TAP really has: each RX worker writes to its own.
	queues := dp.tap.Queues()
	group, err := udp.Listen(udp.Config{Addr: cfg.Host, Port: cfg.Port, Sockets: queues, Log: cfg.Log.With("part", "udp")})
	if err != nil {
		return nil, fmt.Errorf("opening the UDP port: %w", err)
	}
	if dp.net, err = sleeve.UDP(group, 0); err != nil {
		group.Close()
		return nil, err
	}
	cfg.Lanes = dp.net.Lanes() // what we can receive on, fewer if the kernel cannot steer
	ports := make([]forward.Port, 0, queues)
	var back []forward.Writer
	for q := range queues {
		ports = append(ports, dp.tap.Queue(q))
		back = append(back, dp.tap.Queue(q).NewWriter())
	}
	dp.sw, err = forward.New(forward.Config{
		Local: local, Ports: ports, Back: back, Flush: func(lane int) { dp.ov.Flush(lane) }, OnMAC: onMAC,
		Log: cfg.Log.With("part", "switch"), Start: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	dp.ov, err = sleeve.New(sleeve.Config{
		Network: dp.net, Receiver: receiver{dp.sw, &dp.gate}, Log: cfg.Log.With("part", "sleeve"),
		Lanes: len(ports), MTU: cfg.MTU, TooBig: dp.sw.TooBig,
		RekeyAfter: cfg.RekeyAfter,
	})
	return dp, err
}

// close frees the devices; the parts must not be running.
func (dp *dataplane) close() {
	if dp.net != nil {
		dp.net.Close()
	}
	if dp.tap != nil {
		dp.tap.Close()
	}
}

// setView turns what the mesh knows into what the switch forwards by.
func (dp *dataplane) setView(v mesh.View, log *slog.Logger) {
	dp.gate.setLinks(v.Links)
	hops, far := map[peer.Name][]forward.Hop{}, map[peer.Name][]forward.Hop{}
	for name, links := range v.Links {
		if p := pathOf(links); p != nil {
			p = dp.gate.path(name, p)
			hops[name] = []forward.Hop{{Peer: name, Path: p}}
			far[name] = []forward.Hop{{Peer: name, Path: dp.gate.far(name, p)}}
		}
	}
	snap := &forward.Snapshot{
		Generation: dp.gen.Add(1),
		Local:      v.Local,
		Unicast:    map[peer.Name][]forward.Hop{},
		Broadcast:  map[peer.Name][]forward.Hop{},
		Parent:     v.Routes.Parent,
	}
	for dest, via := range v.Routes.Unicast {
		if dest == via && hops[via] != nil {
			snap.Unicast[dest] = hops[via]
		} else if far[via] != nil {
			snap.Unicast[dest] = far[via]
		}
	}
	for origin, vias := range v.Routes.Broadcast {
		for _, via := range vias {
			snap.Broadcast[origin] = append(snap.Broadcast[origin], hops[via]...)
		}
	}
	dp.sw.SetRoutes(snap)
	log.Debug("routes changed", "generation", snap.Generation, "peers", len(snap.Unicast))
}

// pathOf picks the best link that takes frames from user space.
func pathOf(links []overlay.Link) forward.Path {
	for _, l := range links {
		if p, ok := l.(forward.Path); ok {
			return p
		}
	}
	return nil
}
