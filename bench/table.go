package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// column is one column of a table: a title and what stands in a path's row.
type column struct {
	title string
	cell  func(r *result, mtu int, path string) string
}

const absent = "–"

// figure shows the median and, when there are several repetitions, the spread.
func figure(title, metric string, scale float64, digits int) column {
	return column{title, func(r *result, mtu int, path string) string {
		s := r.stats(mtu, path, metric)
		switch s.N {
		case 0:
			return absent
		case 1:
			return fmt.Sprintf("%.*f", digits, s.Median*scale)
		}
		return fmt.Sprintf("%.*f (%.*f..%.*f)", digits, s.Median*scale, digits, s.Min*scale, digits, s.Max*scale)
	}}
}

// median is figure without the spread.
func median(title, metric string, scale float64, digits int) column {
	return column{title, func(r *result, mtu int, path string) string {
		s := r.stats(mtu, path, metric)
		if s.N == 0 {
			return absent
		}
		return fmt.Sprintf("%.*f", digits, s.Median*scale)
	}}
}

// times shows the ratio to a reference path.
func times(title, ref, metric string) column {
	return column{title, func(r *result, mtu int, path string) string {
		v, ok := r.ratio(mtu, path, ref, metric)
		if !ok {
			return absent
		}
		digits := 2
		switch {
		case v >= 10:
			digits = 0
		case v < 0.1:
			digits = 3
		}
		return fmt.Sprintf("%.*f", digits, v)
	}}
}

// table is a named group of columns that are measured together.
type table struct {
	title   string
	test    string // which of -tests makes it; "" is any
	columns []column
	metric  string // only paths of which this was measured have a row; "" is all
}

// tables is all that was measured, by r's options.
func tables(r *result) []table {
	if r.Machine.Emulated {
		return ratioTables()
	}
	udp := func(size string) []column {
		p := "udp" + size + "_"
		return []column{
			figure(size+" B: delivered", p+fullPPS, 1e-3, 0),
			median("loss %", p+fullLoss, 1, 0),
			figure("at ≤ 1 % loss", p+cleanPPS, 1e-3, 0),
			times("× wg", refPeer, p+fullPPS),
		}
	}
	all := []table{
		{title: "TCP, Gbit/s", test: "tcp", columns: []column{
			median("MTU", "mtu", 1, 0),
			figure("1 stream →", tcp1Fwd, 1, 2), times("× wg", refPeer, tcp1Fwd), times("× vxlan", refKernel, tcp1Fwd),
			figure("1 stream ←", tcp1Rev, 1, 2), figure("4 streams →", tcp4Fwd, 1, 2),
			times("× wg", refPeer, tcp4Fwd), figure("4 streams ←", tcp4Rev, 1, 2),
		}},
		{title: "UDP, 1000 packets/s, as many as possible offered", test: "udp", columns: slices.Concat(udp("64"), udp("1400"))},
		{title: "Round trip, µs", test: "ping", columns: []column{
			figure("idle p50", idleP50, 1, 0), figure("idle p99", idleP99, 1, 0), times("p50 × wg", refPeer, idleP50),
			figure("beside TCP p50", loadP50, 1, 0), figure("beside TCP p99", loadP99, 1, 0), times("p50 × wg", refPeer, loadP50),
		}},
		{title: "Cost", columns: []column{
			figure("CPU s/GB, machine", cpuPerGB, 1, 2), times("× wg", refPeer, cpuPerGB),
			figure("CPU s/GB, daemons", daemonPerGB, 1, 2),
			figure("RSS MiB under load", rss, 1, 0), figure("since start", rssPeak, 1, 0),
		}},
	}
	return slices.Insert(all, 1, congestionTables(r)...)
}

// congestionTables has a table for each congestion control beside the first.
func congestionTables(r *result) (all []table) {
	for i, name := range r.Options.TCP {
		if i > 0 {
			m := tcp1Under(name)
			all = append(all, table{title: "TCP with congestion control " + name + ", Gbit/s", test: "tcp", metric: m,
				columns: []column{figure("1 stream →", m, 1, 2), times("× wg", refPeer, m)}})
		}
	}
	return all
}

// grid fills the cells of a table, headings first. Every path has a row, unless
// the table says otherwise.
func grid(r *result, t table, mtu int, paths []path) [][]string {
	head := []string{""}
	for _, c := range t.columns {
		head = append(head, c.title)
	}
	rows := [][]string{head}
	for _, p := range paths {
		if t.metric != "" && r.stats(mtu, p.name, t.metric).N == 0 {
			continue
		}
		row := []string{p.title}
		for _, c := range t.columns {
			row = append(row, c.cell(r, mtu, p.name))
		}
		rows = append(rows, row)
	}
	return rows
}

