package mesh

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/gossip"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

func testName(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}) }

func testKey(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), byte(i)))
}

// words is Data and a Channel that takes everything for news.
type words []string

func (w words) Encode() (out [][]byte) {
	for _, s := range w {
		out = append(out, []byte(s))
	}
	return out
}
func (w words) Merge(o gossip.Data) gossip.Data { return append(w[:len(w):len(w)], o.(words)...) }
func (w words) Name() string                    { return "words" }
func (w words) Digest() []byte                  { return []byte("?") }
func (w words) OnGone(peer.Name)                {}
func (w words) OnMessage(_ peer.Name, msg []byte) (gossip.Reaction, error) {
	return gossip.Reaction{News: words{string(msg)}, Reply: words{string(msg)}}, nil
}
func (w words) OnUnicast(peer.Name, []byte) error { return nil }

// bench is a loop without its goroutine, connected to peers 2 and 3.
type bench struct {
	*loop
	conns []*conn
}

// noNet leads nowhere.
type noNet struct{}

func (noNet) Listen(context.Context, netip.AddrPort) (net.Listener, error) { return nil, net.ErrClosed }
func (noNet) Resolve(context.Context, string) ([]netip.Addr, error)        { return nil, net.ErrClosed }
func (noNet) Dial(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
	return nil, net.ErrClosed
}

func newBench(t testing.TB) *bench {
	static, err := handshake.ParseStaticKey(append(make([]byte, 31), 1))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{
		Name: testName(1), UID: 1, Static: static, Discovery: true, ConnLimit: 100, Net: noNet{},
		Channels: []gossip.Open{func(gossip.Sender) gossip.Channel { return words{} }},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.sign = testKey(1)
	close(r.quit) // attempts have nobody to report to
	b := &bench{loop: newLoop(r)}
	b.ctx = t.Context()
	for i := 2; i <= 3; i++ {
		b.conns = append(b.conns, b.connect(t, i))
	}
	return b
}

// connect admits a connection of peer i.
func (b *bench) connect(t testing.TB, i int) *conn {
	near, far := net.Pipe()
	far.Close()
	s := b.r.newSocket(near, 0)
	s.hello = wire.Hello{Name: testName(i), UID: peer.UID(i), ConnID: uint64(i)}
	s.sign = topo.Key(testKey(i).Public().(ed25519.PublicKey))
	s.mark, s.uid = s.sign.Mark(), uint64(i)
	b.lastKey++
	c := &conn{socket: s, key: b.lastKey, since: time.Now(), log: b.r.log, established: true}
	b.loop.conns[c.key], b.peers[testName(i)] = c, c
	b.topo.SetNeighbour(testName(i), topo.Neighbour{Key: s.sign, UID: peer.UID(i)})
	b.maker.Up(time.Now(), c.key, dial.Conn{Peer: testName(i)})
	b.r.ways.setDirect(b.peers)
	b.connChanged(time.Now(), false)
	return c
}

// says returns what peer i announces of itself.
func says(i int, to ...int) [][]byte {
	t := topo.New(topo.Config{Name: testName(i), UID: peer.UID(i), NickName: fmt.Sprint("h", i), Port: 6783, Key: testKey(i)})
	var conns []topo.Conn
	for _, j := range to {
		k := topo.Key(testKey(j).Public().(ed25519.PublicKey))
		conns = append(conns, topo.Conn{
			Peer: testName(j), Mark: k.Mark(), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(j)}), 6783), Established: true,
		})
	}
	return t.SetConns(conns, false).Encode()
}

