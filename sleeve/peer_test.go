package sleeve

import (
	"bytes"
	"net/netip"
	"testing"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
	"weave/sleeve/udp"
)

// seal seals plaintexts on a's lane 0, whatever they are.
func (d *direct) seal(t *testing.T, flags uint16, plaintexts ...[]byte) (out [][]byte) {
	t.Helper()
	s := d.a.sending.Load().keys.Sealer(0)
	for _, p := range plaintexts {
		b, err := s.Seal(nil, flags, p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// shards makes the plaintexts of a TCP superframe with one segment of size bytes
// each; the frame is what they add up to.
func shards(n, size int) (plaintexts [][]byte, frame []byte) {
	p := ethertest.Packet{Flags: ether.ACK, Payload: make([]byte, n*size)}
	for i := range p.Payload {
		p.Payload[i] = byte(i)
	}
	frame, off := p.Superframe(size)
	const tmpl = 54
	m := shardMeta(off, tmpl)
	for i := range n {
		m.a = uint16(i)
		if i == n-1 {
			m.flags |= metaLast
		}
		b := make([]byte, metaLen, metaLen+tmpl+size)
		m.put(b)
		b = append(b, frame[:tmpl]...)
		plaintexts = append(plaintexts, append(b, frame[tmpl+i*size:][:size]...))
	}
	return plaintexts, frame
}

// TestRunOfTinyShards: a peer may cut as finely as it likes; a run is bounded.
func TestRunOfTinyShards(t *testing.T) {
	rx := &counting{keep: true}
	d := newDirect(t, session.CipherAES, 1430, rx)
	plain, frame := shards(1000, 3)
	d.give(d.seal(t, 0, plain...)...)
	var payload []byte
	for _, f := range rx.frames {
		payload = append(payload, f[54:]...)
	}
	if !bytes.Equal(payload, frame[54:]) {
		t.Errorf("%d bytes in %d frames, want %d", len(payload), rx.calls, len(frame)-54)
	}
}

// TestRunsAreNotMixed: the front of one superframe and the back of another with the
// same header are not taken for one, nor is a run with a hole.
func TestRunsAreNotMixed(t *testing.T) {
	plain, frame := shards(10, 100)
	tests := []struct {
		name string
		give func(all [][]byte) [][]byte // of two superframes
	}{
		{"front of one and back of another", func(all [][]byte) [][]byte { return append(all[:5], all[15:]...) }},
		{"hole in the counters", func(all [][]byte) [][]byte { return append(all[:3:3], all[4:10]...) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rx := &counting{keep: true}
			d := newDirect(t, session.CipherAES, 1430, rx)
			d.give(tt.give(append(d.seal(t, 0, plain...), d.seal(t, 0, plain...)...))...)
			if rx.calls != 2 || bytes.Equal(rx.frames[0], frame) {
				t.Errorf("%d frames, want 2 runs", rx.calls)
			}
		})
	}
	t.Run("hole in the indices", func(t *testing.T) {
		rx := &counting{keep: true}
		d := newDirect(t, session.CipherAES, 1430, rx)
		d.give(d.seal(t, 0, append(plain[:3:3], plain[4:]...)...)...)
		if rx.calls != 2 {
			t.Errorf("%d frames, want 2 runs", rx.calls)
		}
	})
}

// TestMalformed: authentic plaintexts that make no sense, each counted as bad_meta.
func TestMalformed(t *testing.T) {
	frame := unhex(golden[0].hex)
	route := []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8}
	tests := []struct {
		name  string
		flags uint16
		plain []byte
	}{
		{"empty", 0, nil},
		{"unknown envelope flag", 4, frame},
		{"flood with a route", 3, append(route, frame...)},
		{"route cut short", 1, route[:11]},
		{"route without meta", 1, route},
		{"route from nobody", 1, append(make([]byte, 12), frame...)},
		{"control message on a data lane", 0, unhex(golden[len(golden)-1].hex)},
		{"bundle with a length beyond its end", 0, unhex("3000000000000000 0f00 1000000000000000 " + goldenEther)},
		{"bundle in a bundle", 0, unhex("3000000000000000 2000 3000000000000000 0e00 1000000000000000 " + goldenEther)},
		{"bundle with a rest", 0, unhex("3000000000000000 0e00 1000000000000000 " + goldenEther + "00")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirect(t, session.CipherAES, 1430, &counting{})
			d.give(d.seal(t, tt.flags, tt.plain)...)
			if n := d.b.counters().Drops["bad_meta"]; n != 1 {
				t.Errorf("drops %v, want one bad_meta", d.b.counters().Drops)
			}
		})
	}
}

// TestFragContradictions: pieces that do not fit together never make a frame.
func TestFragContradictions(t *testing.T) {
	frame := append(unhex("1000000000000000"+goldenEther), make([]byte, 42)...) // meta and frame: 64 bytes
	piece := func(off int, more bool, b []byte) []byte {
		m := meta{kind: kindFrag, a: uint16(off / fragUnit), b: 7}
		if more {
			m.a |= fragMore
		}
		p := make([]byte, metaLen)
		m.put(p)
		return append(p, b...)
	}
	tests := []struct {
		name   string
		pieces [][]byte
		want   int
	}{
		{"in order", [][]byte{piece(0, true, frame[:32]), piece(32, false, frame[32:])}, 1},
		{"last first", [][]byte{piece(32, false, frame[32:]), piece(0, true, frame[:32])}, 1},
		{"one piece twice", [][]byte{piece(0, true, frame[:32]), piece(0, true, make([]byte, 32)), piece(32, false, frame[32:])}, 1},
		{"beyond the end", [][]byte{piece(32, false, frame[32:]), piece(64, true, frame[:8]), piece(0, true, frame[:32])}, 1},
		{"end before what is there", [][]byte{piece(40, true, frame[40:48]), piece(32, false, frame[32:40]), piece(0, true, frame[:32])}, 0},
		{"two ends", [][]byte{piece(32, false, frame[32:]), piece(24, false, frame[24:32])}, 0},
		{"overlap", [][]byte{piece(0, true, frame[:40]), piece(32, false, frame[32:])}, 0},
		{"a piece is missing", [][]byte{piece(0, true, frame[:24]), piece(32, false, frame[32:])}, 0},
		{"a shard inside", [][]byte{piece(0, false, unhex(golden[2].hex))}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rx := &counting{keep: true}
			d := newDirect(t, session.CipherAES, 1430, rx)
			d.give(d.seal(t, 0, tt.pieces...)...)
			if rx.calls != tt.want || tt.want == 1 && !bytes.Equal(rx.frames[0], frame[metaLen:]) {
				t.Errorf("%d frames, want %d: %x", rx.calls, tt.want, rx.frames)
			}
		})
	}
}

