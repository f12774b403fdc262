package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummarize(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   stats
	}{
		{"none", nil, stats{}},
		{"one", []float64{5}, stats{N: 1, Median: 5, Min: 5, Max: 5}},
		{"odd, unsorted", []float64{9, 1, 3}, stats{N: 3, Median: 3, Min: 1, Max: 9, MAD: 2}},
		{"even", []float64{1, 2, 3, 10}, stats{N: 4, Median: 2.5, Min: 1, Max: 10, MAD: 1}},
		{"one outlier does not move it", []float64{4, 4, 4, 4, 900}, stats{N: 5, Median: 4, Min: 4, Max: 900}},
	} {
		if diff := cmp.Diff(tt.want, summarize(tt.values)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{50, 10, 40, 20, 30}
	for _, tt := range []struct{ p, want float64 }{
		{0, 10}, {25, 20}, {50, 30}, {90, 46}, {99, 49.6}, {100, 50},
	} {
		if got := percentile(values, tt.p); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("percentile %v: got %v, want %v", tt.p, got, tt.want)
		}
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
	if values[0] != 50 {
		t.Error("the argument was sorted in place")
	}
}

func TestParseIperf(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     float64
		err      string
	}{
		{"receiver's count", `{"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":5.25e9}}}`, 5.25, ""},
		{"names the congestion control", `{"end":{"sum_received":{"bits_per_second":2e9},"sender_tcp_congestion":"cubic"}}`, 2, ""},
		{"another congestion control", `{"end":{"sum_received":{"bits_per_second":2e9},"sender_tcp_congestion":"bbr"}}`, 0, "with congestion control bbr, not cubic"},
		{"its own error", `{"start":{},"error":"unable to connect to server: Connection refused"}`, 0, "Connection refused"},
		{"nothing received", `{"end":{"sum_received":{"bits_per_second":0}}}`, 0, "no traffic"},
		{"not JSON", "iperf3: parameter error", 0, "reading iperf3's output"},
		{"nothing", "", 0, "reading iperf3's output"},
	} {
		got, err := parseIperf([]byte(tt.in), "cubic")
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, %v, want %v, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestParseMachineStat(t *testing.T) {
	//                 user nice system idle iowait irq softirq steal guest
	const in = "cpu  1000 20 300 99999 77 4 50 600 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
	if got, err := parseMachineStat([]byte(in)); err != nil || got != 13.74 {
		t.Errorf("got %v, %v, want 13.74: idle, iowait and steal are not ours", got, err)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7", "cpu  1 2 3", "cpu  1 2 x 4 5 6 7 8"} {
		if _, err := parseMachineStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseProcStat(t *testing.T) {
	// The name has spaces and parentheses on purpose.
	const in = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 9 0 1 2 3"
	if got, err := parseProcStat([]byte(in)); err != nil || got != 3.75 {
		t.Errorf("got %v, %v, want 3.75", got, err)
	}
	for _, bad := range []string{"", "1 (x) S", "1 x S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "1 (x) S 1 2 3 4 5 6 7 8 9 10 y z 1"} {
		if _, err := parseProcStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseStatusKB(t *testing.T) {
	const in = "Name:\tweave\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n"
	for key, want := range map[string]int64{"VmHWM": 20480, "VmRSS": 10240, "VmSwap": 0, "Vm": 0} {
		if got := parseStatusKB([]byte(in), key); got != want {
			t.Errorf("%s: got %d, want %d", key, got, want)
		}
	}
}

func TestMeterBetween(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * 1e9)) }
	m := &meter{readings: []reading{
		{at: at(0), machine: 0}, {at: at(1), machine: 5, daemons: 1}, {at: at(2), machine: 6, daemons: 1.5},
		{at: at(3), machine: 7.5, daemons: 2.5}, {at: at(4), machine: 99},
	}}
	if diff := cmp.Diff(usage{1.25, 0.75}, m.between(at(0.5), at(3.5)), cmp.AllowUnexported(usage{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := m.between(at(1.5), at(2.5)); got != (usage{}) {
		t.Errorf("one reading only: got %v, want nothing", got)
	}
}

func TestFlooded(t *testing.T) {
	f := flooded{flooderReport{Sent: 1000}, sinkReport{Received: 901, Seconds: 0.5}}
	if f.pps() != 1800 || math.Abs(f.loss()-9.9) > 1e-9 {
		t.Errorf("got %v/s, %v %% loss, want 1800, 9.9", f.pps(), f.loss())
	}
	if f := (flooded{}); f.pps() != 0 || f.loss() != 100 {
		t.Errorf("nothing sent: got %v/s, %v %% loss, want 0, 100", f.pps(), f.loss())
	}
}

func TestAllowance(t *testing.T) {
	for _, tt := range []struct {
		rate    int
		elapsed time.Duration
		sent    int64
		want    int
	}{
		{0, 0, 0, batch},
		{1000, 0, 0, 0},
		{1000, 10 * time.Millisecond, 4, 6},
		{1000, 10 * time.Millisecond, 12, 0},
		{1_000_000, time.Second, 0, batch},
	} {
		if got := allowance(tt.rate, tt.elapsed, tt.sent); got != tt.want {
			t.Errorf("rate %d, %v, %d sent: got %d, want %d", tt.rate, tt.elapsed, tt.sent, got, tt.want)
		}
	}
}

func TestEchoPackets(t *testing.T) {
	request := echoRequest(0x1234, 7)
	var sum uint32
	for i := 0; i < len(request); i += 2 {
		sum += uint32(request[i])<<8 | uint32(request[i+1])
	}
	if sum = sum>>16 + sum&0xffff; sum>>16+sum&0xffff != 0xffff {
		t.Errorf("the checksum does not add up: %x", sum)
	}
	packet := append(make([]byte, 24), request...) // with IP options
	packet[0] = 0x46
	if isReply(packet, 0x1234, 7) {
		t.Error("a request was taken for a reply")
	}
	packet[24] = 0
	for _, tt := range []struct {
		name    string
		packet  []byte
		id, seq uint16
		want    bool
	}{
		{"ours", packet, 0x1234, 7, true},
		{"another's", packet, 0x1235, 7, false},
		{"an earlier one", packet, 0x1234, 8, false},
		{"cut off", packet[:30], 0x1234, 7, false},
		{"no header", packet[:19], 0x1234, 7, false},
		{"nothing", nil, 0x1234, 7, false},
	} {
		if got := isReply(tt.packet, tt.id, tt.seq); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSelectPaths(t *testing.T) {
	names := func(paths []path) (s []string) {
		for _, p := range paths {
			s = append(s, p.name)
		}
		return s
	}
	for only, want := range map[string][]string{
		"":                     pathNames(),
		"veth":                 {"veth"},
		"weave-aes,wireguard":  {"wireguard-go", "weave-aes"},
		"weave":                {"weave-fastdp", "weave-ovs", "weave-cage", "weave-clear", "weave-aes", "weave-relay", "weave-chacha"},
		"weave,vxlan,weave-ch": {"vxlan", "weave-fastdp", "weave-ovs", "weave-cage", "weave-clear", "weave-aes", "weave-relay", "weave-chacha"},
	} {
		got, err := selectPaths(only)
		if diff := cmp.Diff(want, names(got)); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got)\n%s", only, err, diff)
		}
	}
	if _, err := selectPaths("veth,carrier-pigeon"); err == nil {
		t.Error("an unknown path was accepted")
	}
}

func TestCongestionControls(t *testing.T) {
	kernel := func(name string) error {
		if name == "cubic" || name == "bbr" {
			return nil
		}
		return errors.New("no such file")
	}
	for list, want := range map[string][]string{
		"cubic,bbr":       {"cubic", "bbr"},
		"bbr":             {"bbr"},
		"cubic,vegas":     {"cubic"},
		"bbr,vegas,cubic": {"bbr", "cubic"},
	} {
		got, err := congestionControls(list, kernel)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got)\n%s", list, err, diff)
		}
	}
	for _, bad := range []string{"", "vegas", "vegas,cubic"} {
		if got, err := congestionControls(bad, kernel); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}

func TestParseFlags(t *testing.T) {
	opt, err := parseFlags([]string{"-short", "-only", "veth", "-tests", "ping", "-reps", "2"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1500}, opt.mtus); diff != "" || opt.reps != 2 || opt.time != time.Second || len(opt.paths) != 1 {
		t.Errorf("-short: got %d repetitions of %v, %d paths, MTUs %s", opt.reps, opt.time, len(opt.paths), diff)
	}
	if opt, err = parseFlags([]string{"-short", "-mtu", "1500,9000"}); err != nil || len(opt.mtus) != 2 {
		t.Errorf("-short with two MTUs: got %v, %v", opt.mtus, err)
	}
	for _, bad := range []string{"-reps=0", "-mtu=1500,x", "-mtu=10", "-tests=tcp,quic", "-only=x", "-time=1ms", "-congestion=pigeon", "stray"} {
		if _, err := parseFlags([]string{bad}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// example is a result of two paths and two repetitions, the second of which ran
// on a machine half as fast.
func example() (*result, []path) {
	r := &result{
		Machine: machine{CPU: "A <fast> & \"new\" CPU", Cores: 2, Date: "2026-01-02T03:04:05Z"},
		Options: described{Reps: 2, MTUs: []int{1500, 9000}, Tests: []string{"tcp", "udp", "ping"}, TCP: []string{"cubic", "bbr"}},
	}
	for rep, slow := range map[int]float64{1: 1, 2: 2} {
		for _, mtu := range r.Options.MTUs {
			for name, gbps := range map[string]float64{refPeer: 2, "weave-aes": 6} {
				rec := &recorder{res: r, rep: rep, mtu: mtu, path: name}
				rec.put(tcp1Fwd, gbps/slow)
				rec.put("udp64_"+fullPPS, 50_000*gbps/slow)
				rec.put(idleP50, 100*slow)
				if name != refPeer && mtu == 1500 && rep == 1 {
					rec.put(tcp1Under("bbr"), 1.25)
				}
			}
		}
	}
	paths, _ := selectPaths("wireguard,weave-aes")
	return r, paths
}

func TestRatioWithinRepetitions(t *testing.T) {
	r, _ := example()
	r.Samples = append(r.Samples, sample{3, 1500, "weave-aes", tcp1Fwd, 1}) // no partner
	if got, ok := r.ratio(1500, "weave-aes", refPeer, tcp1Fwd); !ok || got != 3 {
		t.Errorf("got %v, %v, want 3", got, ok)
	}
	if _, ok := r.ratio(1500, "weave-aes", refKernel, tcp1Fwd); ok {
		t.Error("a ratio to what was not measured")
	}
}

func TestTextReport(t *testing.T) {
	r, paths := example()
	got := textReport(r, paths)
	for _, want := range []string{"congestion control cubic,", "Underlay MTU 9000", "4.50 (3.00..6.00)  3.00", "225 (150..300)", absent} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	bbr := got[strings.Index(got, "TCP with congestion control bbr"):]
	bbr = bbr[:strings.Index(bbr, "\n\n")]
	if !strings.Contains(bbr, "1.25") || strings.Contains(bbr, "wireguard-go") || strings.Count(got, "congestion control bbr") != 1 {
		t.Errorf("want a table of the one path measured with bbr, at the one MTU, got\n%s", bbr)
	}
	rows := grid(r, tables(r)[0], 1500, paths)
	lines := strings.Split(strings.TrimRight(aligned(rows), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %d lines, want a heading and two paths", len(lines))
	}
	for _, l := range lines {
		if len([]rune(l)) != len([]rune(lines[0])) {
			t.Errorf("not aligned:\n%s", strings.Join(lines, "\n"))
		}
	}
}

func TestMarkdownReport(t *testing.T) {
	r, paths := example()
	got := markdownReport(r, paths, "latest")
	if !strings.Contains(got, "control bbr, Gbit/s (MTU 1500): weave sleeve, AES-256-GCM 1.25 (") || !strings.Contains(got, "control cubic") {
		t.Errorf("does not tell the congestion controls:\n%s", got)
	}
	lines := strings.Split(got, "\n")
	for _, l := range lines[:4] {
		if strings.Count(l, "|") != strings.Count(lines[0], "|") {
			t.Errorf("a row with other columns than the heading: %s", l)
		}
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	r, paths := example()
	r.Samples = append(r.Samples, sample{1, 1500, refPeer, cpuPerGB, math.Inf(1)}, sample{2, 1500, "weave-aes", cpuPerGB, math.NaN()})
	for name, picture := range map[string]string{
		"two paths": plot(r, paths),
		"nothing":   plot(&result{Options: described{MTUs: []int{1500}}}, paths),
	} {
		d := xml.NewDecoder(strings.NewReader(picture))
		rects := 0
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, picture)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				rects++
			}
		}
		if strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") {
			t.Errorf("%s: has coordinates that are no numbers", name)
		}
		if name == "two paths" && rects < 8 {
			t.Errorf("%s: %d bars, want at least 8", name, rects)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct{ largest, step, top float64 }{
		{0, 1, 1}, {17, 2, 18}, {4.4, 0.5, 4.5}, {9, 1, 9}, {10, 2, 10}, {130, 20, 140}, {0.07, 0.01, 0.07},
	} {
		step, top := ticks(tt.largest)
		if math.Abs(step-tt.step) > 1e-9 || math.Abs(top-tt.top) > 1e-9 {
			t.Errorf("%v: got steps of %v to %v, want %v to %v", tt.largest, step, top, tt.step, tt.top)
		}
	}
}

func TestResultKeepsEveryMeasurement(t *testing.T) {
	r, _ := example()
	(&recorder{res: r, rep: 1, mtu: 1500, path: refPeer}).put(cpuPerGB, math.Inf(1)) // left out
	r.summarizeAll()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back result
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Samples, back.Samples); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(r.Options, back.Options); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(r.Summary) != 2*2*3+1 {
		t.Errorf("got %d summaries, want one for each MTU, path and metric, and one with bbr", len(r.Summary))
	}
}
