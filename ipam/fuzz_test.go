package ipam

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/paxos"
	"weave/ipam/ring"
	"weave/mesh/gossip"
)

// samples has a message of each kind.
func samples() []*message {
	u := addr.MustPrefix("10.32.0.0/28")
	a, b := simName(0), simName(1)
	id := ring.NewID(u, []peer.Name{a, b}, 7)
	r, err := ring.New(id)
	if err != nil {
		panic(err)
	}
	grant, err := r.Grant(a, addr.Of(u.Start.Plus(3)), b)
	if err != nil {
		panic(err)
	}
	r.TakeOver(b, a, 9)
	ballot := paxos.Ballot{Round: 1, Name: a, Run: 5}
	member := ring.Member{Name: a, Boot: 2, Run: 5, Seq: 3, Nick: "host1", Free: 8}
	sum := [sumLen]byte{1, 2, 3}
	return []*message{
		{kind: kindState, ring: r.All(), members: []ring.Member{member}},
		{kind: kindState, rng: u, votes: []paxos.Vote{{Elector: a, Promised: ballot, Accepted: ballot, Value: paxos.Value{Seeds: []peer.Name{a}, Nonce: 5}}}},
		{kind: kindDigest, sum: sum, hop: 1, ringID: idSum(id)},
		{kind: kindWant},
		{kind: kindAsk, id: 77, rng: u, ringID: idSum(id), members: []ring.Member{member}},
		{kind: kindGrant, id: 77, rng: addr.Of(u.Start.Plus(3)), ring: grant},
		{kind: kindDeny, id: 77, rng: u, hop: 1, text: "in use by c1", ring: ring.Delta{ID: id}},
		{kind: kindSync, id: 78, run: 5, boot: 2, sum: sum, ring: grant},
		{kind: kindAck, id: 78, run: 5, ring: r.All(), members: []ring.Member{member}, parts: 1},
		{kind: kindHand, id: 79, boot: 2, ring: r.All(), parts: 1},
		{kind: kindHanded, id: 79},
	}
}

// golden pins the bytes: peers of other versions must read them.
var golden = []string{
	"01a301010285821a0a200000108246020000000101460200000001020784851a0a20000003000046020000000101851a0a20000301010146020000000101851a0a20000404000046020000000101851a0a2000080801004602000000010181834602000000010209460200000001010381864602000000010102050365686f73743108",
	"01a3010104818546020000000101830146020000000101058301460200000001010581460200000001010508821a0a20000010",
	"01a4010205500102030000000000000000000000000006010b1bfaade1cd826038d7",
	"01a10103",
	"01a501040381864602000000010102050365686f7374310807184d08821a0a200000100b1bfaade1cd826038d7",
	"01a401050285821a0a200000108246020000000101460200000001020781851a0a20000301000146020000000102f607184d08821a0a20000301",
	"01a601060285821a0a2000001082460200000001014602000000010207f6f6060107184d08821a0a200000100e6c696e20757365206279206331",
	"01a601070285821a0a200000108246020000000101460200000001020781851a0a20000301000146020000000102f605500102030000000000000000000000000007184e09050a02",
	"01a601080285821a0a200000108246020000000101460200000001020784851a0a20000003000046020000000101851a0a20000301010146020000000101851a0a20000404000046020000000101851a0a2000080801004602000000010181834602000000010209460200000001010381864602000000010102050365686f7374310807184e09050d01",
	"01a501090285821a0a200000108246020000000101460200000001020784851a0a20000003000046020000000101851a0a20000301010146020000000101851a0a20000404000046020000000101851a0a20000808010046020000000101818346020000000102094602000000010107184f0a020d01",
	"01a2010a07184f",
}

