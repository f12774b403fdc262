// Package demo tests demo.sh: that it shows what it promises, and that it leaves
// nothing on the machine however it ends.
package demo

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func buildWeave(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces: make test runs it so")
	}
	bin := filepath.Join(t.TempDir(), "weave")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "weave/cmd/weave").CombinedOutput(); err != nil {
		t.Fatalf("building weave: %v\n%s", err, out)
	}
	return bin
}

// startDemo runs the script with a temporary directory of its own, in a process
// group of its own, as a terminal does.
func startDemo(t *testing.T, bin, tmp string) (*exec.Cmd, *transcript) {
	t.Helper()
	cmd := exec.Command("./demo.sh", bin)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 5 * time.Second // for the output, should a process survive
	out := &transcript{grown: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// wantNothingLeft checks for namespaces, files and processes of a demo.
func wantNothingLeft(t *testing.T, cmd *exec.Cmd, bin, tmp string) {
	t.Helper()
	names, _ := filepath.Glob(fmt.Sprintf("/run/netns/wvdemo%d-*", cmd.Process.Pid))
	files, _ := filepath.Glob(filepath.Join(tmp, "*"))
	if len(names)+len(files) > 0 {
		t.Errorf("left behind: %q", append(names, files...))
	}
	deadline := time.Now().Add(2 * time.Second) // what was killed takes a moment to be gone
	alive := processes(cmd.Process.Pid, bin)
	for len(alive) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		alive = processes(cmd.Process.Pid, bin)
	}
	if len(alive) > 0 {
		t.Errorf("left behind: processes %q", alive)
	}
}

// processes finds what runs in a process group, and who runs a program. Zombies
// are init's to bury.
func processes(group int, bin string) []string {
	var found []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // gone meanwhile
		}
		// pid (name) state ppid pgrp …
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		exe, _ := os.Readlink(filepath.Join(filepath.Dir(name), "exe"))
		if fields[2] == strconv.Itoa(group) || exe == bin {
			found = append(found, string(stat[:bytes.LastIndexByte(stat, ')')+1]))
		}
	}
	return found
}

func TestDemo(t *testing.T) {
	bin, tmp := buildWeave(t), t.TempDir()
	began := time.Now()
	cmd, out := startDemo(t, bin, tmp)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(began)
	t.Logf("took %v", took) // less than a minute on a quiet machine
	if took > 3*time.Minute {
		t.Errorf("took %v, want less than 3 minutes", took)
	}
	for _, want := range []string{
		"work2 to work3: 50 packets transmitted", "never among",
		"established sleeve encrypted", "Gbit/s", "MiB",
		"host1# weave attach --name work1 netns:work1\n10.32.0.1\n", "% of total) (1 active)", "weave dns-lookup work3\n10.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in what it printed", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	wantNothingLeft(t, cmd, bin, tmp)
}

func TestDemoInterrupted(t *testing.T) {
	bin := buildWeave(t)
	for _, tt := range []struct {
		name   string
		after  string // text that it has printed when the signal comes
		signal syscall.Signal
		group  bool // the whole group, as Ctrl-C does
		status int
	}{
		{"Ctrl-C while it wires up", "== underlay", syscall.SIGINT, true, 130},
		{"Ctrl-C while daemons start", "host1# weave launch", syscall.SIGINT, true, 130},
		{"killed while it pings", "work1 to work2", syscall.SIGTERM, false, 143},
		{"Ctrl-C under load", "== TCP", syscall.SIGINT, true, 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmp := t.TempDir()
			cmd, out := startDemo(t, bin, tmp)
			if !out.await(tt.after, 2*time.Minute) {
				cmd.Process.Signal(syscall.SIGTERM)
				cmd.Wait()
				t.Fatalf("never printed %q:\n%s", tt.after, out)
			}
			pid := cmd.Process.Pid
			if tt.group {
				pid = -pid
			}
			sent := time.Now()
			if err := syscall.Kill(pid, tt.signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("got exit status %d (%v), want %d\n%s", got, err, tt.status, out)
			}
			if took := time.Since(sent); took > 10*time.Second {
				t.Errorf("took %v to clean up", took)
			}
			wantNothingLeft(t, cmd, bin, tmp)
		})
	}
}

// transcript is what the demo has printed so far.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer // guarded by mu
	grown chan struct{}
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	select {
	case tr.grown <- struct{}{}:
	default:
	}
	return tr.text.Write(b)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// await blocks until text was printed; it gives up after limit.
func (tr *transcript) await(text string, limit time.Duration) bool {
	expired := time.After(limit)
	for !strings.Contains(tr.String(), text) {
		select {
		case <-tr.grown:
		case <-expired:
			return false
		}
	}
	return true
}
