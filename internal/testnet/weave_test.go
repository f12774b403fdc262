package testnet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"weave/internal/testnet"
)

// fakeWeave is as much of the weave command line as StartWeave relies on.
const fakeWeave = `#!/bin/sh
case "$1" in
launch)
	echo "args: $*"
	case "$*" in *--die*) echo "dying as told"; exit 5;; esac
	case "$*" in *--deaf*) trap '' TERM;; *) trap 'echo bye; rm -f "$WEAVE_RUN_DIR/up"; exit 0' TERM;; esac
	echo $$ > "$WEAVE_RUN_DIR/up"
	while :; do sleep 0.02; done;;
status)
	[ -f "$WEAVE_RUN_DIR/up" ] || { echo "not running" >&2; exit 3; }
	echo "state $WEAVE_STATE_DIR";;
*)
	exit 2;;
esac
`

func fakeBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weave")
	if err := os.WriteFile(path, []byte(fakeWeave), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartWeave(t *testing.T) {
	lab := testnet.New(t)
	a, b := lab.Host("a"), lab.Host("b")
	bin := fakeBinary(t)
	if r := a.Weave(bin, "status"); r.Code != 3 || !strings.Contains(r.Stderr, "not running") {
		t.Errorf("status before the start: %+v", r)
	}
	da, db := a.StartWeave(t, bin, "--no-fastdp"), b.StartWeave(t, bin, "--name", "::7")
	if got := da.MustWeave("status"); got != "state "+a.StateDir()+"\n" || a.StateDir() == b.StateDir() {
		t.Errorf("status says %q", got)
	}
	for _, want := range []string{"--name 02:00:00:00:00:01", "--foreground", "--no-fastdp", "--run-dir " + a.RunDir(), "--state-dir " + a.StateDir()} {
		if !strings.Contains(da.Log(), want) {
			t.Errorf("no %q in %q", want, da.Log())
		}
	}
	if log := db.Log(); !strings.Contains(log, "--name ::7") || strings.Contains(log, "02:00") {
		t.Errorf("names in %q", log)
	}
	if r := db.Weave("bogus"); r.Code != 2 {
		t.Errorf("bogus: %+v", r)
	}
	if code := da.Stop(); code != 0 || !strings.Contains(da.Log(), "bye") {
		t.Errorf("stop: exit %d, log %q", code, da.Log())
	}
	db.Kill9()
	db.Kill9()
	if log := db.Log(); strings.Contains(log, "bye") {
		t.Errorf("log %q after SIGKILL", log)
	}
	os.Remove(filepath.Join(b.RunDir(), "up"))
	if again := b.StartWeave(t, bin); again.Pid() == db.Pid() || b.Weave(bin, "status").Code != 0 {
		t.Error("it does not start again")
	}
}

// fatalTB turns Fatalf into the end of a goroutine.
type fatalTB struct{ fakeTB }

func (f *fatalTB) Fatalf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func TestStartWeaveTellsWhyNot(t *testing.T) {
	lab := testnet.New(t)
	h := lab.Host("a")
	bin := fakeBinary(t)
	f := &fatalTB{fakeTB{TB: t}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.StartWeave(f, bin, "--die")
	}()
	<-done
	f.end()
	if len(f.errors) != 1 || !strings.Contains(f.errors[0], "dying as told") || !strings.Contains(f.errors[0], "exit status 5") {
		t.Errorf("got %q", f.errors)
	}
	if d := h.LaunchWeave(t, bin, "--die"); d.Wait(5*time.Second) != 5 {
		t.Error("LaunchWeave lost the exit code")
	}
	d := h.LaunchWeave(f, bin, "--deaf")
	if d.Wait(50*time.Millisecond) != -1 || len(f.errors) != 2 {
		t.Errorf("a daemon that does not end was not told: %q", f.errors)
	}
	f.end()
}
