package topo

import (
	"net/netip"
	"testing"
)

// What a member invents fills the memory that there is for it, and keeps neither the
// news of others nor new neighbours out.
func TestInventedPeers(t *testing.T) {
	top := newPeer(1, trusting)
	top.SetNeighbour(name(2), Neighbour{Key: keyOf(2, 0), UID: 2})
	top.SetConns(conns(2), false)
	mustStep(t, top, 2, whole(record(2, 5, 1, 3)))
	mustStep(t, top, 2, whole(record(3, 5, 2)))
	fat := make([]byte, 0, MaxConns*(entryFix+18))
	for i := range MaxConns {
		fat = appendEntry(fat, connV6(20_000+i))
	}
	k := keyOf(9, 0)
	for i := range MaxPeers + 1000 {
		r := Record{Name: name(10_000 + i), UID: 1, Version: 1, Key: k}
		if i < 2*MaxBytes/len(fat) {
			r.conns, r.count = fat, MaxConns
		}
		mustStep(t, top, 2, whole(&r))
	}
	if top.Len() > MaxPeers || top.bytes > 2*MaxBytes {
		t.Errorf("%d records, %d bytes", top.Len(), top.bytes)
	}
	if top.bytes < MaxBytes-len(fat) || top.Len() < MaxPeers*9/10 || top.counters.Limited < 100 {
		t.Fatalf("nothing is full: %d records, %d bytes, %+v", top.Len(), top.bytes, top.counters)
	}
	mustStep(t, top, 2, whole(record(3, 6, 2, 4, 5, 6, 7)))
	if top.Record(name(3)).Len() != 5 {
		t.Error("news of another peer's connections are left out")
	}
	top.SetNeighbour(name(4), Neighbour{Key: keyOf(4, 0), UID: 4})
	mustStep(t, top, 4, whole(record(4, 2, 1)))
	if top.Record(name(4)) == nil {
		t.Error("a new neighbour is left out")
	}
}

func connV6(to int) Conn {
	c := conn(1)
	c.Peer = name(to)
	c.Addr = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), 6783)
	return c
}
