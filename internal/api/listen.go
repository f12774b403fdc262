package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// SocketName is the control socket's file in the run directory.
const SocketName = "weave.sock"

// Limits of the HTTP servers.
const (
	// MaxBody is the largest request body, in bytes.
	MaxBody        = 64 << 10
	maxHeader      = 16 << 10
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	requestTimeout = 60 * time.Second // for a Backend to answer
	idleTimeout    = 60 * time.Second
	graceTimeout   = 5 * time.Second // for answers under way when a server stops
	maxConns       = 64
)

// ListenControl binds the control socket in runDir, mode 0600. A socket file
// that nobody listens on is replaced; CodeConflict if somebody does. Closing the
// listener deletes the file.
func ListenControl(runDir string) (net.Listener, error) {
	path := filepath.Join(runDir, SocketName)
	if len(path) > maxSocketPath {
		return nil, Errorf(CodeUsage, "run directory %s is too long for a socket: choose a shorter --run-dir", runDir)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Made under a name of its own and renamed when its mode is right, so that
	// there is never a moment in which others can connect.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &controlListener{UnixListener: l, path: path}, nil
}

// maxSocketPath is sun_path of unix(7) less its NUL and the ".new" suffix.
const maxSocketPath = 107 - 4

// removeStale deletes the socket at path if nobody listens on it.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case fi.Mode().Type() != os.ModeSocket:
		return Errorf(CodeConflict, "%s is not a socket: move it away, or choose another --run-dir", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return Errorf(CodeConflict, "a daemon is already running on %s: stop it with weave stop, or choose another --run-dir", path)
	}
	return os.Remove(path)
}

type controlListener struct {
	*net.UnixListener
	path string
}

func (l *controlListener) Close() error {
	return errors.Join(l.UnixListener.Close(), ignoreMissing(os.Remove(l.path)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// ListenStatus binds the TCP address of the status listener, "host:port".
func ListenStatus(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, Errorf(CodeConflict, "status address %s is in use: choose another --status-addr, or --status-addr= for none", addr)
	case err != nil:
		return nil, Errorf(CodeUsage, "status address: %w: choose another --status-addr, or --status-addr= for none", err)
	}
	return l, nil
}

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

// RunControl serves the control API on l, from ListenControl, until ctx ends.
// Then it lets requests under way finish, for at most five seconds, and returns
// nil. It closes l.
func (s *Server) RunControl(ctx context.Context, l net.Listener) error {
	return s.run(ctx, callerListener{l}, s.controlHandler())
}

// RunStatus serves the read-only routes on l, from ListenStatus, in the same way.
func (s *Server) RunStatus(ctx context.Context, l net.Listener) error {
	return s.run(ctx, l, s.statusHandler(l.Addr()))
}

func (s *Server) run(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      requestTimeout + readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTimeout)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	})
	err := srv.Serve(netutil.LimitListener(l, maxConns))
	if stop() { // ctx is still alive: the listener broke
		return errors.Join(err, srv.Close())
	}
	return <-stopped
}