// FuzzEngine gives the loop messages that a member sends: a tag, two bytes of length
// and a body each. It must neither panic nor drop anybody but for what no peer sends.
func FuzzEngine(f *testing.F) {
	frame := func(ms ...wire.Msg) (out []byte) {
		for _, m := range ms {
			out = append(out, byte(m.Tag))
			out = binary.BigEndian.AppendUint16(out, uint16(len(m.Body)))
			out = append(out, m.Body...)
		}
		return out
	}
	var seed []wire.Msg
	for _, b := range append(says(2, 1, 3, 4), says(4, 2)...) {
		m, _ := wire.Gossip(topologyChannel, b)
		seed = append(seed, m)
	}
	f.Add(frame(seed...))
	g, _ := wire.Gossip("words", []byte("hello"))
	d, _ := wire.Digest(topologyChannel, append([]byte{1}, make([]byte, 8)...))
	u, _ := wire.Unicast{Hops: 3, Origin: testName(2), Dest: testName(4), Channel: "words", Payload: []byte("x")}.Msg()
	x, _ := wire.Gossip("unknown", []byte("x"))
	o, _ := wire.Unicast{Hops: 3, Origin: testName(4), Dest: testName(1), Channel: topologyChannel, Payload: []byte{msgOpen}}.Msg()
	o2, _ := wire.Unicast{Hops: 3, Origin: testName(4), Dest: testName(1), Channel: topologyChannel, Payload: append([]byte{msgMeet}, make([]byte, 36)...)}.Msg()
	f.Add(frame(append(seed, g, d, u, x, o, o2, wire.Echo(1))...))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBench(t)
		from := b.conns[0]
		for len(in) >= 3 && !from.gone {
			m := wire.Msg{Tag: wire.Tag(in[0])}
			n := int(binary.BigEndian.Uint16(in[1:]))
			in = in[3:]
			m.Body = append([]byte(nil), in[:min(n, len(in))]...)
			in = in[len(m.Body):]
			b.message(from, m)
			b.settle()
		}
		b.route(time.Now())
		b.publish()
		b.collect(time.Now())
		if b.conns[1].gone || len(b.peers) < 1 {
			t.Fatal("another peer's connection was closed")
		}
		b.peerStatuses()()
		for _, c := range b.conns {
			for range 10 {
				msgs, p, _ := c.q.take(nil)
				if p != nil {
					msgs = append(msgs, p.encode()...)
				}
				for _, m := range msgs {
					if len(m.Body) > m.Tag.Limit() {
						t.Fatalf("%s of %d bytes is sent", m.Tag, len(m.Body))
					}
				}
			}
		}
	})
}

func TestUnicastHops(t *testing.T) {
	b := newBench(t)
	for _, i := range []int{2, 3} {
		for _, m := range says(i, 1, 2*i) { // 4 is behind 2, 6 behind 3
			g, _ := wire.Gossip(topologyChannel, m)
			b.message(b.conns[i-2], g)
		}
	}
	for _, i := range []int{4, 6} {
		for _, m := range says(i, i/2) {
			g, _ := wire.Gossip(topologyChannel, m)
			b.message(b.conns[i/2-2], g)
		}
	}
	b.announce(time.Now())
	b.route(time.Now())
	tests := []struct {
		name          string
		via           int // conns
		u             wire.Unicast
		relayed       bool
		spoofed, lost uint64
	}{
		{"to the other side", 0, wire.Unicast{Hops: 5, Origin: testName(4), Dest: testName(6)}, true, 0, 0},
		{"no hops left", 0, wire.Unicast{Hops: 0, Origin: testName(4), Dest: testName(6)}, false, 0, 1},
		{"back where it came from", 0, wire.Unicast{Hops: 5, Origin: testName(6), Dest: testName(4)}, false, 0, 1},
		{"to nobody", 0, wire.Unicast{Hops: 5, Origin: testName(4), Dest: testName(99)}, false, 0, 1},
		{"in our name", 0, wire.Unicast{Hops: 5, Origin: testName(1), Dest: testName(6)}, false, 1, 0},
		{"in a neighbour's name", 0, wire.Unicast{Hops: 5, Origin: testName(3), Dest: testName(1)}, false, 1, 0},
		{"for us, of an unknown channel", 0, wire.Unicast{Hops: 5, Origin: testName(4), Dest: testName(1)}, false, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b.counters = Counters{}
			b.conns[1].q.take(nil)
			tt.u.Channel, tt.u.Payload = "x", []byte("payload")
			m, err := tt.u.Msg()
			if err != nil {
				t.Fatal(err)
			}
			b.message(b.conns[tt.via], m)
			got := b.conns[1].q.extra.msgs
			if c := b.counters; (c.UnicastRelayed == 1) != tt.relayed || (len(got) == 1) != tt.relayed || c.UnicastSpoofed != tt.spoofed || c.UnicastLost != tt.lost {
				t.Errorf("%d messages, counters %+v", len(got), c)
			}
			if len(got) == 1 {
				if u, err := wire.ParseUnicast(got[0].Body); err != nil || u.Hops != tt.u.Hops-1 || string(u.Payload) != "payload" {
					t.Errorf("relayed %+v, %v", u, err)
				}
			}
		})
	}
}

