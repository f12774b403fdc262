package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/peer"
)

// daemonCommand is what launch runs; it is of no use by hand.
func (a *app) daemonCommand() *cobra.Command {
	var inForeground bool
	cmd := &cobra.Command{
		Use:     "daemon",
		Short:   "Be the daemon that launch starts",
		Example: "  weave launch",
		Hidden:  true,
		Args:    argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := inheritConfig()
			if err != nil {
				return err
			}
			if inForeground {
				return a.serve(cmd.Context(), cfg, foreground{a.stdout})
			}
			unix.Umask(0o077)
			pipe, err := inherit(readyFD, "ready")
			if err != nil {
				return err
			}
			err = a.serve(cmd.Context(), cfg, &background{pipe: pipe})
			if err != nil { // stderr is the log, which has its own form
				newLogger(a.stderr, cfg.LogLevel, cfg.LogFormat).Error("daemon ended", "error", err)
				a.stderr = io.Discard
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&inForeground, "foreground", false, "nobody waits at the other end of a pipe")
	return cmd
}

// inherit takes over a pipe that launch has opened for us.
func inherit(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, api.Errorf(api.CodeUsage, "not for use by hand: run weave launch")
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

func inheritConfig() (LaunchConfig, error) {
	pipe, err := inherit(configFD, "config")
	if err != nil {
		return LaunchConfig{}, err
	}
	defer pipe.Close()
	b, err := io.ReadAll(io.LimitReader(pipe, maxHandover))
	if err != nil {
		return LaunchConfig{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return decodeHandover(b)
}

// waiter is who wants to know how the start went.
type waiter interface {
	ready(peer.Name)
	failed(error)
}

// foreground prints the name; errors are printed at the end anyway.
type foreground struct{ stdout io.Writer }

func (f foreground) ready(name peer.Name) { fmt.Fprintln(f.stdout, name) }
func (f foreground) failed(error)         {}

// background reports to launch, once.
type background struct {
	pipe io.WriteCloser
	once sync.Once
}

func (b *background) ready(name peer.Name) {
	b.once.Do(func() { report(b.pipe, readiness{Name: name.String()}) })
}

func (b *background) failed(err error) {
	b.once.Do(func() { report(b.pipe, readiness{Code: api.CodeOf(err), Message: err.Error()}) })
}

// serve runs the daemon until it has stopped. It holds the pid file's lock all
// the while.
func (a *app) serve(ctx context.Context, cfg LaunchConfig, w waiter) error {
	err := a.serveLocked(ctx, cfg, w)
	if err != nil {
		w.failed(err)
	}
	return err
}

func (a *app) serveLocked(ctx context.Context, cfg LaunchConfig, w waiter) error {
	pid, err := lockPID(cfg.RunDir)
	if err != nil {
		return err
	}
	defer pid.release()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m := newManager(a.lookupEnv)
	defer context.AfterFunc(ctx, m.stopping)()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop() // before watch.Wait

	cfg.Log = newLogger(a.stderr, cfg.LogLevel, cfg.LogFormat)
	var once sync.Once
	cfg.Ready = func(name peer.Name) {
		once.Do(func() {
			w.ready(name)
			m.ready(name)
			watch.Go(func() { m.watchdog(ctx, cfg.RunDir) })
		})
	}
	err = a.runDaemon(ctx, cfg)
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// newLogger makes the daemon's logger. format auto is text on a terminal and JSON
// elsewhere.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
