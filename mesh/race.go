package mesh

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// A kernel repeats the first packet of a connection after a second. Where packets are
// lost that is most of the time that a host needs to join, so further tries are begun
// beside one that has no answer yet; the first that is answered is taken.
const (
	raceAfter = 250 * time.Millisecond // longer than the way around the earth
	maxRace   = 4                      // tries of an attempt at a time
)

// connected is what came of a try.
type connected struct {
	nc  net.Conn
	err error
}

// race dials with one try after the other until one ends, however it does. It returns
// when all have ended.
func (r *Router) race(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	ends := make(chan connected)
	begun := 0
	begin := func() {
		begun++
		go func() {
			nc, err := r.cfg.Net.Dial(ctx, netip.AddrPortFrom(r.cfg.Host, 0), to)
			ends <- connected{nc, err}
		}()
	}
	begin()
	more := time.NewTicker(raceAfter)
	defer more.Stop()
	for {
		select {
		case <-more.C:
			if begun < maxRace {
				begin()
			}
		case first := <-ends:
			cancel()
			for range begun - 1 {
				if late := <-ends; late.nc != nil {
					late.nc.Close()
				}
			}
			return first.nc, first.err
		}
	}
}
