package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	dbName     = "weave.db"
	tmpName    = dbName + ".tmp"
	lockName   = "weave.lock"
	brokenName = dbName + ".broken-"

	schemaVersion = 1
	pageSize      = 4096 // fixed, so that a file can be read on a machine with other pages
	lockWait      = time.Second
)

// Errors of Open.
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("state directory is in use by another daemon")
	// ErrNewer: the file was written by a later version of weave.
	ErrNewer = errors.New("state was written by a newer version of weave")
	// ErrUnsafeDir: others could replace the files.
	ErrUnsafeDir = errors.New("state directory is writable by other users")
)

// Store is an open database. Close it to let the next daemon in.
type Store struct {
	dir    string
	db     *bbolt.DB
	lock   *os.File
	broken string
}

// Open opens the store in dir, creating both as needed. A file that cannot be
// read safely is set aside, logged and replaced by an empty one. Waits up to a
// second for another owner to leave, then returns ErrLocked.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, err := acquireLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock}
	if err := s.open(log); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// Broken returns where an unreadable file was put by this Open, or "".
func (s *Store) Broken() string { return s.broken }

// Close ends all use of s. It waits for running transactions.
func (s *Store) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// Remove deletes all that a store ever wrote to dir, and dir too when it is empty then.
// The store must not be open: ErrLocked if it is. There may be none.
func Remove(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := acquireLock(filepath.Join(dir, lockName))
	if err != nil {
		return err
	}
	return errors.Join(removeFiles(dir), lock.Close())
}

func removeFiles(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, dbName+"*"))
	if err != nil {
		return err
	}
	// The lock file goes last: whoever waits for it must find an empty directory.
	for _, name := range append(names, filepath.Join(dir, lockName)) {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("deleting state: %w", err)
		}
	}
	os.Remove(dir) // not ours to delete if something else is in it
	return nil
}

// makeDir makes dir for the owner alone, or checks that nobody else can write to
// the one that is there.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("state directory: %s is not a directory", dir)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: %w: chmod go-w it, or choose another --state-dir", dir, ErrUnsafeDir)
	}
	return nil
}

func (s *Store) open(log *slog.Logger) error {
	path := filepath.Join(s.dir, dbName)
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return s.create()
	case err != nil:
		return fmt.Errorf("opening state: %w", err)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("opening state: %s is not a regular file", path)
	}
	err = checkPath(path)
	if errors.Is(err, errCorrupt) {
		return s.setAside(path, err, log)
	}
	if err != nil {
		return fmt.Errorf("opening state: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("opening state: %w", err)
	}
	err = s.openDB(path)
	if errors.Is(err, errCorrupt) {
		return s.setAside(path, err, log)
	}
	return err
}

// create makes an empty database beside its final name, so that a crash leaves
// either none or a whole one.
func (s *Store) create() error {
	tmp := filepath.Join(s.dir, tmpName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("creating state: %w", err)
	}
	defer os.Remove(tmp) // is gone unless something failed: a full disk
	db, err := bbolt.Open(tmp, 0o600, options())
	if err != nil {
		return fmt.Errorf("creating state: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return (&Tx{tx}).Put(bucketMeta, keySchema, uint(schemaVersion))
	})
	if err = errors.Join(err, db.Sync(), db.Close()); err != nil {
		return fmt.Errorf("creating state: %w", err)
	}
	path := filepath.Join(s.dir, dbName)
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("creating state: %w", err)
	}
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("creating state: %w", err)
	}
	return s.openDB(path)
}

func options() *bbolt.Options {
	return &bbolt.Options{
		Timeout:  lockWait,
		PageSize: pageSize,
		// Rebuilt at each open from what is reachable: one thing less to be wrong.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	}
}

func (s *Store) openDB(path string) error {
	err := guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, options())
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s: %w", path, ErrLocked)
	case err != nil:
		return fmt.Errorf("opening state: %w", err)
	}
	var version uint
	err = s.View(func(tx *Tx) error {
		ok, err := tx.Get(bucketMeta, keySchema, &version)
		if err == nil && !ok {
			err = fmt.Errorf("%w: no schema version", errCorrupt)
		}
		return err
	})
	if err == nil && version > schemaVersion {
		err = fmt.Errorf("%s: %w (schema %d, this one reads %d): run that version, or weave reset", path, ErrNewer, version, schemaVersion)
	}
	if err != nil {
		s.db.Close()
		s.db = nil
	}
	return err
}

// setAside renames an unreadable file and starts over with an empty one.
func (s *Store) setAside(path string, why error, log *slog.Logger) error {
	for n := 1; ; n++ {
		to := fmt.Sprintf("%s%d", filepath.Join(s.dir, brokenName), n)
		if _, err := os.Lstat(to); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("setting aside unreadable state: %w", err)
		}
		if err := os.Rename(path, to); err != nil {
			return fmt.Errorf("setting aside unreadable state: %w", err)
		}
		s.broken = to
		log.Error("state is unreadable, starting without it", "file", path, "moved_to", to, "reason", why)
		return s.create()
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// View runs fn in a read transaction. fn must not keep tx, and must not call
// Update.
func (s *Store) View(fn func(tx *Tx) error) error {
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
	})
}

// Update runs fn in a write transaction: all of it is on the disk when Update
// returns nil, none of it otherwise. fn must not keep tx, and must not call View
// or Update.
func (s *Store) Update(fn func(tx *Tx) error) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
	})
}

// guard turns a fault in the mapped file (a disk that fails, a file that was cut
// under us) and a panic of the database library into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errCorrupt, r)
		}
	}()
	return fn()
}
