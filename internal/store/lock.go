package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// acquireLock takes the exclusive lock on the file at path and writes our pid to
// it. It tries for lockWait, long enough for a daemon that is just leaving.
func acquireLock(path string) (*os.File, error) {
	deadline := time.Now().Add(lockWait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking state: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isSame(f, path) {
			return f, writePID(f)
		}
		pid := readPID(f)
		f.Close()
		switch {
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("locking state: %w", err)
		case time.Now().After(deadline) && pid != 0:
			return nil, fmt.Errorf("%w (pid %d): stop it, or choose another --state-dir", ErrLocked, pid)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: stop it, or choose another --state-dir", ErrLocked)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// isSame reports whether f still is the file at path: a reset may have deleted it
// between our open and our lock.
func isSame(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("locking state: %w", err)
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(f *os.File) int {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}
