package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weave/internal/peer"
	"weave/internal/store"
	"weave/ipam"
	"weave/mesh/gossip"
)

func name(n int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, byte(n)}) }

// memory is a Store in memory.
type memory struct {
	mu   sync.Mutex
	m    map[string][]byte
	fail error
}

func (s *memory) Load() (out []ipam.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.m {
		out = append(out, ipam.Record{Key: k, Value: v})
	}
	return out, nil
}

func (s *memory) Save(rs []ipam.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if s.m == nil {
		s.m = map[string][]byte{}
	}
	for _, r := range rs {
		if r.Value == nil {
			delete(s.m, r.Key)
		} else {
			s.m[r.Key] = r.Value
		}
	}
	return nil
}

// disk is a Store in a real file.
type disk struct{ s *store.Store }

const bucket = "ipam"

func (d disk) Load() (out []ipam.Record, err error) {
	err = d.s.View(func(tx *store.Tx) error {
		for k := range tx.Keys(bucket) {
			var v []byte
			if _, err := tx.Get(bucket, k, &v); err != nil {
				return err
			}
			out = append(out, ipam.Record{Key: k, Value: v})
		}
		return nil
	})
	return out, err
}

func (d disk) Save(rs []ipam.Record) error {
	return d.s.Update(func(tx *store.Tx) error {
		for _, r := range rs {
			var err error
			if r.Value == nil {
				err = tx.Delete(bucket, r.Key)
			} else {
				err = tx.Put(bucket, r.Key, r.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// net is a mesh in which all reach all, unless they are down.
type net struct {
	mu       sync.Mutex
	channels map[peer.Name]gossip.Channel
	nicks    map[peer.Name]string
	down     map[peer.Name]bool
	rnd      *rand.Rand
}

func newNet() *net {
	return &net{channels: map[peer.Name]gossip.Channel{}, nicks: map[peer.Name]string{}, down: map[peer.Name]bool{}, rnd: rand.New(rand.NewPCG(1, 2))}
}

func (n *net) mesh(self peer.Name) func() ipam.Mesh {
	return func() (m ipam.Mesh) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for p, nick := range n.nicks {
			if p != self {
				m.Peers = append(m.Peers, ipam.Peer{Name: p, Nick: nick, Reachable: !n.down[p] && !n.down[self] && n.channels[p] != nil})
			}
		}
		m.Targets = len(n.nicks) - 1
		return m
	}
}

type sender struct {
	n    *net
	self peer.Name
}

var errNoRoute = errors.New("no route")

func (s sender) to(p peer.Name) gossip.Channel {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.down[p] || s.n.down[s.self] {
		return nil
	}
	return s.n.channels[p]
}

func (s sender) Update(d gossip.Data) {
	for p := range s.n.nicks {
		if ch := s.to(p); ch != nil && p != s.self {
			for _, b := range d.Encode() {
				if len(b) > gossip.MaxMessage {
					panic("message too long")
				}
				ch.OnMessage(s.self, b)
			}
		}
	}
}

func (s sender) Unicast(p peer.Name, b []byte) error {
	ch := s.to(p)
	if ch == nil {
		return errNoRoute
	}
	return ch.OnUnicast(s.self, b)
}

type host struct {
	*ipam.Allocator
	stop func()
}

func (n *net) launch(t testing.TB, i int, s ipam.Store, change func(*ipam.Config)) *host {
	t.Helper()
	cfg := ipam.Config{
		Name: name(i), Nick: fmt.Sprint("host", i), UID: peer.NewUID(), Range: netip.MustParsePrefix("10.32.0.0/12"),
		Init: ipam.Init{Electors: 3}, Store: s, Mesh: n.mesh(name(i)), Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := ipam.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ch := a.Open(sender{n, name(i)})
	n.mu.Lock()
	n.channels[name(i)] = ch
	n.nicks[name(i)] = cfg.Nick
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h := &host{a, sync.OnceFunc(func() {
		cancel()
		<-ended
		n.mu.Lock()
		delete(n.channels, name(i))
		n.mu.Unlock()
	})}
	t.Cleanup(h.stop)
	return h
}

func (h *host) get(t testing.TB, ident string) netip.Prefix {
	t.Helper()
	p, err := h.Allocate(context.Background(), ident, netip.Prefix{}, ipam.Options{Container: true})
	if err != nil {
		t.Fatalf("%s: %v", ident, err)
	}
	return p
}

// TestThreeHosts follows a network from its first address to the loss of a host.
func TestThreeHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		n := newNet()
		stores := []*memory{nil, {}, {}, {}}
		a := n.launch(t, 1, stores[1], nil)

		_, err := a.Allocate(ctx, "c0", netip.Prefix{}, ipam.Options{})
		if !errors.Is(err, ipam.ErrNoQuorum) || err.Error() != "no quorum: need 2 of 3, know host1" {
			t.Errorf("alone: %v", err)
		}
		b, c := n.launch(t, 2, stores[2], nil), n.launch(t, 3, stores[3], nil)
		for _, h := range []*host{a, b, c} {
			h.Reconcile(ctx, nil) // as every launch does; before it what one owns rests
		}
		pa, pb, pc := a.get(t, "a1"), b.get(t, "b1"), c.get(t, "c1")
		if pa == pb || pb == pc || pa == pc || a.get(t, "a1") != pa {
			t.Errorf("addresses %v %v %v", pa, pb, pc)
		}
		if pa.String() != "10.32.0.1/12" {
			t.Errorf("lowest is %v", pa)
		}
		if err := b.Claim(ctx, "thief", pa, ipam.Options{}); !errors.Is(err, ipam.ErrInUse) {
			t.Errorf("claim of another's address: %v", err)
		}
		if err := b.Claim(ctx, "b2", netip.MustParsePrefix("10.32.7.7/12"), ipam.Options{}); err != nil {
			t.Errorf("claim of another's free address: %v", err)
		}
		if err := b.Claim(ctx, "b3", netip.MustParsePrefix("192.168.7.7/24"), ipam.Options{}); err != nil {
			t.Errorf("claim outside: %v", err)
		}

		c.stop()
		if _, err := a.Allocate(ctx, "x", netip.MustParsePrefix("10.47.255.0/24"), ipam.Options{}); err == nil {
			t.Log("host1 or host2 owns the end of the range")
		}
		got, err := a.RmPeer(ctx, "host3")
		if err != nil || got == 0 {
			t.Errorf("rmpeer: %d, %v", got, err)
		}
		if _, err := a.RmPeer(ctx, "host2"); !errors.Is(err, ipam.ErrAlive) {
			t.Errorf("rmpeer of a living host: %v", err)
		}
		if _, err := a.RmPeer(ctx, "host9"); !errors.Is(err, ipam.ErrNotFound) {
			t.Errorf("rmpeer of nobody: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := a.Allocate(ctx, "x", netip.MustParsePrefix("10.47.255.0/24"), ipam.Options{}); err != nil {
			t.Errorf("from space taken over: %v", err)
		}

		b.stop()
		b = n.launch(t, 2, stores[2], nil)
		b.Reconcile(ctx, []ipam.Live{{Ident: "b1", Container: true}})
		if again := b.get(t, "b1"); again != pb {
			t.Errorf("after a restart %v, before %v", again, pb)
		}
		time.Sleep(2 * time.Second)
		st, err := b.Status(ctx)
		if err != nil || st.State != "ready" || len(st.Shares) != 2 || st.Shares[0].Nick != "host2" {
			t.Errorf("status %+v, %v", st, err)
		}
		if _, err := b.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		b.stop()
		time.Sleep(time.Second)
		if st, _ = a.Status(ctx); len(st.Shares) != 1 || st.Shares[0].Addresses != 1<<20 {
			t.Errorf("the last one owns %+v", st.Shares)
		}
	})
}

// TestReasons: a request that cannot be granted says why within 5 s.
func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		n := newNet()
		small := func(c *ipam.Config) {
			c.Range = netip.MustParsePrefix("10.0.0.0/29")
			c.Init = ipam.Init{Mode: ipam.Seed, Seeds: []peer.Name{name(1), name(2)}}
		}
		a, b := n.launch(t, 1, &memory{}, small), n.launch(t, 2, &memory{}, small)
		for i := range 6 {
			a.get(t, fmt.Sprint("c", i))
		}
		begin := time.Now()
		_, err := a.Allocate(ctx, "more", netip.Prefix{}, ipam.Options{})
		if !errors.Is(err, ipam.ErrExhausted) || !strings.HasPrefix(err.Error(), "range exhausted") || time.Since(begin) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		b.stop()
		begin = time.Now()
		_, err = a.Allocate(ctx, "more", netip.Prefix{}, ipam.Options{})
		if !errors.Is(err, ipam.ErrWaiting) && !errors.Is(err, ipam.ErrExhausted) || time.Since(begin) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		for _, p := range []string{"10.1.0.0/24", "10.0.0.0/31", "10.0.0.1/29"} {
			if _, err := a.Allocate(ctx, "c", netip.MustParsePrefix(p), ipam.Options{}); !errors.Is(err, ipam.ErrSubnet) {
				t.Errorf("%s: %v", p, err)
			}
		}
		wctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		begin = time.Now()
		if _, err := a.Allocate(wctx, "more", netip.Prefix{}, ipam.Options{Wait: true}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) < time.Minute {
			t.Errorf("waiting: %v after %v", err, time.Since(begin))
		}
	})
}

func TestWaitingForOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		seeds := func(c *ipam.Config) {
			c.Init = ipam.Init{Mode: ipam.Seed, Seeds: []peer.Name{name(1), name(2)}}
		}
		a, b := n.launch(t, 1, &memory{}, seeds), n.launch(t, 2, &memory{}, seeds)
		a.get(t, "a")
		b.get(t, "b")
		b.stop()
		time.Sleep(time.Second)
		_, err := a.Allocate(context.Background(), "c", netip.MustParsePrefix("10.46.0.0/16"), ipam.Options{})
		if err == nil || err.Error() != "waiting for host2, which owns the rest: rmpeer host2 if it is gone" {
			t.Errorf("%v", err)
		}
	})
}

