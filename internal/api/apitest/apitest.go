// Package apitest provides a Backend for tests: it remembers what it was asked
// and answers what it was told to.
package apitest

import (
	"context"
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
	return api.Addresses{Addrs: req.Addrs}, b.called(ctx, req)
}

// Detach answers the addresses of req.
func (b *Backend) Detach(ctx context.Context, req api.DetachRequest) (api.Addresses, error) {
	return api.Addresses{Addrs: req.Addrs}, b.called(ctx, req)
}

// Ps answers PsAnswer.
func (b *Backend) Ps(ctx context.Context, req api.PsRequest) (api.Attachments, error) {
	return b.PsAnswer, b.called(ctx, req)
}

// Report answers ReportAnswer.
func (b *Backend) Report(ctx context.Context) (api.Report, error) {
	return b.ReportAnswer, b.called(ctx, "Report")
}

// Reset calls OnStop.
func (b *Backend) Reset(ctx context.Context, req api.ResetRequest) error {
	return b.stop(b.called(ctx, req))
}

// Stop calls OnStop.
func (b *Backend) Stop(ctx context.Context) error { return b.stop(b.called(ctx, "Stop")) }

func (b *Backend) stop(err error) error {
	if err == nil && b.OnStop != nil {
		b.OnStop()
	}
	return err
}
