// Package peer holds the nouns that name a member of the network.
//
// A peer is one weave daemon. It is known by a [Name], a 48-bit number that
// users see in the form of a MAC address, and it has a [UID] that changes each
// time the daemon starts, so that a restart can be told from an old message.
//
// The package is pure: values only, no goroutine, socket, file or clock.
package peer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// NameLen is the size in bytes of a Name on the wire.
const NameLen = 6

// ErrBadName reports text that is neither six hex octets nor a short form.
var ErrBadName = errors.New("not a peer name: want six hex octets such as 02:aa:bb:cc:dd:ee, or a short form such as ::1")

// Name identifies a peer in the whole network and over restarts. It is a
// comparable value; the zero Name means "unknown peer" and is never a member.
type Name struct{ v uint64 } // v < 1<<48

// NameFromBytes reads a Name in wire form, most significant byte first.
func NameFromBytes(b [NameLen]byte) Name {
	var w [8]byte
	copy(w[2:], b[:])
	return Name{binary.BigEndian.Uint64(w[:])}
}

// Bytes returns the wire form, most significant byte first.
func (n Name) Bytes() [NameLen]byte {
	var w [8]byte
	binary.BigEndian.PutUint64(w[:], n.v)
	return [NameLen]byte(w[2:])
}

// AppendBytes appends the wire form to b.
func (n Name) AppendBytes(b []byte) []byte {
	w := n.Bytes()
	return append(b, w[:]...)
}

// ParseName reads six hex octets separated by colons, or a form in which one
// run of zero octets is written as "::" ("::1", "1::", "1::1", "::").
func ParseName(s string) (Name, error) {
	head, tail, short := strings.Cut(s, "::")
	if !short {
		octets, err := parseOctets(s)
		if err != nil || len(octets) != NameLen {
			return Name{}, fmt.Errorf("%q: %w", s, ErrBadName)
		}
		return NameFromBytes([NameLen]byte(octets)), nil
	}
	before, err1 := parseOctets(head)
	after, err2 := parseOctets(tail)
	if err1 != nil || err2 != nil || len(before)+len(after) >= NameLen {
		return Name{}, fmt.Errorf("%q: %w", s, ErrBadName)
	}
	var b [NameLen]byte
	copy(b[:], before)
	copy(b[NameLen-len(after):], after)
	return NameFromBytes(b), nil
}

func parseOctets(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var out []byte
	for part := range strings.SplitSeq(s, ":") {
		v, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) > 2 {
			return nil, ErrBadName
		}
		out = append(out, byte(v))
	}
	return out, nil
}

// String returns the full form: six lower-case hex octets.
func (n Name) String() string {
	b := n.Bytes()
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// IsZero reports whether n is the unknown peer.
func (n Name) IsZero() bool { return n.v == 0 }

// Compare orders names by number: -1, 0 or +1.
func (n Name) Compare(m Name) int {
	switch {
	case n.v < m.v:
		return -1
	case n.v > m.v:
		return 1
	}
	return 0
}

// MarshalText gives the full form; the zero Name gives "".
func (n Name) MarshalText() ([]byte, error) {
	if n.IsZero() {
		return nil, nil
	}
	return []byte(n.String()), nil
}

// UnmarshalText accepts every form of ParseName, and "" for the zero Name.
func (n *Name) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Name{}
		return nil
	}
	v, err := ParseName(string(b))
	if err != nil {
		return err
	}
	*n = v
	return nil
}

// Route says between which peers a frame travels, whatever hops it takes:
// Origin took it from its bridge, Dest is to put it on its bridge. The zero Dest
// means a flood: whoever gets it puts it on its bridge and hands it on.
type Route struct{ Origin, Dest Name }

// UID tells one run of a peer's daemon from the next. It is never zero.
type UID uint64

// NewUID draws a UID from the system's random source.
func NewUID() UID {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if u := UID(binary.BigEndian.Uint64(b[:])); u != 0 {
			return u
		}
	}
}
