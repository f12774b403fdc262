package odptest

import (
	"testing"

	"weave/odp"
)

// Pair is two hosts whose backends carry each other's container, for tests of one kind
// of backend.
type Pair struct{ ends [2]*end }

// Connect makes a Pair, which lasts as long as the test.
func Connect(t *testing.T, c Config, o Options) *Pair {
	t.Helper()
	a, b := c.connected(t, o)
	return &Pair{[2]*end{a, b}}
}

// Host returns the first (0) or second (1) host.
func (p *Pair) Host(i int) *Host { return p.ends[i].Host }

// Backend returns that of the first (0) or second (1) host.
func (p *Pair) Backend(i int) odp.Backend { return p.ends[i].be }

// Pings reports whether all of n pings of size bytes of IP from the first host's
// container to the second's came back.
func (p *Pair) Pings(n, size int) bool { return p.ends[0].pings(p.ends[1], n, size) }

// Carries is Pings with a few tries, for a busy machine.
func (p *Pair) Carries(n, size int) bool { return p.ends[0].carries(p.ends[1], n, size) }
