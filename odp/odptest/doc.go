// Package odptest is the conformance suite of kernel backends: what odp promises of a
// Backend, tried on a real kernel.
//
// The suite does not make networks itself: its caller brings two hosts, each a network
// namespace with a bridge and one container on it, joined by an underlay.
package odptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/odp"
)

// Host is one end. Its functions run commands and return all they printed.
type Host struct {
	Name      peer.Name
	Addr      netip.Addr                           // on the underlay
	In        func(func() error) error             // runs on a thread inside the host's namespace
	Run       func(args ...string) (string, error) // in the host's namespace
	Container func(args ...string) (string, error) // in the container's
	MAC       ether.MAC                            // of the container
	IP        netip.Addr                           // of the container, IPv4
}

// Options say what hosts a test wants.
type Options struct {
	IPv6     bool // underlay
	Underlay int  // its MTU; 0: enough
}

// Config of the suite.
type Config struct {
	// Hosts makes two hosts whose bridge is called Bridge and has the MTU, as have
	// the containers.
	Hosts func(t *testing.T, o Options) (a, b *Host)
	// Open makes a Backend; it is called inside the host's namespace.
	Open func(h *Host, adopt bool) (odp.Backend, error)
	// Break takes away what the backend has in the kernel to carry frames.
	Break func(h *Host) error
	// Occupy takes what the backend needs; it returns how to give it back.
	Occupy func(h *Host) (free func() error, err error)
	// Only names tests of the suite; none: all of them.
	Only []string
	// Remains lists what is in the kernel of the backend's, "" if nothing is.
	Remains func(h *Host) string
	// Sealed is nil for backends that send in clear.
	Sealed *Sealed
}

// Sealed is what is different with a backend that seals packets itself: nobody filters
// or counts those of strangers.
type Sealed struct {
	// Offer returns what other ends are to know of a backend (odp.Peer.Data).
	Offer func(odp.Backend) []byte
	// Inside returns where entries that lead to a host lead.
	Inside func(h *Host) netip.Addr
}

// What all hosts have.
const (
	Bridge = "weave"
	MTU    = 1376
	Port   = 6784
)

// end is a host with a running backend.
type end struct {
	*Host
	t   *testing.T
	cfg *Config
	be  odp.Backend

	stop   context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	probes [][]byte
	change int
}

func (e *end) Probe(f []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probes = append(e.probes, bytes.Clone(f))
}

func (e *end) Changed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.change++
}

func (e *end) changes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.change
}

func (e *end) got() [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.probes
}

