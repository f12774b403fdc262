package udp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// MaxSockets is the largest number of sockets in a Group: one per lane.
const MaxSockets = 16

// defaultBuffer is the socket buffer in bytes when Config names none. It holds
// 60 trains; and the kernel lets 200 KiB per dead neighbour wait for its address
// (net.ipv4.neigh.*.unres_qlen_bytes), which a small buffer would fill.
const defaultBuffer = 4 << 20

// Config says what to listen on.
type Config struct {
	// Addr is the local address. The zero Addr means any, IPv6 and IPv4 together
	// where the kernel has IPv6; 0.0.0.0 means any IPv4, :: any IPv6 only.
	Addr netip.Addr
	Port uint16 // 0: the kernel chooses, see Group.Port

	Sockets        int  // sockets on the port, 1..MaxSockets; 0 means 1
	RcvBuf, SndBuf int  // socket buffers in bytes of payload; 0 means 4 MiB
	NoGSO, NoGRO   bool // for devices that claim an offload and break it

	Log *slog.Logger // nil: no log
}

// Features is what the kernel gave.
type Features struct {
	GSO            bool // trains are sent with UDP_SEGMENT; false after the kernel refused one for good
	MaxSegments    int  // datagrams per train; 1 without GSO
	Filler         bool // trains of equal datagrams end with a filler
	GRO            bool // received datagrams come joined
	DualStack      bool // IPv6 sockets that carry IPv4 too
	Steered        bool // datagrams are steered to the sockets by lane
	RcvBuf, SndBuf int  // bytes of payload per socket
}

// Group is the sockets of one UDP port.
type Group struct {
	log     *slog.Logger
	sockets []*Socket
	port    uint16
	feat    Features
	close   sync.Once
}

// Socket is one UDP socket of a Group.
type Socket struct {
	log      *slog.Logger
	fd       int
	segments int  // datagrams per train, 1: no GSO
	filler   bool // see the package comment

	gsoOff atomic.Bool // the kernel said EIO once

	mu        sync.Mutex
	senders   []*Sender
	receivers []*Receiver
}

// Listen opens the sockets. The port must be free: it is never shared with another
// process, even one that allows it. When the kernel cannot steer by lane, the Group
// has one socket, and the log says so.
func Listen(cfg Config) (*Group, error) {
	if cfg.Sockets < 0 || cfg.Sockets > MaxSockets {
		return nil, fmt.Errorf("%d udp sockets: at most %d", cfg.Sockets, MaxSockets)
	}
	cfg = cfg.withDefaults()
	fd, o, err := openFirst(cfg)
	if err != nil {
		return nil, err
	}
	g := &Group{log: cfg.Log, port: o.port, feat: Features{DualStack: o.dual}}
	fds := append([]int{fd}, g.openRest(cfg, o, fd)...)
	g.feat.Steered = len(fds) > 1
	g.probe(cfg, fds)
	for _, fd := range fds {
		g.sockets = append(g.sockets, &Socket{
			log: cfg.Log, fd: fd, segments: g.feat.MaxSegments, filler: g.feat.Filler,
		})
	}
	return g, nil
}

func (cfg Config) withDefaults() Config {
	cfg.Sockets = max(cfg.Sockets, 1)
	if cfg.RcvBuf <= 0 {
		cfg.RcvBuf = defaultBuffer
	}
	if cfg.SndBuf <= 0 {
		cfg.SndBuf = defaultBuffer
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Addr = cfg.Addr.Unmap()
	return cfg
}

// Port returns the UDP port of all sockets.
func (g *Group) Port() uint16 { return g.port }

// Sockets returns the sockets, that of lane 0 first. The slice is the Group's.
func (g *Group) Sockets() []*Socket { return g.sockets }

// Features returns what the sockets can do now.
func (g *Group) Features() Features {
	f := g.feat
	for _, s := range g.sockets {
		f.GSO = f.GSO && !s.gsoOff.Load()
	}
	return f
}

// Stats returns the sum over all sockets.
func (g *Group) Stats() Stats {
	var sum Stats
	for _, s := range g.sockets {
		sum.add(s.Stats())
	}
	return sum
}

// Close closes the descriptors. No Sender or Receiver may be in a call or be used
// afterwards, and nobody is woken: see the package comment.
func (g *Group) Close() error {
	var err error
	g.close.Do(func() {
		for _, s := range g.sockets {
			err = errors.Join(err, unix.Close(s.fd))
		}
	})
	return err
}

// FDs returns the descriptors to poll for reading. They stay the Group's.
func (s *Socket) FDs() []int { return []int{s.fd} }

// Stats returns the sum over the socket's Senders and Receivers.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum Stats
	for _, t := range s.senders {
		sum.add(t.c.stats())
	}
	for _, r := range s.receivers {
		sum.add(r.c.stats())
	}
	return sum
}
