package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// clientHost is the Host header of our own requests.
const clientHost = "weave"

// maxAnswer bounds what a client reads of an answer, in bytes.
const maxAnswer = 64 << 20

// Client asks a running daemon. It is a Backend whose errors are all *Error:
// those of the daemon as they were, CodeNotRunning when nobody listens,
// CodeTimeout when ctx ended, CodePermission when the socket is not ours to use.
type Client struct {
	runDir string
	http   *http.Client
}

var _ Backend = (*Client)(nil)

// NewClient makes a client for the daemon whose control socket is in runDir. It
// connects at the first request.
func NewClient(runDir string) *Client {
	path := filepath.Join(runDir, SocketName)
	return &Client{runDir, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
		MaxIdleConns:       1,
		IdleConnTimeout:    idleTimeout / 2,
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status, like all methods below, is described at Backend.
func (c *Client) Status(ctx context.Context) (Status, error) { return get[Status](ctx, c, "/status") }

// Connections asks for the daemon's connections.
func (c *Client) Connections(ctx context.Context) (Connections, error) {
	return get[Connections](ctx, c, "/connections")
}

// Peers asks for all known peers.
func (c *Client) Peers(ctx context.Context) (Peers, error) { return get[Peers](ctx, c, "/peers") }

// Targets asks for the daemon's targets.
func (c *Client) Targets(ctx context.Context) (Targets, error) {
	return get[Targets](ctx, c, "/targets")
}

// Report asks for everything.
func (c *Client) Report(ctx context.Context) (Report, error) { return get[Report](ctx, c, "/report") }

// Ps asks for attached interfaces.
func (c *Client) Ps(ctx context.Context, req PsRequest) (Attachments, error) {
	q := url.Values{}
	for _, ctr := range req.Containers {
		q.Add("container", ctr.String())
	}
	path := "/ps"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return get[Attachments](ctx, c, path)
}

// Connect adds or replaces targets.
func (c *Client) Connect(ctx context.Context, req ConnectRequest) error {
	return c.command(ctx, "/connect", req)
}

// Forget removes targets.
func (c *Client) Forget(ctx context.Context, req ForgetRequest) error {
	return c.command(ctx, "/forget", req)
}

// Attach puts a container on the network.
func (c *Client) Attach(ctx context.Context, req AttachRequest) (Addresses, error) {
	return post[Addresses](ctx, c, "/attach", req)
}

// Detach takes a container off the network.
func (c *Client) Detach(ctx context.Context, req DetachRequest) (Addresses, error) {
	return post[Addresses](ctx, c, "/detach", req)
}

// Reset makes the daemon undo everything and stop.
func (c *Client) Reset(ctx context.Context, req ResetRequest) (Given, error) {
	return post[Given](ctx, c, "/reset", req)
}

// Stop makes the daemon shut down; it does not wait for that.
func (c *Client) Stop(ctx context.Context) error { return c.command(ctx, "/stop", stopRequest{}) }

// Expose puts the host on the network.
func (c *Client) Expose(ctx context.Context, req ExposeRequest) (Addresses, error) {
	return post[Addresses](ctx, c, "/expose", req)
}

// Hide takes the host off the network.
func (c *Client) Hide(ctx context.Context, req HideRequest) (Addresses, error) {
	return post[Addresses](ctx, c, "/hide", req)
}

// Prime waits until the address range is divided.
func (c *Client) Prime(ctx context.Context, req PrimeRequest) error {
	return c.command(ctx, "/prime", req)
}

// RmPeer takes over the addresses of a peer that is gone.
func (c *Client) RmPeer(ctx context.Context, req RmPeerRequest) (Removed, error) {
	return post[Removed](ctx, c, "/rmpeer", req)
}

// IPAM asks how the address range is shared.
func (c *Client) IPAM(ctx context.Context) (IPAM, error) { return get[IPAM](ctx, c, "/ipam") }

// DNS asks for all names.
func (c *Client) DNS(ctx context.Context) (DNS, error) { return get[DNS](ctx, c, "/dns") }

// AddName makes a name.
func (c *Client) AddName(ctx context.Context, req DNSRequest) error {
	return c.command(ctx, "/dns/add", req)
}

// RemoveName takes names away.
func (c *Client) RemoveName(ctx context.Context, req DNSRequest) error {
	return c.command(ctx, "/dns/remove", req)
}

// Lookup asks for the addresses of a name.
func (c *Client) Lookup(ctx context.Context, req LookupRequest) (NameAddresses, error) {
	return get[NameAddresses](ctx, c, "/dns/lookup?"+url.Values{"name": {req.Name}}.Encode())
}

// Why asks why the connection to a peer is as it is.
func (c *Client) Why(ctx context.Context, req WhyRequest) (Why, error) {
	return get[Why](ctx, c, "/why?"+url.Values{"peer": {req.Peer}}.Encode())
}

func (c *Client) command(ctx context.Context, path string, req checker) error {
	_, err := post[done](ctx, c, path, req)
	return err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return roundTrip[T](ctx, c, http.MethodGet, path, nil)
}

func post[T any](ctx context.Context, c *Client, path string, req checker) (v T, err error) {
	if err := req.check(); err != nil {
		return v, err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return v, Errorf(CodeFailure, "request: %w", err)
	}
	if len(body) > MaxBody {
		return v, Errorf(CodeUsage, "request is larger than %d bytes: split it", MaxBody)
	}
	return roundTrip[T](ctx, c, http.MethodPost, path, body)
}

func roundTrip[T any](ctx context.Context, c *Client, method, path string, body []byte) (v T, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+clientHost+prefix+path, bytes.NewReader(body))
	if err != nil {
		return v, Errorf(CodeFailure, "request: %w", err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return v, c.explain(ctx, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return v, c.explain(ctx, err)
	case len(raw) > maxAnswer:
		return v, Errorf(CodeFailure, "the daemon's answer is too large")
	case resp.StatusCode != http.StatusOK:
		return v, asError(resp, raw)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, Errorf(CodeFailure, "the daemon's answer makes no sense: is it of another version? %w", err)
	}
	return v, nil
}

// asError reads the body of a refusal.
func asError(resp *http.Response, raw []byte) error {
	var f failure
	if err := json.Unmarshal(raw, &f); err != nil || f.Error.Code == "" {
		return Errorf(CodeFailure, "the daemon answered %s: is it of another version?", resp.Status)
	}
	return &Error{Code: f.Error.Code, Message: f.Error.Message}
}

// explain turns a failure of the transport into what to do about it.
func (c *Client) explain(ctx context.Context, err error) error {
	path := filepath.Join(c.runDir, SocketName)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{CodeFailure, "interrupted", ctx.Err()}
	case ctx.Err() != nil || os.IsTimeout(err):
		return &Error{CodeTimeout, fmt.Sprintf("the daemon at %s did not answer in time: try again, or a longer --timeout", c.runDir), err}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return &Error{CodeNotRunning, fmt.Sprintf("no daemon is running at %s: start one with weave launch", c.runDir), err}
	case errors.Is(err, os.ErrPermission):
		return &Error{CodePermission, fmt.Sprintf("no access to %s: run as root", path), err}
	case errors.Is(err, unix.EINVAL) && len(path) > maxSocketPath:
		return &Error{CodeUsage, fmt.Sprintf("run directory %s is too long for a socket: choose a shorter --run-dir", c.runDir), err}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return Errorf(CodeFailure, "the daemon at %s broke off: %w: see its log", c.runDir, err)
}
