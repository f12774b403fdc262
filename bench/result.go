package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// schemaVersion counts the incompatible changes of the JSON.
const schemaVersion = 1

// result is the JSON of one run: every single measurement, and their summary.
type result struct {
	Schema  int       `json:"schema"`
	Machine machine   `json:"machine"`
	Options described `json:"options"`
	Samples []sample  `json:"samples"`
	Summary []summary `json:"summary"`
	NotHere []absence `json:"not_here,omitempty"`
	Errors  []string  `json:"errors,omitempty"`

	beside *result // an emulated machine's, shown for the paths that are not here
}

// described is the part of the options that a reader needs.
type described struct {
	Reps     int      `json:"reps"`
	MTUs     []int    `json:"mtus"`
	Paths    []string `json:"paths"`
	Tests    []string `json:"tests"`
	Transfer string   `json:"tcp_seconds"`
	Pings    int      `json:"pings"`
	// TCP names the congestion controls: of all TCP, then of what has a suffix.
	TCP []string `json:"tcp_congestion"`
}

// sample is one measurement; MTU is the underlay's.
type sample struct {
	Rep    int     `json:"rep"`
	MTU    int     `json:"mtu"`
	Path   string  `json:"path"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
}

// summary is all repetitions of one measurement.
type summary struct {
	MTU    int    `json:"mtu"`
	Path   string `json:"path"`
	Metric string `json:"metric"`
	stats
}

func describeOptions(opt options) described {
	d := described{Reps: opt.reps, MTUs: opt.mtus, Tests: opt.tests, Transfer: opt.time.String(), Pings: opt.pings, TCP: opt.tcp}
	for _, p := range opt.paths {
		d.Paths = append(d.Paths, p.name)
	}
	return d
}

// recorder puts the measurements of one path in one repetition into the result.
type recorder struct {
	res  *result
	rep  int
	mtu  int
	path string
}

// put leaves out what is no number, such as the cost of nothing: JSON has none.
func (r *recorder) put(metric string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	r.res.Samples = append(r.res.Samples, sample{r.rep, r.mtu, r.path, metric, value})
}

// forget takes back all that was put.
func (r *recorder) forget() {
	r.res.Samples = slices.DeleteFunc(r.res.Samples, func(s sample) bool {
		return s.Rep == r.rep && s.MTU == r.mtu && s.Path == r.path
	})
}

// progress prints one line about what was just measured, or why it was not.
func (r *recorder) progress(reps int, err error) {
	line := fmt.Sprintf("%s  %d/%d  MTU %-5d %-14s", time.Now().Format("15:04:05"), r.rep, reps, r.mtu, r.path)
	if err != nil {
		r.res.Errors = append(r.res.Errors, fmt.Sprintf("repetition %d, MTU %d, %s: %v", r.rep, r.mtu, r.path, err))
		fmt.Fprintf(os.Stderr, "%s %v\n", line, err)
		return
	}
	show := []struct{ metric, format string }{
		{tcp1Fwd, " TCP %.2f Gb/s"}, {tcp4Fwd, " x4 %.2f"}, {"udp64_" + fullPPS, " 64 B %.0f/s"},
		{idleP50, " ping %.0f µs"}, {loadP50, " loaded %.0f"}, {rss, " RSS %.0f MiB"},
	}
	for _, s := range show {
		i := slices.IndexFunc(r.res.Samples, func(x sample) bool {
			return x.Rep == r.rep && x.MTU == r.mtu && x.Path == r.path && x.Metric == s.metric
		})
		if i >= 0 {
			line += fmt.Sprintf(s.format, r.res.Samples[i].Value)
		}
	}
	fmt.Fprintln(os.Stderr, line)
}

// values returns a measurement of all repetitions, by repetition.
func (r *result) values(mtu int, path, metric string) map[int]float64 {
	v := map[int]float64{}
	for _, s := range r.Samples {
		if s.MTU == mtu && s.Path == path && s.Metric == metric {
			v[s.Rep] = s.Value
		}
	}
	return v
}

// stats sums up a measurement over the repetitions.
func (r *result) stats(mtu int, path, metric string) stats {
	var all []float64
	for _, v := range r.values(mtu, path, metric) {
		all = append(all, v)
	}
	return summarize(all)
}

// ratio is the median of a path's ratios to another path.
func (r *result) ratio(mtu int, path, ref, metric string) (float64, bool) {
	s := r.ratioStats(mtu, path, ref, metric)
	return s.Median, s.N > 0
}

// summarizeAll fills Summary, in the order in which things were first measured.
func (r *result) summarizeAll() {
	type key struct {
		mtu          int
		path, metric string
	}
	seen := map[key]bool{}
	r.Summary = nil
	for _, s := range r.Samples {
		k := key{s.MTU, s.Path, s.Metric}
		if !seen[k] {
			seen[k] = true
			r.Summary = append(r.Summary, summary{s.MTU, s.Path, s.Metric, r.stats(s.MTU, s.Path, s.Metric)})
		}
	}
}

// write makes NAME.json, .txt, .svg, .png and .md in dir, and prints the table.
func (r *result) write(dir, name string, paths []path) error {
	r.summarizeAll()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	doc, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	text := textReport(r, paths)
	for ext, content := range map[string]string{
		"json": string(doc) + "\n",
		"txt":  text,
		"md":   markdownReport(r, paths, name),
		"svg":  plot(r, paths),
	} {
		if err := os.WriteFile(filepath.Join(dir, name+"."+ext), []byte(content), 0o644); err != nil {
			return err
		}
	}
	warnPNG(filepath.Join(dir, name+".svg"))
	fmt.Print(text)
	fmt.Printf("\nwritten: %s.{txt,json,svg,png,md}\n", filepath.Join(dir, name))
	return nil
}

// heading says in a few lines where and how the figures were made.
func (r *result) heading() string {
	m := r.Machine
	var b strings.Builder
	fmt.Fprintf(&b, "%d × %s, Linux %s, %s, weave %s, %.10s\n", m.Cores, m.CPU, m.Kernel, m.Go, m.Version, m.Date)
	what := "median (lowest..highest)"
	if m.Emulated {
		what = "median"
	}
	fmt.Fprintf(&b, "Both ends and the load on the same %s; %s of %s.\n", plural(m.Cores, "processor"), what, plural(r.Options.Reps, "interleaved repetition"))
	if len(r.Options.TCP) > 0 {
		fmt.Fprintf(&b, "TCP congestion control %s, except where another is named.\n", r.Options.TCP[0])
	}
	if m.Emulated {
		b.WriteString(emulatedNote)
	}
	if bg := r.background(); bg > 0.15 {
		fmt.Fprintf(&b, "NOTE: the machine was not quiet: others kept %.2f processors busy.\n", bg)
	}
	return b.String()
}

// background is the median of the processors that others kept busy.
func (r *result) background() float64 {
	var all []float64
	for _, s := range r.Samples {
		if s.Metric == "background_cores" {
			all = append(all, s.Value)
		}
	}
	return summarize(all).Median
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