func (e *end) open(adopt bool) {
	e.t.Helper()
	err := e.In(func() (err error) {
		e.be, err = e.cfg.Open(e.Host, adopt)
		return err
	})
	if err != nil {
		e.t.Fatalf("opening: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop, e.done = cancel, make(chan struct{})
	go func() {
		defer close(e.done)
		if err := e.be.Run(ctx, e); err != nil {
			e.t.Errorf("run: %v", err)
		}
	}()
}

func (e *end) close() {
	if e.stop == nil {
		return
	}
	e.stop()
	<-e.done
	e.stop = nil
	if err := e.be.Close(); err != nil {
		e.t.Errorf("close: %v", err)
	}
}

// pair makes two ends that know nothing of each other yet.
func (c *Config) pair(t *testing.T, o Options) (a, b *end) {
	t.Helper()
	if o.Underlay == 0 {
		o.Underlay = max(1500, MTU+c.overhead(o.IPv6))
	}
	ha, hb := c.Hosts(t, o)
	a, b = &end{Host: ha, t: t, cfg: c}, &end{Host: hb, t: t, cfg: c}
	for _, e := range []*end{a, b} {
		e.open(false)
		t.Cleanup(e.close)
	}
	neighbours(t, a, b)
	neighbours(t, b, a)
	return a, b
}

// neighbours tells a's container b's MAC: kernel paths carry no broadcast.
func neighbours(t *testing.T, a, b *end) {
	t.Helper()
	if out, err := a.Container("ip", "neigh", "replace", b.IP.String(), "lladdr", b.MAC.String(), "dev", "ethwe", "nud", "permanent"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (e *end) add(o *end) { e.addAt(o, netip.AddrPortFrom(o.Addr, Port)) }

func (e *end) addAt(o *end, addr netip.AddrPort) {
	p := odp.Peer{Name: o.Name, Addr: addr}
	if s := e.cfg.Sealed; s != nil {
		p.Data, p.PSK = string(s.Offer(o.be)), [32]byte{1, 2, 3}
	}
	e.be.AddPeer(p)
}

// overhead of the path on a family of the underlay, and the probe MAC of a host.
func (c *Config) overhead(ipv6 bool) int {
	if c.Sealed != nil {
		return overlay.Overhead(ipv6, overlay.EncapCage)
	}
	return overlay.Overhead(ipv6, overlay.EncapVXLAN)
}

func (c *Config) probeMAC(h *Host, ipv6 bool) ether.MAC {
	if c.Sealed != nil {
		return odp.SealedProbeMAC(h.Name)
	}
	return odp.ProbeMAC(h.Name, ipv6)
}

// inside is where adopted entries lead.
func (c *Config) inside(h *Host) netip.Addr {
	if c.Sealed != nil {
		return c.Sealed.Inside(h)
	}
	return h.Addr
}

// steer points o's container's MAC to o.
func (e *end) steer(o *end) {
	e.t.Helper()
	port, err := e.be.Steer(o.MAC, o.Name)
	if err != nil {
		e.t.Fatalf("steer: %v", err)
	}
	e.must("bridge", "fdb", "replace", o.MAC.String(), "dev", e.device(port), "master", "dynamic", "extern_learn")
}

func (e *end) device(port int) string {
	e.t.Helper()
	for line := range strings.Lines(e.must("ip", "-o", "link", "show")) {
		f := strings.Fields(line)
		if f[0] == strconv.Itoa(port)+":" {
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			return name
		}
	}
	e.t.Fatalf("no device with index %d", port)
	return ""
}

func (e *end) must(args ...string) string {
	e.t.Helper()
	out, err := e.Run(args...)
	if err != nil {
		e.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// connected makes two ends that carry each other's container.
func (c *Config) connected(t *testing.T, o Options) (a, b *end) {
	t.Helper()
	a, b = c.pair(t, o)
	a.add(b)
	b.add(a)
	a.steer(b)
	b.steer(a)
	return a, b
}

// pings reports whether all of n pings of size bytes of IP came back.
func (e *end) pings(o *end, n, size int) bool { return e.answered(o, n, size) == n }

// answered is how many of n pings came back. On a busy machine the last one may be
// missing: ping waits for it for two round trips only.
func (e *end) answered(o *end, n, size int) (count int) {
	out, _ := e.Container("ping", "-n", "-q", "-c", fmt.Sprint(n), "-i", "0.02", "-W", "1", "-M", "do", "-s", fmt.Sprint(size-28), o.IP.String())
	_, line, _ := strings.Cut(out, "transmitted, ")
	fmt.Sscanf(line, "%d received", &count)
	return count
}

// carries reports whether all of n pings came back, in one of a few tries.
func (e *end) carries(o *end, n, size int) bool {
	for range 4 {
		if e.pings(o, n, size) {
			return true
		}
	}
	return false
}

func within(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// TakeVXLANPort is Config.Occupy of backends that receive vxlan at Port: another device
// has the port.
func TakeVXLANPort(h *Host) (free func() error, err error) {
	_, err = h.Run("ip", "link", "add", "other", "type", "vxlan", "id", "77", "gbp", "dstport", fmt.Sprint(Port))
	_, err2 := h.Run("ip", "link", "set", "other", "up")
	return func() error {
		_, err := h.Run("ip", "link", "del", "other")
		return err
	}, errors.Join(err, err2)
}
