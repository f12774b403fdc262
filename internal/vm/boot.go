package vm

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what a Job runs on.
type Machine struct {
	Kernel  string // directory with vmlinuz and lib/modules
	Initrd  string
	Console string // file for what the kernel prints
	Accel   string // QEMU's accelerator; "" = emulation
	Memory  int    // MiB; 0 = 1536
}

// emulation is a machine without KVM. Its clock counts instructions, 2 ns each, and
// leaps over idle time: how busy the host is does not show inside, and nobody waits for
// a sleeping test. That needs a single processor. It has what the packet paths look for
// (AES, carry-less multiplication, AVX2) and not the fast string operations, which are
// the slowest of all where each step of them is emulated; the kernel is told the same
// in kernelArgs, feature 112.
var emulation = []string{
	"-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm",
	"-smp", "1", "-cpu", "Haswell-v4,-erms",
}

// kernelArgs also leave out what costs time and shows nothing here: defences against
// other guests, clearing of memory, waiting for every processor to be idle once
// whenever a namespace is taken down.
const kernelArgs = "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off apparmor=0 " +
	"init_on_alloc=0 rcupdate.rcu_expedited=1 clearcpuid=112 " + mark

// mark is an argument that no kernel knows: by it programs see that they are in the
// machine.
const mark = "weave.vm=1"

// Inside reports whether this process runs in such a machine.
func Inside() bool {
	args, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(args)), mark)
}

// Boot runs the machine until it powers itself off or ctx ends, and copies what its
// second serial line carries to out. It returns the processor time that took, which
// tells more than the clock on a busy host. No process is left when it returns, also
// when the calling process is killed.
func (m Machine) Boot(ctx context.Context, out io.Writer) (used time.Duration, err error) {
	how := []string{"-accel", m.Accel, "-cpu", "host", "-smp", "2"}
	if m.Accel == "" {
		how = emulation
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(how, "-m", fmt.Sprint(cmp.Or(m.Memory, 1536)),
		"-kernel", filepath.Join(m.Kernel, "vmlinuz"), "-initrd", m.Initrd,
		"-append", kernelArgs,
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-serial", "file:"+m.Console, "-serial", "stdio")...)
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &complaints
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if cmd.ProcessState != nil {
		used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if ctx.Err() != nil {
		return used, fmt.Errorf("the machine took too long: %w", context.Cause(ctx))
	}
	if err != nil {
		return used, fmt.Errorf("qemu: %w\n%s", err, complaints.Bytes())
	}
	return used, nil
}

// ConsoleTail returns the last lines the kernel printed.
func (m Machine) ConsoleTail() string {
	text, _ := os.ReadFile(m.Console)
	return string(text[max(0, len(text)-8<<10):])
}
