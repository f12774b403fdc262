// Package sleevetest lets whole sleeve overlays talk in one process, without
// sockets or root.
//
// Its one idea: a [Net] is a switch for datagrams that loses, repeats, reorders and
// damages them as a seed says, so that a failing run can be repeated. A [Host] is
// one end of it and stands in for the UDP sockets (sleeve.Network). A [Mesh] is a
// number of overlays on one Net with links between them.
//
// # Concurrency
//
// All methods may be called from any goroutine. Sending delivers at once, in the
// sender's goroutine; nothing here has a goroutine or a timer of its own, so the
// package works in a testing/synctest bubble.
package sleevetest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"weave/crypto/session"
	"weave/sleeve"
	"weave/sleeve/udp"
)

// Faults are probabilities, each from 0 to 1, per datagram.
type Faults struct {
	Loss      float64
	Duplicate float64
	Corrupt   float64 // one to four bytes are changed
	Reorder   float64 // held back until up to eight others have passed
}

// Net carries datagrams between Hosts.
type Net struct {
	mu     sync.Mutex
	rng    *rand.Rand
	faults Faults
	mtu    func(from, to netip.Addr) int
	tap    func(from, to netip.AddrPort, datagram []byte) bool
	hosts  map[netip.AddrPort]*Host
	held   []held
}

type held struct {
	from, to netip.AddrPort
	datagram []byte
	after    int
}

// NewNet makes a Net without faults and with an MTU of 1500 everywhere.
func NewNet(seed uint64) *Net {
	return &Net{
		rng:   rand.New(rand.NewPCG(seed, 0x5eed)),
		mtu:   func(_, _ netip.Addr) int { return 1500 },
		hosts: map[netip.AddrPort]*Host{},
	}
}

// SetFaults replaces the faults. Without Reorder what was held back is delivered.
func (n *Net) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
	if f.Reorder == 0 {
		n.release(true)
	}
}

// SetMTU makes the Net drop what is larger than f says, without a word, as a
// network that filters ICMP does. f gets the addresses and must not call the Net.
func (n *Net) SetMTU(f func(from, to netip.Addr) int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mtu = f
}

