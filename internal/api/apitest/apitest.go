// Package apitest provides a Backend for tests: it remembers what it was asked
// and answers what it was told to.
package apitest

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"weave/internal/api"
)

// Backend answers with its fields. The zero Backend answers everything with zero
// values. Set fields before use; Calls and the Stopped channel are for reading.
type Backend struct {
	StatusAnswer      api.Status
	ConnectionsAnswer api.Connections
	PeersAnswer       api.Peers
	TargetsAnswer     api.Targets
	PsAnswer          api.Attachments
	ReportAnswer      api.Report
	AddressesAnswer   []netip.Prefix // of attach, detach, expose and hide, for what is no given address
	RemovedAnswer     api.Removed
	IPAMAnswer        api.IPAM
	DNSAnswer         api.DNS
	LookupAnswer      api.NameAddresses
	WhyAnswer         api.Why
	GivenAnswer       api.Given
	Err               error      // of every method, if set
	Block             bool       // methods wait for their ctx and return its error
	OnStop            func()     // called by Stop and Reset
	mu                sync.Mutex // guards calls
	calls             []any      // requests, in order
}

var _ api.Backend = (*Backend)(nil)

// Calls returns the requests so far: the request values, or the method's name
// for one without.
func (b *Backend) Calls() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

func (b *Backend) called(ctx context.Context, call any) error {
	b.mu.Lock()
	b.calls = append(b.calls, call)
	b.mu.Unlock()
	if b.Block {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.Err
}

// Status answers StatusAnswer.
func (b *Backend) Status(ctx context.Context) (api.Status, error) {
	return b.StatusAnswer, b.called(ctx, "Status")
}

// Connections answers ConnectionsAnswer.
func (b *Backend) Connections(ctx context.Context) (api.Connections, error) {
	return b.ConnectionsAnswer, b.called(ctx, "Connections")
}

// Peers answers PeersAnswer.
func (b *Backend) Peers(ctx context.Context) (api.Peers, error) {
	return b.PeersAnswer, b.called(ctx, "Peers")
}

// Targets answers TargetsAnswer.
func (b *Backend) Targets(ctx context.Context) (api.Targets, error) {
	return b.TargetsAnswer, b.called(ctx, "Targets")
}

// Connect remembers req.
func (b *Backend) Connect(ctx context.Context, req api.ConnectRequest) error {
	return b.called(ctx, req)
}

// Forget remembers req.
func (b *Backend) Forget(ctx context.Context, req api.ForgetRequest) error {
	return b.called(ctx, req)
}

// Attach answers the addresses of req.
func (b *Backend) Attach(ctx context.Context, req api.AttachRequest) (api.Addresses, error) {
	return b.addresses(req.Addrs), b.called(ctx, req)
}

// addresses are the given ones, or AddressesAnswer.
func (b *Backend) addresses(as []api.Addr) (out api.Addresses) {
	for _, a := range as {
		if !a.IsNet() {
			out.Addrs = append(out.Addrs, a.Prefix())
		}
	}
	if len(out.Addrs) < max(1, len(as)) {
		out.Addrs = append(out.Addrs, b.AddressesAnswer...)
	}
	return out
}

// Detach answers the addresses of req.
func (b *Backend) Detach(ctx context.Context, req api.DetachRequest) (api.Addresses, error) {
	return b.addresses(req.Addrs), b.called(ctx, req)
}

// Ps answers PsAnswer.
func (b *Backend) Ps(ctx context.Context, req api.PsRequest) (api.Attachments, error) {
	return b.PsAnswer, b.called(ctx, req)
}

// Report answers ReportAnswer.
func (b *Backend) Report(ctx context.Context) (api.Report, error) {
	return b.ReportAnswer, b.called(ctx, "Report")
}

// Expose answers as Attach does.
func (b *Backend) Expose(ctx context.Context, req api.ExposeRequest) (api.Addresses, error) {
	return b.addresses(req.Addrs), b.called(ctx, req)
}

// Hide answers as Attach does.
func (b *Backend) Hide(ctx context.Context, req api.HideRequest) (api.Addresses, error) {
	return b.addresses(req.Addrs), b.called(ctx, req)
}

// Prime remembers req.
func (b *Backend) Prime(ctx context.Context, req api.PrimeRequest) error { return b.called(ctx, req) }

// RmPeer answers RemovedAnswer.
func (b *Backend) RmPeer(ctx context.Context, req api.RmPeerRequest) (api.Removed, error) {
	v := b.RemovedAnswer
	v.Peer = req.Peer
	return v, b.called(ctx, req)
}

// IPAM answers IPAMAnswer.
func (b *Backend) IPAM(ctx context.Context) (api.IPAM, error) {
	return b.IPAMAnswer, b.called(ctx, "IPAM")
}

// DNS answers DNSAnswer.
func (b *Backend) DNS(ctx context.Context) (api.DNS, error) {
	return b.DNSAnswer, b.called(ctx, "DNS")
}

// AddName remembers req.
func (b *Backend) AddName(ctx context.Context, req api.DNSRequest) error {
	return b.called(ctx, Added(req))
}

// RemoveName remembers req.
func (b *Backend) RemoveName(ctx context.Context, req api.DNSRequest) error {
	return b.called(ctx, Taken(req))
}

// Added and Taken tell the two requests with a DNSRequest apart in Calls.
type (
	Added api.DNSRequest
	Taken api.DNSRequest
)

// Why answers WhyAnswer.
func (b *Backend) Why(ctx context.Context, req api.WhyRequest) (api.Why, error) {
	return b.WhyAnswer, b.called(ctx, req)
}

// Lookup answers LookupAnswer.
func (b *Backend) Lookup(ctx context.Context, req api.LookupRequest) (api.NameAddresses, error) {
	return b.LookupAnswer, b.called(ctx, req)
}

// Reset answers GivenAnswer and calls OnStop.
func (b *Backend) Reset(ctx context.Context, req api.ResetRequest) (api.Given, error) {
	return b.GivenAnswer, b.stop(b.called(ctx, req))
}

// Stop calls OnStop.
func (b *Backend) Stop(ctx context.Context) error { return b.stop(b.called(ctx, "Stop")) }

func (b *Backend) stop(err error) error {
	if err == nil && b.OnStop != nil {
		b.OnStop()
	}
	return err
}
