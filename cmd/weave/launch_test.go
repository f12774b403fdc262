package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/api/apitest"
)

// canary is a password that must be nowhere.
const canary = "canary-KqZ7pT93xWv2LmRd"

func TestLaunch(t *testing.T) {
	c := newCLI(t)
	c.want(0, fakeName+"\n", "", "launch", "--nickname", "n", "host2")
	pid := c.daemonPID()
	if _, cfg := c.got(); cfg.NickName != "n" || !slices.Equal(cfg.Peers, []string{"host2"}) || cfg.RunDir != c.runDir() || cfg.StateDir != c.stateDir() {
		t.Errorf("daemon got %+v", cfg)
	}
	if sid, err := unix.Getsid(pid); sid != pid || err != nil {
		t.Errorf("daemon has no session of its own: %d, %v", sid, err)
	}
	if dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); dir != "/" {
		t.Errorf("daemon sits in %s", dir)
	}
	for fd, want := range []string{"/dev/null", logPath(c.runDir()), logPath(c.runDir())} {
		if link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); link != want {
			t.Errorf("daemon's fd %d is %s, want %s", fd, link, want)
		}
	}
	for name, want := range map[string]os.FileMode{logName: 0o600, pidName: 0o600, api.SocketName: os.ModeSocket | 0o600} {
		if fi, err := os.Lstat(filepath.Join(c.runDir(), name)); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	c.want(5, "", fmt.Sprintf("already running at %s (pid %d)", c.runDir(), pid), "launch")
	c.want(5, "", "already running", "launch", "--foreground")
	out, _, code := c.run("status")
	if code != 0 || !strings.Contains(out, "Version: fake") {
		t.Errorf("status: %d %s", code, out)
	}
	c.want(0, "", "", "stop")
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !bytes.Contains(b, []byte(") Z ")) { // our child: a zombie
		t.Errorf("daemon lives after stop: %s", b)
	}
	c.want(3, "", "no daemon is running", "stop")

	// Again, and after a crash.
	c.want(0, fakeName+"\n", "", "launch")
	pid = c.daemonPID()
	unix.Kill(pid, unix.SIGKILL)
	c.gone()
	if _, err := os.Lstat(filepath.Join(c.runDir(), api.SocketName)); err != nil {
		t.Errorf("the crash left no socket, so this tests nothing: %v", err)
	}
	c.want(3, "", "no daemon is running", "status")
	c.want(0, fakeName+"\n", "", "launch")
	c.daemonPID()
	// Without its socket it can still be stopped.
	os.Remove(filepath.Join(c.runDir(), api.SocketName))
	c.want(0, "", "", "stop")
}

func TestLaunchFailures(t *testing.T) {
	for _, tt := range []struct {
		mode   string
		code   int
		stderr string
	}{
		{"auth", 8, "weave: wrong password: ask for the right one\n"},
		{"plain", 1, "weave: something broke\n"},
		{"die", 1, "the daemon ended before it was ready (exit status 3): see "},
		{"slow", 7, "was not ready after 300ms"},
	} {
		t.Setenv("TEST_DAEMON", tt.mode)
		c := newCLI(t)
		args := []string{"launch"}
		if tt.code == 7 {
			args = append(args, "--timeout=300ms")
		}
		c.want(tt.code, "", tt.stderr, args...)
		if _, alive := daemonAlive(c.runDir()); alive {
			t.Errorf("%s: daemon is left", tt.mode)
		}
		log, _ := os.ReadFile(logPath(c.runDir()))
		for line := range strings.Lines(string(log)) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: the log is not JSON: %s", tt.mode, line)
			}
		}
		if tt.mode == "auth" || tt.mode == "plain" { // the others would end or block the test itself
			out, errs, code := c.run("launch", "--foreground")
			if code != tt.code || out != "" || !strings.HasSuffix(errs, tt.stderr) {
				t.Errorf("%s in the foreground: exit %d, %q, %q", tt.mode, code, out, errs)
			}
		}
	}
}

