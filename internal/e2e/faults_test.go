package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// fault is a command that must fail.
type fault struct {
	args []string
	code int
	text string // part of the message
}

func args(s string) []string { return strings.Fields(s) }

// wantFault checks the outcome of a command that must fail: its code, and one
// line that says what happened.
func wantFault(t *testing.T, what string, r testnet.Result, code int, text string) {
	t.Helper()
	t.Logf("%s: %s", what, strings.TrimSpace(r.Stderr))
	line := strings.TrimSuffix(r.Stderr, "\n")
	if r.Code != code || !strings.HasPrefix(line, "weave: ") || strings.Contains(line, "\n") || r.Stdout != "" || !strings.Contains(line, text) {
		t.Errorf("%s: exit %d, stdout %q, stderr %q; want exit %d and a line with %q", what, r.Code, r.Stdout, r.Stderr, code, text)
	}
}

// Commands without a daemon: mistakes are told before anything is made.
func TestFaultsWithoutDaemon(t *testing.T) {
	_, sites := harness.NewSites(t, 1)
	a := sites[0]
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, f := range []fault{
		{args("statuz"), harness.ExitUsage, `did you mean status?`},
		{args("status nonsense"), harness.ExitUsage, "nonsense"},
		{args("--bogus"), harness.ExitUsage, "--bogus"},
		{args("launch --bogus"), harness.ExitUsage, "see weave launch --help"},
		{args("launch --port 0"), harness.ExitUsage, "want 1 to 65534"},
		{args("launch --port many"), harness.ExitUsage, "port"},
		{args("launch --mtu 100"), harness.ExitUsage, "--mtu 100: want 576"},
		{args("launch --cipher rot13"), harness.ExitUsage, "want auto, aes or chacha"},
		{args("launch --fastdp=maybe"), harness.ExitUsage, "want auto, vxlan, ovs or off"},
		{args("launch --no-fastdp --fastdp=vxlan"), harness.ExitUsage, "contradict"},
		{args("launch --host nowhere"), harness.ExitUsage, "want an IP address"},
		{args("launch --trusted-subnets 10.0.0.1"), harness.ExitUsage, "want subnets such as"},
		{args("launch --name me"), harness.ExitUsage, "me"},
		{args("launch --log-level loud"), harness.ExitUsage, "want debug, info"},
		{args("launch --status-addr 6782"), harness.ExitUsage, "want ADDRESS:PORT"},
		{args("launch --resume 10.77.0.2"), harness.ExitUsage, "give no others"},
		{args("launch --timeout 0s"), harness.ExitUsage, "--timeout"},
		{args("launch 10.77.0.2:99999"), harness.ExitUsage, "want HOST or HOST:PORT"},
		{args("launch http://10.77.0.2/"), harness.ExitUsage, "want HOST or HOST:PORT"},
		{args("launch 10.77.0.300"), harness.ExitUsage, "want HOST or HOST:PORT"},
		{args("attach"), harness.ExitUsage, "[ADDR...] CONTAINER"},
		{args("attach 10.55.0.1 netns:blue"), harness.ExitUsage, "want IP/LENGTH"},
		{args("attach 10.55.0.300/24 netns:blue"), harness.ExitUsage, "want IP/LENGTH"},
		{args("attach 10.55.0.1/33 netns:blue"), harness.ExitUsage, "want IP/LENGTH"},
		{args("attach 10.55.0.1/24 my-container"), harness.ExitUsage, "want netns:NAME"},
		{args("attach net:10.2.0.1/16 netns:blue"), harness.ExitUsage, "want net:CIDR"},
		{args("report -f {{"), harness.ExitUsage, "see weave report --help"},

		{args("status"), harness.ExitNotRunning, "start one with weave launch"},
		{args("status connections"), harness.ExitNotRunning, "start one with weave launch"},
		{args("attach 10.55.0.1/24 netns:blue"), harness.ExitNotRunning, "start one with weave launch"},
		{args("detach netns:blue"), harness.ExitNotRunning, "start one with weave launch"},
		{args("ps"), harness.ExitNotRunning, "start one with weave launch"},
		{args("connect 10.77.0.2"), harness.ExitNotRunning, "start one with weave launch"},
		{args("forget 10.77.0.2"), harness.ExitNotRunning, "start one with weave launch"},
		{args("report"), harness.ExitNotRunning, "start one with weave launch"},
		{args("stop"), harness.ExitNotRunning, "start one with weave launch"},

		{args("launch --password-file " + filepath.Join(dir, "none")), harness.ExitNotFound, "make it, mode 0600"},
		{args("launch --password-file " + file("open", "secret\n", 0o644)), harness.ExitPermission, "chmod 600"},
		{args("launch --password-file " + file("empty", "\n", 0o600)), harness.ExitUsage, "is empty"},
		{args("launch --password-file " + dir), harness.ExitUsage, "is a directory"},
		{[]string{"launch", "--password", ""}, harness.ExitUsage, "is empty"},
		{args("launch --password-file " + file("binary", "a\x00b", 0o600)), harness.ExitUsage, "NUL"},
		{args("launch --run-dir " + filepath.Join(dir, strings.Repeat("long", 30))), harness.ExitUsage, "too long for a socket"},
		{args("launch --run-dir " + file("file", "", 0o600)), harness.ExitFailure, "run directory"},
		{args("launch --state-dir " + filepath.Join(dir, "file")), harness.ExitFailure, "state directory"},
	} {
		wantFault(t, strings.ReplaceAll(strings.Join(f.args, " "), dir, "DIR"), a.Weave(f.args...), f.code, f.text)
	}
	if got, want := links(a.Namespace), []string{testnet.Uplink, "lo"}; !slices.Equal(got, want) {
		t.Errorf("links left: %q, want %q", got, want)
	}
}

