package forward

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weave/internal/ether"
	"weave/internal/peer"
)

// arp is a request for an address of 10.0.0.0/24 by another, or a reply.
func arp(op byte, from, to byte) []byte {
	f := append(bytes.Repeat([]byte{255}, 6), macA[:]...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
	f = append(append(f, macA[:]...), 10, 0, 0, from)
	return append(f, 0, 0, 0, 0, 0, 0, 10, 0, 0, to)
}

// icmpv6 is a message of a type from an address.
func icmpv6(typ byte, from string) []byte {
	f := append([]byte{0x33, 0x33, 255, 0, 0, 1}, macA[:]...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	f = append(f, netip.MustParseAddr(from).AsSlice()...)
	f = append(f, netip.MustParseAddr("ff02::1:ff00:1").AsSlice()...)
	return append(append(f, typ), make([]byte, 31)...)
}

func TestIsQuestion(t *testing.T) {
	long := append(arp(1, 1, 2), make([]byte, maxQuestion)...)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  int
	}{
		{"ARP request", arp(1, 1, 2), 1},
		{"ARP reply", arp(2, 1, 2), 0},
		{"ARP announcement", arp(1, 1, 1), 0},
		{"neighbour solicitation", icmpv6(135, "fd00::1"), 1},
		{"neighbour advertisement", icmpv6(136, "fd00::1"), 0},
		{"check for a duplicate", icmpv6(135, "::"), 0},
		{"too long", long, 0},
		{"cut ARP", arp(1, 1, 2)[:41], 0},
		{"cut IPv6", icmpv6(135, "fd00::1")[:54], 0},
		{"no header", make([]byte, 13), 0},
		{"something else", make([]byte, 60), 0},
	} {
		var a asked
		a.note(tt.frame, time.Now())
		if got := len(a.fresh(time.Now())); got != tt.want {
			t.Errorf("%s: %d kept, want %d", tt.name, got, tt.want)
		}
	}
}

func TestAskedAge(t *testing.T) {
	var a asked
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	a.note(arp(1, 1, 2), at(0))
	a.note(arp(1, 1, 2), at(askedTime-1)) // by us: it is not younger for it
	if n := len(a.fresh(at(askedTime - 1))); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
	if n := len(a.fresh(at(askedTime))); n != 0 {
		t.Errorf("%d questions after a while, want none", n)
	}
	a.note(arp(1, 1, 2), at(time.Second)) // by the kernel that wants to know
	if n := len(a.fresh(at(time.Second + askedTime - 1))); n != 1 {
		t.Errorf("%d questions asked again, want 1", n)
	}
	for i := range 2 * maxAsked {
		a.note(arp(1, 1, byte(i)), at(2*time.Second))
	}
	if n := len(a.fresh(at(2 * time.Second))); n != maxAsked {
		t.Errorf("%d questions of many, want the last %d", n, maxAsked)
	}
}

// The switch keeps questions that went to everybody, or to nobody.
func TestSwitchAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwitch(t, newBridge(t), nil)
		sf, spare := ether.NewSuperframe(), ether.NewSuperframe()
		send := func(frame []byte) {
			sf.Head = ether.Headroom
			sf.Buf = append(sf.Buf[:sf.Head], frame...)
			s.fromBridge(0, sf, spare, s.now())
		}
		check := func(want ...[]byte) {
			t.Helper()
			if got := s.Asked(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("asked %x, want %x", got, want)
			}
		}
		send(arp(1, 1, 2))
		check(arp(1, 1, 2))
		s.SetRoutes(&Snapshot{Local: self, Broadcast: map[peer.Name][]Hop{self: {{Peer: p2, Path: &sink{}}}}})
		send(arp(1, 1, 3))
		send(arp(2, 1, 3))
		check(arp(1, 1, 2), arp(1, 1, 3))
		time.Sleep(askedTime)
		check()
	})
}