func TestLaunchHangs(t *testing.T) {
	t.Setenv("TEST_DAEMON", "hang")
	c := newCLI(t)
	c.want(7, "", "was not ready after 200ms", "launch", "--timeout=200ms")
	if _, alive := daemonAlive(c.runDir()); alive {
		t.Error("daemon is left")
	}
}

func TestLaunchInterrupted(t *testing.T) {
	t.Setenv("TEST_DAEMON", "slow")
	c := newCLI(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	_, errs, code := c.runContext(ctx, "launch")
	if code != 130 || errs != "weave: interrupted\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
	if _, alive := daemonAlive(c.runDir()); alive {
		t.Error("daemon is left")
	}
}

func TestLaunchTwiceAtOnce(t *testing.T) {
	c := newCLI(t)
	codes := make(chan int)
	for range 4 {
		go func() {
			_, _, code := c.run("launch")
			codes <- code
		}()
	}
	got := map[int]int{}
	for range 4 {
		got[<-codes]++
	}
	c.daemonPID()
	if got[0] != 1 || got[5] != 3 {
		t.Errorf("exit statuses %v, want one 0 and three 5", got)
	}
	c.want(0, "", "", "stop")
}

func TestStopTimeout(t *testing.T) {
	t.Setenv("TEST_DAEMON", "stubborn")
	c := newCLI(t)
	c.want(0, fakeName+"\n", "", "launch")
	c.daemonPID()
	c.want(7, "", "was not gone after 2s", "stop", "--timeout=2s") // covers the request, too
}

func TestUnsafeRunDir(t *testing.T) {
	c := newCLI(t)
	os.Mkdir(c.runDir(), 0o755)
	os.Chmod(c.runDir(), 0o777)
	c.want(9, "", "writable by other users", "launch")
}

// TestPasswordIsNowhere launches by every way to give a password and looks for it
// in the arguments and environments of all processes, and in the log.
func TestPasswordIsNowhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		env   []string
		stdin string
		args  []string
	}{
		{"argument", nil, "", []string{"--password", canary}},
		{"argument with =", nil, "", []string{"--password=" + canary}},
		{"variable", []string{"WEAVE_PASSWORD=" + canary}, "", nil},
		{"file", nil, "", []string{"--password-file", file}},
		{"file variable", []string{"WEAVE_PASSWORD_FILE=" + file}, "", nil},
		{"credential", []string{"CREDENTIALS_DIRECTORY=" + filepath.Dir(file)}, "", nil},
		{"stdin", nil, canary + "\n", []string{"--password-file", "-"}},
		{"all", []string{"WEAVE_PASSWORD=" + canary, "WEAVE_PASSWORD_FILE=" + file}, canary, []string{"--password", canary, "--password-file=-"}},
	} {
		for _, foreground := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/foreground=%v", tt.name, foreground), func(t *testing.T) {
				c := newCLI(t)
				args := append([]string{"launch", "--log-level=debug"}, tt.args...)
				if foreground {
					args = append(args, "--foreground")
				}
				cmd := exec.Command(os.Args[0], args...)
				cmd.Env = append(os.Environ(), append(tt.env, "TEST_CLI=1", "WEAVE_RUN_DIR="+c.runDir(), "WEAVE_STATE_DIR="+c.stateDir())...)
				cmd.Stdin = strings.NewReader(tt.stdin)
				var out, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errs
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				if !foreground {
					if err := <-ended; err != nil {
						t.Fatalf("%v: %s", err, errs.String())
					}
				} else {
					eventually(t, func() bool { _, _, code := c.run("status"); return code == 0 })
				}
				pid := c.daemonPID()
				if password, _ := c.got(); password != canary {
					t.Errorf("daemon got password %q", password)
				}
				procs(t, func(p, file string, content []byte) {
					if bytes.Contains(content, []byte(canary)) || p == strconv.Itoa(pid) && bytes.Contains(content, []byte("WEAVE_PASSWORD=")) {
						t.Errorf("found in /proc/%s/%s", p, file)
					}
				})
				c.want(0, "", "", "stop")
				if foreground {
					if err := <-ended; err != nil {
						t.Errorf("daemon in the foreground: %v", err)
					}
				}
				if out.String() != fakeName+"\n" {
					t.Errorf("printed %q", out.String())
				}
				log, _ := os.ReadFile(logPath(c.runDir()))
				log = append(log, errs.Bytes()...)
				if !bytes.Contains(log, []byte("starting")) || !bytes.Contains(log, []byte(redacted)) {
					t.Errorf("log says %s", log)
				}
				if bytes.Contains(log, []byte(canary)) {
					t.Errorf("found in the log: %s", log)
				}
			})
		}
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in 10 s")
		}
	}
}

func TestPasswordSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flagFile, envFile := file("flag", "from flag file\n", 0o600), file("env", "from env file\r\n", 0o400)
	cred := filepath.Dir(file("cred/password", "from credential", 0o440))
	noCred := filepath.Dir(file("nocred/other", "x", 0o400))
	for _, tt := range []struct {
		name  string
		l     launchFlags
		env   map[string]string
		stdin string
		want  string
		code  api.Code
	}{
		{name: "none"},
		{name: "flag", l: launchFlags{passwordGiven: true, password: "p"}, want: "p"},
		{name: "variable over flag", l: launchFlags{passwordGiven: true, password: "p"}, env: map[string]string{"WEAVE_PASSWORD": "v"}, want: "v"},
		{name: "file variable over variable", env: map[string]string{"WEAVE_PASSWORD": "v", "WEAVE_PASSWORD_FILE": envFile}, want: "from env file"},
		{name: "credential over file variable", env: map[string]string{"WEAVE_PASSWORD_FILE": envFile, "CREDENTIALS_DIRECTORY": cred}, want: "from credential"},
		{name: "other credentials", env: map[string]string{"WEAVE_PASSWORD_FILE": envFile, "CREDENTIALS_DIRECTORY": noCred}, want: "from env file"},
		{name: "file flag over all", l: launchFlags{passwordFile: flagFile, passwordGiven: true, password: "p"}, env: map[string]string{"WEAVE_PASSWORD": "v", "CREDENTIALS_DIRECTORY": cred}, want: "from flag file"},
		{name: "stdin", l: launchFlags{passwordFile: "-"}, stdin: "typed\n", want: "typed"},
		{name: "only the last newline goes", l: launchFlags{passwordFile: "-"}, stdin: " a\n\n", want: " a\n"},
		{name: "pipe", l: launchFlags{passwordFile: "/dev/null"}, code: api.CodeUsage},
		{name: "empty stdin", l: launchFlags{passwordFile: "-"}, stdin: "\n", code: api.CodeUsage},
		{name: "empty flag", l: launchFlags{passwordGiven: true}, code: api.CodeUsage},
		{name: "empty variable", env: map[string]string{"WEAVE_PASSWORD": ""}, code: api.CodeUsage},
		{name: "empty file", l: launchFlags{passwordFile: file("empty", "", 0o600)}, code: api.CodeUsage},
		{name: "NUL", l: launchFlags{passwordFile: file("nul", "a\x00b", 0o600)}, code: api.CodeUsage},
		{name: "longest", l: launchFlags{passwordFile: file("long", strings.Repeat("a", maxPassword)+"\r\n", 0o600)}, want: strings.Repeat("a", maxPassword)},
		{name: "too long", l: launchFlags{passwordFile: file("longer", strings.Repeat("a", maxPassword+1), 0o600)}, code: api.CodeUsage},
		{name: "no file", l: launchFlags{passwordFile: filepath.Join(dir, "nope")}, code: api.CodeNotFound},
		{name: "directory", l: launchFlags{passwordFile: dir}, code: api.CodeUsage},
		{name: "group", l: launchFlags{passwordFile: file("group", "x", 0o640)}, code: api.CodePermission},
		{name: "world", l: launchFlags{passwordFile: file("world", "x", 0o604)}, code: api.CodePermission},
		{name: "writable", l: launchFlags{passwordFile: file("writable", "x", 0o620)}, code: api.CodePermission},
	} {
		a := newApp()
		a.stdin = strings.NewReader(tt.stdin)
		a.lookupEnv = func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }
		got, err := a.readPassword(&tt.l)
		switch {
		case tt.code != "" && (err == nil || api.CodeOf(err) != tt.code || got != ""):
			t.Errorf("%s: %q, %v, want %s", tt.name, string(got), err, tt.code)
		case tt.code == "" && (err != nil || string(got) != tt.want):
			t.Errorf("%s: %q, %v, want %q", tt.name, string(got), err, tt.want)
		}
		if tt.name == "group" && !strings.Contains(err.Error(), "chmod 600 ") {
			t.Errorf("no hint in %v", err)
		}
	}
}

