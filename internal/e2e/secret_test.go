package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// However the password is given, it is not to be seen afterwards: not in the
// arguments or environment of a process, in files, or in what commands print.
func TestPasswordStaysHidden(t *testing.T) {
	t.Parallel()
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw, "--log-level", "debug")
	launch := []string{"launch", "--nickname", "b", "--name", "::2", "--log-level", "debug", "--run-dir", b.RunDir(), "--state-dir", b.StateDir()}
	background := func(prefix ...string) func() {
		return func() {
			cmd := append(slices.Concat(prefix, []string{b.Bin}, launch), a.IP4.String())
			harness.MustSucceed(t, b.Try(cmd[0], cmd[1:]...))
		}
	}
	for _, way := range []struct {
		name   string
		launch func()
	}{
		{"--password-file, foreground", func() { b.Start("--name", "::2", "--log-level", "debug", "--password-file", pw, a.IP4.String()) }},
		{"--password, foreground", func() {
			b.Start("--name", "::2", "--log-level", "debug", "--password", harness.Password, a.IP4.String())
		}},
		{"--password, background", func() {
			harness.MustSucceed(t, b.Weave(append(launch, "--password", harness.Password, a.IP4.String())...))
		}},
		{"WEAVE_PASSWORD", background("env", "WEAVE_PASSWORD="+harness.Password)},
		{"WEAVE_PASSWORD_FILE", background("env", "WEAVE_PASSWORD_FILE="+pw)},
		{"systemd credential", background("env", "CREDENTIALS_DIRECTORY="+filepath.Dir(pw))},
		{"standard input", func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := b.Command(ctx, b.Bin, append(launch, "--password-file", "-", a.IP4.String())...)
			cmd.Stdin = strings.NewReader(harness.Password + "\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}},
	} {
		way.launch()
		harness.Joined(t, a, b)
		if c, _ := b.To(a); !c.Encrypted {
			t.Errorf("%s: not encrypted", way.name)
		}
		for _, where := range spill(t, b) {
			t.Errorf("%s: the password is in %s", way.name, where)
		}
		harness.MustSucceed(t, b.Weave("stop"))
	}
	if log := a.Daemon.Log(); strings.Contains(log, harness.Password) {
		t.Error("the password is in the log of a")
	}
}

// spill lists where the password can be read.
func spill(t *testing.T, s *harness.Site) (where []string) {
	t.Helper()
	look := func(name, text string) {
		if strings.Contains(text, harness.Password) {
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
		look("weave "+cmd, harness.MustSucceed(t, s.Weave(strings.Fields(cmd)...)))
	}
	look("metrics", harness.ScrapeMetrics(t, s).Text)
	if s.Daemon != nil {
		look("the log", s.Daemon.Log())
	}
	return where
}

// weavePids lists the daemons whose run directory is the host's.
func weavePids(s *harness.Site) (pids []string) {
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
	s := harness.SiteOn(t, lab.Host("a"), 1)
	r := s.Weave("launch", "--password", "qwerty1")
	if r.Code != 0 || !strings.Contains(r.Stderr, "weak") || strings.Contains(r.Stderr, "qwerty1") || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	harness.MustSucceed(t, s.Weave("stop"))
}
