package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options is what the flags say.
type options struct {
	reps      int
	mtus      []int
	paths     []path
	tests     []string // of tcp, udp, ping
	time      time.Duration
	omit      time.Duration // start of a TCP transfer that is not counted
	pings     int
	udpTime   time.Duration // of the step at full offer
	udpSteps  []int         // offered packets per second below full offer
	tcp       []string      // congestion controls: of everything, then others for comparison
	out, name string
	draw      string // results of an earlier run
	beside    string
	emulated  bool
	tools     tools
}

// tools are the programs that are measured.
type tools struct {
	self, weave, wireguard string
}

func main() {
	if len(os.Args) > 1 {
		if helper := helpers[os.Args[1]]; helper != nil {
			exit(helper(os.Args[2:]))
		}
	}
	opt, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if opt.draw != "" {
		err = draw(opt.draw, opt.beside, opt.out, opt.name)
	} else {
		err = run(ctx, opt)
	}
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parseFlags(args []string) (opt options, err error) {
	opt = options{
		omit: time.Second, pings: 300, udpTime: 2 * time.Second,
		udpSteps: []int{50_000, 100_000, 200_000, 400_000},
	}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var only, tests, mtus, congestion string
	var short bool
	fs.IntVar(&opt.reps, "reps", 3, "repetitions of everything, interleaved")
	fs.BoolVar(&short, "short", false, "smoke test: one repetition of one second each, MTU 1500, results to bench/out")
	fs.StringVar(&only, "only", "", "comma list of paths (default all): "+strings.Join(pathNames(), ","))
	fs.StringVar(&tests, "tests", "tcp,udp,ping", "comma list of what to measure")
	fs.StringVar(&congestion, "congestion", "cubic,bbr", "comma list of TCP congestion controls: the first for everything, the others, where the kernel has them, for one stream beside it")
	fs.StringVar(&mtus, "mtu", "1500,9000", "comma list of underlay MTUs")
	fs.DurationVar(&opt.time, "time", 3*time.Second, "length of each TCP transfer, after one more second that is not counted")
	fs.StringVar(&opt.out, "out", filepath.Join("bench", "results"), "directory for the results")
	fs.StringVar(&opt.name, "name", "latest", "file name of the results, without extension")
	fs.StringVar(&opt.draw, "draw", "", "measure nothing: write the reports of these `files` of results (JSON) again, commas between; several with different MTUs become one")
	fs.StringVar(&opt.beside, "beside", filepath.Join("bench", "results", "vm.json"), "`file` of an emulated machine's results, shown beside where this kernel lacks a path")
	fs.BoolVar(&opt.emulated, "emulated", false, "the machine's clock counts instructions: report ratios only")
	fs.StringVar(&opt.tools.weave, "weave", "", "weave binary (default: built)")
	fs.StringVar(&opt.tools.wireguard, "wireguard", "", "wireguard-go binary (default: built from the module at go.mod's version)")
	if err = fs.Parse(args); err != nil {
		return opt, err
	}
	if fs.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if short {
		shorten(&opt, fs)
		if !given(fs)["mtu"] {
			mtus = "1500"
		}
	}
	if opt.reps < 1 || opt.time < 500*time.Millisecond {
		return opt, errors.New("want -reps of at least 1 and -time of at least 500ms")
	}
	if opt.tcp, err = congestionControls(congestion, setCongestion); err != nil {
		return opt, err
	}
	return opt, opt.parseLists(mtus, tests, only)
}

// parseLists reads the flags that are comma lists.
func (opt *options) parseLists(mtus, tests, only string) (err error) {
	for s := range strings.SplitSeq(mtus, ",") {
		mtu, err := strconv.Atoi(s)
		if err != nil || mtu < 1400 || mtu > 65535 {
			return fmt.Errorf("-mtu %q: want numbers from 1400 to 65535", s)
		}
		opt.mtus = append(opt.mtus, mtu)
	}
	for s := range strings.SplitSeq(tests, ",") {
		if !slices.Contains([]string{"tcp", "udp", "ping"}, s) {
			return fmt.Errorf("-tests %q: want tcp, udp, ping", s)
		}
		opt.tests = append(opt.tests, s)
	}
	opt.paths, err = selectPaths(only)
	return err
}

// given are the flags that were given.
func given(fs *flag.FlagSet) map[string]bool {
	names := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { names[f.Name] = true })
	return names
}

// shorten turns opt into the smoke test, except where a flag was given.
func shorten(opt *options, fs *flag.FlagSet) {
	given := given(fs)
	if !given["reps"] {
		opt.reps = 1
	}
	if !given["time"] {
		opt.time = time.Second
	}
	if !given["out"] {
		opt.out = filepath.Join("bench", "out")
	}
	opt.omit, opt.pings = 0, 30
	opt.udpTime, opt.udpSteps = 500*time.Millisecond, nil
}

// run measures and writes the results. Whatever was measured before an error or
// a signal is lost, except that a path that fails does not stop the others.
func run(ctx context.Context, opt options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it as root, or use make bench")
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	sweep()

	dir, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := opt.tools.build(ctx, dir, opt.paths); err != nil {
		return err
	}

	res := &result{Schema: schemaVersion, Machine: describeMachine(ctx, opt.tools.weave)}
	res.Machine.Emulated = opt.emulated
	opt.paths, res.NotHere = split(opt.paths, hasFeature)
	for _, a := range res.NotHere {
		fmt.Fprintln(os.Stderr, "bench:", a)
	}
	res.Options = describeOptions(opt)
	if err := res.lookBeside(opt.beside); err != nil {
		return err
	}
	for rep := 1; rep <= opt.reps; rep++ {
		for _, mtu := range opt.mtus {
			for _, p := range opt.paths {
				rec := &recorder{res: res, rep: rep, mtu: mtu, path: p.name}
				err := measurePath(ctx, opt, dir, p, rec)
				if ctx.Err() != nil {
					return fmt.Errorf("stopped: %w", context.Cause(ctx))
				}
				rec.progress(opt.reps, err)
			}
		}
	}
	if err := res.write(opt.out, opt.name, opt.paths); err != nil {
		return err
	}
	if len(res.Errors) > 0 {
		return fmt.Errorf("%d measurements have errors, the first: %s", len(res.Errors), res.Errors[0])
	}
	return nil
}

// measurePath sets a path up in namespaces of its own, measures it, and removes it.
func measurePath(ctx context.Context, opt options, dir string, p path, rec *recorder) error {
	b, err := newBed(ctx, opt.tools, dir, rec.mtu)
	if err != nil {
		return err
	}
	defer b.close()
	rec.put("background_cores", backgroundLoad(ctx, opt.omit/2+200*time.Millisecond))
	ends, err := p.setup(ctx, b)
	if err != nil {
		return fmt.Errorf("setting up %s: %w", p.name, err)
	}
	if err := b.awaitPath(ctx, ends); err != nil {
		return fmt.Errorf("waiting for %s: %w", p.name, err)
	}
	return measure(ctx, opt, b, ends, rec)
}
