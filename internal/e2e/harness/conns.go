package harness

import (
	"net/netip"
	"testing"
	"time"

	"weave/internal/api"
)

// Member is a Node, or what has one embedded.
type Member interface{ node() *Node }

func (n *Node) node() *Node { return n }

// Underlay is the host's address on the underlay: the IPv4 one unless it has none.
func (n *Node) Underlay() netip.Addr {
	if n.IP4.IsValid() {
		return n.IP4
	}
	return n.IP6
}

// Conns lists the host's connections; none if the daemon does not answer.
func (n *Node) Conns() []api.Connection {
	return Ask(n.Host, (*api.Client).Connections).Connections
}

// Established counts the host's connections that carry data; 0 if its daemon does not
// answer.
func (n *Node) Established() (count int) {
	for _, c := range n.Conns() {
		if c.State == api.StateEstablished {
			count++
		}
	}
	return count
}

// connected reports whether there is an established connection to a peer of that
// nickname.
func connected(conns []api.Connection, nickname string) (api.Connection, bool) {
	for _, c := range conns {
		if c.NickName == nickname && c.State == api.StateEstablished {
			return c, true
		}
	}
	return api.Connection{}, false
}

// To returns the connection to another host's peer, if there is an established one.
func (n *Node) To(o Member) (api.Connection, bool) {
	return connected(n.Conns(), o.node().Label)
}

// LinkMTU is the MTU that the connection to another host has by this one's own word; 0 if
// there is none.
func (n *Node) LinkMTU(o Member) int {
	c, _ := n.To(o)
	return c.MTU
}

// Underlays are the addresses of hosts, as arguments of launch.
func Underlays[M Member](members ...M) (out []string) {
	for _, m := range members {
		out = append(out, m.node().Underlay().String())
	}
	return out
}

// Joined waits until every host has a working connection to every other.
func Joined[M Member](t testing.TB, members ...M) time.Duration {
	t.Helper()
	return Within(t, JoinLimit, "all connections", func() bool {
		for _, m := range members {
			conns := m.node().Conns()
			for _, o := range members {
				if _, ok := connected(conns, o.node().Label); !ok && o.node() != m.node() {
					return false
				}
			}
		}
		return true
	})
}
