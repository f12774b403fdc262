package topo

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"unicode/utf8"

	"weave/internal/peer"
)

// Limits of what is accepted from the network.
const (
	MaxPeers   = 10_000   // records
	MaxBytes   = 64 << 20 // of the records' connections in all, those with few apart
	MaxConns   = 4096     // connections in one record
	MaxText    = 255      // bytes of a nickname or program version
	MaxVersion = 1 << 62

	// fairBytes of connections are taken in each record also beyond MaxBytes, so that who
	// fills that up keeps no news of others out.
	fairBytes = MaxBytes / MaxPeers
)

// ErrMessage reports a message that no peer of ours would send.
var ErrMessage = errors.New("bad topology message")

// Key is the Ed25519 public key that a peer signs its records with.
type Key [ed25519.PublicKeySize]byte

// Mark tells keys apart in a few bytes; it proves nothing.
type Mark [4]byte

// Mark returns the mark of k.
func (k Key) Mark() Mark {
	h := sha256.Sum256(k[:])
	return Mark(h[:4])
}

// Conn is one connection as the peer at one end of it sees it.
type Conn struct {
	Peer        peer.Name      // at the other end
	Mark        Mark           // of the key it proved
	Addr        netip.AddrPort // the other end's TCP address
	Outbound    bool           // the author of the record dialed
	Established bool           // data may go over it
}

// Record is what a peer says of itself.
type Record struct {
	Name     peer.Name
	UID      peer.UID
	Version  uint64
	Full     bool   // it takes no more connections but from those that must have one
	Port     uint16 // TCP port it listens on; 0: none
	Key      Key
	NickName string
	Program  string // version of its program

	conns []byte // on the wire, checked; sorted by Peer, each once
	count int
	sig   [ed25519.SignatureSize]byte
}

// newer reports whether r replaces one of that age.
func (r *Record) newer(uid peer.UID, version uint64) bool {
	if r.Version != version {
		return r.Version > version
	}
	return r.UID > uid
}

// Len is the number of connections.
func (r *Record) Len() int { return r.count }

// Conns returns the connections, sorted by Peer.
func (r *Record) Conns() iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		for b := r.conns; len(b) > 0; b = b[entryLen(b):] {
			if !yield(parseEntry(b)) {
				return
			}
		}
	}
}

// Conn returns the connection to a peer.
func (r *Record) Conn(to peer.Name) (Conn, bool) {
	want := to.Bytes()
	for b := r.conns; len(b) > 0; b = b[entryLen(b):] {
		switch bytes.Compare(b[:peer.NameLen], want[:]) {
		case 0:
			return parseEntry(b), true
		case 1:
			return Conn{}, false
		}
	}
	return Conn{}, false
}

// Sizes of the parts of an update.
const (
	fixedLen  = peer.NameLen + 8 + 8 + 8 + 1
	entryFix  = peer.NameLen + 4 + 1 // of a connection before the address
	entryFlag = entryFix - 1
	sigLen    = ed25519.SignatureSize
)

const (
	flagFull = 1 // of a record

	flagOutbound    = 1 // of a connection
	flagEstablished = 2
	flagIPv6        = 4
)

// entryLen is the size of the connection at the start of b, which was checked.
func entryLen(b []byte) int {
	if b[entryFlag]&flagIPv6 != 0 {
		return entryFix + 16 + 2
	}
	return entryFix + 4 + 2
}

func parseEntry(b []byte) Conn {
	n := entryLen(b)
	addr, _ := netip.AddrFromSlice(b[entryFix : n-2])
	return Conn{
		Peer: peer.NameFromBytes([peer.NameLen]byte(b)), Mark: Mark(b[peer.NameLen:]),
		Addr:     netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[n-2:])),
		Outbound: b[entryFlag]&flagOutbound != 0, Established: b[entryFlag]&flagEstablished != 0,
	}
}

func appendEntry(b []byte, c Conn) []byte {
	b = c.Peer.AppendBytes(b)
	b = append(b, c.Mark[:]...)
	var flags byte
	if c.Outbound {
		flags |= flagOutbound
	}
	if c.Established {
		flags |= flagEstablished
	}
	addr := c.Addr.Addr().Unmap().WithZone("")
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	if addr.Is6() {
		flags |= flagIPv6
	}
	b = append(append(b, flags), addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, c.Addr.Port())
}

// appendRecord appends a whole record without its signature.
func appendRecord(b []byte, r *Record) []byte {
	b = appendFixed(b, r, 0)
	b = binary.BigEndian.AppendUint16(b, r.Port)
	b = append(b, r.Key[:]...)
	for _, s := range []string{r.NickName, r.Program} {
		b = append(append(b, byte(len(s))), s...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(r.count))
	return append(b, r.conns...)
}

func appendFixed(b []byte, r *Record, base uint64) []byte {
	b = r.Name.AppendBytes(b)
	b = binary.BigEndian.AppendUint64(b, uint64(r.UID))
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, base)
	var flags byte
	if r.Full {
		flags |= flagFull
	}
	return append(b, flags)
}