// SetTap makes f see every datagram before the faults; false drops it. f must not
// call the Net nor keep the datagram. nil ends it.
func (n *Net) SetTap(f func(from, to netip.AddrPort, datagram []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tap = f
}

// Inject delivers a datagram as if from had sent it, without faults.
func (n *Net) Inject(from, to netip.AddrPort, datagram []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deliver(from, to, datagram)
}

// send is called with mu held.
func (n *Net) send(from, to netip.AddrPort, d []byte) {
	if n.tap != nil && !n.tap(from, to, d) {
		return
	}
	headers := 28
	if to.Addr().Is6() {
		headers = 48
	}
	if len(d)+headers > n.mtu(from.Addr(), to.Addr()) || n.hit(n.faults.Loss) {
		return
	}
	n.release(false)
	copies := 1
	if n.hit(n.faults.Duplicate) {
		copies = 2
	}
	for range copies {
		n.disturb(from, to, d)
	}
}

func (n *Net) hit(p float64) bool { return p > 0 && n.rng.Float64() < p }

func (n *Net) disturb(from, to netip.AddrPort, d []byte) {
	if n.hit(n.faults.Corrupt) {
		d = append([]byte(nil), d...)
		for range 1 + n.rng.IntN(4) {
			d[n.rng.IntN(len(d))] ^= byte(1 + n.rng.IntN(255))
		}
	}
	if n.hit(n.faults.Reorder) {
		n.held = append(n.held, held{from, to, append([]byte(nil), d...), 1 + n.rng.IntN(8)})
		return
	}
	n.deliver(from, to, d)
}

func (n *Net) release(all bool) {
	kept := n.held[:0]
	for _, h := range n.held {
		if h.after--; h.after <= 0 || all {
			n.deliver(h.from, h.to, h.datagram)
			continue
		}
		kept = append(kept, h)
	}
	n.held = kept
}

func (n *Net) deliver(from, to netip.AddrPort, d []byte) {
	if h := n.hosts[to]; h != nil && len(d) > 0 {
		h.arrive(from, to.Addr(), d)
	}
}

// Host is one UDP port on a Net. It implements sleeve.Network.
type Host struct {
	net     *Net
	addr    netip.AddrPort // guarded by net.mu
	sockets []*socket
	port    uint16
}

// Host adds a host with an address and a number of lanes (sockets).
func (n *Net) Host(addr netip.AddrPort, lanes int) *Host {
	h := &Host{net: n, addr: addr, port: addr.Port()}
	for range lanes {
		s := &socket{net: n, arena: make([]byte, recvSlots<<16)}
		s.cond.L = &n.mu
		h.sockets = append(h.sockets, s)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	return h
}

// Addr returns the host's address.
func (h *Host) Addr() netip.AddrPort {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.addr
}

// Move gives the host another address; datagrams to the old one are lost.
func (h *Host) Move(addr netip.AddrPort) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	delete(h.net.hosts, h.addr)
	h.addr = addr
	h.net.hosts[addr] = h
}

// Lanes is the number of sockets.
func (h *Host) Lanes() int { return len(h.sockets) }

// Port is the port that the host was made with.
func (h *Host) Port() uint16 { return h.port }

// Socket returns the receiving side of a lane.
func (h *Host) Socket(lane int) sleeve.Socket { return h.sockets[lane] }

// NewSender returns a sender; all lanes send from the same port.
func (h *Host) NewSender(int) sleeve.Sender { return sender{h} }

// MTU is that of an interface which knows nothing of the way beyond.
func (h *Host) MTU(netip.Addr) int { return 1500 }

// Offloads names none.
func (h *Host) Offloads() string { return "" }

type sender struct{ h *Host }

func (s sender) Send(ep *udp.Endpoint, buf []byte, seg int) error {
	n := s.h.net
	n.mu.Lock() // for the whole train: a receiver sees all of it or nothing
	defer n.mu.Unlock()
	from, to := s.h.addr, ep.AddrPort()
	if src := ep.Source(); src.IsValid() && src != from.Addr() {
		return udp.ErrSource
	}
	if seg <= 0 {
		seg = len(buf)
	}
	for len(buf) > 0 {
		k := min(seg, len(buf))
		n.send(from, to, buf[:k])
		buf = buf[k:]
	}
	return nil
}

const (
	recvSlots = 8
	queueLen  = 4096 // datagrams waiting in a socket; more are lost
)

// socket is guarded by net.mu but for arena and slots, which are the receiver's.
type socket struct {
	net   *Net
	cond  sync.Cond
	queue []arrival
	woken bool
	arena []byte
	slots []udp.Slot
}

type arrival struct {
	from  netip.AddrPort
	to    netip.Addr
	bytes []byte
}

// arrive is called with net.mu held.
func (h *Host) arrive(from netip.AddrPort, to netip.Addr, d []byte) {
	lane := 0
	if len(d) > 1 && d[1] < session.NumLanes {
		lane = sleeve.Owner(session.Lane(d[1]), len(h.sockets))
	}
	s := h.sockets[lane]
	if len(s.queue) < queueLen {
		s.queue = append(s.queue, arrival{from, to, append([]byte(nil), d...)})
		s.cond.Broadcast()
	}
}

// Recv joins datagrams of equal size from one sender, as a kernel with UDP_GRO does.
func (s *socket) Recv() ([]udp.Slot, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, udp.ErrWouldBlock
	}
	s.slots = s.slots[:0]
	for len(s.queue) > 0 && len(s.slots) < recvSlots {
		buf := s.arena[len(s.slots)<<16:][: 0 : 1<<16-1]
		first := s.queue[0]
		for k := 0; k < 64 && len(s.queue) > 0; k++ {
			a := s.queue[0]
			if a.from != first.from || a.to != first.to || len(a.bytes) > len(first.bytes) || len(buf)+len(a.bytes) > cap(buf) {
				break
			}
			buf = append(buf, a.bytes...)
			s.queue = s.queue[1:]
			if len(a.bytes) < len(first.bytes) {
				break
			}
		}
		reply, _ := udp.NewEndpoint(first.from, first.to)
		s.slots = append(s.slots, udp.Slot{Data: buf, SegSize: len(first.bytes), From: first.from, To: first.to, Reply: reply})
	}
	return s.slots, nil
}

func (s *socket) Wait(timeout time.Duration) error {
	if timeout >= 0 {
		t := time.AfterFunc(timeout, s.Wake)
		defer t.Stop()
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	for len(s.queue) == 0 && !s.woken {
		s.cond.Wait()
	}
	s.woken = false
	return nil
}

func (s *socket) Wake() {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.woken = true
	s.cond.Broadcast()
}
