// Package overlaytest has an overlay without a network for tests of what uses the
// contract.
//
// Its links shake hands through Params.Send alone: each sends one message at
// Start and is up when it has the other's, unless the test holds them down. The
// test plays the network with [Link.Fire].
//
// # Concurrency
//
// All methods may be called from any goroutine.
package overlaytest

import (
	"errors"
	"slices"
	"sync"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
)

// Overlay is an [overlay.Overlay].
type Overlay struct {
	path overlay.Path

	mu         sync.Mutex
	held       bool
	prepareErr error
	links      []*Link
}

// New makes an overlay with that offer.
func New(path overlay.Path) *Overlay { return &Overlay{path: path} }

// Name is the offer's.
func (o *Overlay) Name() string { return o.path.Name }

// Offer is the one given to New.
func (o *Overlay) Offer() overlay.Path { return o.path }

// Hold makes links prepared from now on stay down until Fire, or not.
func (o *Overlay) Hold(hold bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = hold
}

// FailPrepare makes Prepare return err; nil ends that.
func (o *Overlay) FailPrepare(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prepareErr = err
}

// Prepare makes a *Link.
func (o *Overlay) Prepare(p overlay.Params) (overlay.Link, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.prepareErr != nil {
		return nil, o.prepareErr
	}
	if p.Send == nil || p.Notify == nil || p.Remote.IsZero() || p.Secret.IsZero() || !slices.Contains(p.Agreement.Paths, o.path.Name) {
		return nil, errors.New("overlaytest: incomplete parameters")
	}
	l := &Link{Params: p, path: o.path.Name, held: o.held}
	o.links = append(o.links, l)
	return l, nil
}

// Links returns all links to that peer so far, closed ones included, oldest first.
func (o *Overlay) Links(to peer.Name) (out []*Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.links {
		if l.Params.Remote == to {
			out = append(out, l)
		}
	}
	return out
}

// Link is an [overlay.FrameLink] that counts frames and forgets them.
type Link struct {
	Params overlay.Params

	path string
	held bool

	mu      sync.Mutex
	started bool
	up      bool
	closed  bool
	reason  string
	frames  uint64
	control [][]byte
	misuse  []string
}

// Ready is what links tell each other at Start.
const Ready = "ready"

// Start sends Ready.
func (l *Link) Start() {
	l.mu.Lock()
	if l.started || l.closed {
		l.misuse = append(l.misuse, "started twice or after Close")
	}
	l.started = true
	l.mu.Unlock()
	l.Params.Send([]byte(Ready)) // the connection may be gone already
}

// Control keeps msg, and brings the link up at Ready.
func (l *Link) Control(msg []byte) {
	l.mu.Lock()
	if !l.started {
		l.misuse = append(l.misuse, "control message before Start")
	}
	l.control = append(l.control, slices.Clone(msg))
	up := string(msg) == Ready && !l.held
	l.mu.Unlock()
	if up {
		l.Fire(overlay.Event{Up: true})
	}
}

// Fire changes the state and notifies, unless the link is closed.
func (l *Link) Fire(e overlay.Event) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.up, l.reason = e.Up, e.Reason
	}
	l.mu.Unlock()
	if !closed {
		l.Params.Notify(e)
	}
}

// Status has MTU 1376 while the link is up.
func (l *Link) Status() overlay.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := overlay.Status{Path: l.path, Up: l.up, Lanes: l.Params.Agreement.Lanes, Remote: l.Params.RemoteAddr, Reason: l.reason}
	s.Cipher = l.Params.Agreement.Cipher
	if l.up {
		s.MTU = 1376
	}
	s.Counters.TxFrames = l.frames
	return s
}

// Send counts.
func (l *Link) Send(int, peer.Route, *ether.Superframe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up && !l.closed {
		l.frames++
	}
}

// Close is final.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.up = true, false
}

// Closed reports whether Close was called.
func (l *Link) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Received returns the messages that came from the other end.
func (l *Link) Received() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.control)
}

// Misuse returns how the user broke the contract.
func (l *Link) Misuse() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.misuse)
}

var (
	_ overlay.FrameLink = (*Link)(nil)
)
