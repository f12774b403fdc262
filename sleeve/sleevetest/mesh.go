package sleevetest

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve"
)

// Options of a Mesh. The zero Options make clear links of one lane.
type Options struct {
	Cipher   session.Cipher
	Lanes    int                                // per host; 0: 1
	IPv6     bool                               // underlay
	Apart    bool                               // no links: the test calls Connect
	Receiver func(host int) sleeve.Receiver     // nil: frames are counted and forgotten
	Config   func(host int, cfg *sleeve.Config) // last word on a host's configuration

	// Control, if not nil, is asked before a message crosses a control connection;
	// false loses it.
	Control    func(msg []byte) bool
	StartDelay time.Duration // of the responder's Start behind the initiator's
}

// Mesh is a number of overlays, each with a link to every other.
type Mesh struct {
	Net   *Net
	Nodes []*Node
	opts  Options
}

// Node is one overlay of a Mesh.
type Node struct {
	Name    peer.Name
	Host    *Host
	Overlay *sleeve.Overlay
	Links   map[peer.Name]*sleeve.Link

	mu     sync.Mutex
	cond   sync.Cond
	events map[peer.Name][]overlay.Event
}

// NewMesh makes n overlays, runs them until the test ends, and starts their links.
func NewMesh(t testing.TB, net *Net, n int, opts Options) *Mesh {
	t.Helper()
	opts.Lanes = max(1, opts.Lanes)
	m := &Mesh{Net: net, opts: opts}
	for i := range n {
		m.Nodes = append(m.Nodes, m.newNode(t, i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, node := range m.Nodes {
		wg.Go(func() {
			if err := node.Overlay.Run(ctx); err != nil {
				t.Errorf("running overlay: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	for i := range n {
		for j := range i {
			if !opts.Apart {
				m.Connect(t, i, j)
			}
		}
	}
	return m
}

func (m *Mesh) newNode(t testing.TB, i int) *Node {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
	if m.opts.IPv6 {
		addr = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))
	}
	node := &Node{
		Name:   peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, byte(i + 1)}),
		Host:   m.Net.Host(netip.AddrPortFrom(addr, 6783), m.opts.Lanes),
		Links:  map[peer.Name]*sleeve.Link{},
		events: map[peer.Name][]overlay.Event{},
	}
	node.cond.L = &node.mu
	cfg := sleeve.Config{Network: node.Host, Receiver: nowhere{}, Log: slog.New(slog.DiscardHandler)}
	if m.opts.Receiver != nil {
		cfg.Receiver = m.opts.Receiver(i)
	}
	if m.opts.Config != nil {
		m.opts.Config(i, &cfg)
	}
	ov, err := sleeve.New(cfg)
	if err != nil {
		t.Fatalf("making overlay %d: %v", i, err)
	}
	node.Overlay = ov
	return node
}

// Connect makes the links of a new control connection that i dials to j, in place
// of any before.
func (m *Mesh) Connect(t testing.TB, i, j int) {
	t.Helper()
	a, b := m.Nodes[i], m.Nodes[j]
	for _, l := range []*sleeve.Link{a.Links[b.Name], b.Links[a.Name]} {
		if l != nil {
			l.Close()
		}
	}
	// Each end's Send is the other end's Control, called only once both are there.
	var la, lb *sleeve.Link
	cross := func(to **sleeve.Link) func([]byte) error {
		return func(msg []byte) error {
			if m.opts.Control == nil || m.opts.Control(msg) {
				(*to).Control(msg)
			}
			return nil
		}
	}
	la = m.prepare(t, a, b, true, cross(&lb))
	lb = m.prepare(t, b, a, false, cross(&la))
	a.Links[b.Name], b.Links[a.Name] = la, lb
	la.Start()
	time.Sleep(m.opts.StartDelay)
	lb.Start()
}

func (m *Mesh) prepare(t testing.TB, at, to *Node, initiator bool, send func([]byte) error) *sleeve.Link {
	t.Helper()
	p := overlay.Params{
		Local:      at.Name,
		Remote:     to.Name,
		ConnUID:    1,
		Initiator:  initiator,
		LocalAddr:  at.Host.Addr().Addr(),
		RemoteAddr: to.Host.Addr(),
		Agreement:  overlay.Agreement{Cipher: m.opts.Cipher, Lanes: m.opts.Lanes, Paths: []string{sleeve.Name}},
		Secret:     session.SecretFromBytes([session.SecretLen]byte{1, 2, 3}),
		Send:       send,
		Notify: func(e overlay.Event) {
			at.mu.Lock()
			defer at.mu.Unlock()
			at.events[to.Name] = append(at.events[to.Name], e)
			at.cond.Broadcast()
		},
	}
	if m.opts.Cipher == session.CipherNone {
		p.Permit = policy.Decide(policy.Stance{}, policy.Stance{})
	}
	l, err := at.Overlay.Prepare(p)
	if err != nil {
		t.Fatalf("preparing link %v to %v: %v", at.Name, to.Name, err)
	}
	return l.(*sleeve.Link)
}

// WaitUp returns when all links are up at both ends.
func (m *Mesh) WaitUp(t testing.TB) {
	t.Helper()
	for _, a := range m.Nodes {
		for name := range a.Links {
			a.WaitEvent(t, name, func(e overlay.Event) bool { return e.Up })
		}
	}
}

// WaitEvent returns when an event of the link to a peer, from the first on, is what
// ok wants. After ten seconds (of a bubble's time inside one) the test fails.
func (n *Node) WaitEvent(t testing.TB, to peer.Name, ok func(overlay.Event) bool) overlay.Event {
	t.Helper()
	late := false
	timer := time.AfterFunc(10*time.Second, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		late = true
		n.cond.Broadcast()
	})
	defer timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for seen := 0; ; n.cond.Wait() {
		for ; seen < len(n.events[to]); seen++ {
			if e := n.events[to][seen]; ok(e) {
				return e
			}
		}
		if late {
			t.Fatalf("link of %v to %v: events %v, status %+v", n.Name, to, n.events[to], n.Links[to].Status())
		}
	}
}

// ClearEvents forgets the events of the link to a peer.
func (n *Node) ClearEvents(to peer.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events[to] = nil
}

type nowhere struct{}

func (nowhere) Receive(int, peer.Name, peer.Route, ether.Offload, [][]byte) {}
