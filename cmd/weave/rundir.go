package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/api"
)

// Files in the run directory, beside the control socket.
const (
	pidName = "weave.pid" // locked by a living daemon; its pid
	logName = "weave.log" // of a daemon in the background
	oldName = logName + ".1"
)

// maxLog is the size, in bytes, beyond which the log is put aside at a start.
const maxLog = 4 << 20

// pollInterval is how often we look whether a daemon is gone.
const pollInterval = 20 * time.Millisecond

func logPath(runDir string) string { return filepath.Join(runDir, logName) }

// prepareRunDir makes the directory, or checks that others cannot put a socket of
// their own there.
func prepareRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("run directory: %w: run as root, or choose another --run-dir", err)
	} else if err != nil {
		return fmt.Errorf("run directory: %w: choose another --run-dir", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return api.Errorf(api.CodePermission, "run directory %s is writable by other users: chmod go-w it, or choose another --run-dir", dir)
	}
	return nil
}

// openLog opens the log for appending, after putting aside one that has grown.
func openLog(runDir string) (*os.File, error) {
	path := logPath(runDir)
	if fi, err := os.Lstat(path); err == nil && fi.Size() > maxLog {
		if err := os.Rename(path, filepath.Join(runDir, oldName)); err != nil {
			return nil, fmt.Errorf("putting the log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}

// pidLock is held by a daemon for its life. The kernel lets go of it when the
// process ends, however that happens, so the file is never stale. It is an open
// file description lock (fcntl(2)): unlike flock's, it can be looked at without
// being taken, so those who look never stand in the way of one who starts.
type pidLock struct{ f *os.File }

// lockPID takes the lock and writes our pid; CodeConflict if a daemon has it.
func lockPID(runDir string) (*pidLock, error) {
	path := filepath.Join(runDir, pidName)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("pid file: %w", err)
		}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != nil {
			pid := readPID(f)
			f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, alreadyRunning(runDir, pid)
			}
			return nil, fmt.Errorf("pid file: %w", err)
		}
		if !isSame(f, path) { // a reset has deleted it since
			f.Close()
			continue
		}
		l := &pidLock{f}
		if err := l.write(); err != nil {
			f.Close()
			return nil, fmt.Errorf("pid file: %w", err)
		}
		return l, nil
	}
}

func (l *pidLock) write() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// isSame reports whether f still is the file at path.
func isSame(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// release empties the file but leaves it: deleting it would let two daemons lock
// two files of the same name.
func (l *pidLock) release() {
	l.f.Truncate(0)
	l.f.Close()
}

func readPID(f *os.File) int {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// daemonAlive reports whether a daemon holds the lock, and its pid, 0 if unknown.
func daemonAlive(runDir string) (pid int, alive bool) {
	f, err := os.Open(filepath.Join(runDir, pidName))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	probe := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &probe); err != nil || probe.Type == unix.F_UNLCK {
		return 0, false
	}
	return readPID(f), true
}

// waitGone returns when no daemon holds the lock, or with ctx's error.
func waitGone(ctx context.Context, runDir string) error {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for {
		if _, alive := daemonAlive(runDir); !alive {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// daemonProcess is a handle on a running daemon that stays with this very
// process, whoever gets its pid later (pidfd_open(2)).
type daemonProcess struct {
	pid int
	fd  int // -1: there is none, or it cannot be had; then nothing is done or waited for
}

func findDaemon(runDir string) daemonProcess {
	pid, alive := daemonAlive(runDir)
	if !alive || pid <= 1 || pid == os.Getpid() {
		return daemonProcess{pid, -1}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return daemonProcess{pid, -1}
	}
	return daemonProcess{pid, fd}
}

func (d daemonProcess) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// signal is best effort: a process that is gone needs none.
func (d daemonProcess) signal(sig unix.Signal) {
	if d.fd >= 0 {
		unix.PidfdSendSignal(d.fd, sig, nil, 0)
	}
}

// wait returns when the process has ended, or with ctx's error.
func (d daemonProcess) wait(ctx context.Context) error {
	for d.fd >= 0 {
		polled := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(polled, int(pollInterval.Milliseconds())); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// cleanRunDir deletes what a daemon leaves in its run directory, and that too if
// it is empty then.
func cleanRunDir(runDir string) error {
	for _, name := range []string{api.SocketName, logName, oldName, pidName} {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("run directory: %w", err)
		}
	}
	os.Remove(runDir) // not ours to delete if something else is in it
	return nil
}
