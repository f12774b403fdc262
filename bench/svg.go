package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Sizes of the plot, in its own units.
const (
	plotWidth   = 880
	margin      = 24
	labelWidth  = 190 // room for the paths' titles
	valueWidth  = 74  // room right of the longest bar
	barHeight   = 13
	barGap      = 2
	rowGap      = 9
	panelGap    = 34
	panelHeader = 44
)

// series is one of the bars that every path has in a panel.
type series struct {
	name   string
	mtu    int
	metric string
	ref    string // path to which the bars are ratios; "" is none
}

func (s series) stats(r *result, path string) stats {
	if s.ref != "" {
		return r.ratioStats(s.mtu, path, s.ref, s.metric)
	}
	return r.stats(s.mtu, path, s.metric)
}

// panel is one chart of the plot.
type panel struct {
	title  string
	scale  float64 // from the metric's unit to the chart's
	digits int
	series []series
	of     *result // whose paths have rows
	paths  []path
}

// panels leaves out what was not measured.
func panels(r *result, paths []path) []panel {
	all := timePanels(r)
	if r.Machine.Emulated {
		all = ratioPanels(r)
	}
	for i := range all {
		all[i].of, all[i].paths = r, paths
	}
	if r.beside != nil {
		p := ratioPanels(r.beside)[0]
		p.title = "With a kernel that has all modules, emulated. " + p.title
		p.of, p.paths = r.beside, r.beside.paths()
		all = append(all, p)
	}
	return slices.DeleteFunc(all, func(p panel) bool { return p.largest() == 0 })
}

// ratioPanels are those of an emulated machine.
func ratioPanels(r *result) []panel {
	const unit = " × kernel vxlan, bridged"
	each := func(metric string) (s []series) {
		for _, mtu := range r.Options.MTUs {
			s = append(s, series{fmt.Sprintf("underlay MTU %d", mtu), mtu, metric, refKernel})
		}
		return s
	}
	mtu := r.Options.MTUs[0]
	return []panel{
		{title: "TCP, one stream:" + unit + " (longer is better)", scale: 1, digits: 3, series: each(tcp1Fwd)},
		{title: "UDP delivered, as much as possible offered:" + unit + " (longer is better)", scale: 1, digits: 2, series: []series{
			{"64 B", mtu, "udp64_" + fullPPS, refKernel}, {"1400 B", mtu, "udp1400_" + fullPPS, refKernel}}},
		{title: "Round trip, idle, median:" + unit + " (shorter is better)", scale: 1, digits: 2, series: each(idleP50)},
		{title: "Processor time, whole machine, for each GB of TCP:" + unit + " (shorter is better)", scale: 1, digits: 2, series: each(cpuPerGB)},
	}
}

// timePanels are those of a real machine.
func timePanels(r *result) []panel {
	mtus := r.Options.MTUs
	tcp := panel{title: "TCP, one stream: Gbit/s (longer is better)", scale: 1, digits: 1}
	for _, mtu := range mtus {
		tcp.series = append(tcp.series, series{fmt.Sprintf("underlay MTU %d", mtu), mtu, tcp1Fwd, ""})
	}
	return []panel{
		tcp,
		{title: "UDP delivered, as much as possible offered: 1000 packets/s (longer is better)", scale: 1e-3, series: []series{
			{"64 B", mtus[0], "udp64_" + fullPPS, ""}, {"1400 B", mtus[0], "udp1400_" + fullPPS, ""}}},
		{title: "Round trip, idle: µs (shorter is better)", scale: 1, series: []series{
			{"median", mtus[0], idleP50, ""}, {"99th percentile", mtus[0], idleP99, ""}}},
		{title: "Processor time, whole machine: seconds per GB of TCP (shorter is better)", scale: 1, digits: 2, series: []series{
			{"both ends and the load", mtus[0], cpuPerGB, ""}}},
	}
}

// largest is the end of the longest bar or whisker, in the chart's unit.
func (p panel) largest() float64 {
	most := 0.0
	for _, s := range p.series {
		for _, path := range p.paths {
			most = max(most, finite(s.stats(p.of, path.name).Max)*p.scale)
		}
	}
	return most
}

