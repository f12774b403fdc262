package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
)

// SocketName is the control socket's file in the run directory.
const SocketName = "weave.sock"

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	Backend Backend
	Metrics http.Handler // answers GET /metrics; nil: 404
	Log     *slog.Logger
}

// Server offers a Backend. It holds no state of its own.
type Server struct{ cfg ServerConfig }

// NewServer starts nothing; see RunControl and RunStatus.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg} }

// ListenControl binds the control socket in runDir.
func ListenControl(runDir string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// ListenStatus binds the TCP address of the status listener.
func ListenStatus(addr string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// RunControl serves the control API on l until ctx ends.
func (s *Server) RunControl(ctx context.Context, l net.Listener) error { return errors.ErrUnsupported }

// RunStatus serves the read-only routes on l until ctx ends.
func (s *Server) RunStatus(ctx context.Context, l net.Listener) error { return errors.ErrUnsupported }
