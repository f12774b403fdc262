package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/paxos"
	"weave/ipam/ring"
)

// Keys of the store. A lease has a record of its own, so that an allocation costs
// one small write however many there are.
const (
	keySelf    = "self"    // storedSelf
	keyRing    = "ring"    // wireRing
	keyMembers = "members" // array of wireMember
	keyVotes   = "votes"   // array of wireVote
	keyLease   = "lease/"  // + address: storedLease
)

type storedSelf struct {
	_    struct{} `cbor:",toarray"`
	Name [peer.NameLen]byte
	Boot uint64 // the run that wrote this
}

type storedLease struct {
	_         struct{} `cbor:",toarray"`
	Ident     string
	Bits      uint8
	Container bool
}

// lease is an address in use by a container of this host, or by the host.
type lease struct {
	addr      addr.Addr
	ident     string
	bits      int           // prefix length of the subnet it was asked for in
	container bool          // freed when the container named by ident is gone
	dying     bool          // the container stopped
	freeAt    time.Duration // if dying
	// foreign: the address is not ours. Outside the universe that is nobody's
	// business; inside it is another peer's, and we ask for it.
	foreign bool
	asked   time.Duration
	stored  bool // only the store says so: in this run it was neither seen in use nor given out
}

func (l *lease) prefix() netip.Prefix { return netip.PrefixFrom(l.addr.Netip(), l.bits) }

func leaseKey(a addr.Addr) string { return keyLease + a.String() }

func encodeRecord(key string, v any) Record {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(err) // plain values: cannot be
	}
	return Record{key, b}
}

// restored is what a store holds.
type restored struct {
	name    peer.Name
	boot    uint64
	ring    *ring.Ring
	members []ring.Member
	votes   []paxos.Vote
	leases  []*lease
	keys    []string // all keys, so that a store that is not used can be emptied
}

// restore reads records: ErrStore if they are none of ours.
func restore(records []Record) (*restored, error) {
	out := &restored{}
	for _, r := range records {
		out.keys = append(out.keys, r.Key)
		if err := out.read(r); err != nil {
			return out, fmt.Errorf("%w: %q: %w", ErrStore, r.Key, err)
		}
	}
	return out, nil
}

func (out *restored) read(r Record) error {
	switch {
	case r.Key == keySelf:
		var s storedSelf
		if err := storeMode.Unmarshal(r.Value, &s); err != nil {
			return err
		}
		out.name, out.boot = peer.NameFromBytes(s.Name), s.Boot
	case r.Key == keyRing:
		return out.readRing(r.Value)
	case r.Key == keyMembers:
		var ms []wireMember
		if err := storeMode.Unmarshal(r.Value, &ms); err != nil {
			return err
		}
		for _, m := range ms {
			out.members = append(out.members, memberFromWire(m))
		}
	case r.Key == keyVotes:
		var vs []wireVote
		if err := storeMode.Unmarshal(r.Value, &vs); err != nil {
			return err
		}
		for _, v := range vs {
			out.votes = append(out.votes, voteFromWire(v))
		}
	case strings.HasPrefix(r.Key, keyLease):
		return out.readLease(strings.TrimPrefix(r.Key, keyLease), r.Value)
	}
	return nil // of a later version
}

func (out *restored) readRing(b []byte) error {
	var w wireRing
	if err := storeMode.Unmarshal(b, &w); err != nil {
		return err
	}
	d, err := ringFromWire(&w)
	if err != nil {
		return err
	}
	r, err := ring.New(d.ID)
	if err != nil {
		return err
	}
	_, err = r.Merge(d)
	out.ring = r
	return err
}

func (out *restored) readLease(text string, b []byte) error {
	var s storedLease
	if err := storeMode.Unmarshal(b, &s); err != nil {
		return err
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return err
	}
	a, ok := addr.FromNetip(ip)
	if !ok || s.Bits > addr.Bits {
		return fmt.Errorf("address %v/%d", ip, s.Bits)
	}
	out.leases = append(out.leases, &lease{addr: a, ident: s.Ident, bits: int(s.Bits), container: s.Container, stored: true})
	return nil
}
