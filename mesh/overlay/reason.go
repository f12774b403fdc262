package overlay

import (
	"errors"

	"weave/crypto/policy"
)

// ReasonOf returns the constant word for an error of Prepare: that of the first error
// in its chain with a method Reason, or what package policy stands for, or "error".
func ReasonOf(err error) string {
	var r interface{ Reason() string }
	switch {
	case errors.As(err, &r):
		return r.Reason()
	case errors.Is(err, policy.ErrEncryptedOnly):
		return "encryption"
	}
	return "error"
}

// ReasonNotOffered is the reason of a path that the other end does not do.
const ReasonNotOffered = "not-offered"
