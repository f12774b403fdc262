package harness

import (
	"sync"
	"testing"
	"time"
)

// startLimit is within what time many daemons that start at once have to answer, each
// of which needs the processor for its password.
const startLimit = 30 * time.Second

// LaunchAll starts a daemon on each site, all at the same time, with arguments that may
// differ, and attaches the containers.
func LaunchAll(t testing.TB, sites []*Site, args func(*Site) []string) {
	t.Helper()
	for _, s := range sites {
		s.Begin(args(s)...)
	}
	for _, s := range sites {
		Within(t, startLimit, "an answer of "+s.Label, s.Ready)
	}
	var all sync.WaitGroup
	for _, s := range sites {
		all.Go(s.Attach)
	}
	all.Wait()
}

// Meet waits until every container reaches every other at both of its addresses, and
// returns how long the last one took. Each round costs one small datagram per pair and
// address.
func Meet(t testing.TB, limit time.Duration, sites ...*Site) time.Duration {
	t.Helper()
	return newMeeting(t, sites).all(limit)
}
