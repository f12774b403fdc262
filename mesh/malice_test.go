package mesh_test

import (
	"bufio"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

// evil is a member, with the password, that says what the test wants.
type evil struct {
	t    *testing.T
	name peer.Name
	key  ed25519.PrivateKey
	conn net.Conn
	hs   handshake.Result

	mu    chan struct{} // holds a token while locked: a sync.Mutex would stop the clock
	enc   *wire.Encoder
	err   error    // of sending
	heard [][]byte // bodies of gossip
}

// infiltrate connects an evil peer to host i.
func (w *world) infiltrate(from, i int) *evil {
	w.t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(from)
	e := &evil{t: w.t, name: nameOf(from), key: ed25519.NewKeyFromSeed(seed), conn: w.raw(addrOf(from), i), mu: make(chan struct{}, 1)}
	offer, err := wire.EncodeOffer(overlay.Offer{Ciphers: ciphers, Lanes: 1, Paths: []overlay.Path{{Name: "sleeve", Port: 6783}}})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := handshake.New(handshake.Config{Initiator: true, Static: w.key(from), PSK: pskRight, Offer: offer})
	if err != nil {
		w.t.Fatal(err)
	}
	if e.hs, err = handshake.Run(e.conn, m); err != nil {
		w.t.Fatal(err)
	}
	e.enc = wire.NewEncoder(e.hs.Transport)
	hello, err := wire.Hello{
		Name: e.name, NickName: "evil", UID: 666, ConnID: 1, Port: 6783,
		Caps: map[wire.Cap][]byte{wire.CapSignKey: e.key.Public().(ed25519.PublicKey)},
	}.Msg()
	if err != nil {
		w.t.Fatal(err)
	}
	e.send(hello)
	ready, _ := wire.Overlay(0, []byte("ready"))
	e.send(ready)
	go e.read()
	w.t.Cleanup(func() { e.conn.Close() })
	return e
}

// send sends, until the connection is closed.
func (e *evil) send(m wire.Msg) {
	e.mu <- struct{}{}
	defer func() { <-e.mu }()
	if e.err != nil {
		return
	}
	var b []byte
	if b, e.err = e.enc.Append(nil, m); e.err == nil {
		_, e.err = e.conn.Write(b)
	}
}

func (e *evil) gossip(channel string, payload []byte) {
	if m, err := wire.Gossip(channel, payload); err == nil {
		e.send(m)
	}
}

// read answers heartbeats and keeps what it hears.
func (e *evil) read() {
	br := bufio.NewReader(e.conn)
	var asm wire.Assembler
	for {
		var head [wire.LengthLen]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return
		}
		n, err := wire.SealedLen(head)
		if err != nil {
			return
		}
		record := make([]byte, n)
		if _, err := io.ReadFull(br, record); err != nil {
			return
		}
		plain, err := e.hs.Transport.Open(nil, record)
		if err != nil {
			return
		}
		m, ok, _ := asm.Push(plain)
		if !ok {
			continue
		}
		switch m.Tag {
		case wire.TagHeartbeat:
			token, _ := wire.ParseToken(m.Body)
			e.send(wire.Echo(token))
		case wire.TagGossip, wire.TagDigest:
			e.mu <- struct{}{}
			if len(e.heard) < 1000 {
				e.heard = append(e.heard, slices.Clone(m.Body))
			}
			<-e.mu
		}
	}
}

// record is a truthful start: the evil peer is connected to host i.
func (e *evil) topology(i int, mark topo.Mark) *topo.Topology {
	t := topo.New(topo.Config{Name: e.name, UID: 666, NickName: "evil", Port: 6783, Key: e.key})
	d := t.SetConns([]topo.Conn{{Peer: nameOf(i), Mark: mark, Outbound: true, Established: true}}, false)
	for _, m := range d.Encode() {
		e.gossip("topology", m)
	}
	return t
}