// aligned lays a grid out in columns, the first to the left, others to the right.
func aligned(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString("  " + cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// textReport is what the terminal and the .txt file show.
func textReport(r *result, paths []path) string {
	var b strings.Builder
	b.WriteString(r.heading())
	for _, mtu := range r.Options.MTUs {
		fmt.Fprintf(&b, "\nUnderlay MTU %d\n", mtu)
		for _, t := range tables(r) {
			rows := grid(r, t, mtu, paths)
			if len(rows) > 1 && (t.test == "" || slices.Contains(r.Options.Tests, t.test)) {
				fmt.Fprintf(&b, "\n  %s\n%s", t.title, aligned(rows))
			}
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "\nERROR %s\n", e)
	}
	if !r.Machine.Emulated {
		b.WriteString("\n× wg and × vxlan are ratios to wireguard-go and to the bridged kernel vxlan, within each repetition.\n")
	}
	if len(r.NotHere) > 0 {
		b.WriteString("\n" + r.notHere())
	}
	if r.beside != nil {
		fmt.Fprintf(&b, "\n\nWith a kernel that has all modules\n\n%s%s", r.beside.heading(), besideReport(r.beside))
	}
	return b.String()
}

// notHere has a line for each path that could not be measured.
func (r *result) notHere() string {
	var b strings.Builder
	for _, a := range r.NotHere {
		fmt.Fprintln(&b, a)
	}
	return b.String()
}

// markdownRows writes a grid.
func markdownRows(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|---|" + strings.Repeat("---:|", len(row)-1) + "\n")
		}
	}
}

// emulatedTable is markdownReport's for an emulated machine.
func emulatedTable(r *result) string {
	var b strings.Builder
	t := table{columns: []column{
		times("TCP × kernel vxlan", refKernel, tcp1Fwd), times("× wireguard-go", refPeer, tcp1Fwd),
		times("× weave sleeve AES", refSealed, tcp1Fwd), times("64 B UDP × kernel vxlan", refKernel, "udp64_"+fullPPS),
		times("ping × kernel vxlan", refKernel, idleP50), times("CPU s/GB × kernel vxlan", refKernel, cpuPerGB),
	}}
	for i, mtu := range r.Options.MTUs {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "Underlay MTU %d:\n\n", mtu)
		markdownRows(&b, grid(r, t, mtu, r.paths()))
	}
	b.WriteString("\n" + r.heading())
	return b.String()
}

// markdownReport is the short table for a README: one row a path.
func markdownReport(r *result, paths []path, name string) string {
	image := fmt.Sprintf("\n![Throughput, packet rate, round trip and cost of each path](bench/results/%s.svg)\n", name)
	if r.Machine.Emulated {
		return emulatedTable(r) + image
	}
	t := table{}
	for i, mtu := range r.Options.MTUs {
		at := func(c column) column {
			return column{fmt.Sprintf("%s, MTU %d", c.title, mtu), func(r *result, _ int, path string) string { return c.cell(r, mtu, path) }}
		}
		t.columns = append(t.columns, at(median("TCP Gbit/s", tcp1Fwd, 1, 1)))
		if i == 0 {
			t.columns = append(t.columns, times("× wireguard-go", refPeer, tcp1Fwd), times("× kernel vxlan", refKernel, tcp1Fwd))
		}
	}
	t.columns = append(t.columns,
		median("64 B UDP, 1000/s", "udp64_"+fullPPS, 1e-3, 0), median("ping µs", idleP50, 1, 0),
		median("ping beside TCP µs", loadP50, 1, 0), median("CPU s/GB", cpuPerGB, 1, 2), median("RSS MiB", rss, 1, 0))
	var b strings.Builder
	markdownRows(&b, grid(r, t, r.Options.MTUs[0], paths))
	b.WriteString("\n" + r.heading())
	for _, t := range congestionTables(r) {
		for i, row := range grid(r, t, r.Options.MTUs[0], paths) {
			if i == 0 {
				fmt.Fprintf(&b, "%s (MTU %d):", t.title, r.Options.MTUs[0])
				continue
			}
			fmt.Fprintf(&b, " %s %s (%s × wireguard-go).", row[0], row[1], row[2])
		}
		b.WriteString("\n")
	}
	b.WriteString(r.notHere())
	if r.beside != nil {
		b.WriteString("\nThe same with a kernel that has all modules, emulated:\n\n" + emulatedTable(r.beside))
	}
	return b.String() + image
}

// finite replaces what JSON and a plot cannot show.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
