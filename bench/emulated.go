package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An emulated machine's clock counts instructions. Its figures are none of anything
// but itself, so reports of it have ratios only; the JSON has what was measured.
const emulatedNote = "EMULATED: the machine's clock counts instructions, 2 ns each, so only ratios mean something. " +
	"They tell how many\ninstructions a path needs, not how long real ones take: ciphers, whose instructions do much, look better or worse than they are.\n"

// refSealed is the path that the cage is an alternative to.
const refSealed = "weave-aes"

// ratioTables stand in for tables where the machine is emulated.
func ratioTables() []table {
	of := func(title, metric string) column { return times(title, refKernel, metric) }
	return []table{
		{title: "× kernel vxlan, bridged: throughput (more is better)", columns: []column{
			median("MTU", "mtu", 1, 0),
			of("TCP 1 stream →", tcp1Fwd), of("1 stream ←", tcp1Rev), of("4 streams →", tcp4Fwd), of("4 streams ←", tcp4Rev),
			of("UDP 64 B", "udp64_"+fullPPS), of("UDP 1400 B", "udp1400_"+fullPPS),
		}},
		{title: "× kernel vxlan, bridged: round trip, p50, and cost (less is better)", columns: []column{
			of("idle", idleP50), of("beside TCP", loadP50), of("CPU s/GB", cpuPerGB),
		}},
		{title: "TCP, 1 stream →, × other paths", columns: []column{
			times("× kernel WireGuard+vxlan", refCage, tcp1Fwd), times("× wireguard-go", refPeer, tcp1Fwd),
			times("× weave sleeve AES", refSealed, tcp1Fwd),
		}},
	}
}

// besideReport has the ratios of r, an emulated machine's, as a part of another report.
func besideReport(r *result) string {
	var b strings.Builder
	for _, mtu := range r.Options.MTUs {
		fmt.Fprintf(&b, "\nUnderlay MTU %d\n", mtu)
		for _, t := range ratioTables() {
			fmt.Fprintf(&b, "\n  %s\n%s", t.title, aligned(grid(r, t, mtu, r.paths())))
		}
	}
	return b.String()
}

// paths are those that were measured.
func (r *result) paths() []path {
	return slices.DeleteFunc(allPaths(), func(p path) bool { return !slices.Contains(r.Options.Paths, p.name) })
}

// ratioStats sums up the ratios of a path to another, each taken within one
// repetition, so that what slows the whole machine for a while cancels out.
func (r *result) ratioStats(mtu int, path, ref, metric string) stats {
	theirs := r.values(mtu, ref, metric)
	var ratios []float64
	for rep, v := range r.values(mtu, path, metric) {
		if t := theirs[rep]; t > 0 {
			ratios = append(ratios, v/t)
		}
	}
	return summarize(ratios)
}

// readResult reads the JSON of an earlier run.
func readResult(file string) (*result, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &result{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if r.Schema != schemaVersion || len(r.Options.MTUs) == 0 {
		return nil, fmt.Errorf("%s is no result of this version", file)
	}
	return r, nil
}

// lookBeside finds an emulated machine's result to show beside r's, where there are
// paths that r's kernel lacks. None is no error.
func (r *result) lookBeside(file string) error {
	if len(r.NotHere) == 0 || file == "" {
		return nil
	}
	beside, err := readResult(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.beside = beside
	return err
}

// draw writes the reports of earlier runs, a comma list of files, again: of one where
// it is, of several as one result to dir and name.
func draw(list, beside, dir, name string) error {
	files := strings.Split(list, ",")
	r, err := readResult(files[0])
	if err != nil {
		return err
	}
	if len(files) == 1 {
		dir, name = filepath.Dir(list), strings.TrimSuffix(filepath.Base(list), ".json")
	}
	for _, file := range files[1:] {
		more, err := readResult(file)
		if err != nil {
			return err
		}
		if err := r.join(more); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := r.lookBeside(beside); err != nil {
		return err
	}
	return r.write(dir, name, r.paths())
}

// join adds a run with other underlays. A ratio is always one within a run, so all that
// the runs must have in common is what the heading says of them.
func (r *result) join(more *result) error {
	ours, theirs := r.Machine, more.Machine
	ours.Date, theirs.Date = "", ""
	if ours != theirs || !slices.Equal(r.Options.Paths, more.Options.Paths) || !slices.Equal(r.Options.TCP, more.Options.TCP) ||
		r.Options.Reps != more.Options.Reps || r.Options.Transfer != more.Options.Transfer {
		return errors.New("another machine, version, or options")
	}
	for _, mtu := range more.Options.MTUs {
		if slices.Contains(r.Options.MTUs, mtu) {
			return fmt.Errorf("MTU %d again", mtu)
		}
	}
	r.Options.MTUs = append(r.Options.MTUs, more.Options.MTUs...)
	r.Samples = append(r.Samples, more.Samples...)
	r.Errors = append(r.Errors, more.Errors...)
	return nil
}