// A member that sends garbage, forgeries and floods can't cut the others from one
// another, nor make them use memory without bound, nor make them panic.
func TestMaliciousMember(t *testing.T) {
	attacks := map[string]func(e *evil, rng *rand.Rand, round int){
		"garbage": func(e *evil, rng *rand.Rand, _ int) {
			b := make([]byte, rng.IntN(2000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			switch rng.IntN(4) {
			case 0:
				e.gossip("topology", append([]byte{byte(rng.IntN(7))}, b...))
			case 1:
				e.gossip("ledger", b)
			case 2:
				e.gossip(fmt.Sprint("unknown", rng.IntN(50)), b)
			default:
				u := wire.Unicast{Hops: uint8(rng.Uint32()), Origin: nameOf(rng.IntN(8)), Dest: nameOf(rng.IntN(8)), Channel: "ledger", Payload: b}
				if m, err := u.Msg(); err == nil {
					e.send(m)
				}
			}
		},
		"mutations": func(e *evil, rng *rand.Rand, _ int) {
			e.mu <- struct{}{}
			var m []byte
			if len(e.heard) > 0 {
				m = slices.Clone(e.heard[rng.IntN(len(e.heard))])
			}
			<-e.mu
			if len(m) < 10 {
				return
			}
			for range 1 + rng.IntN(3) {
				m[9+rng.IntN(len(m)-9)] ^= 1 << rng.IntN(8)
			}
			e.send(wire.Msg{Tag: wire.TagGossip, Body: m})
		},
		"names of others": func(e *evil, rng *rand.Rand, _ int) {
			// Signed with a key of its own, and newer than anything.
			top := topo.New(topo.Config{Name: nameOf(1 + rng.IntN(6)), UID: peer.UID(rng.Uint64() | 1), NickName: "fake", Key: e.key})
			for i := range 5 {
				for _, m := range top.SetConns([]topo.Conn{{Peer: e.name, Established: i%2 == 0}}, false).Encode() {
					e.gossip("topology", m)
				}
			}
		},
		"invented peers": func(e *evil, rng *rand.Rand, round int) {
			for i := range 5 {
				top := topo.New(topo.Config{Name: nameOf(1000 + rng.IntN(60000)), NickName: fmt.Sprint(i, round), UID: 1, Key: e.key})
				for _, m := range top.SetConns([]topo.Conn{{Peer: e.name}}, false).Encode() {
					e.gossip("topology", m)
				}
			}
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				seed := uint64(time.Now().UnixNano()) ^ rand.Uint64()
				rng := rand.New(rand.NewPCG(seed, 0))
				var l *ledger
				nodes := w.line(6, psk(pskRight), openLedger("ledger", &l))
				w.run(2 * time.Second)
				wantReach(t, nodes...)
				before := heap()
				e := w.infiltrate(66, 3)
				e.topology(3, topo.Mark{})
				for round := range 100 {
					for range map[bool]int{true: 100, false: 10}[name == "garbage" || name == "mutations"] {
						attack(e, rng, round)
					}
					w.run(100 * time.Millisecond)
					if err := reachThrough(nodes); err != nil {
						t.Fatalf("seed %d, round %d: %v", seed, round, err)
					}
				}
				for i, n := range nodes[:5] {
					w.wantJoined(n, nodes[i+1])
				}
				if grown := (heap() - before) / int64(len(nodes)); grown > 32<<20 {
					t.Errorf("%d MiB of heap for each", grown>>20)
				}
				st := nodes[2].Status()
				ok := slices.ContainsFunc(st.Channels[0:2], func(c mesh.ChannelStatus) bool { return c.ErrorNick == "evil" }) ||
					len(st.Conflicts) > 0 || name == "invented peers"
				if !ok {
					t.Errorf("nobody is named in %+v, %+v", st.Channels, st.Conflicts)
				}
				if e.err != nil {
					t.Errorf("the connection was closed: %v", e.err)
				}
				e.conn.Close()
				w.run(10 * time.Second)
				wantReach(t, nodes...)
			})
		})
	}
}

// reachThrough is reach for the unicast routes only, whoever else is there.
func reachThrough(nodes []*node) error {
	for i, from := range nodes {
		v := from.view()
		for j, to := range nodes {
			if i == j {
				continue
			}
			want := nodes[i+1-2*b2i(j < i)].name // the next in the line
			if got := v.Routes.Unicast[to.name]; got != want {
				return fmt.Errorf("route from %s to %s is via %s, want %s", from.name, to.name, got, want)
			}
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A neighbour may flood; it is slowed down and keeps its connection.
func TestFlood(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.line(3, psk(pskRight))
		w.run(time.Second)
		e := w.infiltrate(66, 2)
		synctest.Wait()
		begin := time.Now()
		big := make([]byte, 100<<10)
		for range 3000 { // 300 MB
			e.gossip("unknown", big)
		}
		if took := time.Since(begin); took < 30*time.Second {
			t.Errorf("300 MB were taken in %v", took)
		}
		w.run(time.Second)
		if err := reachThrough(nodes); err != nil {
			t.Error(err)
		}
		if e.err != nil {
			t.Errorf("the connection was closed: %v", e.err)
		}
	})
}