// style makes the picture bring its own background, so that it reads well on a
// light and on a dark page.
const style = `
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 } .head { font-size: 13px; font-weight: 600 } .note { fill: #57606a; font-size: 11px }
.value { font-size: 11px; font-variant-numeric: tabular-nums } .label { text-anchor: end } .tick { fill: #57606a; font-size: 10px; text-anchor: middle }
.page { fill: #ffffff; stroke: #d0d7de } .grid { stroke: #d8dee4 } .whisker { stroke: #24292f; stroke-opacity: .55 }
.k0 { fill: #8c959f } .k1 { fill: #d4833d } .k2 { fill: #0f8a8a } .s1 { fill-opacity: .55 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note, .tick { fill: #9198a1 } .page { fill: #0d1117; stroke: #30363d } .grid { stroke: #262c34 } .whisker { stroke: #e6edf3 }
.k0 { fill: #7d8590 } .k1 { fill: #db8a43 } .k2 { fill: #2bb3b3 }
}`

// plot draws the figures as grouped horizontal bars with whiskers from the lowest
// to the highest repetition.
func plot(r *result, paths []path) string {
	var d drawing
	y := margin + 14.0
	d.text(margin, y, "title", "Two containers on two hosts: weave beside the kernel and wireguard-go")
	for line := range strings.Lines(r.heading() + r.notHere()) {
		y += 17
		d.text(margin, y, "note", strings.TrimSpace(line))
	}
	y += 12
	for _, p := range panels(r, paths) {
		y = d.panel(p, y+panelGap/2)
	}
	height := y + margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" role="img" aria-label="Benchmark figures of weave and other paths">
<style>%s</style>
<rect class="page" x=".5" y=".5" width="%d" height="%.0f" rx="8"/>
%s</svg>
`, plotWidth, height, plotWidth, height, style, plotWidth-1, height-1, d.String())
}

// drawing gathers the elements of an SVG document.
type drawing struct{ strings.Builder }

func (d *drawing) text(x, y float64, class, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s">`, x, y, class)
	xml.EscapeText(d, []byte(s))
	d.WriteString("</text>\n")
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (d *drawing) bar(x, y, width float64, class string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" class="%s"/>`+"\n", x, y, max(width, 1), barHeight, class)
}

// panel draws one chart from y on and returns where it ends.
func (d *drawing) panel(p panel, y float64) float64 {
	const left = margin + labelWidth
	const room = plotWidth - margin - valueWidth - left
	step, top := ticks(p.largest())
	d.text(margin, y+12, "head", p.title)
	d.legend(p, y+28)
	y += panelHeader
	rowHeight := float64(len(p.series)*(barHeight+barGap)) + rowGap
	bottom := y + float64(len(p.paths))*rowHeight
	for i := 0; float64(i)*step <= top*1.0001; i++ {
		x := left + room*float64(i)*step/top
		d.line(x, y-4, x, bottom, "grid")
		d.text(x, bottom+11, "tick", strconv.FormatFloat(float64(i)*step, 'g', 4, 64))
	}
	for _, path := range p.paths {
		d.text(left-8, y+(rowHeight-rowGap)/2+4, "label", path.title)
		for i, s := range p.series {
			st := s.stats(p.of, path.name)
			if st.N == 0 {
				continue
			}
			at := func(v float64) float64 { return left + room*finite(v)*p.scale/top }
			barY := y + float64(i*(barHeight+barGap))
			d.bar(left, barY, at(st.Median)-left, fmt.Sprintf("k%d s%d", path.kind, i))
			middle := barY + barHeight/2.0
			if st.N > 1 {
				d.line(at(st.Min), middle, at(st.Max), middle, "whisker")
			}
			d.text(at(max(st.Median, st.Max))+6, middle+4, "value", fmt.Sprintf("%.*f", p.digits, st.Median*p.scale))
		}
		y += rowHeight
	}
	return bottom + 11
}

// legend names the series by their shade; one alone is named by the words only.
func (d *drawing) legend(p panel, y float64) {
	x := float64(margin)
	for i, s := range p.series {
		if len(p.series) > 1 {
			d.bar(x, y-10, 13, fmt.Sprintf("k2 s%d", i))
			x += 19
		}
		d.text(x, y, "note", s.name)
		x += textWidth(s.name) + 22
	}
}

// textWidth estimates the width of a label: no font is at hand to measure.
func textWidth(s string) float64 { return 6.2 * float64(len([]rune(s))) }

// ticks returns a round distance between grid lines (1, 2 or 5 times a power of
// ten, four to ten of them) and the end of the axis.
func ticks(largest float64) (step, top float64) {
	if largest <= 0 {
		return 1, 1
	}
	step = math.Pow(10, math.Floor(math.Log10(largest)))
	switch {
	case largest/step < 2:
		step /= 5
	case largest/step < 5:
		step /= 2
	}
	return step, math.Ceil(largest/step-1e-9) * step
}