func TestPasswordBits(t *testing.T) {
	for password, want := range map[string]bool{ // strong enough
		"secret": false, "password1": false, "aaaaaaaaaaaaaaaaaaaaaaaa": false, "12345678901234567890": false, "abcdefghijklmnopqrst": false,
		"wEaVe-99": false, "correct horse": false, "Summer2026!": false,
		"3vZq8Lw0TfXn": true, "q7fxk2mzp0vd": true, "K8#vQ!2zLp": true, "f3a91c07be5d2846": true, canary: true,
		"lamp orbit cactus velvet thunder mirror": true,
	} {
		if bits := passwordBits(password); (bits >= weakBits) != want {
			t.Errorf("%q has %.0f bits, want at least %d: %v", password, bits, weakBits, want)
		}
	}
	c := newCLI(t)
	c.stdin = "secret"
	out, errs, code := c.run("launch", "--password-file", "-")
	c.daemonPID()
	if code != 0 || out != fakeName+"\n" || !strings.HasPrefix(errs, "weave: warning: the password is weak") || strings.Contains(errs, "secret\n") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	c.want(0, "", "", "stop")
}

func TestSecret(t *testing.T) {
	s := Secret(canary)
	cfg := LaunchConfig{Password: s}
	j, _ := json.Marshal(map[string]any{"secret": s, "config": cfg})
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), string(j)} {
		if strings.Contains(text, canary) {
			t.Errorf("%s", text)
		}
	}
}

func TestLogIsPutAside(t *testing.T) {
	dir := t.TempDir()
	write := func(n int) {
		f, err := openLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(make([]byte, n))
		f.Close()
	}
	size := func(name string) int64 {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return -1
		}
		return fi.Size()
	}
	write(maxLog)
	write(1)
	if size(logName) != maxLog+1 || size(oldName) != -1 {
		t.Errorf("log %d, old %d", size(logName), size(oldName))
	}
	write(2)
	if size(logName) != 2 || size(oldName) != maxLog+1 {
		t.Errorf("log %d, old %d", size(logName), size(oldName))
	}
}

func TestNotify(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetReadDeadline(time.Now().Add(10 * time.Second))
	next := func() string {
		b := make([]byte, 1000)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	c := newCLI(t)
	c.env = map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		_, _, code := c.runContext(ctx, "launch", "--foreground")
		ended <- code
	}()
	if got, want := next(), fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=%s", os.Getpid(), fakeName); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range 2 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	got := next()
	for got == "WATCHDOG=1" {
		got = next()
	}
	if got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A daemon that was killed has its lock for a moment longer than it answers.
func TestLaunchAfterKill(t *testing.T) {
	c := newCLI(t)
	os.MkdirAll(c.runDir(), 0o755)
	dying, err := lockPID(c.runDir())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, dying.release)
	if out, errs, code := c.run("launch"); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	c.daemonPID()
}

