package topo

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

func name(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}) }

func names(is ...int) (out []peer.Name) {
	for _, i := range is {
		out = append(out, name(i))
	}
	return out
}

func record(i int, version uint64, to ...int) *Record {
	r := &Record{Name: name(i), UID: peer.UID(i), Version: version, NickName: fmt.Sprint("h", i)}
	for _, j := range to {
		r.Conns = append(r.Conns, Conn{Peer: name(j), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(j)}), 6783), Outbound: i < j, Established: true})
	}
	slices.SortFunc(r.Conns, func(a, b Conn) int { return a.Peer.Compare(b.Peer) })
	return r
}

// world makes peer self's Topology of a graph given as edges.
func world(self int, edges [][2]int) *Topology {
	adj := map[int][]int{self: nil}
	for _, e := range edges {
		adj[e[0]] = append(adj[e[0]], e[1])
		adj[e[1]] = append(adj[e[1]], e[0])
	}
	t := New(name(self), peer.UID(self), "me")
	for i, to := range adj {
		if i == self {
			t.SetConns(record(i, 1, to...).Conns)
		} else {
			t.Merge([]*Record{record(i, 1, to...)})
		}
	}
	return t
}

func TestMerge(t *testing.T) {
	tests := []struct {
		name string
		have *Record
		in   *Record
		want bool // in wins
	}{
		{"unknown peer", nil, record(2, 1), true},
		{"higher version", record(2, 1), record(2, 2, 3), true},
		{"same version", record(2, 2), record(2, 2, 3), false},
		{"lower version", record(2, 2), record(2, 1, 3), false},
		{"same version, higher UID", record(2, 2), &Record{Name: name(2), UID: 99, Version: 2}, true},
		{"lower version, higher UID", record(2, 2), &Record{Name: name(2), UID: 99, Version: 1}, false},
		{"no name", nil, &Record{UID: 1, Version: 1}, false},
		{"no UID", nil, &Record{Name: name(2), Version: 1}, false},
		{"version 0", nil, &Record{Name: name(2), UID: 1}, false},
		{"version beyond the limit", nil, record(2, MaxVersion+1), false},
		{"connected to itself", nil, record(2, 1, 2), false},
		{"connected twice", nil, record(2, 1, 3, 3), false},
	}
	for _, tt := range tests {
		top := New(name(1), 1, "me")
		if tt.have != nil {
			top.Merge([]*Record{tt.have})
		}
		news := top.Merge([]*Record{tt.in})
		if got := len(news) == 1; got != tt.want {
			t.Errorf("%s: news %v, want %v", tt.name, got, tt.want)
		}
		if got := tt.in.Name != (peer.Name{}) && top.Record(tt.in.Name) == tt.in; got != tt.want {
			t.Errorf("%s: adopted %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestRestart: a peer that hears of its earlier life goes above it, so that others
// take the new one.
func TestRestart(t *testing.T) {
	top := New(name(1), 7, "me")
	old := &Record{Name: name(1), UID: 3, Version: 57}
	news := top.Merge([]*Record{old})
	if len(news) != 1 || news[0].Version != 58 || news[0].UID != 7 {
		t.Fatalf("news = %+v, want own record at version 58", news)
	}
	other := New(name(2), 2, "other")
	other.Merge([]*Record{old})
	other.Merge(news)
	if got := other.Record(name(1)).UID; got != 7 {
		t.Errorf("other peer has UID %d, want 7", got)
	}
	if n := top.Merge([]*Record{old}); n != nil {
		t.Errorf("the old record again is news: %+v", n)
	}
}

func TestCollect(t *testing.T) {
	top := world(1, [][2]int{{1, 2}, {2, 3}, {4, 5}})
	if d := cmp.Diff(names(4, 5), top.Collect(), cmp.Comparer(func(a, b peer.Name) bool { return a == b })); d != "" {
		t.Errorf("gone (-want +got):\n%s", d)
	}
	if top.Len() != 3 {
		t.Errorf("%d records stay, want 3", top.Len())
	}
	top.SetConns(nil)
	if got := len(top.Collect()); got != 2 {
		t.Errorf("%d gone after the last connection, want 2", got)
	}
}

func TestRoutes(t *testing.T) {
	// 1-2-4-5, 1-3-4: 4 is reached by 2, the first in order of name.
	edges := [][2]int{{1, 2}, {1, 3}, {2, 4}, {3, 4}, {4, 5}}
	got := world(1, edges).Routes(false)
	want := map[peer.Name]peer.Name{name(2): name(2), name(3): name(3), name(4): name(2), name(5): name(2)}
	opt := cmp.Comparer(func(a, b peer.Name) bool { return a == b })
	if d := cmp.Diff(want, got.Unicast, opt); d != "" {
		t.Errorf("unicast (-want +got):\n%s", d)
	}
	wantB := map[peer.Name][]peer.Name{name(1): names(2, 3), name(2): names(3), name(4): nil, name(5): nil, name(3): names(2)}
	for o, w := range wantB {
		if d := cmp.Diff(w, got.Broadcast[o], opt); d != "" {
			t.Errorf("broadcast of %v (-want +got):\n%s", o, d)
		}
	}
}

func TestRoutesNeedBothEnds(t *testing.T) {
	top := New(name(1), 1, "me")
	top.SetConns(record(1, 1, 2, 3).Conns)
	notYet := record(2, 1, 1)
	notYet.Conns[0].Established = false
	top.Merge([]*Record{notYet, record(3, 1)})
	if u := top.Routes(false).Unicast; len(u) != 0 {
		t.Errorf("data routes %v over links that one end denies", u)
	}
	if u := top.Routes(true).Unicast; len(u) != 2 {
		t.Errorf("message routes %v, want 2", u)
	}
}

// TestBroadcastOnce checks on random connected graphs, from every peer's own view,
// that a broadcast reaches each peer exactly once and unicasts arrive.
func TestBroadcastOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 60 {
		n := 2 + rng.IntN(90)
		var edges [][2]int
		seen := map[[2]int]bool{}
		add := func(a, b int) {
			if a > b {
				a, b = b, a
			}
			if a != b && !seen[[2]int{a, b}] {
				seen[[2]int{a, b}] = true
				edges = append(edges, [2]int{a, b})
			}
		}
		for i := 1; i < n; i++ {
			add(i, rng.IntN(i))
		}
		for range rng.IntN(3 * n) {
			add(rng.IntN(n), rng.IntN(n))
		}
		routes := make([]Routes, n)
		for i := range n {
			routes[i] = world(i+1, inc(edges)).Routes(false)
		}
		index := map[peer.Name]int{}
		for i := range n {
			index[name(i+1)] = i
		}
		for origin := range n {
			got := make([]int, n)
			queue := []int{origin}
			for len(queue) > 0 {
				p := queue[0]
				queue = queue[1:]
				if got[p]++; got[p] > 1 {
					break
				}
				for _, h := range routes[p].Broadcast[name(origin+1)] {
					queue = append(queue, index[h])
				}
			}
			for p, times := range got {
				if times != 1 {
					t.Fatalf("seed %d round %d: peer %d gets %d's broadcast %d times", seed, round, p, origin, times)
				}
			}
			for dest := range n {
				at, hops := origin, 0
				for at != dest {
					at = index[routes[at].Unicast[name(dest+1)]]
					if hops++; hops > n {
						t.Fatalf("seed %d round %d: unicast %d to %d does not arrive", seed, round, origin, dest)
					}
				}
			}
		}
	}
}

func inc(edges [][2]int) (out [][2]int) {
	for _, e := range edges {
		out = append(out, [2]int{e[0] + 1, e[1] + 1})
	}
	return out
}

// TestAntiEntropy: two topologies that exchange messages as neighbours do end
// equal, whatever each knew.
func TestAntiEntropy(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		a, b := New(name(1), 1, "a"), New(name(2), 2, "b")
		for i := 3; i < 40; i++ {
			for _, top := range []*Topology{a, b} {
				if rng.IntN(3) > 0 {
					top.Merge([]*Record{record(i, uint64(1+rng.IntN(3)), i+1)})
				}
			}
		}
		type letter struct {
			to  *Topology
			msg []byte
		}
		other := map[*Topology]*Topology{a: b, b: a}
		mail := []letter{{b, a.Digest()}}
		for n := 0; len(mail) > 0; n++ {
			if n > 10 {
				t.Fatalf("seed %d: still talking", seed)
			}
			l := mail[0]
			mail = mail[1:]
			r, err := l.to.Step(l.msg)
			if err != nil {
				t.Fatal(err)
			}
			if r.Reply != nil {
				for _, m := range r.Reply.Encode() {
					mail = append(mail, letter{other[l.to], m})
				}
			}
		}
		if !bytes.Equal(a.Digest(), b.Digest()) {
			t.Fatalf("seed %d: not equal afterwards", seed)
		}
		if r, _ := a.Step(b.Digest()); r.Reply != nil {
			t.Fatalf("equal states answer a digest")
		}
	}
}

func TestGolden(t *testing.T) {
	r := record(2, 3, 1)
	r.Conns = append(r.Conns, Conn{Peer: name(3), Addr: netip.MustParseAddrPort("[2001:db8::3]:6783"), Outbound: true})
	got := NewDelta(r).Encode()
	const want = "0481854602000000000202036268328284460200000000014" + "4c0000201191a7f0284460200000000035020010db8000000000000000000000003191a7f01"
	if len(got) != 1 || hex.EncodeToString(got[0]) != want {
		t.Fatalf("got  %x\nwant %s", got, want)
	}
	back, err := ParseRecords(got[0][1:])
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]*Record{r}, back, cmp.Comparer(func(a, b peer.Name) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("round trip (-want +got):\n%s", d)
	}
}

func TestEncodeSplits(t *testing.T) {
	d := Delta{}
	all := make([]int, 0, 400)
	for i := range 400 {
		all = append(all, i+1000)
	}
	for i := range 100 {
		d.add(record(i+1, 1, all...))
	}
	n := 0
	for _, m := range d.Encode() {
		if len(m) > gossip.MaxMessage {
			t.Errorf("message of %d bytes", len(m))
		}
		rs, err := ParseRecords(m[1:])
		if err != nil {
			t.Fatal(err)
		}
		n += len(rs)
	}
	if n != 100 {
		t.Errorf("%d records arrive, want 100", n)
	}
}

func FuzzStep(f *testing.F) {
	top := world(1, [][2]int{{1, 2}, {2, 3}})
	f.Add(top.Digest())
	f.Add(appendStamps([]byte{msgStamps}, top.Stamps()))
	f.Add(appendStamps([]byte{msgStampsFinal}, top.Stamps()[:1]))
	for _, m := range NewDelta(record(9, 4, 1, 2), record(1, 77)).Encode() {
		f.Add(m)
	}
	f.Add([]byte{msgRecords, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // array of 2^64-1
	f.Fuzz(func(t *testing.T, msg []byte) {
		top := world(1, [][2]int{{1, 2}, {2, 3}})
		if r, err := top.Step(msg); err == nil && r.News != nil {
			for _, m := range r.News.Encode() {
				if _, err := ParseRecords(m[1:]); err != nil {
					t.Fatalf("news cannot be parsed: %v", err)
				}
			}
		}
		top.Collect()
		top.Routes(false)
	})
}

func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{50, 500, 1000} {
		var edges [][2]int
		rng := rand.New(rand.NewPCG(1, 1))
		seen := map[[2]int]bool{}
		for i := 1; i < n; i++ {
			for range min(i, 50) {
				if e := [2]int{rng.IntN(i) + 1, i + 1}; !seen[e] {
					seen[e] = true
					edges = append(edges, e)
				}
			}
		}
		top := world(1, edges)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				top.Routes(false)
			}
		})
	}
}
