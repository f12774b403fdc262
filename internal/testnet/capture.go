package testnet

import (
	"bytes"
	"fmt"
	"maps"
	"sync"

	"golang.org/x/sys/unix"

	"weave/internal/rawio"
)

// Capture reads every frame on an underlay and looks for strings that should not
// be there.
type Capture struct {
	t        TB
	fd       int
	poll     *rawio.Poller
	canaries [][]byte
	ports    map[int]bool // ifindexes looked at
	done     chan struct{}

	mu      sync.Mutex
	frames  int
	bytes   int
	dropped int
	hits    map[string]int
	example []byte // the first frame with a canary
	kind    func(frame []byte) string
	kinds   map[string]int
}

// Capture starts reading what the hosts send into the switch, those that are there
// now. It stops when the test ends.
func (l *Lab) Capture(canaries ...string) *Capture {
	l.t.Helper()
	if l.middle == nil {
		l.t.Fatalf("a capture needs hosts on the switch")
	}
	var names []string
	for _, h := range l.hosts {
		if !h.wired {
			names = append(names, h.port())
		}
	}
	return l.middle.Capture(names, canaries...)
}

// Capture starts reading what the named interfaces receive. It stops when the test
// ends.
func (n *Namespace) Capture(ifnames []string, canaries ...string) *Capture {
	t := n.lab.t
	t.Helper()
	c := &Capture{t: t, fd: -1, ports: make(map[int]bool), hits: make(map[string]int), done: make(chan struct{})}
	for _, s := range canaries {
		c.canaries = append(c.canaries, []byte(s))
	}
	for _, name := range ifnames {
		link, err := n.NL.LinkByName(name)
		n.lab.must(err)
		c.ports[link.Attrs().Index] = true
	}
	n.lab.must(n.Do(c.open))
	poll, err := rawio.NewPoller(c.fd)
	n.lab.must(err)
	c.poll = poll
	go c.run()
	t.Cleanup(c.Stop)
	return c
}

// captureBuf is the socket's buffer: about a second at a gigabit.
const captureBuf = 128 << 20

func (c *Capture) open() (err error) {
	const ethPAll = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
	c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, ethPAll)
	if err != nil {
		return fmt.Errorf("opening packet socket: %w", err)
	}
	return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuf)
}

func (c *Capture) run() {
	defer close(c.done)
	buf := make([]byte, 256<<10)
	for stopped := false; ; {
		for {
			n, from, err := unix.Recvfrom(c.fd, buf, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING && c.ports[ll.Ifindex] {
				c.frame(buf[:n])
			}
		}
		if stopped {
			return
		}
		woken, err := c.poll.Wait(-1)
		stopped = woken || err != nil
	}
}

func (c *Capture) frame(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames++
	c.bytes += len(b)
	if c.kind != nil {
		c.kinds[c.kind(b)]++
	}
	for _, canary := range c.canaries {
		if !bytes.Contains(b, canary) {
			continue
		}
		c.hits[string(canary)]++
		if c.example == nil {
			c.example = bytes.Clone(b)
		}
	}
}

// Stop ends the capture after reading what is queued. It is idempotent.
func (c *Capture) Stop() {
	select {
	case <-c.done:
		return
	default:
	}
	c.poll.Wake()
	<-c.done
	if st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.dropped = int(st.Drops)
	}
	c.poll.Close()
	unix.Close(c.fd)
}

// Frames returns how many frames, and bytes in them, were read until now. A
// segmented train counts as one frame.
func (c *Capture) Frames() (frames, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames, c.bytes
}

// Hits returns in how many frames each canary was found until now; those not found
// are not in it.
func (c *Capture) Hits() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.hits)
}

// Sort has the frames from now on counted by what kind calls them. kind must not
// keep the frame.
func (c *Capture) Sort(kind func(frame []byte) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kind, c.kinds = kind, make(map[string]int)
}

// Kinds returns how many frames of each kind were read since Sort.
func (c *Capture) Kinds() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.kinds)
}

// Dropped returns how many frames came too fast to be read. It is known after Stop.
func (c *Capture) Dropped() int { return c.dropped }

// MustBeClean stops the capture and fails the test if a canary was found, or if
// the capture cannot know because it saw nothing or missed frames.
func (c *Capture) MustBeClean() {
	c.t.Helper()
	c.Stop()
	for canary, n := range c.hits {
		c.t.Errorf("%q is on the underlay in %d frames; the first:\n%.256x", canary, n, c.example)
	}
	if c.frames == 0 {
		c.t.Errorf("the capture saw no frame")
	}
	if c.dropped > 0 {
		c.t.Errorf("the capture missed %d frames", c.dropped)
	}
}
