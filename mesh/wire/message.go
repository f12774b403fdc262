package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weave/internal/peer"
)

// Limits of what messages hold, in bytes or entries.
const (
	maxNickName = 256
	maxVersion  = 64
	maxCaps     = 32
	maxCap      = 256
	maxReason   = 512
	maxInstead  = 8
)

// Cap names a capability in a Hello. Append only.
type Cap uint16

// CapSignKey is the Ed25519 public key (32 bytes) of the sender's topology records.
const CapSignKey Cap = 1

// Hello is the first message of both ends of a connection.
type Hello struct {
	Name     peer.Name // never zero
	NickName string
	UID      peer.UID // never zero
	ConnID   uint64   // random, new for each connection; see ConnUID
	Trusts   bool     // the sender's trusted networks hold the receiver's address
	Port     uint16   // TCP port the sender listens on; 0: none
	Version  string
	Caps     map[Cap][]byte // those unknown to the receiver are ignored
	Found    bool           // the sender dialed an address that it had from other peers
	Room     Room
}

// Room says how much the sender, which dialed, wants the connection. If it is not zero the
// sender waits for a first message before it believes that it was let in. Bits unknown to
// the receiver are ignored.
type Room uint8

const (
	// RoomFull: the sender has as many connections as it may have, so that this one is
	// only for joining two parts of a network: the receiver refuses it if it reaches the
	// sender.
	RoomFull Room = 1 << iota
	// RoomNone: the sender can't let another one go either, and only asks who is there.
	RoomNone
	// RoomInsist: the sender was turned away for lack of room before.
	RoomInsist
)

// ConnUID is the identity of a connection, equal on both ends: what both chose,
// joined by XOR.
func ConnUID(a, b uint64) uint64 { return a ^ b }

type helloBody struct {
	Name    []byte         `cbor:"1,keyasint"`
	Nick    string         `cbor:"2,keyasint,omitempty"`
	UID     uint64         `cbor:"3,keyasint"`
	ConnID  uint64         `cbor:"4,keyasint"`
	Trusts  bool           `cbor:"5,keyasint,omitempty"`
	Port    uint16         `cbor:"6,keyasint,omitempty"`
	Version string         `cbor:"7,keyasint,omitempty"`
	Caps    map[Cap][]byte `cbor:"8,keyasint,omitempty"`
	Found   bool           `cbor:"9,keyasint,omitempty"`
	Room    Room           `cbor:"10,keyasint,omitempty"`
}

// Msg returns h as a message. Text that is too long is cut; capabilities that are
// too many or too long are an error.
func (h Hello) Msg() (Msg, error) {
	if err := checkCaps(h.Caps); err != nil {
		return Msg{}, err
	}
	name := h.Name.Bytes()
	b, err := encMode.Marshal(helloBody{
		Name: name[:], Nick: clip(h.NickName, maxNickName), UID: uint64(h.UID), ConnID: h.ConnID,
		Trusts: h.Trusts, Port: h.Port, Version: clip(h.Version, maxVersion), Caps: h.Caps, Found: h.Found, Room: h.Room,
	})
	return Msg{TagHello, b}, err
}

func checkCaps(caps map[Cap][]byte) error {
	if len(caps) > maxCaps {
		return fmt.Errorf("%d capabilities: %w", len(caps), ErrTooLong)
	}
	total := 0
	for _, v := range caps {
		total += len(v) + 8
		if len(v) > maxCap || total > TagHello.Limit()-512 {
			return fmt.Errorf("capabilities: %w", ErrTooLong)
		}
	}
	return nil
}

// ParseHello reads the body of a hello. The result shares no memory with b.
func ParseHello(b []byte) (Hello, error) {
	var w helloBody
	if err := decode("hello", TagHello.Limit(), b, &w); err != nil {
		return Hello{}, err
	}
	if len(w.Nick) > maxNickName || len(w.Version) > maxVersion {
		return Hello{}, fmt.Errorf("hello text: %w", ErrTooLong)
	}
	if err := checkCaps(w.Caps); err != nil {
		return Hello{}, err
	}
	if len(w.Name) != peer.NameLen || w.UID == 0 {
		return Hello{}, fmt.Errorf("hello name or uid: %w", ErrMalformed)
	}
	h := Hello{
		Name: peer.NameFromBytes([peer.NameLen]byte(w.Name)), NickName: clip(w.Nick, maxNickName),
		UID: peer.UID(w.UID), ConnID: w.ConnID, Trusts: w.Trusts, Port: w.Port,
		Version: clip(w.Version, maxVersion), Caps: w.Caps, Found: w.Found, Room: w.Room,
	}
	if h.Name.IsZero() {
		return Hello{}, fmt.Errorf("hello name: %w", ErrMalformed)
	}
	return h, nil
}