// Of the channels that wait for a slow neighbour each has one parcel, and the next
// to go is the one that waited longest.
func TestQueueFairness(t *testing.T) {
	q := newQueue()
	offer := func(ch, text string) {
		q.offer(&parcel{channel: ch, tag: wire.TagGossip, data: words{text}})
	}
	for i := range 100 {
		offer("busy", fmt.Sprint(i))
	}
	offer("calm", "once")
	q.offer(&parcel{channel: "calm", tag: wire.TagDigest, digest: []byte("old")})
	q.offer(&parcel{channel: "calm", tag: wire.TagDigest, digest: []byte("new")})
	var got []string
	for range 4 {
		_, p, _ := q.take(nil)
		if p == nil {
			break
		}
		_, last, _ := wire.ParseChannel(p.encode()[len(p.encode())-1].Body)
		got = append(got, fmt.Sprint(p.channel, len(p.encode()), string(last)))
		offer("busy", "more")
	}
	if want := "[busy10099 calm1once calm1new busy3more]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	q.end(nil)
	offer("busy", "late")
	if _, p, ended := q.take(nil); p != nil || !ended {
		t.Error("gossip after the end")
	}
	for q.pushExtra(wire.Msg{Body: make([]byte, 1000)}) == nil {
		t.Fatal("pushed after the end")
	}
}

func TestExtraBounds(t *testing.T) {
	q := newQueue()
	n := 0
	for q.pushExtra(wire.Msg{Body: make([]byte, gossip.MaxMessage)}) == nil {
		n++
	}
	if n != 4 {
		t.Errorf("%d of the largest unicasts wait, want 4", n)
	}
	if q.push(wire.Msg{Tag: wire.TagOverlay, Body: []byte{0}}) != nil {
		t.Error("no room for an overlay's message beside them")
	}
}

// What travels in circles is passed on once.
func TestForeignOnce(t *testing.T) {
	var f foreign
	now := time.Unix(0, 0)
	passed := 0
	for i := range 100 {
		if f.first(now.Add(time.Duration(i)*100*time.Millisecond), []byte("x")) {
			passed++
		}
	}
	if passed != 1 {
		t.Errorf("passed on %d times in 10 s", passed)
	}
	for i := range 100_000 {
		f.first(now, fmt.Append(nil, i))
	}
	if n := len(f.now) + len(f.before); n > maxForeign {
		t.Errorf("%d remembered", n)
	}
}

// Both ends of a pair agree on its place, and on who dials first.
func TestPairHash(t *testing.T) {
	firsts := 0
	for i := range 1000 {
		a, b := testName(i), testName(i*7+1)
		ha, fa := pairHash(a, b)
		hb, fb := pairHash(b, a)
		if ha != hb || a != b && fa == fb {
			t.Fatalf("%v and %v: %x %v, %x %v", a, b, ha, fa, hb, fb)
		}
		if fa {
			firsts++
		}
	}
	if firsts < 400 || firsts > 600 {
		t.Errorf("the lower name is first %d times of 1000", firsts)
	}
}

func TestFindLimit(t *testing.T) {
	for limit, want := range map[int]int{0: 0, 1: 1, 3: 3, 4: 3, 8: 7, 200: 175} {
		if got := findLimit(limit); got != want {
			t.Errorf("%d: %d, want %d", limit, got, want)
		}
	}
}

func TestReaderRests(t *testing.T) {
	r := &reader{}
	begin := time.Now()
	for range 100 {
		r.rest(1000)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("an ordinary peer is slowed down: %v", took)
	}
}