func TestReset(t *testing.T) {
	cleaned := func(c *cli) *[]CleanConfig {
		var calls []CleanConfig
		c.clean = func(_ context.Context, cfg CleanConfig) error {
			if _, alive := daemonAlive(c.runDir()); !alive {
				t.Error("cleaning while a daemon could start")
			}
			calls = append(calls, cfg)
			return nil
		}
		return &calls
	}
	nothingLeft := func(c *cli) {
		t.Helper()
		os.Remove(filepath.Join(c.stateDir(), "got.json")) // the fake's
		os.Remove(c.stateDir())
		for _, dir := range []string{c.runDir(), c.stateDir()} {
			if entries, err := os.ReadDir(dir); err == nil {
				t.Errorf("%s is left with %v", dir, entries)
			}
		}
	}
	t.Run("without a daemon", func(t *testing.T) {
		c := newCLI(t)
		calls := cleaned(c)
		c.want(0, "", "", "reset", "--bridge", "br0")
		c.want(0, "", "", "reset")
		if want := []CleanConfig{{"br0"}, {"weave"}}; !slices.Equal(*calls, want) {
			t.Errorf("cleaned %v", *calls)
		}
		nothingLeft(c)
	})
	t.Run("with a daemon", func(t *testing.T) {
		c := newCLI(t)
		calls := cleaned(c)
		c.want(0, fakeName+"\n", "", "launch")
		c.daemonPID()
		c.want(0, "", "", "reset")
		c.gone()
		if len(*calls) != 1 {
			t.Errorf("cleaned %v", *calls)
		}
		nothingLeft(c)
	})
	t.Run("with a deaf daemon", func(t *testing.T) {
		t.Setenv("TEST_DAEMON", "deaf")
		c := newCLI(t)
		cleaned(c)
		c.want(0, fakeName+"\n", "", "launch")
		c.daemonPID()
		c.want(7, "", "weave reset --force goes on without it", "reset", "--timeout=300ms")
		if _, alive := daemonAlive(c.runDir()); !alive {
			t.Error("killed without --force")
		}
		c.want(0, "", "", "reset", "--force", "--timeout=4s")
		c.gone()
		nothingLeft(c)
	})
	t.Run("cleaning fails", func(t *testing.T) {
		c := newCLI(t)
		c.clean = func(context.Context, CleanConfig) error {
			return api.Errorf(api.CodePermission, "no CAP_NET_ADMIN: run as root")
		}
		c.want(9, "", "no CAP_NET_ADMIN", "reset")
	})
	t.Run("refused", func(t *testing.T) {
		c := newCLI(t)
		os.MkdirAll(c.runDir(), 0o755)
		lock, err := lockPID(c.runDir())
		if err != nil {
			t.Fatal(err)
		}
		defer lock.release()
		c.backend(&apitest.Backend{Err: api.Errorf(api.CodeFailure, "cannot: because")})
		c.want(1, "", "cannot: because (weave reset --force", "reset")
	})
}

func TestPIDLock(t *testing.T) {
	dir := t.TempDir()
	if _, alive := daemonAlive(dir); alive {
		t.Error("alive without a file")
	}
	// A stale file of a process that is not ours, and lives.
	os.WriteFile(filepath.Join(dir, pidName), []byte("1\n"), 0o600)
	if _, alive := daemonAlive(dir); alive {
		t.Error("a stale file counts")
	}
	l, err := lockPID(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // looking does not disturb
		if pid, alive := daemonAlive(dir); pid != os.Getpid() || !alive {
			t.Fatalf("pid %d, alive %v", pid, alive)
		}
	}
	if _, err := lockPID(dir); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("second lock: %v", err)
	}
	l.release()
	if _, alive := daemonAlive(dir); alive {
		t.Error("alive after release")
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, pidName))
	if _, err := lockPID(dir); err == nil {
		t.Error("followed a symbolic link")
	}
}
