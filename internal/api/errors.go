package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// Code says what kind of failure an [Error] is. The words are part of the schema
// and the exit statuses part of the command line: append only.
type Code string

const (
	CodeFailure       Code = "failure"        // anything without a code of its own
	CodeUsage         Code = "usage"          // the request makes no sense; asking again is useless
	CodeNotRunning    Code = "not_running"    // no daemon answers at the control socket
	CodeDegraded      Code = "degraded"       // status --check: it runs, but not all is well
	CodeConflict      Code = "conflict"       // exists already, is in use
	CodeNotFound      Code = "not_found"      // no such container, peer, device
	CodeTimeout       Code = "timeout"        // not done in the given time; it may still happen
	CodeAuth          Code = "auth"           // wrong password
	CodePermission    Code = "permission"     // not root, or a capability is missing
	CodeKernelFeature Code = "kernel_feature" // this kernel cannot do it
)

var codes = map[Code]struct{ exit, status int }{
	CodeFailure:       {1, http.StatusInternalServerError},
	CodeUsage:         {2, http.StatusBadRequest},
	CodeNotRunning:    {3, http.StatusServiceUnavailable},
	CodeDegraded:      {4, http.StatusServiceUnavailable},
	CodeConflict:      {5, http.StatusConflict},
	CodeNotFound:      {6, http.StatusNotFound},
	CodeTimeout:       {7, http.StatusGatewayTimeout},
	CodeAuth:          {8, http.StatusUnauthorized},
	CodePermission:    {9, http.StatusForbidden},
	CodeKernelFeature: {10, http.StatusNotImplemented},
}

// ExitCode is the exit status of a command that ends with c; an unknown code is
// a plain failure.
func (c Code) ExitCode() int {
	if v, ok := codes[c]; ok {
		return v.exit
	}
	return codes[CodeFailure].exit
}

func (c Code) httpStatus() int {
	if v, ok := codes[c]; ok {
		return v.status
	}
	return codes[CodeFailure].status
}

// Error is a failure with a code. Message is one line in the form
// "<what happened>: <what to do>", without a leading "weave:".
type Error struct {
	Code    Code
	Message string
	Err     error // cause, may be nil; not sent over the socket
}

// Error returns the message alone.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an *Error; a %w in format becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// CodeOf returns the code of the first *Error in err's chain. Without one it
// reads expired deadlines and the errno families that users can act on; all else
// is CodeFailure.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, os.ErrPermission):
		return CodePermission
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, os.ErrExist):
		return CodeConflict
	}
	return CodeFailure
}
