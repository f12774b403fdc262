package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"weave/crypto/handshake"
	"weave/mesh/dial"
	"weave/mesh/wire"
)

// Reason is the kind of an error that ended a connection or an attempt: constant
// words for status, metrics and decisions of programs. Texts may change, these
// may not.
type Reason string

const (
	ReasonPassword    Reason = "wrong password"
	ReasonOneSided    Reason = "password on one side only"
	ReasonNotWeave    Reason = "not weave"
	ReasonVersion     Reason = "no version in common"
	ReasonHandshake   Reason = "handshake broken" // malformed, not authentic, or cut off
	ReasonTimeout     Reason = "handshake timeout"
	ReasonRate        Reason = "rate limited"
	ReasonCrowded     Reason = "crowded out" // an older unfinished handshake made room for a newer
	ReasonUnreachable Reason = "unreachable"
	ReasonSelf        Reason = "connected to ourselves"
	ReasonCollision   Reason = "name collision"
	ReasonClone       Reason = "cloned identity"
	ReasonNamesake    Reason = "name in use" // by a peer further away, which may be gone soon
	ReasonLimit       Reason = "connection limit"
	ReasonDuplicate   Reason = "multiple connections"
	ReasonReplaced    Reason = "peer restarted"
	ReasonForgotten   Reason = "target forgotten"
	ReasonShutdown    Reason = "peer stopped"
	ReasonStopping    Reason = "stopping"
	ReasonSilent      Reason = "peer silent"
	ReasonLost        Reason = "connection lost"
	ReasonProtocol    Reason = "protocol error"
	ReasonNoPath      Reason = "no path"
	ReasonOverflow    Reason = "peer takes no messages"
	ReasonNoCipher    Reason = "no cipher in common"
	ReasonForeign     Reason = "peer of another network"
	ReasonRemote      Reason = "refused by peer" // for a reason that this version doesn't know
)

// RefusalReasons lists the usual reasons for which an inbound attempt is turned away.
func RefusalReasons() []Reason {
	return []Reason{
		ReasonPassword, ReasonOneSided, ReasonNotWeave, ReasonVersion, ReasonHandshake, ReasonTimeout, ReasonRate, ReasonCrowded,
		ReasonCollision, ReasonClone, ReasonNamesake, ReasonLimit, ReasonForeign, ReasonDuplicate, ReasonSelf,
	}
}

// Error is why a connection or an attempt ended.
type Error struct {
	Reason Reason
	Text   string // for people, a sentence without the address
	Err    error  // cause, may be nil

	instead []netip.AddrPort // with ReasonLimit: who may have room
}

// Error returns the text and the cause.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = string(e.Reason)
	}
	if e.Err != nil {
		return text + ": " + plain(e.Err)
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// outcome is what the connection maker makes of it.
func (e *Error) outcome() dial.Outcome {
	switch e.Reason {
	case ReasonSelf:
		return dial.Self
	case ReasonCollision:
		return dial.Collision
	case ReasonDuplicate:
		return dial.Duplicate
	case ReasonUnreachable:
		return dial.Unreachable
	case ReasonLimit:
		return dial.NoRoom
	}
	return dial.Failed
}

// codes pairs reasons with the codes that tell the other end. A reason that is
// missing travels as CodeError.
var codes = []struct {
	reason   Reason
	code     wire.Code
	received Reason // what the other end makes of it
}{
	{ReasonStopping, wire.CodeShutdown, ReasonShutdown},
	{ReasonDuplicate, wire.CodeDuplicate, ReasonDuplicate},
	{ReasonSelf, wire.CodeSelf, ReasonSelf},
	{ReasonCollision, wire.CodeCollision, ReasonCollision},
	{ReasonClone, wire.CodeClone, ReasonClone},
	{ReasonNamesake, wire.CodeNamesake, ReasonNamesake},
	{ReasonLimit, wire.CodeLimit, ReasonLimit},
	{ReasonReplaced, wire.CodeReplaced, ReasonReplaced},
	{ReasonForgotten, wire.CodeForgotten, ReasonForgotten},
	{ReasonNoPath, wire.CodeOverlay, ReasonNoPath},
	{ReasonOverflow, wire.CodeOverflow, ReasonOverflow},
	{ReasonNoCipher, wire.CodeIncompatible, ReasonNoCipher},
	{ReasonForeign, wire.CodeForeign, ReasonForeign},
}

// message is what the other end is told.
func (e *Error) message() wire.Close {
	text := e.Text
	if text == "" {
		text = string(e.Reason)
	}
	for _, c := range codes {
		if c.reason == e.Reason {
			return wire.Close{Code: c.code, Text: text, Instead: e.instead}
		}
	}
	return wire.Close{Code: wire.CodeError, Text: text}
}

// fromPeer is the error of a connection that the other end closed.
func fromPeer(m wire.Close) *Error {
	for _, c := range codes {
		if c.code == m.Code {
			return &Error{Reason: c.received, Text: m.Text, instead: m.Instead}
		}
	}
	return &Error{Reason: ReasonRemote, Text: "refused by peer: " + m.Text}
}

// handshakeError gives an error of a handshake its reason.
func handshakeError(err error) *Error {
	var one *handshake.OneSidedError
	var rej *handshake.RejectError
	switch {
	case errors.Is(err, handshake.ErrWrongPassword):
		return &Error{Reason: ReasonPassword, Text: "wrong password: the passwords of the two hosts differ"}
	case errors.As(err, &one) && one.Remote:
		return &Error{Reason: ReasonOneSided, Text: "the other host has a password, this one has none"}
	case errors.As(err, &one):
		return &Error{Reason: ReasonOneSided, Text: "this host has a password, the other one has none"}
	case errors.Is(err, handshake.ErrPasswordOneSided):
		return &Error{Reason: ReasonOneSided, Text: "password set on one of the two hosts only"}
	case errors.Is(err, handshake.ErrNotWeave):
		return &Error{Reason: ReasonNotWeave, Text: "the other end is not a weave peer"}
	case errors.Is(err, handshake.ErrVersion):
		return &Error{Reason: ReasonVersion, Err: err}
	case errors.As(err, &rej):
		return &Error{Reason: ReasonRemote, Err: err}
	case isTimeout(err):
		return &Error{Reason: ReasonTimeout, Text: fmt.Sprintf("handshake not finished in %v", HandshakeTimeout)}
	case isClosed(err):
		return &Error{Reason: ReasonHandshake, Text: "the other end closed the connection during the handshake"}
	}
	return &Error{Reason: ReasonHandshake, Text: "handshake", Err: err}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &ne) && ne.Timeout())
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// plain drops the addresses that errors of package net repeat, and the name of the
// system call.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}