func TestGolden(t *testing.T) {
	for i, m := range samples() {
		got := hex.EncodeToString(m.encode())
		if i >= len(golden) {
			t.Errorf("no golden bytes for kind %d: %s", m.kind, got)
			continue
		}
		if got != golden[i] {
			t.Errorf("kind %d:\n got %s\nwant %s", m.kind, got, golden[i])
		}
		raw, _ := hex.DecodeString(golden[i])
		back, err := decode(raw)
		if err != nil {
			t.Errorf("kind %d: %v", m.kind, err)
			continue
		}
		if !bytes.Equal(back.encode(), raw) {
			t.Errorf("kind %d does not come back", m.kind)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	good := samples()[0].encode()
	for what, b := range map[string][]byte{
		"nothing": {}, "one byte": {1}, "another version": append([]byte{2}, good[1:]...), "cut": good[:len(good)-1],
		"more behind": append(slices.Clone(good), 0), "not a map": {1, 0x80}, "no kind": {1, 0xa0},
		"unknown kind": (&message{kind: kindEnd}).encode(), "ask for nothing": (&message{kind: kindAsk}).encode(),
		"too long":         append(slices.Clone(good), make([]byte, gossip.MaxMessage)...),
		"part beyond":      (&message{kind: kindAck, part: 3, parts: 2}).encode(),
		"range past all":   {1, 0xa2, 1, 4, 8, 0x82, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0, 1},
		"hand without all": (&message{kind: kindHand, id: 1, parts: 1}).encode(),
	} {
		if m, err := decode(b); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v; want ErrMessage", what, m, err)
		}
	}
}

// Every message stays below what the mesh carries, however large the state.
func TestSplit(t *testing.T) {
	u := addr.MustPrefix("10.0.0.0/8")
	m := &message{kind: kindState}
	m.ring.ID = ring.ID{Range: u}
	for i := range ring.MaxSeeds {
		m.ring.ID.Seeds = append(m.ring.ID.Seeds, peer.NameFromBytes([6]byte{255, 255, 0, 0, byte(i >> 8), byte(i)}))
	}
	for i := range uint64(20000) {
		m.ring.Entries = append(m.ring.Entries, ring.Entry{Range: addr.Of(u.Start.Plus(1<<23 + 3*i)),
			Stamp: ring.Stamp{Epoch: ring.MaxEpoch, Version: ring.MaxVersion, Owner: simName(int(i % 200))}})
	}
	for i := range ring.MaxFences {
		m.ring.Fences = append(m.ring.Fences, ring.Fence{Victim: peer.NameFromBytes([6]byte{9, 9, 9, 9, byte(i >> 8), byte(i)}), Boot: 1 << 63, By: simName(1)})
	}
	for i := range 4000 {
		m.members = append(m.members, ring.Member{Name: peer.NameFromBytes([6]byte{9, 9, 9, 9, byte(i >> 8), byte(i)}),
			Boot: 1 << 63, Run: 1 << 63, Seq: 1 << 63, Free: 1 << 63, Nick: string(bytes.Repeat([]byte("n"), maxNick))})
	}
	all := data{m}.Encode()
	entries, members := 0, 0
	for _, b := range all {
		if len(b) > gossip.MaxMessage {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		entries, members = entries+len(got.ring.Entries), members+len(got.members)
	}
	if entries != 20000 || members != 4000 || len(all) > maxParts {
		t.Errorf("%d entries, %d members in %d messages", entries, members, len(all))
	}
}

// FuzzDecode: no input panics, and what is read is written back the same.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("%v is not ErrMessage", err)
			}
			return
		}
		again, err := decode(m.encode())
		if err != nil {
			t.Fatalf("own bytes: %v", err)
		}
		if !bytes.Equal(again.encode(), m.encode()) {
			t.Fatal("not a fixpoint")
		}
	})
}

