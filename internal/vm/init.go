package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Places inside the machine.
const (
	JobFile   = "/job.json"
	SourceDir = "/src" // where the module's root would be
	BinDir    = SourceDir + "/bin"
	OutDir    = "/out" // files made here are sent to the host
	resultTTY = "/dev/ttyS1"
)

// runnerEnv tells the program which of its two roles in the machine it has.
const runnerEnv = "VM_RUNNER"

// Init is process 1: it starts this program again to do the work, reaps whatever
// processes lose their parent, and powers the machine off. It does not return.
func Init() {
	if os.Getenv(runnerEnv) != "" {
		if err := runJob(); err != nil {
			fmt.Fprintln(os.Stderr, "vm:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := beInit(); err != nil {
		fmt.Fprintln(os.Stderr, "vm: init:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func beInit() error {
	if err := mountAll(); err != nil {
		return err
	}
	env := []string{
		"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "LANG=C.UTF-8", "TMPDIR=/tmp",
		"WEAVE_BIN=" + BinDir + "/weave", runnerEnv + "=1",
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	runner, err := os.StartProcess("/init", []string{"/init"}, &os.ProcAttr{Env: env, Files: []*os.File{null, os.Stderr, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == runner.Pid || err != nil && err != unix.EINTR {
			return nil
		}
	}
}

func mountAll() error {
	unix.Umask(0o022)
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	os.Chmod("/tmp", 0o1777)
	os.Symlink("/proc/self/fd", "/dev/fd")
	return unix.Sethostname([]byte("vm"))
}

func runJob() error {
	text, err := os.ReadFile(JobFile)
	if err != nil {
		return err
	}
	var job Job
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	tty, err := openRaw(resultTTY)
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	w := &framer{out: tty, bol: true}
	w.mark("boot", uptime())
	for i, g := range job.Groups {
		w.mark("group", fmt.Sprint(i))
		if err := prepare(g.Without); err != nil {
			w.mark("broken", err.Error())
			continue
		}
		for j, r := range g.Runs {
			w.run(i, j, r)
		}
	}
	if err := w.files(); err != nil {
		return err
	}
	w.mark("done", uptime())
	return nil
}

func uptime() string {
	text, _ := os.ReadFile("/proc/uptime")
	up, _, _ := strings.Cut(string(text), " ")
	return up
}

// openRaw opens a serial line that changes nothing of what it carries.
func openRaw(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// preload are modules that no use of them loads, and those that nearly every test
// needs, so that one process loads them all.
var preload = []string{"tun", "veth", "bridge", "vxlan", "nf_tables", "nfnetlink", "br_netfilter", "openvswitch", "wireguard", "sch_netem"}

// prepare makes the kernel have all modules but those of without.
func prepare(without []string) error {
	var conf strings.Builder
	for _, m := range without {
		fmt.Fprintf(&conf, "install %s /bin/false\n", m)
	}
	if err := os.MkdirAll("/etc/modprobe.d", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/modprobe.d/without.conf", []byte(conf.String()), 0o644); err != nil {
		return err
	}
	for _, m := range without {
		exec.Command("modprobe", "-r", m).Run()
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			return fmt.Errorf("module %s cannot be withheld: an earlier group left it in use, or it is part of the kernel", m)
		}
	}
	// Some of these may need what is withheld, so errors mean nothing.
	exec.Command("modprobe", append([]string{"-a", "-q"}, preload...)...).Run()
	for _, m := range without {
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			return fmt.Errorf("module %s was loaded though it is withheld", m)
		}
	}
	if !slices.Contains(without, "tun") {
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			return fmt.Errorf("loading modules: %w", err)
		}
	}
	return nil
}

// framer writes marker lines between what programs print.
type framer struct {
	out io.Writer
	bol bool // at the beginning of a line
}

// marker starts the lines that are the machine's own.
const marker = "@@vm "

func (w *framer) Write(p []byte) (int, error) {
	if len(p) > 0 {
		w.bol = p[len(p)-1] == '\n'
	}
	return w.out.Write(p)
}

func (w *framer) mark(kind, text string) {
	var b bytes.Buffer
	if !w.bol {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s%s %s\n", marker, kind, strings.ReplaceAll(text, "\n", " "))
	w.Write(b.Bytes())
}

func (w *framer) run(group, index int, r Run) {
	w.mark("start", fmt.Sprintf("%d %d", group, index))
	ctx, cancel := context.WithTimeout(context.Background(), r.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Program, r.Args...)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, runnerEnv+"=") })
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = time.Second
	start := time.Now()
	err := cmd.Run()
	how := "0"
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		how = "killed after " + r.Limit.String()
	case errors.As(err, &exit):
		how = exit.String()
	case err != nil:
		how = err.Error()
	}
	w.mark("exit", fmt.Sprintf("%d %d %d %s", group, index, time.Since(start).Milliseconds(), how))
}
