package topo

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
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

var (
	t0      = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	sameAs  = cmp.Comparer(func(a, b peer.Name) bool { return a == b })
	genesis = ed25519.NewKeyFromSeed
)

func name(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}) }

func names(is ...int) (out []peer.Name) {
	for _, i := range is {
		out = append(out, name(i))
	}
	return out
}

// secret is the key of peer i; of its n-th reinstallation.
func secret(i, n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1], seed[2] = byte(i), byte(i>>8), byte(n)
	return genesis(seed)
}

func keyOf(i, n int) Key { return Key(secret(i, n).Public().(ed25519.PublicKey)) }

// alwaysValid is for tests of many peers, where signatures are not the point.
func alwaysValid(Key, []byte, []byte) bool { return true }

func newPeer(i int, opts ...func(*Config)) *Topology {
	c := Config{Name: name(i), UID: peer.UID(i), NickName: fmt.Sprint("h", i), Program: "1.0", Port: 6783, Key: secret(i, 0)}
	for _, o := range opts {
		o(&c)
	}
	return New(c)
}

func lifeOf(uid peer.UID) func(*Config) { return func(c *Config) { c.UID = uid } }
func trusting(c *Config)                { c.Verify = alwaysValid }
func reinstalled(c *Config) {
	c.UID += 1000
	c.Key = secret(int(c.UID-1000), 1)
	c.NickName = "new " + c.NickName
}

func conn(to int) Conn { return connKey(to, keyOf(to, 0)) }

func connKey(to int, k Key) Conn {
	return Conn{Peer: name(to), Mark: k.Mark(), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(to)}), 6783), Outbound: true, Established: true}
}

func conns(to ...int) (out []Conn) {
	for _, j := range to {
		out = append(out, conn(j))
	}
	return out
}

// record is what peer i says at that version.
func record(i int, version uint64, to ...int) *Record {
	t := newPeer(i)
	r := *t.local
	r.Version = version - 1
	t.local = &r
	t.SetConns(append(conns(to...), Conn{Peer: name(9999)}), false)
	r = *t.local
	r.Version = version - 1
	t.local = &r
	t.SetConns(conns(to...), false)
	if version > 1 {
		return t.local
	}
	r = *t.local
	r.Version = 1
	t.setLocal(&r)
	return t.local
}

// whole encodes records as a neighbour sends them.
func whole(rs ...*Record) []byte {
	b := []byte{msgUpdates}
	for _, r := range rs {
		b = update{rec: r}.append(b)
	}
	return b
}

