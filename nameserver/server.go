package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/nameserver/registry"
	"weave/nameserver/upstream"
)

// DefaultDomain and DefaultTTL are what an empty Config means.
const (
	DefaultDomain = "weave.local."
	DefaultTTL    = 1 // seconds
)

// Config is what a Server needs from outside. Name, UID and Allow must be set.
type Config struct {
	Name peer.Name
	UID  peer.UID
	// Domain is the DNS domain, with or without its final dot.
	Domain string
	// TTL is that of answers from the registry, in seconds; nil means DefaultTTL.
	TTL *uint32
	// Allow says which sources are answered: addresses of the container networks and of
	// the host. It is called for each UDP packet and must be quick and not block.
	Allow func(netip.Addr) bool
	// Known says which peers the mesh knows; names of others are swept out. nil: all. The
	// mesh's own goroutine calls it, through Channel.Digest, so it must not wait for that.
	Known func(peer.Name) bool
	// Sockets are served by Run, which closes them. There may be none.
	Sockets Sockets
	// ResolvConf is the file that names the upstream servers; "" is no upstream.
	ResolvConf string
	// UpstreamPort is 53 if zero.
	UpstreamPort uint16
	// Own says which addresses lead back to this server, besides those of the Sockets;
	// they are never used as upstream. It may be nil.
	Own func(netip.AddrPort) bool
	// Rand is a source of random numbers for the order of answers; nil: a good one.
	Rand func() uint64
	Log  *slog.Logger
}

// Server is the registry of names and the DNS server of one peer.
type Server struct {
	// set once
	name   peer.Name
	allow  func(netip.Addr) bool
	known  func(peer.Name) bool
	rand   func() uint64
	log    *slog.Logger
	zone   zone
	up     *upstream.Forwarder // or nil
	config Sockets
	slots  chan struct{} // one for each question that waits for upstream

	forwardTimeout time.Duration // as the constant says, but in tests

	shared counters

	mu       sync.Mutex // guards rand too; never held while calling others
	counters []*counters
	bound    map[netip.AddrPort]int // addresses being served

	regMu    sync.Mutex // guards reg's writers; sender is called after it is released
	reg      *registry.Registry
	missing  map[peer.Name]bool // unknown to the mesh at the last digest
	sender   gossip.Sender
	rejected uint64 // gossip messages
}

// maxWaiting bounds the questions that wait for upstream at one time.
const maxWaiting = 512

// ErrConfig reports a Config that cannot work.
var ErrConfig = errors.New("bad name server configuration")

// New makes a Server; it does nothing before Run or Serve, except that names can be
// added and that its gossip channel works.
func New(c Config) (*Server, error) {
	domain := c.Domain
	if domain == "" {
		domain = DefaultDomain
	}
	domain = dns.Fqdn(domain)
	if err := registry.CheckName(domain); err != nil {
		return nil, fmt.Errorf("%w: domain %q: %w", ErrConfig, domain, err)
	}
	if c.Name.IsZero() || c.UID == 0 || c.Allow == nil {
		return nil, fmt.Errorf("%w: Name, UID and Allow must be set", ErrConfig)
	}
	ttl := uint32(DefaultTTL)
	if c.TTL != nil {
		ttl = min(*c.TTL, 1<<31-1) // RFC 2181
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	reg := registry.New(c.Name, c.UID)
	s := &Server{
		name: c.Name, allow: c.Allow, known: c.Known, rand: c.Rand, log: log, config: c.Sockets,
		zone: newZone(domain, ttl, reg.Index()), reg: reg, slots: make(chan struct{}, maxWaiting),
		bound: map[netip.AddrPort]int{}, missing: map[peer.Name]bool{}, forwardTimeout: forwardTimeout,
	}
	if s.rand == nil {
		s.rand = rand.Uint64
	}
	if c.ResolvConf != "" {
		s.up = upstream.New(upstream.Config{ResolvConf: c.ResolvConf, Port: c.UpstreamPort, Own: s.own(c.Own), Log: log})
	}
	return s, nil
}

// own adds the addresses that are being served to those that the caller knows of.
func (s *Server) own(more func(netip.AddrPort) bool) func(netip.AddrPort) bool {
	return func(a netip.AddrPort) bool {
		s.mu.Lock()
		_, yes := s.bound[a]
		if !yes {
			_, yes = s.bound[netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())]
			yes = yes && a.Addr().IsLoopback()
		}
		s.mu.Unlock()
		return yes || more != nil && more(a)
	}
}

// Run serves Config.Sockets until ctx ends and then returns nil, or until one of them
// breaks. It closes them.
func (s *Server) Run(ctx context.Context) error {
	if len(s.config.Packet)+len(s.config.Stream) == 0 {
		<-ctx.Done()
		return nil
	}
	return s.Serve(ctx, s.config)
}

