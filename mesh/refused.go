package mesh

import (
	"net/netip"
	"slices"
	"time"
)

const (
	maxRefused     = 32               // entries kept for Status
	refusedKeep    = 10 * time.Minute // longer than a peer's longest wait between attempts
	refusedLogTime = time.Minute
	refusedLogs    = 10 // lines per reason and refusedLogTime, at most one of each address
)

// refusedList keeps the latest inbound attempts that came to nothing. What
// strangers do costs no more memory or log than this.
type refusedList struct {
	entries []refusedEntry // oldest first, at most maxRefused
	budgets map[Reason]logBudget
}

type logBudget struct {
	since time.Time
	lines int
}

type refusedEntry struct {
	Refused
	logged time.Time
}

// add notes one and reports whether it is worth a line in the log, and how many
// were like it.
func (r *refusedList) add(now time.Time, addr netip.Addr, err *Error) (count int, log bool) {
	e := refusedEntry{Refused: Refused{Addr: addr, Reason: err.Reason}}
	i := slices.IndexFunc(r.entries, func(o refusedEntry) bool { return o.Addr == addr && o.Reason == err.Reason })
	if i >= 0 {
		e = r.entries[i]
		r.entries = slices.Delete(r.entries, i, i+1)
	} else if len(r.entries) >= maxRefused {
		r.entries = slices.Delete(r.entries, 0, 1)
	}
	e.Error, e.Last = err.Error(), now
	e.Count++
	if log = (e.logged.IsZero() || now.Sub(e.logged) >= refusedLogTime) && r.spend(now, err.Reason); log {
		e.logged = now
	}
	r.entries = append(r.entries, e)
	return e.Count, log
}

// spend takes a line off the budget of a reason.
func (r *refusedList) spend(now time.Time, reason Reason) bool {
	if r.budgets == nil {
		r.budgets = map[Reason]logBudget{}
	}
	b := r.budgets[reason]
	ok := b.take(now)
	r.budgets[reason] = b
	return ok
}

// take takes a line if there is one left.
func (b *logBudget) take(now time.Time) bool {
	if now.Sub(b.since) >= refusedLogTime {
		*b = logBudget{since: now}
	}
	b.lines++
	return b.lines <= refusedLogs
}

// forget drops what is known of an address, since a peer there was admitted.
func (r *refusedList) forget(addr netip.Addr) {
	r.entries = slices.DeleteFunc(r.entries, func(e refusedEntry) bool { return e.Addr == addr })
}

// snapshot lists the recent ones, newest first.
func (r *refusedList) snapshot(now time.Time) []Refused {
	out := make([]Refused, 0, len(r.entries))
	for _, e := range slices.Backward(r.entries) {
		if now.Sub(e.Last) < refusedKeep {
			out = append(out, e.Refused)
		}
	}
	return out
}

func (l *loop) refusedInbound(addr netip.Addr, err *Error) {
	l.counters.InboundRefused[err.Reason]++
	if count, log := l.refused.add(time.Now(), addr, err); log {
		l.r.log.Warn("connection refused", "addr", addr, "outbound", false, "reason", err.Reason, "err", err, "count", count)
	}
}
