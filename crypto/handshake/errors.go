package handshake

import (
	"errors"
	"fmt"
)

var (
	// ErrWrongPassword: both ends have a password and they differ. A message 3
	// that was changed on the way looks the same.
	ErrWrongPassword = errors.New("handshake: wrong password")
	// ErrPasswordOneSided: one end has a password, the other has none; as an
	// OneSidedError it says which.
	ErrPasswordOneSided = errors.New("handshake: password set on one side only")
	// ErrNotWeave: the first bytes are not a preamble. Nothing is to be answered.
	ErrNotWeave = errors.New("handshake: not a weave peer")
	// ErrVersion: the ends speak no version in common.
	ErrVersion = errors.New("handshake: no version in common")
	// ErrTooLong: a frame, an offer or a record is beyond its limit.
	ErrTooLong = errors.New("handshake: too long")
	// ErrMalformed: a frame of the wrong type or size for this point.
	ErrMalformed = errors.New("handshake: malformed message")
	// ErrAuth: a message was changed on the way, or its sender lacks the keys.
	ErrAuth = errors.New("handshake: authentication failed")
	// ErrRejected: one of the ends refused the other; it is a RejectError.
	ErrRejected = errors.New("handshake: rejected")

	errMisuse = errors.New("handshake: step with the wrong number of bytes, or after the end")
)

// OneSidedError is an ErrPasswordOneSided.
type OneSidedError struct {
	Remote bool // the password is set on the other end only; false: on this end only
}

// Error says which end has the password.
func (e *OneSidedError) Error() string {
	if e.Remote {
		return "handshake: the other end has a password, this end has none"
	}
	return "handshake: this end has a password, the other end has none"
}

// Is makes it an ErrPasswordOneSided.
func (e *OneSidedError) Is(target error) bool { return target == ErrPasswordOneSided }

// RejectCode is why one end refused the other. Codes are protocol; append only.
type RejectCode uint8

const (
	// RejectNone is no refusal: what Admit returns for a welcome peer.
	RejectNone RejectCode = 0
	// RejectPassword: the password is wrong.
	RejectPassword RejectCode = 1
	// RejectVersion: the version cannot be used after all.
	RejectVersion RejectCode = 2
	// RejectPasswordOneSided: the password is set on one side only.
	RejectPasswordOneSided RejectCode = 3
	// RejectMessage: a message was malformed or did not authenticate.
	RejectMessage RejectCode = 4
	// RejectNotAdmitted: this static key or offer is not wanted.
	RejectNotAdmitted RejectCode = 5
	// RejectBusy: try again later.
	RejectBusy RejectCode = 6
)

// String returns words for logs and status.
func (c RejectCode) String() string {
	switch c {
	case RejectNone:
		return "none"
	case RejectPassword:
		return "wrong password"
	case RejectVersion:
		return "version"
	case RejectPasswordOneSided:
		return "password set on one side only"
	case RejectMessage:
		return "bad message"
	case RejectNotAdmitted:
		return "not admitted"
	case RejectBusy:
		return "busy"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// RejectError is an ErrRejected, and also the sentinel that its Code stands for:
// ErrWrongPassword, ErrVersion, ErrPasswordOneSided.
type RejectError struct {
	Code   RejectCode
	Remote bool // the other end said so, unauthenticated; false: Admit did
}

// Error says which end refused, and the code in words.
func (e *RejectError) Error() string {
	if e.Remote {
		return fmt.Sprintf("handshake: rejected by the other end: %v", e.Code)
	}
	return fmt.Sprintf("handshake: other end rejected: %v", e.Code)
}

// Is reports whether target is ErrRejected or what the code stands for.
func (e *RejectError) Is(target error) bool {
	switch target {
	case ErrRejected:
		return true
	case ErrWrongPassword:
		return e.Code == RejectPassword
	case ErrVersion:
		return e.Code == RejectVersion
	case ErrPasswordOneSided:
		return e.Code == RejectPasswordOneSided
	}
	return false
}