// TestVanished: the addresses of a container that is gone come back after its grace,
// also if it went while the daemon was down.
func TestVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		n := newNet()
		one := func(c *ipam.Config) { c.Init.Electors = 1 }
		s := &memory{}
		a := n.launch(t, 1, s, one)
		p := a.get(t, "c1")
		keep, _ := a.Allocate(ctx, "weave:expose", netip.Prefix{}, ipam.Options{})
		a.ContainerDied(ctx, "c1")
		time.Sleep(20 * time.Second)
		if a.get(t, "c1") != p { // it came back
			t.Error("lost its address")
		}
		time.Sleep(20 * time.Second)
		if got, _ := a.Lookup(ctx, "c1", netip.Prefix{}); !slices.Equal(got, []netip.Prefix{p}) {
			t.Errorf("has %v", got)
		}
		a.stop()
		a = n.launch(t, 1, s, one)
		if err := a.Reconcile(ctx, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if other := a.get(t, "c2"); other == p {
			t.Error("taken within the grace")
		}
		time.Sleep(12 * time.Second)
		if other := a.get(t, "c3"); other != p {
			t.Errorf("got %v, want the one that came back, %v", other, p)
		}
		if got, _ := a.Lookup(ctx, "weave:expose", netip.Prefix{}); !slices.Equal(got, []netip.Prefix{keep}) {
			t.Errorf("expose has %v, want %v", got, keep)
		}
		if err := a.Free(ctx, "c3", p.Addr()); err != nil {
			t.Error(err)
		}
		if err := a.Free(ctx, "c3", p.Addr()); !errors.Is(err, ipam.ErrNotFound) {
			t.Errorf("freed twice: %v", err)
		}
	})
}

