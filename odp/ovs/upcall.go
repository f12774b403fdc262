package ovs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weave/odp/keeper"
	"weave/odp/ovs/wire"
)

// Bounds of what misses may make.
const (
	maxSockets  = 8
	sockBuffer  = 1 << 20
	maxPassing  = 1024             // flows made by misses
	passingIdle = 10 * time.Second // after which one is removed
)

// openSockets opens the sockets that misses are sent to.
func (d *driver) openSockets() error {
	for range min(processors(), maxSockets) {
		c, err := netlink.Dial(unix.NETLINK_GENERIC, &netlink.Config{NetNS: d.host.FD()})
		if err != nil {
			return fmt.Errorf("opening socket for upcalls: %w", err)
		}
		d.socks = append(d.socks, c)
		c.SetReadBuffer(sockBuffer)          // what is lost beyond is counted by the kernel
		c.SetOption(netlink.NoENOBUFS, true) // and need not be told of
	}
	return nil
}

// processors counts those that the kernel may ever have.
func processors() int {
	text, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err == nil {
		s := strings.TrimSpace(string(text))
		if n, err := strconv.Atoi(s[strings.LastIndexAny(s, "-,")+1:]); err == nil && n < 1<<16 {
			return n + 1
		}
	}
	return runtime.NumCPU()
}

// pids lists the sockets, n of them or as many as there are processors.
func (d *driver) pids(n int) (out []uint32) {
	for i := range n {
		out = append(out, d.socks[i%len(d.socks)].PID())
	}
	return out
}

// Run implements keeper.Driver: it answers misses.
func (d *driver) Run(ctx context.Context, k *keeper.Keeper) {
	var readers sync.WaitGroup
	for _, c := range d.socks {
		readers.Go(func() { d.read(ctx, k, c) })
	}
	<-ctx.Done()
	for _, c := range d.socks {
		c.SetReadDeadline(time.Unix(1, 0))
	}
	readers.Wait()
}

func (d *driver) read(ctx context.Context, k *keeper.Keeper, c *netlink.Conn) {
	const genlHeader = 4 // command, version, 2 reserved
	for ctx.Err() == nil {
		msgs, err := c.Receive()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			select { // an error that is told again and again must not keep a processor busy
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		for _, m := range msgs {
			if len(m.Data) < genlHeader || m.Data[0] != wire.PacketMiss {
				continue
			}
			if p, err := wire.ParsePacket(m.Data[genlHeader:]); err == nil {
				d.miss(k, &p)
			}
		}
	}
}

// miss answers a frame that no flow was for: by the flow that it needs, which then
// carries it too, or by one that drops what follows.
func (d *driver) miss(k *keeper.Keeper, p *wire.Packet) {
	k.With(p.Key.Dst, func(to netip.AddrPort, known bool) {
		if p.Datapath != d.datapath {
			return
		}
		d.count("upcalls", 1)
		t := tagOf(&p.Key)
		switch {
		case p.Key.InPort == bridgePort && known:
			id, f := d.to(p.Key.Dst, t, to)
			d.pass(id, f, t, p, "")
		case p.Key.InPort == bridgePort:
			id, f := d.to(p.Key.Dst, t, netip.AddrPort{})
			d.pass(id, f, t, p, dropUnsteered)
		case p.Key.InPort == tunnelPort && p.Key.Has&wire.HasTunnel != 0 && p.Key.Tunnel.Src.IsValid():
			src := p.Key.Tunnel.Src
			reason := ""
			if p.Key.Tunnel.ID != keeper.VNI || !d.admitted[src] {
				reason = dropStranger
			}
			id, f := d.from(src, p.Key.Tunnel.ID, t, reason != "")
			d.pass(id, f, t, p, reason)
		default:
			d.count("malformed", 1)
		}
	})
}

// Reasons why frames are dropped.
const (
	dropUnsteered = "unsteered" // the bridge sent it here, but it goes nowhere: steering is changing
	dropStranger  = "stranger"  // from an address that is no peer's, or of another network
)

// pass installs a flow because of a frame, and sends the frame as the flow would.
func (d *driver) pass(id ufid, f *wire.Flow, t tag, p *wire.Packet, reason string) {
	steady := t == tag{} && reason == "" // Sync would have made it
	if t != (tag{}) {
		f.RawKey = p.RawKey
	}
	if full := !steady && d.passing[id] == nil && len(d.passing) >= maxPassing; full {
		d.count("flows_full", 1)
	} else if err := d.c.put(f); err != nil {
		d.log.Debug("flow not installed", "mac", p.Key.Dst, "err", err)
		d.count("flow_errors", 1)
	} else if steady {
		d.count("flow_repairs", 1)
	} else if d.passing[id] == nil {
		d.passing[id] = &passing{kind: id[3], dst: p.Key.Dst, drop: reason, made: time.Now()}
	}
	if reason != "" {
		d.count(reason, 1)
		return
	}
	err := d.c.execute(&wire.Packet{Datapath: d.datapath, Data: p.Data, RawKey: p.RawKey, Actions: f.Actions})
	if err != nil {
		d.count("execute_errors", 1)
	}
}
