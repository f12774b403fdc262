package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// addressMetrics are those of addresses and names. Without allocation its own are
// absent.
type addressMetrics struct {
	ips, maxIPs, unreachable, unreachablePart, claims, allocations, dropped *prometheus.Desc
	entries, questions, ignored, upstream                                   *prometheus.Desc
}

func newAddressMetrics() *addressMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weave_"+name, help, labels, nil)
	}
	return &addressMetrics{
		ips:             desc("ips", "Addresses: local-used are in use on this host, local-free may be handed out here.", "state"),
		maxIPs:          desc("max_ips", "Addresses in the allocation range."),
		unreachable:     desc("ipam_unreachable_count", "Peers that own addresses and cannot be reached."),
		unreachablePart: desc("ipam_unreachable_percentage", "Part of the range that belongs to peers that cannot be reached."),
		claims:          desc("ipam_pending_claims", "Claims of given addresses that wait."),
		allocations:     desc("ipam_pending_allocates", "Requests for an address that wait."),
		dropped:         desc("ipam_dropped_messages_total", "Messages about addresses that were dropped as there was too much to do; they are repeated."),
		entries:         desc("dns_entries", "Names of this host."),
		questions:       desc("dns_questions_total", "Questions by how they ended.", "result"),
		ignored:         desc("dns_drops_total", "Questions that got no answer, by reason.", "reason"),
		upstream:        desc("dns_upstream_total", "Asking other servers: asked is attempts, cached and joined questions that needed none, forged replies that did not match, suspect questions moved to TCP for that, silent servers.", "event"),
	}
}

// statusTime bounds how long a scrape waits for the allocator.
const statusTime = time.Second

func (m *addressMetrics) collect(d *daemon, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	gauge(m.entries, float64(d.names.own()))
	counts := d.names.srv.Counts()
	for result, n := range counts.Results {
		counter(m.questions, n, result)
	}
	for reason, n := range counts.Drops {
		counter(m.ignored, n, reason)
	}
	for event, n := range counts.Upstream {
		counter(m.upstream, n, event)
	}
	if d.addrs.alloc == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTime)
	defer cancel()
	s, err := d.addrs.alloc.Status(ctx)
	if err != nil {
		return
	}
	gauge(m.ips, float64(s.Active), "local-used")
	gauge(m.ips, float64(s.Free), "local-free")
	gauge(m.maxIPs, float64(s.RangeSize))
	lost := 0
	for _, sh := range s.Shares {
		if !sh.Reachable {
			lost++
		}
	}
	gauge(m.unreachable, float64(lost))
	gauge(m.unreachablePart, 100*float64(s.Unreachable)/float64(s.RangeSize))
	gauge(m.claims, float64(len(s.PendingClaims)))
	gauge(m.allocations, float64(len(s.PendingAllocations)))
	counter(m.dropped, d.addrs.alloc.Dropped())
}
