package testnet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// BinEnv names the environment variable with a weave binary to test instead of one
// built from source.
const BinEnv = "WEAVE_BIN"

var build = sync.OnceValues(buildBinary)

// Binary returns the path of the weave binary under test: $WEAVE_BIN, or one built
// from source, once per test process, into the module's bin directory.
func Binary(t TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("building weave: %v", err)
	}
	return path
}

func buildBinary() (string, error) {
	if bin := os.Getenv(BinEnv); bin != "" {
		return filepath.Abs(bin)
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	dir := filepath.Join(root, "bin", "testnet")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Renamed into place, as another test process may be running the old one.
	tmp := filepath.Join(dir, fmt.Sprintf("weave.%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", tmp, "./cmd/weave")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	bin := filepath.Join(dir, "weave")
	return bin, os.Rename(tmp, bin)
}

// startTimeout is how long a daemon may take until it answers, most of which goes into
// its password on a slow machine; stopTimeout, until it has gone after SIGTERM.
const (
	startTimeout = 45 * time.Second
	stopTimeout  = 10 * time.Second
)

// Daemon is one run of weave on a host.
type Daemon struct {
	Host *Host

	t      TB
	bin    string
	cmd    *Cmd
	log    *logBuffer
	exited chan struct{} // closed when the process is gone
}

// RunDir is where the host's daemons have their control socket; it outlives them.
func (h *Host) RunDir() string { return filepath.Join(h.lab.dir, h.Label, "run") }

// StateDir is where the host's daemons keep what survives a restart, such as the store.
func (h *Host) StateDir() string { return filepath.Join(h.lab.dir, h.Label, "state") }

// env lets every weave command on the host find the host's daemon.
func (h *Host) env() []string {
	return append(os.Environ(), "WEAVE_RUN_DIR="+h.RunDir(), "WEAVE_STATE_DIR="+h.StateDir())
}

// Weave runs a weave command on the host, for at most 30 s.
func (h *Host) Weave(bin string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return h.weave(ctx, bin, args...).result()
}

func (h *Host) weave(ctx context.Context, bin string, args ...string) *Cmd {
	c := h.Command(ctx, bin, args...)
	c.Env = h.env()
	return c
}

// StartWeave runs `weave launch --foreground` with args on the host and returns
// when the daemon answers; the test fails if it does not. Unless args name the
// peer, its name is 02:00:00:00:00:NN for host NN. The daemon is killed when the
// test ends, and its log is printed if the test failed.
func (h *Host) StartWeave(t TB, bin string, args ...string) *Daemon {
	t.Helper()
	d := h.LaunchWeave(t, bin, args...)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		r := h.weave(ctx, bin, "status").result()
		if r.Code == 0 {
			return d
		}
		select {
		case <-d.exited:
			t.Fatalf("weave on %s ended during its start: %v\n%s", h.Label, d.cmd.ProcessState, d.Log())
		case <-ctx.Done():
			t.Fatalf("weave on %s is not ready after %v: weave status: exit %d\n%s%s", h.Label, startTimeout, r.Code, r.Stdout, r.Stderr)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// LaunchWeave is StartWeave without waiting, for daemons that are meant to fail.
func (h *Host) LaunchWeave(t TB, bin string, args ...string) *Daemon {
	t.Helper()
	full := []string{"launch", "--foreground", "--run-dir", h.RunDir(), "--state-dir", h.StateDir()}
	if !slices.ContainsFunc(args, func(a string) bool { return a == "--name" || strings.HasPrefix(a, "--name=") }) {
		// The namespaces share the machine's id, which names are made of.
		full = append(full, "--name", fmt.Sprintf("02:00:00:00:00:%02x", h.index))
	}
	for _, dir := range []string{h.RunDir(), h.StateDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatalf("making the daemon's directories: %v", err)
		}
	}
	d := &Daemon{Host: h, t: t, bin: bin, log: &logBuffer{}, exited: make(chan struct{})}
	d.cmd = h.weave(context.Background(), bin, append(full, args...)...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("starting weave on %s: %v", h.Label, err)
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.Kill9()
		if t.Failed() {
			t.Logf("log of weave on %s:\n%s", h.Label, d.Log())
		}
	})
	return d
}

// Weave runs a weave command on the daemon's host.
func (d *Daemon) Weave(args ...string) Result { return d.Host.Weave(d.bin, args...) }

// MustWeave runs a weave command that has to succeed and returns its standard
// output.
func (d *Daemon) MustWeave(args ...string) string {
	d.t.Helper()
	r := d.Weave(args...)
	if r.Code != 0 {
		d.t.Fatalf("weave %s on %s: exit %d\n%s%s", strings.Join(args, " "), d.Host.Label, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Pid is the daemon's process id.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Kill9 kills the daemon and returns when it is gone. It is idempotent.
func (d *Daemon) Kill9() {
	d.cmd.Process.Kill()
	<-d.exited
}

// Stop asks the daemon to end and returns its exit code. A daemon that does not is
// killed, and the test fails.
func (d *Daemon) Stop() int {
	d.t.Helper()
	d.cmd.Process.Signal(unix.SIGTERM)
	return d.Wait(stopTimeout)
}

// Wait waits for the daemon to end by itself and returns its exit code. A daemon
// that does not is killed, and the test fails.
func (d *Daemon) Wait(limit time.Duration) int {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(limit):
		d.t.Errorf("weave on %s does not end within %v", d.Host.Label, limit)
		d.Kill9()
	}
	return d.cmd.ProcessState.ExitCode()
}

// Log returns what the daemon wrote until now, the last megabyte of it.
func (d *Daemon) Log() string { return d.log.String() }

// logBuffer keeps the end of what is written to it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const maxLog = 1 << 20

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	if over := b.buf.Len() - maxLog; over > 0 {
		b.buf.Next(over)
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
