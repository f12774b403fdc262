package mesh

import (
	"net/netip"
	"slices"
	"time"
)

const (
	maxRefused    = 32          // entries kept for Status
	refusedLogged = time.Minute // at most one line per entry and this time
)

// refusedList keeps the latest inbound attempts that came to nothing, oldest
// first. What strangers do costs no more memory or log than this.
type refusedList []refusedEntry

type refusedEntry struct {
	Refused
	logged time.Time
}

// add notes one and reports whether it is worth a line in the log, with all that
// were like it.
func (r *refusedList) add(now time.Time, addr netip.Addr, err *Error) (count int, log bool) {
	e := refusedEntry{Refused: Refused{Addr: addr, Reason: err.Reason}}
	i := slices.IndexFunc(*r, func(o refusedEntry) bool { return o.Addr == addr && o.Reason == err.Reason })
	if i >= 0 {
		e = (*r)[i]
		*r = slices.Delete(*r, i, i+1)
	} else if len(*r) >= maxRefused {
		*r = slices.Delete(*r, 0, 1)
	}
	e.Error, e.Last = err.Error(), now
	e.Count++
	log = e.logged.IsZero() || now.Sub(e.logged) >= refusedLogged
	if log {
		e.logged = now
	}
	*r = append(*r, e)
	return e.Count, log
}

func (r refusedList) snapshot() []Refused {
	out := make([]Refused, 0, len(r))
	for _, e := range slices.Backward(r) {
		out = append(out, e.Refused)
	}
	return out
}

func (l *loop) refusedInbound(addr netip.Addr, err *Error) {
	l.counters.InboundRefused[err.Reason]++
	if count, log := l.refused.add(time.Now(), addr, err); log {
		l.r.log.Warn("connection refused", "addr", addr, "outbound", false, "reason", err.Reason, "err", err, "count", count)
	}
}
