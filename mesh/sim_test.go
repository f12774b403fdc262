package mesh_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weave/mesh"
	"weave/mesh/meshtest"
	"weave/mesh/overlay"
	"weave/mesh/overlay/overlaytest"
	"weave/mesh/topo"
)

// The simulation runs whole production routers, with real handshakes, sealing and
// signatures, in one process over a network in memory without latency. The only
// parts that are not those of the daemon are the network, the overlay (links that
// are up when both ends said so), and a memory of signatures that were found good,
// since all peers check the same ones: it is off with WEAVE_SIM_VERIFY=1.
//
//	WEAVE_SIM=250,500,1000 go test -run TestSimulation -v -timeout 60m ./mesh
const simEnv = "WEAVE_SIM"

// Promises for a network of up to 500 peers.
const (
	simLimit  = 200 // connections, the daemon's default
	simSettle = 60 * time.Second
	simCPU    = 0.02    // of a core, per peer, at rest
	simHeap   = 4 << 20 // per peer
	simConn   = 64 << 10
)

func TestSimulation(t *testing.T) {
	sizes := []int{50, 100}
	if env := os.Getenv(simEnv); env != "" {
		sizes = nil
		for _, s := range strings.Split(env, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, n)
		}
	} else if testing.Short() {
		sizes = sizes[:1]
	}
	t.Log(simHead)
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := simulate(t, n)
				t.Log(r)
				r.check(t)
			})
		})
	}
}

// simResult is a row of the table in docs/mesh.md.
type simResult struct {
	peers    int
	settled  time.Duration // virtual, until every peer has routes to all
	dense    time.Duration // until no more connections are made
	conns    float64       // direct connections per peer
	said     float64       // announcements of a peer until dense
	startCPU time.Duration // until dense, per peer
	restCPU  float64       // share of a core per peer, at rest
	heap     int           // bytes per peer, at rest
	idle     float64       // bytes per second and connection end, at rest
	change   float64       // bytes to each neighbour that is told of a lost link
	reroute  time.Duration // until all peers have the routes without it
}

const simHead = "| peers | settled | all connections | per peer | announcements | CPU until then | CPU at rest | heap per peer | at rest, per connection | a change, per message | known to all |"

func (r simResult) String() string {
	return fmt.Sprintf("| %d | %.1f s | %.0f s | %.0f | %.0f | %.2f s | %.2f %% | %.1f MiB | %.0f B/s | %.0f B | %d ms |",
		r.peers, r.settled.Seconds(), r.dense.Seconds(), r.conns, r.said, r.startCPU.Seconds(), r.restCPU*100,
		float64(r.heap)/(1<<20), r.idle, r.change, r.reroute.Milliseconds())
}

func (r simResult) check(t *testing.T) {
	if r.settled > simSettle {
		t.Errorf("settled after %v, want %v", r.settled, simSettle)
	}
	if r.restCPU > simCPU {
		t.Errorf("%.1f %% of a core per peer, want %.1f %%", r.restCPU*100, simCPU*100)
	}
	if most := simHeap + simConn*r.conns; float64(r.heap) > most {
		t.Errorf("%d bytes of heap per peer, want %.0f", r.heap, most)
	}
	if r.change > 2<<10 {
		t.Errorf("a change costs %.0f bytes a message", r.change)
	}
}

// simPeer is a router of which only the last view is kept.
type simPeer struct {
	*mesh.Router
	ov   *overlaytest.Overlay
	view atomic.Pointer[mesh.View]
}

type simNet struct {
	t     *testing.T
	net   *meshtest.Net
	peers []*simPeer
	start time.Time
}

