package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/api/apitest"
	"weave/internal/peer"
)

// TestMain lets the test binary be the daemon that launch starts, and with
// TEST_CLI set, the whole command line over the fake daemon below.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_CLI") != "" || len(os.Args) > 1 && os.Args[1] == "daemon" {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		a := newApp()
		a.runDaemon = fakeDaemon
		code := a.run(ctx, os.Args[1:])
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// fakeName is the peer name of the fake daemon.
const fakeName = "02:00:00:00:00:01"

// fakeDaemon serves the control API over a fake backend until it is told to stop.
// TEST_DAEMON makes it misbehave.
func fakeDaemon(ctx context.Context, cfg LaunchConfig) error {
	mode := os.Getenv("TEST_DAEMON")
	switch mode {
	case "auth":
		return api.Errorf(api.CodeAuth, "wrong password: ask for the right one")
	case "plain":
		return errors.New("something broke")
	case "die":
		os.Exit(3)
	case "hang":
		signal.Ignore(unix.SIGTERM)
		select {}
	case "slow":
		<-ctx.Done()
		return ctx.Err()
	}
	// What the test wants to know of us.
	got, _ := json.Marshal(map[string]any{"password": string(cfg.Password), "config": cfg, "pid": os.Getpid(), "stdin": readable(0)})
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, "got.json"), got, 0o600); err != nil {
		return err
	}
	cfg.Log.Info("starting", "password", cfg.Password, "config", fmt.Sprintf("%+v %#v", cfg, cfg))
	l, err := api.ListenControl(cfg.RunDir)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if mode == "stubborn" {
		stop = func() {}
	}
	b := &apitest.Backend{OnStop: stop, StatusAnswer: api.Status{Version: "fake", PID: os.Getpid()}, Block: mode == "deaf"}
	name, _ := peer.ParseName(fakeName)
	cfg.Ready(name)
	return api.NewServer(api.ServerConfig{Backend: b, Log: cfg.Log}).RunControl(ctx, l)
}

func readable(fd int) string {
	link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return link
}

// cli is one run of the command line in this process.
type cli struct {
	*testing.T
	dir   string
	env   map[string]string
	stdin string
	clean func(context.Context, CleanConfig) error
}

func newCLI(t *testing.T) *cli {
	return &cli{T: t, dir: t.TempDir(), env: map[string]string{}}
}

func (c *cli) runDir() string   { return filepath.Join(c.dir, "run") }
func (c *cli) stateDir() string { return filepath.Join(c.dir, "state") }

// run runs weave with the test's directories.
func (c *cli) run(args ...string) (stdout, stderr string, code int) {
	c.Helper()
	return c.runContext(c.Context(), args...)
}

func (c *cli) runContext(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	c.Helper()
	var out, errs bytes.Buffer
	a := newApp()
	a.stdin, a.stdout, a.stderr = strings.NewReader(c.stdin), &out, &errs
	a.runDaemon = fakeDaemon
	a.cleanHost = c.clean
	if c.clean == nil {
		a.cleanHost = func(context.Context, CleanConfig) error { return nil }
	}
	a.lookupEnv = func(name string) (string, bool) {
		if name == "WEAVE_RUN_DIR" {
			return c.runDir(), true
		}
		if name == "WEAVE_STATE_DIR" {
			return c.stateDir(), true
		}
		v, ok := c.env[name]
		return v, ok
	}
	code = a.run(ctx, args)
	return out.String(), errs.String(), code
}

// want runs weave and checks the outcome; stderr is a part of it, stdout all.
func (c *cli) want(code int, stdout, stderr string, args ...string) {
	c.Helper()
	out, errs, got := c.run(args...)
	if got != code || out != stdout || !strings.Contains(errs, stderr) || stderr == "" && errs != "" {
		c.Errorf("weave %s: exit %d, stdout %q, stderr %q\nwant exit %d, stdout %q, stderr %q", strings.Join(args, " "), got, out, errs, code, stdout, stderr)
	}
	if code != 0 && (!strings.HasPrefix(errs, "weave: ") || strings.Count(errs, "\n") != 1) {
		c.Errorf("weave %s: stderr is not one line: %q", strings.Join(args, " "), errs)
	}
}

// backend serves b at the run directory's socket for the time of the test.
func (c *cli) backend(b *apitest.Backend) {
	c.Helper()
	if err := os.MkdirAll(c.runDir(), 0o755); err != nil {
		c.Fatal(err)
	}
	l, err := api.ListenControl(c.runDir())
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		api.NewServer(api.ServerConfig{Backend: b, Log: slog.New(slog.DiscardHandler)}).RunControl(ctx, l)
	})
	c.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// daemonPID is the pid of the daemon that was launched; the test ends it.
func (c *cli) daemonPID() int {
	c.Helper()
	pid, alive := daemonAlive(c.runDir())
	if !alive || pid == 0 {
		c.Fatalf("no daemon: pid %d, alive %v", pid, alive)
	}
	c.Cleanup(func() {
		if now, alive := daemonAlive(c.runDir()); alive && now == pid {
			unix.Kill(pid, unix.SIGKILL)
			c.gone()
		}
	})
	return pid
}

// gone waits until no daemon holds the pid file.
func (c *cli) gone() {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := waitGone(ctx, c.runDir()); err != nil {
		c.Errorf("daemon is still there: %v", err)
	}
}

// got is what the daemon was given.
func (c *cli) got() (password string, cfg LaunchConfig) {
	c.Helper()
	b, err := os.ReadFile(filepath.Join(c.stateDir(), "got.json"))
	if err != nil {
		c.Fatal(err)
	}
	var v struct {
		Password string
		Config   LaunchConfig
	}
	if err := json.Unmarshal(b, &v); err != nil {
		c.Fatal(err)
	}
	return v.Password, v.Config
}

// procs calls fn with the id, arguments and environment of each process.
func procs(t *testing.T, fn func(pid, file string, content []byte)) {
	t.Helper()
	for _, file := range []string{"cmdline", "environ"} {
		paths, _ := filepath.Glob("/proc/[0-9]*/" + file)
		for _, p := range paths {
			f, err := os.Open(p)
			if err != nil {
				continue // gone meanwhile
			}
			b, _ := io.ReadAll(f)
			f.Close()
			fn(strings.Split(p, "/")[2], file, b)
		}
	}
}

func contains(list []any, v any) bool {
	return slices.ContainsFunc(list, func(x any) bool { return fmt.Sprint(x) == fmt.Sprint(v) })
}
