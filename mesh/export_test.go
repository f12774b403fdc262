package mesh

import "weave/mesh/topo"

// SetVerify replaces the check of the signatures of topology records, before Run.
func SetVerify(r *Router, f func(key topo.Key, msg, sig []byte) bool) { r.verify = f }

// TopologyDigest sums up what the router knows of the network.
func TopologyDigest(r *Router) (sum string) {
	r.wait(func(l *loop) { sum = string(l.topo.Digest()) })
	return sum
}

// Announcements is the version of the router's own record.
func Announcements(r *Router) (n uint64) {
	r.wait(func(l *loop) { n = l.topo.Local().Version })
	return n
}