// wholeLen is the size of a whole record as an update.
func (r *Record) wholeLen() int {
	return fixedLen + 2 + len(r.Key) + 1 + len(r.NickName) + 1 + len(r.Program) + 2 + len(r.conns) + sigLen
}

// signed appends the bytes that a signature of r is over.
func signed(b []byte, r *Record) []byte {
	return appendRecord(append(b, "weave topology record\x00"...), r)
}

// parser takes bytes off a message; after the first mistake it returns zeros.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n int) []byte {
	if p.bad || n > len(p.b) {
		p.bad = true
		return make([]byte, n)
	}
	out := p.b[:n]
	p.b = p.b[n:]
	return out
}

func (p *parser) u16() uint16 { return binary.BigEndian.Uint16(p.take(2)) }
func (p *parser) u64() uint64 { return binary.BigEndian.Uint64(p.take(8)) }
func (p *parser) name() peer.Name {
	return peer.NameFromBytes([peer.NameLen]byte(p.take(peer.NameLen)))
}

func (p *parser) text() string {
	s := p.take(int(p.take(1)[0]))
	p.bad = p.bad || !utf8.Valid(s)
	return string(s)
}

// entries takes n connections of a record of self and returns their bytes, in the
// message's memory.
func (p *parser) entries(self peer.Name, n int) []byte {
	start, size := p.b, 0
	var last peer.Name
	for range n {
		e := p.take(entryFix)
		if p.bad {
			return nil
		}
		name := peer.NameFromBytes([peer.NameLen]byte(e))
		if name.Compare(last) <= 0 || name == self || e[entryFlag]&^(flagOutbound|flagEstablished|flagIPv6) != 0 {
			p.bad = true
			return nil
		}
		last = name
		rest := entryLen(e) - entryFix
		addr := p.take(rest)
		if e[entryFlag]&flagIPv6 != 0 && netip.AddrFrom16([16]byte(addr)).Is4In6() {
			p.bad = true // one address, one form
		}
		size += entryFix + rest
	}
	if p.bad {
		return nil
	}
	return start[:size]
}

func (p *parser) count() int {
	n := int(p.u16())
	if n > MaxConns {
		p.bad = true
		return 0
	}
	return n
}

// incoming is an update as it came; conns and gone are in the message's memory.
type incoming struct {
	rec   Record // of a change: Name, UID, Version, Full, signature
	base  uint64
	conns []byte // all, or those that changed
	gone  []byte // names
}

// update takes one update off the message.
func (p *parser) update() (incoming, error) {
	var u incoming
	r := &u.rec
	r.Name, r.UID, r.Version, u.base = p.name(), peer.UID(p.u64()), p.u64(), p.u64()
	flags := p.take(1)[0]
	r.Full = flags&flagFull != 0
	if r.Name.IsZero() || r.UID == 0 || r.Version == 0 || r.Version > MaxVersion || u.base >= r.Version || flags&^flagFull != 0 {
		p.bad = true
	}
	if u.base == 0 {
		r.Port, r.Key = p.u16(), Key(p.take(len(r.Key)))
		r.NickName, r.Program = p.text(), p.text()
		r.count = p.count()
		u.conns = p.entries(r.Name, r.count)
	} else {
		u.conns = p.entries(r.Name, p.count())
		u.gone = p.take(p.count() * peer.NameLen)
	}
	r.sig = [sigLen]byte(p.take(sigLen))
	if p.bad {
		return u, fmt.Errorf("update: %w", ErrMessage)
	}
	return u, nil
}

// apply returns the record that a change leads to from old, and the names of the
// connections that it touches, sorted. The signature is yet to be verified.
func (u *incoming) apply(old *Record) (*Record, []peer.Name, error) {
	r := u.rec
	r.Port, r.Key, r.NickName, r.Program = old.Port, old.Key, old.NickName, old.Program
	var touched []peer.Name
	gone := map[peer.Name]bool{}
	for b := u.gone; len(b) > 0; b = b[peer.NameLen:] {
		n := peer.NameFromBytes([peer.NameLen]byte(b))
		gone[n] = true
		touched = append(touched, n)
	}
	out := make([]byte, 0, len(old.conns)+len(u.conns))
	a, c := old.conns, u.conns
	for len(a) > 0 || len(c) > 0 {
		order := -1
		if len(a) == 0 {
			order = 1
		} else if len(c) > 0 {
			order = bytes.Compare(a[:peer.NameLen], c[:peer.NameLen])
		}
		if order < 0 {
			e := a[:entryLen(a)]
			a = a[len(e):]
			if len(gone) > 0 && gone[peer.NameFromBytes([peer.NameLen]byte(e))] {
				continue
			}
			out = append(out, e...)
			r.count++
			continue
		}
		e := c[:entryLen(c)]
		c = c[len(e):]
		if order == 0 {
			a = a[entryLen(a):]
		}
		out = append(out, e...)
		touched = append(touched, peer.NameFromBytes([peer.NameLen]byte(e)))
		r.count++
	}
	if r.count > MaxConns {
		return nil, nil, fmt.Errorf("record of %d connections: %w", r.count, ErrMessage)
	}
	r.conns = slices.Clip(out)
	slices.SortFunc(touched, peer.Name.Compare)
	return &r, slices.Compact(touched), nil
}
