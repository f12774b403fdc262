package vm

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Lacks starts the reason for which a test is skipped that needs a kernel with, or
// without, a feature. Packages of tests get it from testnet.NeedModule.
const Lacks = "needs a kernel with"

// Report is what a machine said about its Job. It is an io.Writer for the machine's
// output, and has what is to know about each run once that has ended.
type Report struct {
	// Started and Ended are called for each run, if they are set.
	Started func(Group, Run)
	Ended   func(Group, Run, *Outcome)
	Live    io.Writer         // gets the programs' output as it comes, if set
	Files   map[string][]byte // what programs left in OutDir

	job     Job
	line    []byte
	current *Outcome
	group   int
	booted  string // the guest's clock when the job began
	done    bool
	broken  map[int]string
	ran     map[[2]int]*Outcome
}

// Outcome is what became of one run.
type Outcome struct {
	Exit   string // "0", or how the program ended; "" = it did not
	Took   time.Duration
	Passed []string // top-level tests
	Failed []string
	// Skipped has the reason of each test that was skipped, subtests too.
	Skipped map[string]string
	Output  []byte

	running string // the test that prints
	said    map[string]string
}

// NewReport expects what the job asks for.
func NewReport(job Job) *Report {
	return &Report{job: job, group: -1, broken: make(map[int]string), ran: make(map[[2]int]*Outcome), Files: make(map[string][]byte)}
}

// Write takes the next piece of what the machine sent. It fails only if Live does.
func (r *Report) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			r.line = append(r.line, p...)
			break
		}
		r.line = append(r.line, p[:i+1]...)
		p = p[i+1:]
		if err := r.take(string(r.line)); err != nil {
			return 0, err
		}
		r.line = r.line[:0]
	}
	return n, nil
}

func (r *Report) take(line string) error {
	if text, ok := strings.CutPrefix(line, marker); ok {
		kind, text, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		r.mark(kind, text)
		return nil
	}
	if r.current == nil {
		return nil
	}
	shown := r.current.read(line)
	if r.Live != nil {
		_, err := io.WriteString(r.Live, shown)
		return err
	}
	return nil
}

func (r *Report) mark(kind, text string) {
	switch kind {
	case "boot":
		r.booted = text
	case "done":
		r.done = true
	case "group":
		r.group, _ = strconv.Atoi(text)
	case "broken":
		r.broken[r.group] = text
	case "file":
		name, data, _ := strings.Cut(text, " ")
		if b, err := base64.StdEncoding.DecodeString(data); err == nil {
			r.Files[name] = b
		}
	case "start":
		if at, ok := r.at(text); ok {
			r.current = &Outcome{Skipped: make(map[string]string), said: make(map[string]string)}
			r.ran[at] = r.current
			if r.Started != nil {
				r.Started(r.job.Groups[at[0]], r.job.Groups[at[0]].Runs[at[1]])
			}
		}
	case "exit":
		at, ok := r.at(text)
		if !ok || r.current == nil {
			return
		}
		fields := strings.SplitN(text, " ", 4)
		if len(fields) == 4 {
			ms, _ := strconv.Atoi(fields[2])
			r.current.Took, r.current.Exit = time.Duration(ms)*time.Millisecond, fields[3]
		}
		if r.Ended != nil {
			r.Ended(r.job.Groups[at[0]], r.job.Groups[at[0]].Runs[at[1]], r.current)
		}
		r.current = nil
	}
}

// at reads the numbers of a group and a run.
func (r *Report) at(text string) (at [2]int, ok bool) {
	if _, err := fmt.Sscan(text, &at[0], &at[1]); err != nil {
		return at, false
	}
	ok = at[0] >= 0 && at[0] < len(r.job.Groups) && at[1] >= 0 && at[1] < len(r.job.Groups[at[0]].Runs)
	return at, ok
}

// frame starts the lines of -test.v=test2json that are the testing package's.
const frame = "\x16"

// read takes one line of a program and returns it as a person wants to see it.
func (o *Outcome) read(line string) string {
	plain := strings.ReplaceAll(line, frame, "")
	o.Output = append(o.Output, plain...)
	_, framed, ok := strings.Cut(line, frame)
	if !ok {
		if o.running != "" && strings.Contains(line, Lacks) {
			o.said[o.running] = strings.TrimSpace(line)
		}
		return plain
	}
	words := strings.Fields(framed)
	if len(words) < 3 {
		return plain
	}
	name := words[2]
	switch words[0] + " " + words[1] {
	case "=== RUN", "=== CONT", "=== NAME":
		o.running = name
	case "--- PASS:":
		if !strings.Contains(name, "/") {
			o.Passed = append(o.Passed, name)
		}
	case "--- FAIL:":
		o.Failed = append(o.Failed, name)
	case "--- SKIP:":
		o.Skipped[name] = o.said[name]
	}
	return plain
}

// Problems lists why the outcome of a run is not that of success; none if it is.
func (o *Outcome) Problems(r Run) (out []string) {
	if o == nil {
		return []string{"did not run"}
	}
	switch o.Exit {
	case "0":
	case "":
		out = append(out, "did not end")
	default:
		out = append(out, o.Exit)
	}
	for _, name := range o.Failed {
		out = append(out, name+" failed")
	}
	for name, why := range o.Skipped {
		if strings.Contains(why, Lacks) {
			out = append(out, name+" was skipped: "+why)
		}
	}
	for _, name := range r.Expect {
		_, skipped := o.Skipped[name]
		if !skipped && !slices.Contains(o.Passed, name) && !slices.Contains(o.Failed, name) {
			out = append(out, name+" did not report")
		}
	}
	if r.Expect != nil && len(r.Expect) == 0 {
		out = append(out, "no test matches")
	}
	slices.Sort(out)
	return out
}

// Problems lists what is wrong with the whole job, each with the group and the run.
func (r *Report) Problems() (out []string) {
	for i, g := range r.job.Groups {
		if why, ok := r.broken[i]; ok {
			out = append(out, g.Name()+": "+why)
			continue
		}
		for j, run := range g.Runs {
			for _, p := range r.ran[[2]int{i, j}].Problems(run) {
				out = append(out, fmt.Sprintf("%s (%s): %s", run.Name, g.Name(), p))
			}
		}
	}
	if r.booted == "" {
		out = append(out, "the machine did not come up")
	} else if !r.done {
		out = append(out, "the machine stopped before the job was done")
	}
	return out
}

// Booted is how long the machine took until the job began, by its own clock.
func (r *Report) Booted() string { return r.booted }

// Ran tells whether a test of a package was run, in whatever group, and not skipped.
func (r *Report) Ran(pkg, test string) bool {
	for at, o := range r.ran {
		if r.job.Groups[at[0]].Runs[at[1]].Name != pkg {
			continue
		}
		if _, skipped := o.Skipped[test]; skipped {
			continue
		}
		top, _, _ := strings.Cut(test, "/")
		if slices.Contains(o.Passed, top) || slices.Contains(o.Failed, top) {
			return true
		}
	}
	return false
}
