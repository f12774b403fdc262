package daemon

import (
	"log/slog"
	"maps"
	"sync"

	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/odp"
	"weave/sleeve"
)

// pathLog tells of the path that each connection uses: it logs and counts changes. It
// belongs to the mesh's goroutine, but for what metrics read.
type pathLog struct {
	log *slog.Logger
	now map[peer.Name]string
	count
}

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

// usualChanges are those that can be expected, so that metrics have them before.
func usualChanges() []change {
	out := []change{{odp.Name, "proven"}, {sleeve.Name, "proven"}}
	for _, reason := range []string{odp.ReasonTimeout, odp.ReasonDevice, odp.ReasonPort, odp.ReasonRoute, odp.ReasonMTU, odp.ReasonFilter} {
		out = append(out, change{sleeve.Name, reason})
	}
	return out
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
		}
	}
}

// whyNot returns the reason why a connection does not use a kernel path, "" if it
// does. Of the two paths the one counts that the connection could have.
func (k *kernelPaths) whyNot(c mesh.ConnStatus) string {
	if c.Path == odp.Name && c.State == mesh.StateEstablished {
		return ""
	}
	name := odp.Name
	if c.Encrypted && k.sealed.off.reason != odp.ReasonOff {
		name = odp.SealedName
	}
	return k.pathReason(c, name)
}

// pathReason returns why a connection does not have a path of that name now.
func (k *kernelPaths) pathReason(c mesh.ConnStatus, name string) string {
	for _, l := range c.Links {
		if word, _ := pathWord(l); word == name {
			return l.Reason
		}
	}
	p := k.of(name == odp.SealedName)
	if p.off.reason != "" {
		return p.off.reason
	}
	return overlay.ReasonNotOffered
}

// pathWord tells the kernel paths of a connection's links apart: links themselves say
// odp.Name for both.
func pathWord(l overlay.Status) (name string, isLink bool) {
	if l.Path == odp.Name && l.Cipher != session.CipherNone {
		return odp.SealedName, true
	}
	return l.Path, l.Remote.IsValid()
}
