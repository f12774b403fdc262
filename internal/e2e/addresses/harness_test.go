package addresses_test

import (
	"net/netip"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

const (
	// replyLimit is by when every request for an address has its answer.
	replyLimit = 5*time.Second + processTime
	// processTime is for a command to start and end on a busy machine.
	processTime = time.Second
)

// mustReach gives a path that has just come up three tries.
func mustReach(t *testing.T, from *testnet.Namespace, to netip.Addr) {
	t.Helper()
	for range 3 {
		if harness.Reaches(from, to) {
			return
		}
	}
	t.Errorf("%s does not reach %v", from.Name, to)
}
