package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"weave/internal/peer"
)

var discard = slog.New(slog.DiscardHandler)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustName(t *testing.T, text string) peer.Name {
	t.Helper()
	n, err := peer.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRemembers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h1, h2 := mustName(t, "::1"), mustName(t, "02:aa:bb:cc:dd:ee")
	key := [PublicKeySize]byte{1, 2, 3}
	s := open(t, dir)
	if _, ok, err := s.PeerName(); ok || err != nil {
		t.Errorf("PeerName of an empty store: %v, %v", ok, err)
	}
	if k, err := s.StaticKey(); k != nil || err != nil {
		t.Errorf("StaticKey of an empty store: %v, %v", k, err)
	}
	if _, ok, err := s.Pin(h1); ok || err != nil {
		t.Errorf("Pin of an empty store: %v, %v", ok, err)
	}
	err := errors.Join(
		s.SetPeerName(h1), s.SetStaticKey([]byte("private")), s.SetTargets([]string{"host2", "host3:7000"}),
		s.SetPin(h1, key), s.SetPin(h2, [PublicKeySize]byte{9}), s.SetPin(h2, [PublicKeySize]byte{8}),
		s.Update(func(tx *Tx) error { return tx.Put("ipam", "ring", map[string]int{"a": 1}) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	if n, ok, err := s.PeerName(); n != h1 || !ok || err != nil {
		t.Errorf("PeerName = %v, %v, %v", n, ok, err)
	}
	if k, err := s.StaticKey(); string(k) != "private" || err != nil {
		t.Errorf("StaticKey = %q, %v", k, err)
	}
	targets, err := s.Targets()
	if diff := cmp.Diff([]string{"host2", "host3:7000"}, targets); diff != "" || err != nil {
		t.Errorf("Targets: %v (-want +got):\n%s", err, diff)
	}
	for name, want := range map[peer.Name][PublicKeySize]byte{h1: key, h2: {8}} {
		if got, ok, err := s.Pin(name); got != want || !ok || err != nil {
			t.Errorf("Pin(%v) = %v, %v, %v", name, got, ok, err)
		}
	}
	var ring map[string]int
	if ok, err := s.get("ipam", "ring", &ring); !ok || err != nil || ring["a"] != 1 {
		t.Errorf("Get = %v, %v, %v", ring, ok, err)
	}
	for name, want := range map[string]os.FileMode{".": os.ModeDir | 0o700, dbName: 0o600, lockName: 0o600} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode() != want {
			t.Errorf("%s has mode %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
	if err := errors.Join(s.Close(), Remove(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is left behind: %v", err)
	}
}

func TestTransactions(t *testing.T) {
	s := open(t, t.TempDir())
	boom := errors.New("boom")
	err := s.Update(func(tx *Tx) error {
		if err := tx.Put("b", "k", 1); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("Update = %v", err)
	}
	if ok, _ := s.get("b", "k", new(int)); ok {
		t.Error("a failed transaction left something")
	}
	err = s.Update(func(tx *Tx) error {
		return errors.Join(tx.Put("b", "z", 1), tx.Put("b", "a", 2), tx.Put("c", "x", 3), tx.Clear("c"), tx.Clear("none"), tx.Delete("none", "x"), tx.Delete("b", "none"))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.View(func(tx *Tx) error {
		var keys []string
		for k := range tx.Keys("b") {
			keys = append(keys, k)
		}
		for k := range tx.Keys("c") {
			t.Errorf("cleared bucket has %q", k)
		}
		if diff := cmp.Diff([]string{"a", "z"}, keys); diff != "" {
			t.Error(diff)
		}
		return nil
	})
	err = s.Update(func(tx *Tx) error { return tx.Put("b", "", 1) })
	long := s.Update(func(tx *Tx) error { return tx.Put("b", strings.Repeat("k", MaxKey+1), 1) })
	odd := s.Update(func(tx *Tx) error { return tx.Put("b", "k", make(chan int)) })
	if err == nil || long == nil || odd == nil {
		t.Errorf("empty key: %v, long key: %v, channel: %v", err, long, odd)
	}
	panicked := s.Update(func(tx *Tx) error { panic("bug") })
	if panicked == nil || s.SetTargets(nil) != nil {
		t.Errorf("after a panic: %v", panicked)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	start := time.Now()
	_, err := Open(dir, discard)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("second Open: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v to say so", took)
	}
	if err := Remove(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("Remove of an open store: %v", err)
	}
	done := make(chan error)
	go func() {
		s2, err := Open(dir, discard)
		if err == nil {
			err = s2.Close()
		}
		done <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a waiting Open: %v", err)
	}
	if err := errors.Join(Remove(dir), Remove(dir)); err != nil {
		t.Error(err)
	}
	// The database alone is locked, by something that does not know our lock file.
	dir = t.TempDir()
	open(t, dir)
	os.Remove(filepath.Join(dir, lockName))
	if _, err := Open(dir, discard); !errors.Is(err, ErrLocked) {
		t.Errorf("locked database: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	t.Run("newer", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		if err := s.put(bucketMeta, keySchema, uint(schemaVersion+1)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		before, _ := os.ReadFile(filepath.Join(dir, dbName))
		if _, err := Open(dir, discard); !errors.Is(err, ErrNewer) {
			t.Errorf("Open = %v", err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, dbName)); !bytes.Equal(before, after) {
			t.Error("the file was changed")
		}
	})
	t.Run("directory of others", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, discard); !errors.Is(err, ErrUnsafeDir) {
			t.Errorf("Open = %v", err)
		}
	})
	t.Run("symlink", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, dbName)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, discard); err == nil || errors.Is(err, errCorrupt) {
			t.Errorf("Open = %v", err)
		}
	})
	t.Run("file for a directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		os.WriteFile(path, nil, 0o600)
		if _, err := Open(path, discard); err == nil {
			t.Error("opened")
		}
	})
	t.Run("half-made", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, tmpName), []byte("torn"), 0o600)
		s := open(t, dir)
		if s.Broken() != "" {
			t.Errorf("set aside %s", s.Broken())
		}
		if _, err := os.Stat(filepath.Join(dir, tmpName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("half-made file is left: %v", err)
		}
	})
}

// TestForeign puts files of others in the way.
func TestForeign(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain.db")
	db, err := bbolt.Open(plain, 0o600, nil) // another program's database
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error {
		b, _ := tx.CreateBucket([]byte("theirs"))
		return b.Put([]byte("k"), []byte("v"))
	})
	db.Close()
	theirs, _ := os.ReadFile(plain)
	for name, content := range map[string][]byte{
		"empty":  nil,
		"short":  []byte("x"),
		"text":   bytes.Repeat([]byte("text\n"), 5000),
		"zeros":  make([]byte, 64<<10),
		"theirs": theirs,
	} {
		dir := t.TempDir()
		for n := 1; n <= 2; n++ {
			if err := os.WriteFile(filepath.Join(dir, dbName), content, 0o600); err != nil {
				t.Fatal(err)
			}
			var logged bytes.Buffer
			s, err := Open(dir, slog.New(slog.NewTextHandler(&logged, nil)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := filepath.Join(dir, fmt.Sprint(brokenName, n))
			kept, _ := os.ReadFile(want)
			if s.Broken() != want || !bytes.Equal(kept, content) || !strings.Contains(logged.String(), want) {
				t.Errorf("%s: set aside as %q, logged %s", name, s.Broken(), logged.String())
			}
			s.Close()
			os.Remove(filepath.Join(dir, dbName))
		}
	}
}

// sample writes a store that has a bit of everything: inline buckets, branches,
// values over several pages, free pages.
func sample(t testing.TB) []byte {
	dir := t.TempDir()
	s, err := Open(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.SetPeerName(peer.NameFromBytes([6]byte{2})), s.SetStaticKey(make([]byte, 32)), s.SetTargets([]string{"host2"}))
	for round := range 3 {
		err = errors.Join(err, s.Update(func(tx *Tx) (err error) {
			for i := range 150 {
				err = errors.Join(err, tx.Put("many", fmt.Sprintf("key %d", i), strings.Repeat("v", i+round)))
			}
			return errors.Join(err, tx.Put("big", "value", make([]byte, 20000*round)))
		}))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exercise opens a store over content, as a daemon would, and uses all of it.
// Every outcome but a working store is an error.
func exercise(dir string, content []byte) error {
	path := filepath.Join(dir, dbName)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	s, err := Open(dir, discard)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer s.Close()
	for _, bucket := range []string{bucketMeta, bucketIdentity, bucketMesh, bucketPins, "many", "big"} {
		err := s.View(func(tx *Tx) error {
			for k := range tx.Keys(bucket) {
				var v any
				if _, err := tx.Get(bucket, k, &v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := range 3 {
		err := s.Update(func(tx *Tx) error {
			return errors.Join(tx.Put("many", fmt.Sprintf("new %d", i), make([]byte, 5000)), tx.Delete("many", "key 7"), tx.Clear("big"))
		})
		if err != nil {
			return err
		}
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() { // ends the process if the library meets what the walk let through
			return err
		}
		return nil
	})
}

// TestDamage garbles and cuts a store at random places, in a process of its own,
// which a fault or endless recursion in the library would end.
func TestDamage(t *testing.T) {
	if os.Getenv("TEST_DAMAGE") != "" {
		damage(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDamage$", "-test.v")
	cmd.Env = append(os.Environ(), "TEST_DAMAGE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
	t.Logf("%s", out)
}

// TestFullDisk has no room for the database: nothing is left of the attempt, and
// the next one, with room, works.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,mode=700"); err != nil {
		t.Fatalf("tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if s, err := Open(dir, discard); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Open on 16 KiB = %v, %v", s, err)
	}
	if _, err := os.Stat(filepath.Join(dir, tmpName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half-made file is left: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatalf("more room: %v", err)
	}
	open(t, dir)
}