// Commands to a running daemon: it refuses, and goes on as before.
func TestFaultsWithDaemon(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	a.Launch()
	b.Launch(a.IP4.String())
	harness.Joined(t, a, b)
	taken := a.Container("taken")
	taken.Exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	taken.Exec("ip", "addr", "add", "10.55.0.77/24", "dev", "eth0")
	unprivileged := func(args ...string) testnet.Result {
		full := append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "--", a.Bin, "--run-dir", a.RunDir(), "--state-dir", a.StateDir()}, args...)
		return a.Try("setpriv", full...)
	}
	before := snapshot(a)
	for _, f := range []fault{
		{args("attach 10.55.0.9/24 netns:no-such-one"), harness.ExitNotFound, "is the container running?"},
		{args("attach 10.55.0.9/24 netns:/no/such/file"), harness.ExitNotFound, "is the container running?"},
		{args("attach 10.55.0.9/24 pid:4194303"), harness.ExitNotFound, "is the container running?"},
		{args("attach 10.55.0.9/24 " + fmt.Sprintf("pid:%d", a.Daemon.Pid())), harness.ExitUsage, "host's own network namespace"},
		{args("attach 10.55.0.9/24 netns:/etc/passwd"), harness.ExitNotFound, "is the container running?"},
		{args("attach 10.55.0.77/24 " + taken.Ref()), harness.ExitConflict, "use another address"},
		{args("attach 10.55.0.78/24 " + taken.Ref()), harness.ExitConflict, "use another address"},
		{args("attach 10.55.0.9/24 10.55.0.77/24 " + taken.Ref()), harness.ExitConflict, "use another address"},
		{args("attach 10.55.0.0/24 " + taken.Ref()), harness.ExitUsage, "is the subnet"},
		{args("attach 10.55.0.255/24 " + taken.Ref()), harness.ExitUsage, "broadcast address"},
		{args("attach 127.0.0.1/8 " + taken.Ref()), harness.ExitUsage, "loopback"},
		{args("detach netns:no-such-one"), harness.ExitNotFound, "is the container running?"},
		{args("connect 10.77.0.300"), harness.ExitUsage, "want HOST or HOST:PORT"},
		{args("launch"), harness.ExitConflict, "weave stop first"},
		{args("launch --foreground"), harness.ExitConflict, "weave stop first"},
		{args("launch --run-dir " + filepath.Join(t.TempDir(), "other")), harness.ExitConflict, "choose another --state-dir"},
		{append(args("launch --run-dir "+filepath.Join(t.TempDir(), "other")), "--state-dir", filepath.Join(t.TempDir(), "other")), harness.ExitConflict, "weavetap"},
	} {
		wantFault(t, strings.Join(f.args, " "), a.Weave(f.args...), f.code, f.text)
	}
	for _, args := range [][]string{{"status"}, {"stop"}, {"attach", "10.55.0.9/24", a.Box.Ref()}} {
		wantFault(t, "as nobody: "+strings.Join(args, " "), unprivileged(args...), harness.ExitPermission, "run as root")
	}
	if after := snapshot(a); after != before {
		t.Errorf("the host was:\n%s\nand is:\n%s", before, after)
	}
	if got := links(taken); !slices.Equal(got, []string{"eth0", "eth1", "lo"}) {
		t.Errorf("links in the container that has the address: %q", got)
	}
	harness.Joined(t, a, b)
	harness.MustPing(t, b.Box, a.In4)
}

