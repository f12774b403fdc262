package paxos

import "maps"

// Clone returns a node that changes by itself, for tests that try every order.
func (n *Node) Clone() *Node {
	c := *n
	c.votes = maps.Clone(n.votes)
	return &c
}
