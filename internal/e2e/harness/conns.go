package harness

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weave/internal/api"
)

// Member is a Node, or what has one embedded.
type Member interface{ node() *Node }

func (n *Node) node() *Node { return n }

// Via is an underlay address of the host, for a launch or connect on another one: IPv4
// for even numbers, IPv6 for odd ones, unless it has only one. Who numbers the
// connections of a lab gets a mesh of both families, and each way of several hops uses
// both.
func (n *Node) Via(i int) string {
	if n.IP4.IsValid() && (i%2 == 0 || !n.IP6.IsValid()) {
		return n.IP4.String()
	}
	return n.IP6.String()
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

// Underlays are the addresses of hosts, of both families in turn, as arguments of launch.
func Underlays[M Member](members ...M) (out []string) {
	for i, m := range members {
		out = append(out, m.node().Via(i))
	}
	return out
}

// Earlier are addresses of those hosts that come before one, as arguments of its launch.
// Of any three hosts, two pairs are joined over the one family and one over the other.
func Earlier[M Member](member M, of []M) (out []string) {
	at := slices.IndexFunc(of, func(m M) bool { return m.node() == member.node() })
	for i, m := range of[:at] {
		out = append(out, m.node().Via(i+at-1))
	}
	return out
}

// Families counts the hosts' connections over IPv4 and over IPv6, each at the end that
// dialed.
func Families[M Member](members ...M) (v4, v6 int) {
	for _, m := range members {
		for _, c := range m.node().Conns() {
			at, err := netip.ParseAddrPort(c.Address)
			switch {
			case err != nil || !c.Outbound || c.State != api.StateEstablished:
			case at.Addr().Is4():
				v4++
			default:
				v6++
			}
		}
	}
	return v4, v6
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