func simulate(t *testing.T, n int) (r simResult) {
	s := &simNet{t: t, net: meshtest.New()}
	for i := 1; i <= n; i++ {
		s.add(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	before := cpuTime()
	s.start = time.Now()
	for _, p := range s.peers {
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	r.peers = n
	r.settled = s.until(5*time.Minute, 100*time.Millisecond, func() bool { return s.allRoutes() })
	t.Logf("%d peers: settled", n) // large networks take long
	r.dense = s.untilDense()
	t.Logf("%d peers: all connections", n)
	r.startCPU = (cpuTime() - before) / time.Duration(n)
	r.conns = float64(s.links()) / float64(n)
	for _, p := range s.peers {
		r.said += float64(mesh.Announcements(p.Router)) / float64(n)
	}
	s.measureRest(&r)
	s.measureChange(&r)
	return r
}

func (s *simNet) add(i int) {
	p := &simPeer{ov: overlaytest.New(overlay.Path{Name: "sleeve", Port: 6783})}
	r, err := mesh.New(mesh.Config{
		Name: nameOf(i), NickName: fmt.Sprint("h", i), Version: "1.0", Static: mustKey(s.t), PSK: pskRight,
		Ciphers: ciphers, Lanes: 2, Overlays: []overlay.Overlay{p.ov}, Net: s.net.Host(addrOf(i)),
		Targets: []string{addrOf(1), addrOf(2), addrOf(3)}, Discovery: true, ConnLimit: simLimit,
		OnChange: func(v mesh.View) { p.view.Store(&v) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if os.Getenv("WEAVE_SIM_VERIFY") == "" {
		mesh.SetVerify(r, rememberGood)
	}
	p.Router = r
	s.peers = append(s.peers, p)
}

// good are signatures that were checked.
var good sync.Map

func rememberGood(key topo.Key, msg, sig []byte) bool {
	h := sha256.New()
	h.Write(key[:])
	h.Write(sig)
	h.Write(msg)
	k := [sha256.Size]byte(h.Sum(nil))
	if _, ok := good.Load(k); ok {
		return true
	}
	if !ed25519.Verify(key[:], msg, sig) {
		return false
	}
	good.Store(k, true)
	return true
}

// until lets time pass until cond holds and returns how long it was since the start.
func (s *simNet) until(limit, step time.Duration, cond func() bool) time.Duration {
	for {
		synctest.Wait()
		d := time.Since(s.start)
		if cond() {
			return d
		}
		if d > limit {
			s.t.Fatalf("not within %v", limit)
		}
		time.Sleep(step)
	}
}

func (s *simNet) allRoutes() bool {
	return !slices.ContainsFunc(s.peers, func(p *simPeer) bool {
		v := p.view.Load()
		return v == nil || len(v.Routes.Unicast) != len(s.peers)-1 || len(v.Peers) != len(s.peers)
	})
}

func (s *simNet) links() (n int) {
	for _, p := range s.peers {
		n += len(p.view.Load().Links)
	}
	return n
}

// untilDense waits until the number of connections is the same for 15 s.
func (s *simNet) untilDense() time.Duration {
	last, since := -1, time.Now()
	s.until(10*time.Minute, time.Second, func() bool {
		if n := s.links(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) >= 15*time.Second
	})
	return since.Sub(s.start)
}

func (s *simNet) measureRest(r *simResult) {
	time.Sleep(20 * time.Second) // back-off and the last digests
	synctest.Wait()
	const span = 30 * time.Second
	cpu, bytes := cpuTime(), s.net.Bytes()
	time.Sleep(span)
	synctest.Wait()
	r.restCPU = (cpuTime() - cpu).Seconds() / span.Seconds() / float64(r.peers)
	r.idle = float64(s.net.Bytes()-bytes) / span.Seconds() / float64(s.links())
	good.Clear()
	runtime.GC()
	runtime.GC()
	if f, err := os.Create(os.Getenv("WEAVE_SIM_HEAP")); err == nil {
		pprof.Lookup("heap").WriteTo(f, 0)
		f.Close()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.heap = int(m.HeapAlloc+m.StackInuse) / r.peers
}

// measureChange loses one link and counts the updates of the topology that travel.
func (s *simNet) measureChange(r *simResult) {
	a := s.peers[len(s.peers)/2]
	var other *simPeer
	for _, p := range s.peers {
		if a.view.Load().Links[nameOf(s.index(p))] != nil {
			other = p
		}
	}
	an, on := nameOf(s.index(a)), nameOf(s.index(other))
	sent, bytes := s.sent()
	begin := time.Now()
	for _, e := range []struct {
		p  *simPeer
		to *overlaytest.Overlay
	}{{a, a.ov}, {other, other.ov}} {
		peer := on
		if e.p == other {
			peer = an
		}
		l := e.to.Links(peer)
		l[len(l)-1].Fire(overlay.Event{Reason: "heartbeat lost"})
	}
	was := mesh.TopologyDigest(s.peers[0].Router)
	s.until(time.Hour, 20*time.Millisecond, func() bool {
		d := mesh.TopologyDigest(a.Router)
		return d != was && !slices.ContainsFunc(s.peers, func(p *simPeer) bool { return mesh.TopologyDigest(p.Router) != d }) &&
			a.view.Load().Routes.Unicast[on] != on && other.view.Load().Routes.Unicast[an] != an
	})
	r.reroute = time.Since(begin)
	time.Sleep(3 * time.Second)
	synctest.Wait()
	sent2, bytes2 := s.sent()
	if sent2 > sent {
		r.change = float64(bytes2-bytes) / float64(sent2-sent)
	}
}

func (s *simNet) index(p *simPeer) int { return slices.Index(s.peers, p) + 1 }

// sent sums the updates of the topology over all peers.
func (s *simNet) sent() (n, bytes uint64) {
	for _, p := range s.peers {
		st := p.Status().Channels[0]
		n += st.Sent
		bytes += st.SentBytes
	}
	return n, bytes
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
