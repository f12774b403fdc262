package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says where the figures come from. It has no name of the machine.
type machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	MemMiB  int64  `json:"mem_mib"`
	Kernel  string `json:"kernel"`
	OS      string `json:"os"`
	Go      string `json:"go"`
	Iperf3  string `json:"iperf3"`
	Version string `json:"weave"` // what was measured, git describe
	Date    string `json:"date"`  // of the start, RFC 3339, UTC

	Emulated bool `json:"emulated,omitempty"`
}

// describeMachine asks git for the version that is measured, and where there is no
// repository the program itself, if there is one.
func describeMachine(ctx context.Context, weave string) machine {
	m := machine{
		CPU: "unknown", Cores: runtime.NumCPU(), OS: "Linux", Go: runtime.Version(), Version: "unknown",
		Date: time.Now().UTC().Format(time.RFC3339),
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if cpu := field(b, "model name", ":"); cpu != "" {
			m.CPU = cpu
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.MemMiB = parseStatusKB(b, "MemTotal") / 1024
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		m.OS = strings.Trim(field(b, "PRETTY_NAME", "="), `"`)
	}
	if b, err := output(ctx, "", "iperf3", "--version"); err == nil {
		m.Iperf3, _, _ = strings.Cut(string(b), "\n")
	}
	if b, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		m.Version = strings.TrimSpace(string(b))
	} else if b, err := exec.CommandContext(ctx, weave, "version").Output(); err == nil {
		m.Version = strings.TrimPrefix(strings.TrimSpace(string(b)), "weave ")
	}
	return m
}

// field returns the value of the first line "key<separator>value".
func field(b []byte, key, separator string) string {
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(line, separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
