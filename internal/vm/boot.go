package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
	CPUs    int    // 0 = 2
}

// Boot runs the machine until it powers itself off or ctx ends, and copies what its
// second serial line carries to out. No process is left when it returns, also when
// the calling process is killed.
func (m Machine) Boot(ctx context.Context, out io.Writer) error {
	accel := m.Accel
	if accel == "" {
		accel = "tcg,thread=multi"
	}
	memory, cpus := max(m.Memory, 0), max(m.CPUs, 0)
	if memory == 0 {
		memory = 1536
	}
	if cpus == 0 {
		cpus = 2
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", accel, "-cpu", "max", "-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(memory),
		"-kernel", filepath.Join(m.Kernel, "vmlinuz"), "-initrd", m.Initrd,
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/init",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-serial", "file:"+m.Console, "-serial", "stdio")
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &complaints
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("the machine took too long: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("qemu: %w\n%s", err, complaints.Bytes())
	}
	return nil
}

// ConsoleTail returns the last lines the kernel printed.
func (m Machine) ConsoleTail() string {
	text, _ := os.ReadFile(m.Console)
	return string(text[max(0, len(text)-8<<10):])
}
