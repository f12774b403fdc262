package mesh

import (
	"crypto/ed25519"

	"weave/mesh/topo"
)

// SetVerify replaces the check of the signatures of topology records, before Run.
func SetVerify(r *Router, f func(key topo.Key, msg, sig []byte) bool) { r.verify = f }

// TopologyDigest sums up what the router knows of the network.
func TopologyDigest(r *Router) (sum string) {
	r.wait(func(l *loop) { sum = string(l.topo.Digest()) })
	return sum
}

// SignMark is the mark of the key that the router signs its records with.
func SignMark(r *Router) topo.Mark { return topo.Key(r.sign.Public().(ed25519.PublicKey)).Mark() }

// Announcements is the version of the router's own record.
func Announcements(r *Router) (n uint64) {
	r.wait(func(l *loop) { n = l.topo.Local().Version })
	return n
}

// Press makes all connections such as were had by pressing.
func Press(r *Router) {
	r.wait(func(l *loop) {
		for _, c := range l.conns {
			c.pressed = true
		}
	})
}
