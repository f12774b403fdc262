package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"weave/internal/vm"
)

// builder makes the machine's initramfs.
type builder struct {
	options
	dir     string // of what machines share
	machine int
}

func (b builder) initrd() string { return filepath.Join(b.dir, fmt.Sprint("initrd", b.machine)) }

// tools are the programs that tests call; those the host lacks are left out, and
// the tests will say so. Debian's names of packages: scripts/deps.sh.
var tools = []string{
	"ip", "bridge", "tc", "nft", "ping", "iperf3", "ethtool", "tcpdump", "dig", "sysctl",
	"modprobe", "lsmod", "env", "sh", "sleep", "cat", "head", "dd", "true", "false", "sha256sum", "kill", "dmesg",
}

// etc are files of the host that its programs read.
var etc = []string{
	"/etc/protocols", "/etc/services", "/etc/iproute2", "/usr/share/iproute2", "/usr/lib/tc",
}

func (b builder) build(ctx context.Context, reqs []vm.Request) (job vm.Job, err error) {
	img, err := vm.Create(b.initrd())
	if err != nil {
		return job, err
	}
	runs := make([]vm.Run, len(reqs))
	for i, req := range reqs {
		if runs[i], err = b.test(ctx, img, req); err != nil {
			img.Close()
			return job, err
		}
	}
	job.Groups = vm.Groups(reqs, runs)
	if b.program != "" {
		inside := filepath.Join(vm.BinDir, filepath.Base(b.program))
		img.File(inside, b.program)
		run := vm.Run{Name: filepath.Base(b.program), Program: inside, Args: b.packages, Dir: vm.SourceDir, Limit: b.each}
		job.Groups = []vm.Group{{Runs: []vm.Run{run}}}
	}
	for _, file := range vm.SplitModules(b.with) {
		img.File(filepath.Join(vm.BinDir, filepath.Base(file)), file)
	}
	text, err := json.Marshal(job)
	if err != nil {
		return job, err
	}
	img.Data(vm.JobFile, string(text), 0o644)
	b.system(img)
	return job, img.Close()
}

// test adds a package's test binary and its data.
func (b builder) test(ctx context.Context, img *vm.Image, req vm.Request) (r vm.Run, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}} {{.Module.Dir}}", req.Package).Output()
	if err != nil {
		return r, fmt.Errorf("no package %s: %w", req.Package, err)
	}
	dir, root, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return r, err
	}
	host := filepath.Join(b.dir, strings.ReplaceAll(rel, "/", "_")+".test")
	if _, err := os.Stat(host); err != nil {
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags=-s -w", "-o", host, req.Package)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return r, fmt.Errorf("building the tests of %s: %w\n%s", rel, err, out)
		}
		if _, err := os.Stat(host); err != nil {
			return r, fmt.Errorf("%s has no tests", rel)
		}
	}
	inside := filepath.Join(vm.SourceDir, rel)
	r = vm.Run{Name: rel, Dir: inside, Program: filepath.Join(inside, filepath.Base(rel)+".test"), Limit: b.each}
	r.Args = []string{"-test.v=test2json", "-test.count=1", "-test.timeout=" + b.each.String()}
	for _, f := range req.Flags {
		if name, ok := strings.CutPrefix(f, "-"); ok && !strings.HasPrefix(name, "test.") {
			f = "-test." + strings.TrimPrefix(name, "-")
		}
		r.Args = append(r.Args, f)
	}
	img.Dir(inside)
	img.File(r.Program, host)
	img.Tree(filepath.Join(inside, "testdata"), filepath.Join(dir, "testdata"))
	r.Expect, err = expected(ctx, host, r.Args)
	return r, err
}

// expected asks a test binary which tests it will run. It is run with the flags of
// the test, of which -test.skip and the pattern of -test.run count.
func expected(ctx context.Context, binary string, args []string) ([]string, error) {
	pattern, skip := ".", ""
	for i, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		value, _, _ = strings.Cut(value, "/") // the part that is about subtests
		switch name {
		case "-test.run":
			pattern = value
		case "-test.skip":
			skip = value
		}
	}
	list := []string{"-test.list", pattern}
	cmd := exec.CommandContext(ctx, binary, list...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing tests: %w", err)
	}
	return testNames(string(out), skip)
}

// system adds what every machine has.
func (b builder) system(img *vm.Image) {
	self, err := os.Executable()
	if err == nil {
		img.File("/init", self)
	}
	img.File(filepath.Join(vm.BinDir, "weave"), b.weave)
	img.Link("/bin/weave", filepath.Join(vm.BinDir, "weave"))
	img.File(filepath.Join(vm.SourceDir, "go.mod"), "go.mod")
	for _, t := range tools {
		if err := img.Tool(t); err != nil {
			fmt.Fprintf(os.Stderr, "vm: without %s: %v\n", t, err)
		}
	}
	// The kernel calls it by this name.
	img.Link("/sbin/modprobe", "/bin/modprobe")
	for _, name := range etc {
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			img.Tree(name, name)
		} else if err == nil {
			img.File(name, name)
		}
	}
	img.Data("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\ntcpdump:x:100:100::/:/bin/false\n", 0o644)
	img.Data("/etc/group", "root:x:0:\nnogroup:x:65534:\ntcpdump:x:100:\n", 0o644)
	img.Data("/etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n", 0o644)
	img.Data("/etc/nsswitch.conf", "hosts: files dns\n", 0o644)
	img.Data("/etc/machine-id", "00000000000000000000000000000076\n", 0o444)
	img.Dir("/root")
	img.Dir("/out")
	img.Dir("/var/lib")
	img.Tree("/lib/modules", filepath.Join(b.kernel, "lib/modules"))
}

func testNames(list, skip string) ([]string, error) {
	names := []string{}
	skipped, err := matcher(skip)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(strings.NewReader(list))
	for lines.Scan() {
		name := lines.Text()
		if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Example") {
			if !skipped(name) {
				names = append(names, name)
			}
		}
	}
	return names, lines.Err()
}

// matcher matches a whole -skip pattern; the empty one matches nothing.
func matcher(pattern string) (func(string) bool, error) {
	if pattern == "" {
		return func(string) bool { return false }, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return re.MatchString, nil
}