// Heartbeat returns the message that asks for an echo of token.
func Heartbeat(token uint64) Msg {
	return Msg{TagHeartbeat, binary.BigEndian.AppendUint64(nil, token)}
}

// Echo answers the Heartbeat with that token.
func Echo(token uint64) Msg { return Msg{TagEcho, binary.BigEndian.AppendUint64(nil, token)} }

// ParseToken reads the body of a heartbeat or an echo.
func ParseToken(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("token: %w", ErrMalformed)
	}
	return binary.BigEndian.Uint64(b), nil
}

// Overlay returns a message for the overlay at place path of the agreement. It
// copies payload.
func Overlay(path int, payload []byte) (Msg, error) {
	if path < 0 || path > 255 {
		return Msg{}, fmt.Errorf("path %d: %w", path, ErrMalformed)
	}
	if len(payload) >= TagOverlay.Limit() {
		return Msg{}, fmt.Errorf("overlay message of %d bytes: %w", len(payload), ErrTooLong)
	}
	return Msg{TagOverlay, append([]byte{byte(path)}, payload...)}, nil
}

// ParseOverlay reads the body of an overlay message; payload aliases b.
func ParseOverlay(b []byte) (path int, payload []byte, err error) {
	if len(b) == 0 || len(b) > TagOverlay.Limit() {
		return 0, nil, fmt.Errorf("overlay message: %w", ErrMalformed)
	}
	return int(b[0]), b[1:], nil
}

// Code says why a peer closes a connection. Append only; a receiver treats an
// unknown code like CodeError.
type Code uint8

const (
	CodeError        Code = 0 // see the text
	CodeShutdown     Code = 1 // the peer stops
	CodeDuplicate    Code = 2 // another connection between the two stays
	CodeSelf         Code = 3 // both ends are the same peer
	CodeCollision    Code = 4 // another peer has that name
	CodeClone        Code = 5 // another live peer has that name and static key
	CodeLimit        Code = 6 // too many connections
	CodeReplaced     Code = 7 // the peer was restarted and has a newer connection
	CodeForgotten    Code = 8 // the user dropped the target
	CodeOverlay      Code = 9 // no path for frames
	CodeOverflow     Code = 10
	CodeIncompatible Code = 11
	CodeForeign      Code = 12 // the address came from peers that don't know the one there
	CodeNamesake     Code = 13 // a peer further away has that name
)

// Close is the last message of a connection.
type Close struct {
	Code    Code
	Text    string           // for people; at most maxReason bytes
	Instead []netip.AddrPort // peers that may have room when the sender has none; at most maxInstead
}

type closeBody struct {
	Code    Code     `cbor:"1,keyasint"`
	Text    string   `cbor:"2,keyasint,omitempty"`
	Instead [][]byte `cbor:"3,keyasint,omitempty"`
}

// Msg returns c as a message; what is too long is cut.
func (c Close) Msg() (Msg, error) {
	w := closeBody{Code: c.Code, Text: clip(c.Text, maxReason)}
	for _, a := range c.Instead[:min(len(c.Instead), maxInstead)] {
		b := a.Addr().Unmap().AsSlice()
		w.Instead = append(w.Instead, binary.BigEndian.AppendUint16(b, a.Port()))
	}
	b, err := encMode.Marshal(w)
	return Msg{TagClose, b}, err
}

// ParseClose reads the body of a close message.
func ParseClose(b []byte) (Close, error) {
	var w closeBody
	if err := decode("close", TagClose.Limit(), b, &w); err != nil {
		return Close{}, err
	}
	if len(w.Text) > maxReason || len(w.Instead) > maxInstead {
		return Close{}, fmt.Errorf("close text or addresses: %w", ErrTooLong)
	}
	c := Close{Code: w.Code, Text: clip(w.Text, maxReason)}
	for _, in := range w.Instead {
		n := len(in) - 2
		a, ok := netip.AddrFromSlice(in[:max(n, 0)])
		if !ok {
			return Close{}, fmt.Errorf("close address: %w", ErrMalformed)
		}
		c.Instead = append(c.Instead, netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(in[n:])))
	}
	return c, nil
}
