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
	// Expose gives the bridge addresses, and with them the host a place on the
	// network; idempotent, and remembered over restarts.
	Expose(ctx context.Context, req ExposeRequest) (Addresses, error)
	// Hide is idempotent; it returns the addresses that were there.
	Hide(ctx context.Context, req HideRequest) (Addresses, error)
	Prime(ctx context.Context, req PrimeRequest) error
	RmPeer(ctx context.Context, req RmPeerRequest) (Removed, error)
	IPAM(ctx context.Context) (IPAM, error)
	DNS(ctx context.Context) (DNS, error)
	// Why explains the paths of the connection to a peer.
	Why(ctx context.Context, req WhyRequest) (Why, error)
	// AddName makes a name for addresses; what is there is no error.
	AddName(ctx context.Context, req DNSRequest) error
	// RemoveName takes away names that this host made; what is not there is no error.
	RemoveName(ctx context.Context, req DNSRequest) error
	Lookup(ctx context.Context, req LookupRequest) (NameAddresses, error)
	Report(ctx context.Context) (Report, error)
	// Reset gives this host's addresses to another, which takes a few seconds at most,
	// undoes everything on the host, deletes the state, and then starts the daemon's
	// shutdown as Stop does.
	Reset(ctx context.Context, req ResetRequest) (Given, error)
	// Stop begins an orderly shutdown and returns without waiting for its end, so
	// that the answer still reaches the caller.
	Stop(ctx context.Context) error
}
