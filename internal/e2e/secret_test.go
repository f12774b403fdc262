package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/testnet"
)

// However the password is given, it is not to be seen afterwards: not in the
// arguments or environment of a process, in files, or in what commands print.
func TestPasswordStaysHidden(t *testing.T) {
	_, sites := newSites(t, 2)
	a, b := sites[0], sites[1]
	pw := passwordFile(t, password)
	a.launch("--password-file", pw, "--log-level", "debug")
	launch := []string{"launch", "--nickname", "b", "--name", "::2", "--log-level", "debug", "--run-dir", b.RunDir(), "--state-dir", b.StateDir()}
	background := func(prefix ...string) func() {
		return func() {
			cmd := append(slices.Concat(prefix, []string{b.bin}, launch), a.IP4.String())
			mustSucceed(t, b.Try(cmd[0], cmd[1:]...))
		}
	}
	for _, way := range []struct {
		name   string
		launch func()
	}{
		{"--password-file, foreground", func() { b.start("--name", "::2", "--log-level", "debug", "--password-file", pw, a.IP4.String()) }},
		{"--password, foreground", func() { b.start("--name", "::2", "--log-level", "debug", "--password", password, a.IP4.String()) }},
		{"--password, background", func() { mustSucceed(t, b.weave(append(launch, "--password", password, a.IP4.String())...)) }},
		{"WEAVE_PASSWORD", background("env", "WEAVE_PASSWORD="+password)},
		{"WEAVE_PASSWORD_FILE", background("env", "WEAVE_PASSWORD_FILE="+pw)},
		{"systemd credential", background("env", "CREDENTIALS_DIRECTORY="+filepath.Dir(pw))},
		{"standard input", func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := b.Command(ctx, b.bin, append(launch, "--password-file", "-", a.IP4.String())...)
			cmd.Stdin = strings.NewReader(password + "\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}},
	} {
		way.launch()
		joined(t, a, b)
		if c, _ := b.to(a); !c.Encrypted {
			t.Errorf("%s: not encrypted", way.name)
		}
		for _, where := range spill(t, b) {
			t.Errorf("%s: the password is in %s", way.name, where)
		}
		mustSucceed(t, b.weave("stop"))
	}
	if log := a.d.Log(); strings.Contains(log, password) {
		t.Error("the password is in the log of a")
	}
}

// spill lists where the password can be read.
func spill(t *testing.T, s *site) (where []string) {
	t.Helper()
	look := func(name, text string) {
		if strings.Contains(text, password) {
			where = append(where, name)
		}
	}
	if pids := weavePids(s); len(pids) != 1 {
		t.Errorf("daemons %v, want one", pids)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range slices.Concat(procs, environs, files(s.RunDir(), s.StateDir())) {
		text, err := os.ReadFile(path) // a process may be gone; a socket is no file
		if err == nil {
			look(path, string(text))
		}
	}
	for _, cmd := range []string{"status", "status --json", "status connections --json", "status peers --json", "status targets --json", "ps --json", "report"} {
		look("weave "+cmd, mustSucceed(t, s.weave(strings.Fields(cmd)...)))
	}
	look("metrics", metrics(t, s).text)
	if s.d != nil {
		look("the log", s.d.Log())
	}
	return where
}

// weavePids lists the daemons whose run directory is the host's.
func weavePids(s *site) (pids []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if argv := string(text); strings.Contains(argv, s.RunDir()) && (strings.Contains(argv, "\x00daemon\x00") || strings.Contains(argv, "\x00launch\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// A weak password is remarked upon, by its length alone.
func TestWeakPassword(t *testing.T) {
	lab := testnet.New(t)
	s := siteOn(t, lab.Host("a"), 1)
	r := s.weave("launch", "--password", "qwerty1")
	if r.Code != 0 || !strings.Contains(r.Stderr, "weak") || strings.Contains(r.Stderr, "qwerty1") || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	mustSucceed(t, s.weave("stop"))
}
