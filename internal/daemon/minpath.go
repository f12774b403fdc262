package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/forward"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/odp"
	"weave/sleeve"
)

// minPath is what the operator wants of all connections.
type minPath struct {
	kernel bool // the path has to be the kernel's
	refuse bool // a connection below it carries no frames
}

func parseMinPath(word string) (m minPath, err error) {
	path, action, more := strings.Cut(word, ",")
	m.kernel, m.refuse = path == "kernel", action == "refuse"
	if path != "kernel" && path != "sleeve" || more && action != "alert" && action != "refuse" {
		return m, api.Errorf(api.CodeUsage, "--min-path=%s: want sleeve, kernel, or kernel,refuse", word)
	}
	return m, nil
}

// String is the flag's word.
func (m minPath) String() string {
	switch {
	case m.kernel && m.refuse:
		return "kernel,refuse"
	case m.kernel:
		return "kernel"
	}
	return "sleeve"
}

// below reports whether a connection that is established uses a worse path.
func (m minPath) below(c mesh.ConnStatus) bool {
	return m.kernel && c.State == mesh.StateEstablished && c.Path != odp.Name
}

// possible refuses what could never carry a frame.
func (m minPath) possible(cfg *Config) error {
	if !m.kernel || !m.refuse {
		return nil
	}
	clear, sealed := decideKernel(cfg, &trial{})
	if clear.reason == "" || sealed.reason == "" {
		return nil
	}
	if cfg.Password != nil && cfg.EncryptedPath == sealedSleeve {
		return api.Errorf(api.CodeUsage, "--min-path=%s with a password would carry nothing: add --encrypted-path=kernel or auto", m)
	}
	return api.Errorf(api.CodeUsage, "--min-path=%s would carry nothing: %s", m, clear.text)
}

// gate stands between the switch and sleeve, and keeps frames from going over a path
// that is worse than the operator wants. The zero gate lets all pass.
type gate struct {
	min    minPath
	shut   atomic.Pointer[map[peer.Name]*refusals] // connections that carry nothing; nil: none
	counts atomic.Pointer[map[peer.Name]*refusals] // of all that ever did so in this run and are connected
}

// refusals counts frames that were dropped.
type refusals struct{ in, out atomic.Uint64 }

// receiver drops what comes in over a connection that carries nothing.
type receiver struct {
	*forward.Switch
	gate *gate
}

// Receive implements sleeve.Receiver.
func (r receiver) Receive(lane int, neighbour peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
	if shut := r.gate.shut.Load(); shut != nil {
		if n := (*shut)[neighbour]; n != nil {
			n.in.Add(1)
			return
		}
	}
	r.Switch.Receive(lane, neighbour, rt, off, bufs)
}

var _ sleeve.Receiver = receiver{}

// closedPath drops and counts what is sent.
type closedPath struct{ n *refusals }

// Send implements forward.Path.
func (p closedPath) Send(int, peer.Route, *ether.Superframe) { p.n.out.Add(1) }

// Relay implements forward.Path.
func (p closedPath) Relay(int, peer.Route, ether.Offload, [][]byte) { p.n.out.Add(1) }

// relayOnly takes frames from other neighbours, but none of our own.
type relayOnly struct {
	forward.Path
	n *refusals
}

// Send implements forward.Path.
func (p relayOnly) Send(int, peer.Route, *ether.Superframe) { p.n.out.Add(1) }

// setLinks decides which connections carry nothing from now on. It belongs to the
// mesh's goroutine.
func (g *gate) setLinks(links map[peer.Name][]overlay.Link) {
	if !g.min.refuse || !g.min.kernel {
		return
	}
	counts, shut := map[peer.Name]*refusals{}, map[peer.Name]*refusals{}
	old := g.refused()
	for name, l := range links {
		n := old[name]
		if n == nil {
			n = &refusals{}
		}
		counts[name] = n
		if !isKernel(l) {
			shut[name] = n
		}
	}
	g.counts.Store(&counts)
	if len(shut) == 0 {
		g.shut.Store(nil)
	} else {
		g.shut.Store(&shut)
	}
}

// path is the one to a neighbour, or what drops frames in its place.
func (g *gate) path(name peer.Name, p forward.Path) forward.Path {
	if shut := g.shut.Load(); shut != nil {
		if n := (*shut)[name]; n != nil {
			return closedPath{n}
		}
	}
	return p
}

// far is the path to a peer that has no connection with us, by the neighbour via:
// user space carries it, whatever the neighbour's path is.
func (g *gate) far(via peer.Name, p forward.Path) forward.Path {
	if n := g.refused()[via]; n != nil {
		return relayOnly{p, n}
	}
	return p
}

// refused are the counters of connections, of which some carry nothing now.
func (g *gate) refused() map[peer.Name]*refusals {
	if p := g.counts.Load(); p != nil {
		return *p
	}
	return nil
}

// frames is how many were dropped on the connection to a peer.
func (g *gate) frames(name peer.Name) uint64 {
	if n := g.refused()[name]; n != nil {
		return n.in.Load() + n.out.Load()
	}
	return 0
}

// isKernel reports whether the best of a connection's links is a kernel path.
func isKernel(links []overlay.Link) bool {
	_, ok := links[0].(*odp.Link)
	return ok
}

// degraded says what is wrong with a connection below the minimum.
func (m minPath) degraded(c mesh.ConnStatus, reason string) string {
	if m.refuse {
		return fmt.Sprintf("connection to %s carries nothing, as %s is below --min-path=%s: %s", c.NickName, c.Path, m, reason)
	}
	return fmt.Sprintf("connection to %s uses %s, below --min-path=%s: %s", c.NickName, c.Path, m, reason)
}

// minPathLook is how often connections are looked at; one that is below the minimum
// twice is told of, once.
const minPathLook = 3 * time.Second

// watchMinPath logs connections that stay below the minimum, until ctx ends.
func (d *daemon) watchMinPath(ctx context.Context) error {
	looks := map[peer.Name]int{}
	for d.gate.min.kernel && pause(ctx, minPathLook) {
		for _, c := range d.router.Status().Conns {
			if !d.gate.min.below(c) {
				if !c.Peer.IsZero() {
					delete(looks, c.Peer)
				}
				continue
			}
			if looks[c.Peer]++; looks[c.Peer] == 2 {
				d.paths.log.Warn("path below the minimum", "peer", c.Peer, "path", c.Path, "min_path", d.gate.min.String(),
					"refused", d.gate.min.refuse, "reason", d.kernel.whyNot(c))
			}
		}
	}
	return nil
}
