package daemon

import (
	"maps"
	"sync"

	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/odp"
)

// change is a change of the path that a connection uses.
type change struct{ to, reason string }

// count counts changes.
type count struct {
	mu      sync.Mutex
	changes map[change]uint64
}

func (c *count) add(ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == nil {
		c.changes = map[change]uint64{}
	}
	c.changes[ch]++
}

func (c *count) all() map[change]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.changes)
}

// follow compares the path of each connection with the one before. old are the links
// of the view before, which know why they are down.
func (p *pathLog) follow(old, v mesh.View) {
	if p.now == nil {
		p.now = map[peer.Name]string{}
	}
	for name := range p.now {
		if len(v.Links[name]) == 0 {
			delete(p.now, name) // the mesh tells of connections
		}
	}
	for name, links := range v.Links {
		to := links[0].Status().Path
		from, had := p.now[name]
		if from == to {
			continue
		}
		p.now[name] = to
		reason := "proven"
		for _, l := range old.Links[name] {
			if st := l.Status(); st.Path == from && !st.Up && st.Reason != "" {
				reason = st.Reason
			}
		}
		p.add(change{to, reason})
		log := p.log.Info
		if reason != "proven" {
			log = p.log.Warn
		}
		if had {
			log("path changed", "peer", name, "from", from, "to", to, "reason", reason)
			if p.min == minKernel && from == odp.Name {
				p.log.Warn("path below the minimum", "peer", name, "path", to, "min_path", p.min, "reason", reason)
			}
		}
	}
}

// Values of Config.MinPath.
const (
	minKernel = "kernel"
	minSleeve = "sleeve"
)

// belowMin reports whether a connection that is established uses a worse path than
// the operator wants to hear of.
func belowMin(min string, c mesh.ConnStatus) bool {
	return min == minKernel && c.State == mesh.StateEstablished && c.Path != odp.Name
}

// whyNot returns the reason why a connection does not use the kernel path, "" if it
// does.
func whyNot(c mesh.ConnStatus, off *reasonedPath) string {
	for _, l := range c.Links {
		if l.Path == odp.Name {
			return l.Reason
		}
	}
	if off != nil {
		return off.reason
	}
	return overlay.ReasonNotOffered
}
