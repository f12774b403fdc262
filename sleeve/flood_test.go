package sleeve

import (
	"testing"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
)

// routed is a Receiver that keeps the routes of what it gets.
type routed struct{ got []peer.Route }

func (r *routed) Receive(_ int, _ peer.Name, rt peer.Route, _ ether.Offload, _ [][]byte) {
	r.got = append(r.got, rt)
}

// TestRoutes: whatever becomes of a frame on the way, it arrives with its route; a
// flood with none but its origin. What the link implies costs no bytes.
func TestRoutes(t *testing.T) {
	rx := &routed{}
	d := newDirect(t, session.CipherAES, 600, rx)
	far := peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 9})
	routes := []struct {
		name  string
		rt    peer.Route
		bytes int
	}{
		{"to the peer", d.a.route, 0},
		{"flood", peer.Route{Origin: d.a.p.Local}, 0},
		{"relayed", peer.Route{Origin: far, Dest: d.a.p.Remote}, routeLen},
		{"relayed onward", peer.Route{Origin: d.a.p.Local, Dest: far}, routeLen},
		{"flood of another", peer.Route{Origin: far}, routeLen},
	}
	shapes := []struct {
		name string
		pkts []ethertest.Packet
		seg  int
	}{
		{"frame", []ethertest.Packet{{UDP: true, Payload: make([]byte, 500)}}, 0},
		{"bundle", []ethertest.Packet{{Payload: make([]byte, 50)}, {Payload: make([]byte, 60)}}, 0},
		{"superframe", []ethertest.Packet{{Payload: make([]byte, 4000)}}, 1324},
		{"pieces", []ethertest.Packet{{UDP: true, Payload: make([]byte, 1200)}}, 0},
	}
	for _, s := range shapes {
		least := 0
		for _, r := range routes {
			rx.got = nil
			sf := ether.NewSuperframe()
			for _, p := range s.pkts {
				frame, off := p.Superframe(s.seg)
				refill(sf, frame, off)
				d.a.Send(0, r.rt, sf)
			}
			d.ov.Flush(0)
			sent := d.datagrams()
			if least == 0 {
				least = len(sent[0])
			}
			if n := len(sent[0]); s.name != "superframe" && s.name != "pieces" && n != least+r.bytes {
				t.Errorf("%s, %s: first datagram of %d bytes, want %d", s.name, r.name, n, least+r.bytes)
			}
			d.give(sent...)
			if len(rx.got) == 0 {
				t.Errorf("%s, %s: nothing arrived", s.name, r.name)
			}
			for _, rt := range rx.got {
				if rt != r.rt {
					t.Errorf("%s, %s: arrived with the route %v, want %v", s.name, r.name, rt, r.rt)
				}
			}
		}
	}
	if _, ok := d.b.parse(session.Header{Flags: flagRelayed | flagFlooded}, make([]byte, 64)); ok {
		t.Error("a datagram with both flags was accepted")
	}
}