func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		s := &memory{}
		a := n.launch(t, 1, s, func(c *ipam.Config) { c.Init.Electors = 1 })
		a.get(t, "c1")
		s.mu.Lock()
		s.fail = errors.New("no space left")
		s.mu.Unlock()
		if _, err := a.Allocate(context.Background(), "c2", netip.Prefix{}, ipam.Options{}); !errors.Is(err, s.fail) {
			t.Errorf("%v, want the store's error", err)
		}
		if _, err := a.Allocate(context.Background(), "c3", netip.Prefix{}, ipam.Options{}); !errors.Is(err, ipam.ErrStopped) {
			t.Errorf("%v, want ErrStopped", err)
		}
	})
}

// BenchmarkAllocate64 measures durable allocations on a real file.
func BenchmarkAllocate64(b *testing.B) {
	s, err := store.Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	n := newNet()
	a := n.launch(b, 1, disk{s}, func(c *ipam.Config) { c.Init.Electors = 1 })
	a.get(b, "first")
	const clients = 64
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	var next int64
	var mu sync.Mutex
	b.ResetTimer()
	for c := range clients {
		wg.Go(func() {
			for {
				mu.Lock()
				next++
				i := next
				mu.Unlock()
				if i > int64(b.N) {
					return
				}
				begin := time.Now()
				if _, err := a.Allocate(context.Background(), fmt.Sprint("c", i), netip.Prefix{}, ipam.Options{}); err != nil {
					b.Error(err)
				}
				took[c] = append(took[c], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "alloc/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}