func mustStep(t testing.TB, top *Topology, from int, msg []byte) Result {
	t.Helper()
	res, err := top.Step(name(from), msg, t0)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// world makes peer self's Topology of a graph given as edges.
func world(t testing.TB, self int, edges [][2]int) *Topology {
	t.Helper()
	adj := map[int][]int{self: nil}
	for _, e := range edges {
		adj[e[0]] = append(adj[e[0]], e[1])
		adj[e[1]] = append(adj[e[1]], e[0])
	}
	top := newPeer(self, trusting)
	for i, to := range adj {
		if i == self {
			top.SetConns(conns(to...), false)
		} else {
			mustStep(t, top, i, whole(record(i, 2, to...)))
		}
	}
	return top
}

func TestMerge(t *testing.T) {
	other := *record(2, 2)
	other.UID = 99
	stored := newPeer(2, lifeOf(99))
	stored.SetConns(conns(5), false)
	tests := []struct {
		name string
		have *Record
		in   *Record
		want bool // in wins
		err  error
	}{
		{"unknown peer", nil, record(2, 2), true, nil},
		{"higher version", record(2, 2), record(2, 3, 3), true, nil},
		{"same version", record(2, 2), record(2, 2, 3), false, nil},
		{"lower version", record(2, 3), record(2, 2, 3), false, nil},
		{"same version, higher UID", record(2, 2), stored.local, true, nil},
		{"lower version, higher UID", record(2, 3), stored.local, false, nil},
		{"signature of something else", nil, &other, false, ErrForged},
		{"version beyond the limit", nil, record(2, MaxVersion+1), false, ErrMessage},
		{"connected to itself", nil, record(2, 2, 2), false, ErrMessage},
	}
	for _, tt := range tests {
		top := newPeer(1)
		if tt.have != nil {
			mustStep(t, top, 3, whole(tt.have))
		}
		res, err := top.Step(name(3), whole(tt.in), t0)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if got := res.News != nil; got != tt.want {
			t.Errorf("%s: news %v, want %v", tt.name, res.News, tt.want)
		}
		r := top.Record(tt.in.Name)
		if got := r != nil && r.sig == tt.in.sig; got != tt.want {
			t.Errorf("%s: adopted %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A change is applied by whoever has its base or a later version, and asked about
// by others.
func TestChanges(t *testing.T) {
	a := newPeer(1)
	var msgs [][]byte
	for _, to := range [][]int{{2}, {2, 3}, {3}, {3, 4, 5}, {3, 5}, {}, {7}} {
		msgs = append(msgs, a.SetConns(conns(to...), len(to) > 2).Encode()...)
	}
	if len(msgs) != 7 {
		t.Fatalf("%d messages, want 7", len(msgs))
	}
	inOrder := newPeer(10)
	for _, m := range msgs {
		if res := mustStep(t, inOrder, 1, m); res.Reply != nil {
			t.Errorf("asked in spite of order")
		}
	}
	if inOrder.Record(name(1)).sig != a.local.sig {
		t.Error("not the author's record")
	}
	// One overtakes the next: nobody needs to ask. Two do: somebody does.
	b := newPeer(10)
	for _, i := range []int{0, 1, 3, 2, 4} {
		if res := mustStep(t, b, 1, msgs[i]); res.Reply != nil {
			t.Errorf("message %d: asked", i)
		}
	}
	late := newPeer(11)
	mustStep(t, late, 2, whole(record(2, 2, 1)))
	res := mustStep(t, late, 2, msgs[6])
	if res.Reply == nil || len(late.Names()) != 2 {
		t.Fatal("a change to an unknown record was not asked about")
	}
	ask := res.Reply.Encode()
	if want := append([]byte{msgWant}, name(1).AppendBytes(nil)...); len(ask) != 1 || !bytes.Equal(ask[0], want) {
		t.Errorf("asked %x", ask)
	}
	if again := mustStep(t, late, 2, msgs[6]); again.Reply != nil {
		t.Error("asked again at once")
	}
	answer := mustStep(t, inOrder, 11, ask[0]).Reply.Encode()
	mustStep(t, late, 2, answer[0])
	if late.Record(name(1)).sig != a.local.sig {
		t.Error("not the author's record after the answer")
	}
}

// What waits for a slow neighbour is one update, which does what all would have done.
func TestDeltaMerge(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		a := newPeer(1, trusting)
		b := newPeer(2, trusting)
		mustStep(t, b, 1, whole(a.local))
		var wait gossip.Data
		for range 1 + rng.IntN(6) {
			var to []int
			for j := 3; j < 20; j++ {
				if rng.IntN(2) == 0 {
					to = append(to, j)
				}
			}
			d := a.SetConns(conns(to...), false)
			if d.IsEmpty() {
				continue
			}
			if rng.IntN(4) == 0 {
				continue // lost, or given to another neighbour
			}
			if wait == nil {
				wait = d
			} else if rng.IntN(2) == 0 {
				wait = wait.Merge(d)
			} else {
				wait = d.Merge(wait)
			}
		}
		if wait == nil {
			continue
		}
		latest := wait.(Delta).updates[life{name(1), 1}].rec
		for _, m := range wait.Encode() {
			res := mustStep(t, b, 1, m)
			if res.Reply != nil {
				for _, q := range res.Reply.Encode() {
					if q[0] != msgWant {
						t.Fatalf("seed %d: %x", seed, q)
					}
					mustStep(t, b, 1, whole(latest))
				}
			}
		}
		if b.Record(name(1)).sig != latest.sig {
			t.Fatalf("seed %d: another record arrived", seed)
		}
	}
}

// A peer that hears of its earlier life goes above it, so that others take the new one.
func TestRestart(t *testing.T) {
	old := newPeer(1, lifeOf(3))
	for i := range 50 {
		old.SetConns(conns(2, 10+i), false)
	}
	b := newPeer(2)
	b.SetNeighbour(name(1), Neighbour{keyOf(1, 0), 3})
	mustStep(t, b, 1, whole(old.local))
	b.ClearNeighbour(name(1))

	a := newPeer(1, lifeOf(7))
	b.SetNeighbour(name(1), Neighbour{keyOf(1, 0), 7})
	res := mustStep(t, b, 1, whole(a.local))
	if b.Record(name(1)).UID != 7 || res.Reply == nil {
		t.Fatal("the neighbour believes the earlier life, or doesn't tell of it")
	}
	res = mustStep(t, a, 2, res.Reply.Encode()[0])
	if a.local.Version != old.local.Version+1 || res.News == nil {
		t.Fatalf("version %d", a.local.Version)
	}
	c := newPeer(3)
	mustStep(t, c, 2, whole(old.local))
	mustStep(t, c, 2, res.News.Encode()[0])
	if c.Record(name(1)).UID != 7 {
		t.Error("others keep the earlier life")
	}
	if res := mustStep(t, a, 2, whole(old.local)); res.News != nil {
		t.Error("the old record again is news")
	}
}

func TestCollect(t *testing.T) {
	top := world(t, 1, [][2]int{{1, 2}, {2, 3}, {4, 5}})
	if d := cmp.Diff(names(4, 5), top.Collect(), sameAs); d != "" {
		t.Errorf("gone (-want +got):\n%s", d)
	}
	// A dead peer's record keeps nobody: those next to it don't speak of it any more.
	mustStep(t, top, 2, whole(record(2, 3, 1)))
	if d := cmp.Diff(names(3), top.Collect(), sameAs); d != "" {
		t.Errorf("gone (-want +got):\n%s", d)
	}
	top.SetConns(nil, false)
	top.SetNeighbour(name(2), Neighbour{keyOf(2, 0), 2})
	if got := top.Collect(); len(got) != 0 {
		t.Errorf("%v gone, although connected", got)
	}
	top.ClearNeighbour(name(2))
	if got := top.Collect(); len(got) != 1 {
		t.Errorf("%v gone after the last connection, want 1", got)
	}
}

func TestAddrs(t *testing.T) {
	top := newPeer(1, trusting)
	at := func(c Conn, addr string, out bool) Conn {
		c.Addr, c.Outbound = netip.MustParseAddrPort(addr), out
		return c
	}
	say := func(i int, cs ...Conn) {
		p := newPeer(i, trusting)
		p.SetConns(cs, false)
		mustStep(t, top, i, whole(p.local))
	}
	say(2, at(conn(9), "10.0.0.9:7000", true))
	say(3, at(conn(9), "203.0.113.7:50000", false)) // as it dialed through NAT
	say(4, at(conn(9), "203.0.113.7:50001", false))
	say(5, at(conn(9), "127.0.0.1:6783", true))
	say(6, at(connKey(9, keyOf(9, 1)), "10.0.0.66:6783", true)) // another's key
	say(7, at(conn(9), "10.0.0.67:6783", true))                 // it doesn't say so
	say(9, conns(2, 3, 4, 5, 6)...)
	got := fmt.Sprint(top.Addrs(name(9)))
	if want := "[203.0.113.7:6783 10.0.0.9:7000]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestGolden(t *testing.T) {
	p := newPeer(2)
	p.SetConns([]Conn{conn(1)}, false)
	d := p.SetConns([]Conn{conn(1), {Peer: name(3), Mark: Mark{1, 2, 3, 4}, Addr: netip.MustParseAddrPort("[2001:db8::3]:6783")}}, true)
	const entries = "020000000001" + "fa4d86c3" + "03" + "c0000201" + "1a7f" +
		"020000000003" + "01020304" + "04" + "20010db8000000000000000000000003" + "1a7f"
	head := func(base string) string {
		return "020000000002" + "0000000000000002" + "0000000000000003" + base + "01"
	}
	sig := hex.EncodeToString(p.local.sig[:])
	key := keyOf(2, 0)
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"change", update{rec: p.local, base: 1, touched: names(1, 3, 8)}.append(nil),
			head("0000000000000001") + "0002" + entries + "0001" + "020000000008" + sig},
		{"whole", update{rec: p.local}.append(nil),
			head("0000000000000000") + "1a7f" + hex.EncodeToString(key[:]) + "026832" + "03312e30" + "0002" + entries + sig},
		{"stamp", p.stampOf(name(2)).append(nil), "020000000002" + "0000000000000002" + "0000000000000003"},
		{"announcement", d.Encode()[0][:1], "04"},
	}
	for _, tt := range tests {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
	back := newPeer(9)
	mustStep(t, back, 2, append([]byte{msgUpdates}, tests[1].got...))
	r := back.Record(name(2))
	if r.sig != p.local.sig || r.NickName != "h2" || r.Program != "1.0" || r.Port != 6783 || !r.Full || r.Len() != 2 {
		t.Errorf("came back as %+v", r)
	}
	if c, ok := r.Conn(name(3)); !ok || c.Addr.String() != "[2001:db8::3]:6783" || c.Mark != (Mark{1, 2, 3, 4}) || c.Outbound {
		t.Errorf("connection came back as %+v", c)
	}
}

func TestEncodeSplits(t *testing.T) {
	all := make([]int, 0, 400)
	for i := range 400 {
		all = append(all, i+1000)
	}
	big := record(1, 2, all...)
	var d Delta
	for i := range 100 {
		r := *big
		r.Name = name(i + 1)
		d.add(update{rec: &r})
	}
	top := newPeer(5000, trusting)
	msgs := d.Encode()
	for _, m := range msgs {
		if len(m) > gossip.MaxMessage {
			t.Errorf("message of %d bytes", len(m))
		}
		mustStep(t, top, 1, m)
	}
	if top.Len() != 101 || len(msgs) < 10 {
		t.Errorf("%d records arrive in %d messages, want 101 with the local one", top.Len(), len(msgs))
	}
}

// Two topologies that exchange messages as neighbours do end equal, whatever each
// knew; also if the stamps don't fit a message.
func TestAntiEntropy(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 40 {
		peers := 40
		if round == 0 {
			peers = 2*maxStamps + 7
		}
		a, b := newPeer(1, trusting), newPeer(2, trusting)
		proto := map[uint64]*Record{1: record(3, 1, 4), 2: record(3, 2, 4), 3: record(3, 3, 4)}
		for i := 3; i < peers; i++ {
			for _, top := range []*Topology{a, b} {
				if rng.IntN(3) > 0 {
					r := *proto[uint64(1+rng.IntN(3))]
					r.Name = name(i + 10)
					mustStep(t, top, 3, whole(&r))
				}
			}
		}
		talk(t, a, b)
		if !bytes.Equal(a.Digest(), b.Digest()) {
			t.Fatalf("seed %d: not equal afterwards: %d and %d records", seed, a.Len(), b.Len())
		}
		if r := mustStep(t, a, 2, b.Digest()); r.Reply != nil {
			t.Fatalf("equal states answer a digest")
		}
	}
}

// talk lets two neighbours compare, beginning with a's digest, until they are silent.
func talk(t *testing.T, a, b *Topology) {
	t.Helper()
	type letter struct {
		from, to *Topology
		msg      []byte
	}
	mail := []letter{{a, b, a.Digest()}}
	for n := 0; len(mail) > 0; n++ {
		if n > 1000 {
			t.Fatal("still talking")
		}
		l := mail[0]
		mail = mail[1:]
		r, err := l.to.Step(l.from.local.Name, l.msg, t0)
		if err != nil {
			t.Fatal(err)
		}
		if r.Reply != nil {
			for _, m := range r.Reply.Encode() {
				mail = append(mail, letter{l.to, l.from, m})
			}
		}
	}
}

func FuzzStep(f *testing.F) {
	edges := [][2]int{{1, 2}, {2, 3}}
	top := world(f, 1, edges)
	f.Add(top.Digest())
	var res Result
	top.replyStamps(&res, msgStamps, name(0), name(99))
	f.Add(res.replies.stamps[0])
	f.Add(whole(record(9, 4, 1, 2), record(1, 77), record(2, 9)))
	f.Add(append([]byte{msgUpdates}, update{rec: record(2, 9, 1, 3, 4, 5, 6), base: 2, touched: names(3, 4, 7)}.append(nil)...))
	f.Add(name(2).AppendBytes([]byte{msgWant}))
	f.Fuzz(func(t *testing.T, msg []byte) {
		top := world(t, 1, edges)
		top.SetNeighbour(name(2), Neighbour{keyOf(2, 0), 2})
		if r, err := top.Step(name(2), msg, t0); err == nil && r.News != nil {
			again := world(t, 1, edges)
			for _, m := range r.News.Encode() {
				if _, err := again.Step(name(2), m, t0); err != nil {
					t.Fatalf("news is not understood: %v", err)
				}
			}
		}
		top.Collect()
		top.Routes()
		for n := range top.records {
			top.Addrs(n)
		}
		checkInvariants(t, top)
	})
}

func checkInvariants(t testing.TB, top *Topology) {
	t.Helper()
	size := 0
	for n, e := range top.records {
		size += len(e.rec.conns)
		if e.rec.Name != n || e.mark != e.rec.Key.Mark() {
			t.Fatalf("entry of %v: %+v", n, e)
		}
		var last peer.Name
		count := 0
		for c := range e.rec.Conns() {
			if c.Peer.Compare(last) <= 0 || c.Peer == n {
				t.Fatalf("record of %v is out of order", n)
			}
			last, count = c.Peer, count+1
		}
		if count != e.rec.count {
			t.Fatalf("record of %v: %d connections, counted %d", n, count, e.rec.count)
		}
	}
	if size != top.bytes {
		t.Fatalf("%d bytes of connections, accounted %d", size, top.bytes)
	}
	var fresh graph
	fresh.build(top.records)
	if g := top.upToDate(); !slices.Equal(g.data, fresh.data) || !slices.Equal(g.out, fresh.out) || !slices.Equal(g.est, fresh.est) {
		t.Fatal("the graph isn't that of the records")
	}
}
