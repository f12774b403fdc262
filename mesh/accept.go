package mesh

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/ratelimiter"
)

// Bounds of connections that are not admitted yet. When one is reached the oldest
// goes: an honest handshake takes milliseconds, so it is a stalled one.
const (
	maxStrangers          = 64
	maxStrangersPerSource = 8
	acceptRetry           = 100 * time.Millisecond // after an error such as too many open files
)

// accept serves each connection that the gate lets in, until lis is
// closed.
func (r *Router) accept(ctx context.Context, lis net.Listener, g *gate, tasks *sync.WaitGroup) {
	for {
		nc, err := lis.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			r.log.Warn("accepting connections", "err", err)
			select {
			case <-time.After(acceptRetry):
			case <-ctx.Done():
				return
			}
			continue
		}
		s := r.newSocket(nc, 0)
		refused := g.enter(s)
		if refused != nil {
			nc.Close()
		} else {
			tasks.Go(func() { s.serve(ctx, func() { g.leave(s) }) })
		}
		r.call(func(l *loop) {
			l.counters.Accepted++
			if refused != nil {
				l.turnedAway(s, refused)
			}
		})
	}
}

// gate limits what strangers can cost.
type gate struct {
	limiter ratelimiter.Ratelimiter

	mu        sync.Mutex
	strangers []*socket // not admitted yet, oldest first; at most maxStrangers
}

func newGate() *gate {
	g := &gate{}
	g.limiter.Init()
	return g
}

// close ends the limiter's goroutine; enter must not be called any more.
func (g *gate) close() { g.limiter.Close() }

// enter counts s until leave, or says why it must go. It may evict another.
func (g *gate) enter(s *socket) *Error {
	if !g.limiter.Allow(source(s)) {
		return &Error{Reason: ReasonRate, Text: "too many connections per second from this address"}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var mine []*socket
	for _, o := range g.strangers {
		if source(o) == source(s) {
			mine = append(mine, o)
		}
	}
	if len(mine) >= maxStrangersPerSource {
		g.evictLocked(mine[0])
	} else if len(g.strangers) >= maxStrangers {
		g.evictLocked(g.strangers[0])
	}
	g.strangers = append(g.strangers, s)
	return nil
}

func (g *gate) evictLocked(s *socket) {
	s.evicted.Store(true)
	s.nc.Close() // doesn't block: nothing is written to strangers that they don't read
	g.removeLocked(s)
}

// leave is harmless for a socket that is not there.
func (g *gate) leave(s *socket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeLocked(s)
}

func (g *gate) removeLocked(s *socket) {
	if i := slices.Index(g.strangers, s); i >= 0 {
		g.strangers = slices.Delete(g.strangers, i, i+1)
	}
}

// source is what is limited: an IPv4 address, or the 64-bit prefix of an IPv6
// one, since a host may use as many of these as it likes.
func source(s *socket) netip.Addr {
	a := s.remote.Addr().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}