// TestBundles: small frames for one route leave together, as many as fit.
func TestBundles(t *testing.T) {
	rx := &counting{keep: true}
	d := newDirect(t, session.CipherAES, 1430, rx)
	far := peer.Route{Origin: d.a.route.Origin, Dest: peer.NameFromBytes([6]byte{9})}
	var want [][]byte
	sf := ether.NewSuperframe()
	for i := range 200 {
		frame, off := ethertest.Packet{UDP: true, ID: uint16(i), Payload: make([]byte, i)}.Superframe(0)
		refill(sf, frame, off)
		rt := d.a.route
		if i/10%3 == 0 {
			rt = far
		}
		want = append(want, frame)
		d.a.Send(0, rt, sf)
	}
	d.ov.Flush(0)
	datagrams := d.datagrams()
	for _, p := range datagrams {
		if len(p) > 1430 {
			t.Errorf("datagram of %d bytes", len(p))
		}
	}
	if len(datagrams) > 60 {
		t.Errorf("%d datagrams for %d frames", len(datagrams), len(want))
	}
	routed := &routes{counting: counting{keep: true}}
	d.worker.to = routed
	d.give(datagrams...)
	if len(routed.frames) != len(want) {
		t.Fatalf("%d frames, want %d", len(routed.frames), len(want))
	}
	for i, f := range routed.frames {
		rt := d.a.route
		if i/10%3 == 0 {
			rt = far
		}
		if !bytes.Equal(f, want[i]) || routed.routes[i] != rt {
			t.Fatalf("frame %d is wrong or has route %v, want %v", i, routed.routes[i], rt)
		}
	}
}

// routes keeps the routes too.
type routes struct {
	counting
	routes []peer.Route
}

func (r *routes) Receive(l int, from peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
	r.routes = append(r.routes, rt)
	r.counting.Receive(l, from, rt, off, bufs)
}

// TestEndpointMovesForward: only the newest datagram of a lane moves the endpoint.
func TestEndpointMovesForward(t *testing.T) {
	d := newDirect(t, session.CipherAES, 1430, &counting{})
	all := d.seal(t, 0, make([][]byte, 6)...)
	from := func(addr string, p []byte) netip.AddrPort {
		ep, err := udp.NewEndpoint(netip.MustParseAddrPort(addr), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		d.reply = ep
		d.give(p)
		return d.b.endpoint.Load().AddrPort()
	}
	forged := append([]byte(nil), all[5]...)
	forged[len(forged)-1]++
	steps := []struct {
		name, addr string
		p          []byte
		want       string
	}{
		{"first", "192.0.2.1:1", all[0], "192.0.2.1:1"},
		{"newer", "192.0.2.2:2", all[3], "192.0.2.2:2"},
		{"held back on the old path", "192.0.2.1:1", all[1], "192.0.2.2:2"},
		{"replayed", "192.0.2.3:3", all[3], "192.0.2.2:2"},
		{"forged", "192.0.2.3:3", forged, "192.0.2.2:2"},
		{"newest", "192.0.2.4:4", all[4], "192.0.2.4:4"},
	}
	for _, s := range steps {
		if got := from(s.addr, s.p); got.String() != s.want {
			t.Errorf("%s: endpoint %v, want %v", s.name, got, s.want)
		}
	}
}

// TestDisarmed: keys that were dropped open nothing.
func TestDisarmed(t *testing.T) {
	rx := &counting{}
	d := newDirect(t, session.CipherAES, 1430, rx)
	p := sampleDatagrams(d)
	d.ov.disarm([]uint32{d.rxKeys.Index})
	d.give(p...)
	if n := d.ov.Drops()["unknown_index"]; rx.calls != 0 || int(n) != len(p) {
		t.Errorf("%d frames, drops %v, want all of %d unknown_index", rx.calls, d.ov.Drops(), len(p))
	}
}