// FuzzStep: no message, however strange, upsets a core that is at work: it does not
// panic, its books balance, and what it promised it keeps.
func FuzzStep(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.encode(), uint8(0))
		f.Add(m.encode(), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, state uint8) {
		m, err := decode(b)
		if err != nil {
			return
		}
		c := fuzzCore(t, state)
		before := map[addr.Addr]string{}
		for a, l := range c.leases {
			before[a] = l.ident
		}
		for i := range 3 {
			out := c.step(evMessage{simName(1), m}, time.Duration(i+4)*time.Second)
			for _, s := range out.sends {
				if n := len(s.msg.encode()); n > gossip.MaxMessage {
					t.Fatalf("sends %d bytes", n)
				}
			}
			c.step(evTick{}, time.Duration(i+5)*time.Second)
			c.status()
		}
		if err := c.space.Check(); err != nil {
			t.Fatal(err)
		}
		if c.ring != nil && !c.ring.OwnedBy(c.self).Equal(c.space.Owned()) {
			t.Fatalf("ring says %v, space %v", c.ring.OwnedBy(c.self).Ranges(), c.space.Owned().Ranges())
		}
		for a, ident := range before {
			if l := c.leases[a]; l == nil || l.ident != ident {
				t.Fatalf("%v was taken from %s", a, ident)
			}
		}
	})
}

// fuzzCore is a core with leases and a ring, or (state 1) one that has just started.
func fuzzCore(t *testing.T, state uint8) *core {
	t.Helper()
	init := Init{Mode: Seed, Seeds: []peer.Name{simName(0), simName(1)}}
	if state%2 == 1 {
		init = Init{Electors: 2}
	}
	c, _, err := newCore(setup{self: simName(0), nick: "host1", run: 5, universe: netip.MustParsePrefix("10.32.0.0/28"), init: init, seed: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.step(evReconcile{}, 0)
	for i := range 20 {
		c.step(evTick{}, time.Duration(i)*200*time.Millisecond)
	}
	c.step(evMesh{Mesh{Peers: []Peer{{Name: simName(1), Nick: "host2", Reachable: true}}}}, 4*time.Second)
	for i := range 3 {
		c.step(evOp{&op{kind: opAllocate, ident: fmt.Sprint("c", i), prefix: c.prefix}}, 4*time.Second)
	}
	return c
}

// A hostile member sends well-formed nonsense for a long time.
func TestHostileMember(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		c := fuzzCore(t, uint8(round))
		for i := range 200 {
			m := randomMessage(rnd, c)
			c.step(evMessage{simName(1 + rnd.IntN(3)), m}, 4*time.Second+time.Duration(i)*50*time.Millisecond)
		}
		if err := c.space.Check(); err != nil {
			t.Fatal(err)
		}
		if c.ring != nil && !c.ring.OwnedBy(c.self).Equal(c.space.Owned()) {
			t.Fatalf("round %d: ring says %v, space %v", round, c.ring.OwnedBy(c.self).Ranges(), c.space.Owned().Ranges())
		}
		if round%2 == 0 && len(c.leases) != 3 {
			t.Fatalf("round %d: %d leases of 3 left", round, len(c.leases))
		}
		if len(c.asks) > 100 || len(c.doubles) > maxNotes || len(c.conflicts) > maxNotes || len(c.notes) > maxNotes {
			t.Fatalf("round %d: memory grows", round)
		}
	}
}

func randomMessage(rnd *rand.Rand, c *core) *message {
	all := samples()
	m := *all[rnd.IntN(len(all))]
	m.id, m.run, m.boot = rnd.Uint64N(200), peer.UID(rnd.Uint64N(8)), rnd.Uint64N(10)
	if rnd.IntN(2) == 0 {
		m.id = c.nextID ^ uint64(c.run)<<20
	}
	if c.ring != nil && m.hasRing() {
		m.ring.ID = c.ring.ID()
		m.ring.Entries = slices.Clone(m.ring.Entries)
		for i := range m.ring.Entries {
			m.ring.Entries[i].Stamp = ring.Stamp{Epoch: uint32(rnd.IntN(3)), Version: rnd.Uint64N(4), Owner: simName(rnd.IntN(4))}
		}
		m.ringID = idSum(m.ring.ID)
	}
	return &m
}
