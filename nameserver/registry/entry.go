package registry

import (
	"errors"
	"net/netip"

	"weave/internal/peer"
)

// Limits of what is accepted, from the network and from the local peer.
const (
	MaxName      = 254     // bytes of a name with its final dot
	MaxLabel     = 63      // bytes of one label
	MaxContainer = 128     // bytes of a container ID
	MaxEntries   = 1 << 15 // live entries of one peer
	MaxTotal     = 1 << 20 // live entries of all peers
	MaxPeers     = 4096    // logs

	maxSeq = 1 << 28 // then the local log starts anew; keeps runs short
)

// Errors of Add; the caller decides what to tell the user.
var (
	ErrBadName    = errors.New("not a name that DNS can serve")
	ErrBadAddress = errors.New("not an address that DNS can serve")
	ErrContainer  = errors.New("container ID too long")
	ErrFull       = errors.New("too many names on this peer")
)

// Entry is one name of one container at one address. It is immutable.
type Entry struct {
	text    string // name, then container: one string costs one header
	addr    netip.Addr
	seq     uint64
	origin  peer.Name
	nameLen uint16
}

// Name is the name as it was given, with its final dot.
func (e *Entry) Name() string { return e.text[:e.nameLen] }

// Container is the container's ID, or a word such as weave:expose.
func (e *Entry) Container() string { return e.text[e.nameLen:] }

// Addr is the IPv4 or IPv6 address. It is the zero Addr for a name that exists only
// because there are names below it; such an Entry has no container and no origin.
func (e *Entry) Addr() netip.Addr { return e.addr }

// Origin is the peer that the container runs on.
func (e *Entry) Origin() peer.Name { return e.origin }

func newEntry(origin peer.Name, seq uint64, name, container string, addr netip.Addr) *Entry {
	return &Entry{text: name + container, addr: addr, seq: seq, origin: origin, nameLen: uint16(len(name))}
}

// CheckName reports whether s is a name with a final dot whose labels consist of
// printable ASCII that needs no escape in zone files.
func CheckName[T string | []byte](s T) error {
	if len(s) < 2 || len(s) > MaxName || s[len(s)-1] != '.' {
		return ErrBadName
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 || label > MaxLabel {
				return ErrBadName
			}
			label = 0
			continue
		case c <= ' ' || c >= 0x7f:
			return ErrBadName
		case c == '\\' || c == '"' || c == '\'' || c == '(' || c == ')' || c == ';' || c == '@':
			return ErrBadName
		}
		label++
	}
	return nil
}

func checkEntry(container, name string, addr netip.Addr) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(container) > MaxContainer {
		return ErrContainer
	}
	if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
		return ErrBadAddress
	}
	return nil
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// compareFold orders names as if they were in lower case.
func compareFold[A, B string | []byte](a A, b B) int {
	for i := range min(len(a), len(b)) {
		if x, y := lower(a[i]), lower(b[i]); x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}
