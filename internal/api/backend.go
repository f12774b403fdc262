package api

import "context"

// Backend is a running daemon as seen from outside. All methods may be called
// from many goroutines at once and give up when ctx ends. Errors are *Error where
// the user can act on them. Requests have been checked by the types' parsers.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	Connections(ctx context.Context) (Connections, error)
	Peers(ctx context.Context) (Peers, error)
	Targets(ctx context.Context) (Targets, error)
	// Connect adds targets; what is a target already is no error. It does not
	// wait for connections.
	Connect(ctx context.Context, req ConnectRequest) error
	Forget(ctx context.Context, req ForgetRequest) error
	// Attach is idempotent and leaves nothing half-made when it fails.
	Attach(ctx context.Context, req AttachRequest) (Addresses, error)
	// Detach is idempotent; it returns the addresses that were there.
	Detach(ctx context.Context, req DetachRequest) (Addresses, error)
	Ps(ctx context.Context, req PsRequest) (Attachments, error)
	Report(ctx context.Context) (Report, error)
	// Reset undoes everything on the host, deletes the state, and then starts the
	// daemon's shutdown as Stop does.
	Reset(ctx context.Context, req ResetRequest) error
	// Stop begins an orderly shutdown and returns without waiting for its end, so
	// that the answer still reaches the caller.
	Stop(ctx context.Context) error
}
