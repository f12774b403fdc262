package sleeve

import (
	"slices"
	"sync"
	"sync/atomic"

	"weave/sleeve/udp"
)

// strays are datagrams that came by a socket that is not their lane's: all lanes of
// two hosts share one pair of addresses and ports, and a device that joins
// datagrams (GRO) may put them into a train of another lane. They are rare and
// copied; their lane's worker takes them with its next batch.
type strays struct {
	pending atomic.Bool

	mu   sync.Mutex
	list []stray
}

type stray struct {
	datagram []byte
	from     udp.Endpoint
}

// add is called by the worker that found d. It reports false when there are too many.
func (s *strays) add(d []byte, from *udp.Endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= maxStrays {
		return false
	}
	s.list = append(s.list, stray{datagram: slices.Clone(d), from: *from})
	s.pending.Store(true)
	return true
}

// take is called by the lane's worker.
func (s *strays) take() []stray {
	if !s.pending.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	s.pending.Store(false)
	return list
}