// snapshot is what a failed command must not change.
func snapshot(s *harness.Site) string {
	return fmt.Sprint(links(s.Namespace), s.Daemon.MustWeave("ps"), s.Daemon.MustWeave("status", "targets"), s.Daemon.Pid())
}

// A host on which the daemon cannot run: launch says why, and leaves nothing.
func TestFaultsOfTheHost(t *testing.T) {
	_, sites := harness.NewSites(t, 1)
	a := sites[0]
	dirs := []string{"--run-dir", a.RunDir(), "--state-dir", a.StateDir()}
	nobody := t.TempDir()
	if err := os.Chown(nobody, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for dir := nobody; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	// A copy that everybody may start, wherever the checkout is.
	bin := filepath.Join(nobody, "weave")
	harness.MustSucceed(t, a.Try("install", "-m", "755", a.Bin, bin))
	// in runs weave launch behind a prefix of other commands.
	in := func(prefix string, dirs ...string) testnet.Result {
		return a.Try("sh", "-c", prefix+` "$@"`, "sh", bin, "launch", dirs[0], dirs[1], dirs[2], dirs[3])
	}
	shell := func(setup string) string { return "exec unshare -m sh -c '" + setup + ` && exec "$@"' sh` }

	wantFault(t, "as nobody", in("exec setpriv --reuid 65534 --regid 65534 --clear-groups --", dirs...), harness.ExitPermission, "run as root")
	wantFault(t, "as nobody, own directories", in("exec setpriv --reuid 65534 --regid 65534 --clear-groups --", "--run-dir", nobody+"/run", "--state-dir", nobody+"/state"), harness.ExitPermission, "run as root")
	wantFault(t, "root without CAP_NET_ADMIN", in("exec setpriv --bounding-set -net_admin --inh-caps -net_admin --", dirs...), harness.ExitPermission, "CAP_NET_ADMIN")
	wantFault(t, "no /dev/net/tun", in(shell("mount -t tmpfs none /dev/net"), dirs...), harness.ExitKernel, "/dev/net/tun")
	wantFault(t, "a full disk", in(shell("mkdir -p "+a.StateDir()+" && mount -t tmpfs -o size=16k,mode=700 none "+a.StateDir()), dirs...), harness.ExitFailure, "make room")
	wantFault(t, "a read-only state directory", in(shell("mkdir -p "+a.StateDir()+" && mount -t tmpfs -o ro,mode=700 none "+a.StateDir()), dirs...), harness.ExitFailure, "choose another --state-dir")
	wantFault(t, "a read-only run directory", in(shell("mkdir -p "+a.RunDir()+" && mount -t tmpfs -o ro,mode=700 none "+a.RunDir()), dirs...), harness.ExitFailure, "read-only file system")

	// Ports that are taken.
	var tcp net.Listener
	if err := a.Do(func() (err error) {
		tcp, err = net.Listen("tcp", ":6783")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "TCP port taken", a.Weave("launch"), harness.ExitConflict, "--port")
	tcp.Close()
	udp := harness.ListenUDP(t, a.Namespace, netip.MustParseAddrPort("[::]:6783"))
	wantFault(t, "UDP port taken", a.Weave("launch"), harness.ExitConflict, "--port")
	udp.Close()
	if err := a.Do(func() (err error) {
		tcp, err = net.Listen("tcp", "127.0.0.1:6782")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "status port taken", a.Weave("launch"), harness.ExitConflict, "--status-addr")
	tcp.Close()
	wantFault(t, "an address that is not ours", a.Weave("launch", "--host", "192.0.2.1"), harness.ExitUsage, "--host")
	a.Exec("ip", "link", "add", "weave", "type", "veth", "peer", "name", "other")
	wantFault(t, "a link named like the bridge", a.Weave("launch"), harness.ExitConflict, "weave")
	a.Exec("ip", "link", "del", "weave")
	a.Exec("ip", "tuntap", "add", "weavetap", "mode", "tap")
	wantFault(t, "a link named like the router's port", a.Weave("launch"), harness.ExitConflict, "weavetap")
	a.Exec("ip", "link", "del", "weavetap")

	// A disk that fills up while the daemon runs.
	harness.MustSucceed(t, in(shell("mount -t tmpfs -o size=128k,mode=700 none "+a.StateDir()), dirs...))
	var full testnet.Result
	for i := 0; i < 20 && full.Code == 0; i++ {
		targets := []string{"connect"}
		for j := range 200 {
			targets = append(targets, fmt.Sprintf("%s%d-%d.example", strings.Repeat("a-long-name.", 18), i, j))
		}
		full = a.Weave(targets...)
	}
	wantFault(t, "a disk that is full now", full, harness.ExitFailure, "make room")
	harness.MustSucceed(t, a.Weave("connect", "--replace", "10.77.0.99"))
	if got := harness.MustSucceed(t, a.Weave("status", "targets")); got != "10.77.0.99\n" {
		t.Errorf("targets %q", got)
	}
	harness.MustSucceed(t, a.Weave("stop"))

	harness.MustSucceed(t, a.Weave("reset"))
	clean(t, a)
}

// State that cannot be read is put aside, and the daemon starts without it.
func TestDamagedState(t *testing.T) {
	_, sites := harness.NewSites(t, 2)
	a, b := sites[0], sites[1]
	pw := harness.PasswordFile(t, harness.Password)
	a.Launch("--password-file", pw)
	b.Launch("--password-file", pw, a.IP4.String())
	harness.Joined(t, a, b)
	for _, damage := range []string{"noise", "cut"} {
		if code := b.Daemon.Stop(); code != 0 {
			t.Errorf("stop: exit %d", code)
		}
		db := filepath.Join(b.StateDir(), "weave.db")
		raw, err := os.ReadFile(db)
		if err != nil {
			t.Fatal(err)
		}
		if damage == "noise" {
			rand.NewChaCha8([32]byte{}).Read(raw)
		} else {
			raw = raw[:len(raw)/2]
		}
		if err := os.WriteFile(db, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(files(b.StateDir()))
		b.Start("--password-file", pw, a.IP4.String())
		harness.Joined(t, a, b)
		if after := len(files(b.StateDir())); after != before+1 {
			t.Errorf("%s: files %q, want one put aside", damage, files(b.StateDir()))
		}
		harness.WantLine(t, damage+": log", b.Daemon.Log(), "state is unreadable, starting without it", "weave.db.broken")
	}
	harness.Within(t, harness.JoinLimit, "traffic", func() bool { return harness.Reaches(a.Box, b.In4) })
}
