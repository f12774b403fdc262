package vm

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Job is what a machine does between its boot and its end.
type Job struct {
	Groups []Group
}

// Group is a list of programs that see the same kernel.
type Group struct {
	Without []string // modules that cannot be loaded
	Runs    []Run
}

// Name tells groups apart in what is printed.
func (g Group) Name() string {
	if len(g.Without) == 0 {
		return "all modules"
	}
	return "without " + strings.Join(g.Without, ", ")
}

// Run is one program, usually a package's test binary.
type Run struct {
	Name    string        // the package's directory, "odp/ovs"
	Program string        // path inside the machine
	Args    []string      // of the program
	Dir     string        // working directory inside the machine
	Env     []string      // "KEY=value", added to the usual ones
	Limit   time.Duration // after which the program is killed

	Expect []string // tests that have to run; nil if the program is no test binary
}

// Request is a package to test, before its binary is built.
type Request struct {
	Without []string
	Package string   // "./odp/ovs"
	Flags   []string // "-run", "X"
	Machine int      // 0, 1, …: those of one number run in one machine
}

// ParseList reads requests, one a line: the kernel, a colon, the package and its
// flags. The kernel is "all", or "without" and modules with commas between.
//
//	all: ./odp/ovs
//	---
//	without openvswitch: ./internal/e2e/fastdp -run NoOpenVSwitch
//
// What follows a line of dashes is for another machine, beside the first.
func ParseList(r io.Reader) ([]Request, error) {
	var out []Request
	machine := 0
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		if strings.Trim(line, "- ") == "" {
			machine++
			continue
		}
		kernel, what, _ := strings.Cut(line, ":")
		words := strings.Fields(what)
		if len(words) == 0 {
			return nil, fmt.Errorf("line %d: no package in %q", n, line)
		}
		req := Request{Package: words[0], Flags: words[1:], Machine: machine}
		switch mods, ok := strings.CutPrefix(strings.TrimSpace(kernel), "without "); {
		case ok:
			req.Without = SplitModules(mods)
		case strings.TrimSpace(kernel) != "all":
			return nil, fmt.Errorf("line %d: neither \"all:\" nor \"without MODULE,…:\" in %q", n, line)
		}
		out = append(out, req)
	}
	return out, lines.Err()
}

// SplitModules splits at commas and sorts.
func SplitModules(s string) []string {
	mods := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(mods)
	return mods
}

// Groups puts the runs that want the same kernel together. Kernels without modules
// come first, as a module that was used may refuse to be unloaded.
func Groups(reqs []Request, runs []Run) []Group {
	var out []Group
	for i, r := range runs {
		at := slices.IndexFunc(out, func(g Group) bool { return slices.Equal(g.Without, reqs[i].Without) })
		if at < 0 {
			at = len(out)
			out = append(out, Group{Without: reqs[i].Without})
		}
		out[at].Runs = append(out[at].Runs, r)
	}
	slices.SortStableFunc(out, func(a, b Group) int { return len(b.Without) - len(a.Without) })
	return out
}