func (s *Server) newScratch() *scratch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &scratch{rng: rand.New(rand.NewPCG(s.rand(), s.rand()))}
}

// quick answers what can be answered at once. ok is false if respond must do it; an
// empty reply with ok says that there is none.
func (s *Server) quick(b, request []byte, sc *scratch, c *counters, udp bool) (reply []byte, ok bool) {
	switch sc.q.judge(request) {
	case ignore:
		c.drops[sc.q.reason].Add(1)
		return b, true
	case refuse:
		c.results[Refused].Add(1)
		return sc.q.appendRefusal(b, request), true
	}
	holds, apex := s.zone.holds(&sc.q)
	if !holds {
		return b, false
	}
	b, result := s.zone.answer(b, request, sc, udp, apex)
	c.results[result].Add(1)
	return b, true
}

// query is a question that the full parser took.
type query struct {
	request *dns.Msg
	reply   *dns.Msg // what the handler makes
	result  Result
	size    int // the largest reply in bytes
}

// respond answers what judge took and the zone does not hold. It is the one place that
// turns what handlers return into a reply, a counter and a line in the log.
func (s *Server) respond(ctx context.Context, request []byte, sc *scratch, udp bool) []byte {
	q := &query{request: new(dns.Msg), result: Refused, size: sc.q.limit(udp)}
	if err := q.request.Unpack(request); err != nil || len(q.request.Question) != 1 {
		s.shared.results[Refused].Add(1)
		sc.q.rcode, sc.q.end = dns.RcodeFormatError, 0
		return sc.q.appendRefusal(nil, request)
	}
	rcode, err := s.handle(ctx, q)
	if err != nil && s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.Debug("question not answered", "name", q.request.Question[0].Name,
			"type", dns.TypeToString[q.request.Question[0].Qtype], "rcode", dns.RcodeToString[rcode], "err", err)
	}
	s.shared.results[q.result].Add(1)
	out, err := q.pack(rcode)
	if err != nil {
		s.log.Warn("reply cannot be packed", "name", q.request.Question[0].Name, "err", err)
		q.reply = nil
		out, _ = q.pack(dns.RcodeServerFailure)
	}
	return out
}

// pack makes the bytes of the reply, with an OPT record if the request had one, cut to
// the size that the asker can take.
func (q *query) pack(rcode int) ([]byte, error) {
	m := q.reply
	if m == nil {
		m = new(dns.Msg)
		m.SetRcode(q.request, rcode)
		m.RecursionAvailable = true
	}
	m.Rcode = rcode
	if opt := q.request.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	} else {
		m.Rcode = rcode & 0xf
	}
	m.Compress = false
	if m.Len() > q.size {
		m.Truncate(q.size) // keeps the largest prefix, sets TC
	}
	return m.Pack()
}

// handle answers q, which judge took, or says with which code not. An error is for the
// log.
func (s *Server) handle(ctx context.Context, q *query) (rcode int, err error) {
	if a, is, whole := reverseAddr(q.request.Question[0].Name); is {
		if rcode, done := s.reverse(q, a, whole); done {
			return rcode, nil
		}
	}
	return s.forward(ctx, q)
}

// reverse answers for an address that has names here.
func (s *Server) reverse(q *query, a netip.Addr, whole bool) (rcode int, done bool) {
	q.result = NXDomain
	if !whole {
		return dns.RcodeNameError, !a.IsValid()
	}
	entries := s.zone.index.ByAddr(a)
	if len(entries) == 0 {
		return 0, false
	}
	q.result = NoData
	q.reply = new(dns.Msg)
	q.reply.SetReply(q.request)
	q.reply.Authoritative, q.reply.RecursionAvailable = true, true
	if t := q.request.Question[0].Qtype; t == dns.TypePTR || t == dns.TypeANY {
		q.result = Answered
		q.reply.Answer = []dns.RR{&dns.PTR{
			Hdr: dns.RR_Header{Name: q.request.Question[0].Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: s.zone.ttl},
			Ptr: entries[0].Name(),
		}}
	}
	return dns.RcodeSuccess, true
}

// forwardTimeout is how long anybody waits for upstream.
const forwardTimeout = 5 * time.Second

// forward asks upstream.
func (s *Server) forward(ctx context.Context, q *query) (rcode int, err error) {
	q.result = Failed
	if s.up == nil {
		return dns.RcodeServerFailure, upstream.ErrNoServers
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return dns.RcodeServerFailure, upstream.ErrBusy
	}
	ctx, cancel := context.WithTimeout(ctx, s.forwardTimeout)
	defer cancel()
	reply, err := s.up.Exchange(ctx, q.request)
	switch {
	case errors.Is(err, upstream.ErrLoop):
		q.result = Looped
		return dns.RcodeRefused, err
	case err != nil:
		return dns.RcodeServerFailure, err
	}
	q.result, q.reply = Forwarded, reply
	return reply.Rcode, nil
}
