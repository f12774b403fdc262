package sleeve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weave/internal/rawio"
	"weave/sleeve/udp"
)

// Network is the host's UDP port: a [UDPNetwork], or a fake such as package
// sleevetest's. Its calls are per batch, never per packet.
type Network interface {
	// Lanes is the number of sockets. The network tries to receive a datagram of
	// lane L by the socket that owns L, see [Owner].
	Lanes() int
	// Port is the local UDP port, the same for all sockets.
	Port() uint16
	// Socket returns the receiving side of a socket; it has one owner.
	Socket(lane int) Socket
	// NewSender returns a new sender on a socket; it has one owner.
	NewSender(lane int) Sender
	// MTU is the largest IP packet that can leave for remote; 0: unknown.
	MTU(remote netip.Addr) int
	// Offloads tells users which offloads are in use, for instance "gso,gro".
	Offloads() string
}

// Socket receives the datagrams of some lanes.
type Socket interface {
	// Recv returns what has arrived, without blocking; udp.ErrWouldBlock when
	// nothing has. The slots and their bytes may be overwritten and are valid
	// until the next Recv. Any other error is final.
	Recv() ([]udp.Slot, error)
	// Wait blocks until there is something to Recv, Wake was called, or the
	// timeout (negative: none) is over.
	Wait(timeout time.Duration) error
	// Wake makes the current or the next Wait return; callable by all.
	Wake()
}

// Sender sends trains of datagrams. *udp.Sender is one.
type Sender interface {
	// Send sends buf to ep as datagrams of seg bytes each; the last may be
	// shorter. It is done with buf when it returns, and may send a part. It falls
	// back by itself where the kernel refuses trains. Errors are those of package udp.
	Send(ep *udp.Endpoint, buf []byte, seg int) error
}

// UDPNetwork is the Network of real sockets.
type UDPNetwork struct {
	group   *udp.Group
	sockets []*udpSocket
}

type udpSocket struct {
	*udp.Receiver
	poller *rawio.Poller
}

// UDP makes g's sockets a Network. slots is the number of 64 KiB receive buffers per
// socket, 0: udp.DefaultSlots. Close closes g too.
func UDP(g *udp.Group, slots int) (*UDPNetwork, error) {
	n := &UDPNetwork{group: g}
	for i, s := range g.Sockets() {
		p, err := rawio.NewPoller(s.FDs()...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("making poller of udp socket %d: %w", i, err), n.Close())
		}
		n.sockets = append(n.sockets, &udpSocket{Receiver: s.NewReceiver(slots), poller: p})
	}
	return n, nil
}

// Lanes is the number of sockets of the group.
func (n *UDPNetwork) Lanes() int { return len(n.sockets) }

// Port is the group's.
func (n *UDPNetwork) Port() uint16 { return n.group.Port() }

// Socket returns the receiver of socket lane, the same at each call.
func (n *UDPNetwork) Socket(lane int) Socket { return n.sockets[lane] }

// NewSender returns a new sender on socket lane.
func (n *UDPNetwork) NewSender(lane int) Sender { return n.group.Sockets()[lane].NewSender() }

// MTU asks the kernel's routing table.
func (n *UDPNetwork) MTU(remote netip.Addr) int {
	mtu, err := udp.MTUOf(remote)
	if err != nil {
		return 0
	}
	return mtu
}

// Offloads names those in use now.
func (n *UDPNetwork) Offloads() string {
	f := n.group.Features()
	var words []string
	if f.GSO {
		words = append(words, "gso")
	}
	if f.GRO {
		words = append(words, "gro")
	}
	return strings.Join(words, ",")
}

// Close closes pollers and sockets. No worker and no link may be using them.
func (n *UDPNetwork) Close() error {
	err := n.group.Close()
	for _, s := range n.sockets {
		err = errors.Join(err, s.poller.Close())
	}
	return err
}

func (s *udpSocket) Wait(timeout time.Duration) error {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	_, err := s.poller.Wait(ms)
	return err
}

func (s *udpSocket) Wake() { s.poller.Wake() }
