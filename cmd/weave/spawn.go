package main

// How launch starts a daemon:
//
//	1  launch reads flags, environment and password and checks them
//	2  it opens the log and runs its own file again: weave daemon --run-dir DIR,
//	   in a session of its own, without the password's variables
//	3  the configuration, password included, goes down a pipe (fd 3)
//	4  the daemon takes the pid file's lock, starts, and reports through a second
//	   pipe (fd 4): its name, or an error with its code
//	5  launch prints the name and leaves
//
// In the foreground step 2 is an exec in place when the password was given as an
// argument or variable, since both stay readable in /proc for a process's life.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/api"
)

// File descriptors of the daemon's pipes.
const (
	configFD = 3
	readyFD  = 4
)

// Limits of the pipes' contents.
const (
	maxHandover  = 60 << 10 // fits a pipe's 64 KiB, so that writing never blocks
	maxReadiness = 64 << 10
)

// killGrace is how long a daemon that did not become ready may take to leave.
const killGrace = 2 * time.Second

// readiness is what the daemon reports to launch.
type readiness struct {
	Name    string   `json:"name,omitempty"`
	Code    api.Code `json:"code,omitempty"`
	Message string   `json:"message,omitempty"`
}

// handoverPipe returns the reading end of a pipe that holds cfg.
func handoverPipe(cfg LaunchConfig) (*os.File, error) {
	b, err := encodeHandover(cfg)
	if err != nil {
		return nil, err
	}
	if len(b) > maxHandover {
		return nil, api.Errorf(api.CodeUsage, "too many peers or subnets to pass on: give fewer, and add the rest with weave connect")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// cleanEnv is the environment without what leads to the password.
func cleanEnv(env []string) []string {
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, "WEAVE_PASSWORD=") && !strings.HasPrefix(v, "WEAVE_PASSWORD_FILE=") {
			out = append(out, v)
		}
	}
	return out
}

// spawn starts the daemon and waits until it is ready, or ended, or ctx did; a
// daemon that is not ready then is killed. It returns the peer name.
func (a *app) spawn(ctx context.Context, cfg LaunchConfig) (string, error) {
	log, err := openLog(cfg.RunDir)
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd, ready, err := a.startDaemon(cfg, log)
	if err != nil {
		return "", err
	}
	defer ready.Close()
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })
	defer stop()
	raw, err := io.ReadAll(io.LimitReader(ready, maxReadiness))
	var got readiness
	switch {
	case ctx.Err() != nil:
		reap(cmd)
		return "", a.gaveUp(ctx, cfg)
	case err != nil, json.Unmarshal(raw, &got) != nil:
		state := reap(cmd)
		return "", api.Errorf(api.CodeFailure, "the daemon ended before it was ready (%s): see %s", state, logPath(cfg.RunDir))
	case got.Code != "":
		reap(cmd)
		return "", &api.Error{Code: got.Code, Message: got.Message}
	}
	return got.Name, cmd.Process.Release()
}

func (a *app) gaveUp(ctx context.Context, cfg LaunchConfig) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return api.Errorf(api.CodeTimeout, "the daemon was not ready after %s: see %s, or give a longer --timeout", a.flags.timeout, logPath(cfg.RunDir))
}

// startDaemon runs the daemon; ready is the reading end of its report.
func (a *app) startDaemon(cfg LaunchConfig, log *os.File) (cmd *exec.Cmd, ready *os.File, err error) {
	config, err := handoverPipe(cfg)
	if err != nil {
		return nil, nil, err
	}
	defer config.Close()
	ready, report, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer report.Close()
	self, err := a.self()
	if err != nil {
		ready.Close()
		return nil, nil, err
	}
	cmd = &exec.Cmd{
		Path:        self,
		Args:        daemonArgs(cfg),
		Env:         cleanEnv(os.Environ()),
		Dir:         "/",
		Stdout:      log,
		Stderr:      log,
		ExtraFiles:  []*os.File{configFD - 3: config, readyFD - 3: report},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		ready.Close()
		return nil, nil, fmt.Errorf("starting the daemon: %w", err)
	}
	return cmd, ready, nil
}

// daemonArgs is what ps shows.
func daemonArgs(cfg LaunchConfig) []string {
	return []string{"weave", "daemon", "--run-dir=" + cfg.RunDir, "--state-dir=" + cfg.StateDir}
}

// reap ends a daemon that is not wanted, first politely, and says how it ended.
func reap(cmd *exec.Cmd) string {
	cmd.Process.Signal(unix.SIGTERM)
	timer := time.AfterFunc(killGrace, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
	return cmd.ProcessState.String()
}

// execDaemon becomes the daemon without the password in arguments or environment.
func (a *app) execDaemon(cfg LaunchConfig) error {
	config, err := handoverPipe(cfg)
	if err != nil {
		return err
	}
	self, err := a.self()
	if err != nil {
		return err
	}
	// dup3 to another number clears close-on-exec; to the same one it is refused.
	if int(config.Fd()) != configFD {
		err = unix.Dup3(int(config.Fd()), configFD, 0)
	} else {
		_, err = unix.FcntlInt(configFD, unix.F_SETFD, 0)
	}
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	err = unix.Exec(self, append(daemonArgs(cfg), "--foreground"), cleanEnv(os.Environ()))
	return fmt.Errorf("starting the daemon: %w", err)
}

// report writes r to the pipe to launch, and ends it.
func report(pipe io.WriteCloser, r readiness) {
	b, err := json.Marshal(r)
	if err == nil {
		io.Copy(pipe, bytes.NewReader(b)) // launch may be gone; nobody to tell
	}
	pipe.Close()
}
