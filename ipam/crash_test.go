package ipam_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weave/internal/peer"
	"weave/internal/store"
	"weave/ipam"
)

// A child process allocates on a real file and kills itself at the k-th write; the
// parent looks at what is left.

const (
	crashDir  = "IPAM_CRASH_DIR"
	crashAt   = "IPAM_CRASH_AT"
	crashMode = "IPAM_CRASH_MODE"
	crashRun  = "IPAM_CRASH_RUN"
	crashOps  = 50
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		crashChild()
		return
	}
	os.Exit(m.Run())
}

// Where the process dies, relative to a transaction.
var crashModes = []string{"before", "inside", "during commit", "after"}

type deadly struct {
	disk
	left int
	mode string
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (d *deadly) Save(rs []ipam.Record) error {
	d.left--
	if d.left != 0 {
		return d.disk.Save(rs)
	}
	switch d.mode {
	case "before":
		die()
	case "inside":
		return d.s.Update(func(tx *store.Tx) error {
			for _, r := range rs {
				if r.Value != nil {
					tx.Put(bucket, r.Key, r.Value)
				}
			}
			die()
			return nil
		})
	case "during commit":
		go func() {
			time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Microsecond))))
			die()
		}()
		d.disk.Save(rs)
		select {}
	case "after":
		d.disk.Save(rs)
		die()
	}
	return nil
}

func crashChild() {
	s, err := store.Open(os.Getenv(crashDir), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("cannot open", err)
		return
	}
	at, _ := strconv.Atoi(os.Getenv(crashAt))
	a, err := ipam.New(crashConfig(&deadly{disk{s}, at, os.Getenv(crashMode)}))
	if err != nil {
		fmt.Println("cannot start", err)
		return
	}
	ctx := context.Background()
	go a.Run(ctx)
	a.Reconcile(ctx, nil)
	for i := range crashOps {
		ident := fmt.Sprintf("r%s-%d", os.Getenv(crashRun), i)
		p, err := a.Allocate(ctx, ident, netip.Prefix{}, ipam.Options{})
		if err != nil {
			fmt.Println("cannot allocate", err)
			return
		}
		fmt.Println("has", ident, p)
		if i%3 == 0 {
			fmt.Println("frees", ident, p)
			a.FreeAll(ctx, ident)
		}
	}
}

func crashConfig(s ipam.Store) ipam.Config {
	return ipam.Config{Name: name(1), Nick: "host1", UID: peer.NewUID(), Range: netip.MustParsePrefix("10.32.0.0/16"),
		Init: ipam.Init{Electors: 1}, Store: s, Mesh: func() ipam.Mesh { return ipam.Mesh{} }, Log: slog.New(slog.DiscardHandler)}
}

// TestKillAtEveryWrite: kill -9 at each of 50 writes, before, in, during and after
// its transaction. The file opens, what was acknowledged is there, and nothing twice.
func TestKillAtEveryWrite(t *testing.T) {
	writes := crashOps
	if testing.Short() {
		writes = 10
	}
	for _, mode := range crashModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/state"
			want, maybe := map[string]string{}, map[string]string{}
			for k := 1; k <= writes; k++ {
				crashOnce(t, dir, mode, k, want, maybe)
				verify(t, dir, want, maybe)
			}
			t.Logf("%d kills, %d leases", writes, len(want))
		})
	}
}

func crashOnce(t *testing.T, dir, mode string, k int, want, maybe map[string]string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+strconv.Itoa(k), crashMode+"="+mode, crashRun+"="+strconv.Itoa(k))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(out)
	cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("write %d: the child was not killed: %v\n%s", k, cmd.ProcessState, said)
	}
	lines := bufio.NewScanner(strings.NewReader(string(said)))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 3 && f[0] == "has":
			want[f[1]] = f[2]
		case len(f) == 3 && f[0] == "frees":
			delete(want, f[1])
			maybe[f[1]] = f[2]
		default:
			t.Fatalf("write %d: %s", k, lines.Text())
		}
	}
}

func verify(t *testing.T, dir string, want, maybe map[string]string) {
	t.Helper()
	s, err := store.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Broken() != "" {
		t.Fatalf("the file was unreadable: %s", s.Broken())
	}
	a, err := ipam.New(crashConfig(disk{s}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	st, err := a.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(want)
	seen := map[netip.Addr]string{}
	for _, l := range st.Leases {
		if other := seen[l.Prefix.Addr()]; other != "" {
			t.Errorf("%v is %s's and %s's", l.Prefix, l.Ident, other)
		}
		seen[l.Prefix.Addr()] = l.Ident
		if p, ok := left[l.Ident]; ok && p == l.Prefix.String() {
			delete(left, l.Ident)
		}
	}
	if len(left) > 0 {
		t.Errorf("acknowledged and not there: %v", left)
	}
}
