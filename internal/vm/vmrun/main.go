// Command vmrun runs tests of this module in a virtual machine whose kernel has the
// modules that this machine's may lack. scripts/vm.sh builds it and says how it is
// used.
//
// Started as process 1 it is the machine's init. See package vm.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/vm"
)

func main() {
	if os.Getpid() == 1 || os.Getenv("VM_RUNNER") != "" {
		vm.Init()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	ok, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	kernel  string
	weave   string
	list    string
	must    string
	without string
	quiet   bool
	limit   time.Duration
	each    time.Duration
	accel   string
	run     string
	skip    string
	short   bool
	out     string
	program string
	with    string

	packages []string // or the program's arguments
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("vmrun", flag.ContinueOnError)
	f.StringVar(&o.kernel, "kernel", "", "`directory` with vmlinuz and lib/modules")
	f.StringVar(&o.weave, "weave", "bin/weave", "the weave `binary`")
	f.StringVar(&o.list, "list", "", "`file` with packages and flags, one a line, instead of arguments")
	f.StringVar(&o.must, "must", "", "`file` with tests that have to be among those that ran; it may appear after the start")
	f.StringVar(&o.without, "without", "", "`modules` that cannot be loaded, commas between")
	f.BoolVar(&o.quiet, "quiet", false, "print what failing packages print, only")
	f.DurationVar(&o.limit, "limit", 10*time.Minute, "bound of the machine's life, by the host's clock")
	f.DurationVar(&o.each, "timeout", 4*time.Minute, "bound of each package, by the machine's clock")
	f.StringVar(&o.accel, "accel", os.Getenv("WEAVE_VM_ACCEL"), "QEMU's accelerator")
	f.StringVar(&o.run, "run", "", "as of go test")
	f.StringVar(&o.skip, "skip", "", "as of go test")
	f.BoolVar(&o.short, "short", false, "as of go test")
	f.StringVar(&o.out, "out", "", "`directory` for files that tests leave in /out")
	f.StringVar(&o.program, "program", "", "static `binary` to run with the arguments that follow, instead of tests")
	f.StringVar(&o.with, "with", "", "further static `binaries` to lay beside weave, commas between")
	for len(args) > 0 { // flags may follow packages
		if err := f.Parse(args); err != nil {
			return o, err
		}
		args = f.Args()
		if o.program != "" {
			o.packages = args
			break
		}
		if len(args) > 0 {
			o.packages, args = append(o.packages, args[0]), args[1:]
		}
	}
	if o.kernel == "" {
		return o, errors.New("no -kernel: start this with scripts/vm.sh")
	}
	if o.program == "" && (o.list == "") == (len(o.packages) == 0) {
		return o, errors.New("name packages, or a -list of them")
	}
	return o, nil
}

func (o options) requests() ([]vm.Request, error) {
	if o.list != "" {
		f, err := os.Open(o.list)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return vm.ParseList(f)
	}
	var out []vm.Request
	for _, p := range o.packages {
		r := vm.Request{Without: vm.SplitModules(o.without), Package: p}
		if o.run != "" {
			r.Flags = append(r.Flags, "-run", o.run)
		}
		if o.skip != "" {
			r.Flags = append(r.Flags, "-skip", o.skip)
		}
		if o.short {
			r.Flags = append(r.Flags, "-short")
		}
		out = append(out, r)
	}
	return out, nil
}

func run(ctx context.Context, args []string) (ok bool, err error) {
	o, err := parse(args)
	if err != nil {
		return false, err
	}
	var reqs []vm.Request
	if o.program == "" {
		if reqs, err = o.requests(); err != nil {
			return false, err
		}
	}
	dir, err := os.MkdirTemp("", "weave-vm-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	machines, err := o.machines(ctx, dir, reqs)
	if err != nil {
		return false, err
	}
	built := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	var running sync.WaitGroup
	for _, m := range machines {
		running.Go(func() { m.used, m.err = m.Boot(ctx, m.report) })
	}
	running.Wait()
	ran := time.Since(built)
	var errs []error
	var problems []string
	for _, m := range machines {
		problems = append(problems, m.report.Problems()...)
		errs = append(errs, m.err, o.save(m.report.Files))
		if m.report.Booted() == "" || m.err != nil {
			fmt.Printf("vm: the end of the kernel's log:\n%s\n", m.ConsoleTail())
		}
		fmt.Printf("vm: built in %.0f s, ran in %.0f s (%.0f s of processor), up after %s s\n",
			built.Sub(start).Seconds(), ran.Seconds(), m.used.Seconds(), m.report.Booted())
	}
	must, err := readMust(ctx, o.must)
	if err != nil {
		return false, err
	}
	for _, t := range must {
		if !slices.ContainsFunc(machines, func(m *machine) bool { return m.report.Ran(t.pkg, t.test) }) {
			problems = append(problems, fmt.Sprintf("%s: %s is skipped outside the machine and did not run in it: add it to scripts/vm-tests.txt", t.pkg, t.test))
		}
	}
	for _, p := range problems {
		fmt.Println("vm: FAIL:", p)
	}
	err = errors.Join(errs...)
	return err == nil && len(problems) == 0, err
}

// machine is one of those that run side by side: each has one processor.
type machine struct {
	vm.Machine
	report *vm.Report
	used   time.Duration // of a processor
	err    error
}

// machines builds what the requests want.
func (o options) machines(ctx context.Context, dir string, reqs []vm.Request) (out []*machine, err error) {
	last := 0
	for _, r := range reqs {
		last = max(last, r.Machine)
	}
	show := &printer{options: o}
	for n := range last + 1 {
		mine := slices.DeleteFunc(slices.Clone(reqs), func(r vm.Request) bool { return r.Machine != n })
		if len(mine) == 0 && o.program == "" {
			continue
		}
		b := builder{dir: dir, options: o, machine: n}
		job, err := b.build(ctx, mine)
		if err != nil {
			return nil, err
		}
		m := &machine{Machine: vm.Machine{Kernel: o.kernel, Initrd: b.initrd(), Console: fmt.Sprint(dir, "/console", n), Accel: o.accel}, report: vm.NewReport(job)}
		show.follow(m.report)
		out = append(out, m)
	}
	return out, nil
}

// printer prints what happens as it happens, in whatever machine.
type printer struct {
	options
	mu sync.Mutex
}

// Write prints a piece of a machine's output.
func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return os.Stdout.Write(b)
}

// follow prints what a machine does.
func (p *printer) follow(r *vm.Report) {
	var out io.Writer = p
	if !p.quiet {
		r.Live = out
	}
	r.Started = func(g vm.Group, run vm.Run) {
		if !p.quiet {
			fmt.Fprintf(out, "=== vm: %s %s (%s)\n", run.Name, strings.Join(run.Args, " "), g.Name())
		}
	}
	r.Ended = func(g vm.Group, run vm.Run, got *vm.Outcome) {
		verdict := "ok  "
		if len(got.Problems(run)) > 0 {
			verdict = "FAIL"
			if p.quiet {
				out.Write(got.Output)
			}
		}
		fmt.Fprintf(out, "%s\t%s (%s)\t%.1fs, %d passed, %d skipped\n", verdict, run.Name, g.Name(), got.Took.Seconds(), len(got.Passed), len(got.Skipped))
	}
}

func (o options) save(files map[string][]byte) error {
	if o.out == "" {
		return nil
	}
	for name, data := range files {
		if err := os.WriteFile(o.out+"/"+name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type mustRun struct{ pkg, test string }

// readMust waits for a file and reads its lines of a package's directory and a test.
func readMust(ctx context.Context, file string) (out []mustRun, err error) {
	if file == "" {
		return nil, nil
	}
	var text []byte
	for {
		if text, err = os.ReadFile(file); !errors.Is(err, os.ErrNotExist) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no list of tests that must run: %w", err)
		case <-time.After(time.Second / 10):
		}
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 {
			out = append(out, mustRun{f[0], f[1]})
		}
	}
	return out, err
}
