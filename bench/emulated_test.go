package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	here, absent := split(allPaths(), func(module string) bool { return module == ovsModule })
	want := []absence{{"kernel-wg", "wireguard"}, {"kernel-wg-vxlan", "wireguard"}, {"weave-cage", "wireguard"}}
	if diff := cmp.Diff(want, absent); diff != "" || len(here)+len(absent) != len(allPaths()) {
		t.Errorf("%d paths are here (-want +got)\n%s", len(here), diff)
	}
	if got, want := absent[2].String(), "weave fastdp (cage), ChaCha20: not here: kernel lacks wireguard"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, p := range allPaths() {
		if p.needs != "" && kernelFeatures[p.needs] == "" {
			t.Errorf("%s needs %q, of which nobody knows how to find it", p.name, p.needs)
		}
	}
}

func TestJudge(t *testing.T) {
	cage := daemons{path: fastdp, password: true}
	for _, tt := range []struct{ name, status, err string }{
		{"as it should be", `{"connections":[{"state":"established","path":"fastdp","encrypted":true}]}`, ""},
		{"user space", `{"connections":[{"state":"established","path":"sleeve","encrypted":true,"why":"timeout"}]}`, `"sleeve", not "fastdp": timeout`},
		{"in clear", `{"connections":[{"state":"established","path":"fastdp"}]}`, "encrypted: false"},
		{"not there yet", `{"connections":[{"state":"connecting","error":"refused"}]}`, "connecting: refused"},
		{"none", `{"connections":[]}`, "no connection"},
		{"no status", `oops`, "reading status"},
	} {
		err := cage.judge([]byte(tt.status))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		}
	}
}

// A sample of a path that turned out to be another is none.
func TestForget(t *testing.T) {
	r, _ := example()
	before := len(r.Samples)
	rec := &recorder{res: r, rep: 3, mtu: 1500, path: "weave-cage"}
	rec.put(tcp1Fwd, 7)
	rec.forget()
	if len(r.Samples) != before || r.stats(1500, "weave-cage", tcp1Fwd).N != 0 {
		t.Errorf("got %d samples, want %d", len(r.Samples), before)
	}
}

// emulatedExample has a cage three times as fast as sleeve, at half of vxlan's speed.
func emulatedExample() *result {
	r := &result{
		Schema:  schemaVersion,
		Machine: machine{CPU: "emulated", Cores: 1, Emulated: true},
		Options: described{Reps: 1, MTUs: []int{1500, 9000}, Tests: []string{"tcp", "ping"}, TCP: []string{"cubic"},
			Paths: []string{refKernel, "weave-ovs", "weave-cage", refSealed}},
	}
	for _, mtu := range r.Options.MTUs {
		for name, gbps := range map[string]float64{refKernel: 0.6, "weave-ovs": 0.54, "weave-cage": 0.3, refSealed: 0.1} {
			rec := &recorder{res: r, rep: 1, mtu: mtu, path: name}
			rec.put(tcp1Fwd, gbps)
			rec.put(idleP50, 100/gbps)
		}
	}
	return r
}

func TestEmulatedReportHasRatiosOnly(t *testing.T) {
	r := emulatedExample()
	text, md, svg := textReport(r, r.paths()), markdownReport(r, r.paths(), "vm"), plot(r, r.paths())
	for name, report := range map[string]string{"text": text, "markdown": md, "SVG": svg} {
		for _, want := range []string{"EMULATED", "weave fastdp (cage)", "weave fastdp (ovs)", "0.50", "0.90", "1500", "9000"} {
			if !strings.Contains(report, want) {
				t.Errorf("%s: no %q in\n%s", name, want, report)
			}
		}
		if strings.Contains(report, "Gbit/s") || strings.Contains(report, "µs") {
			t.Errorf("%s: has units of time:\n%s", name, report)
		}
	}
	if !strings.Contains(text, "3.00") || !strings.Contains(md, "3.00") {
		t.Errorf("the ratio of the cage to sleeve is missing:\n%s\n%s", text, md)
	}
}

// Where a kernel lacks paths, a report says so and shows them from the emulated machine.
func TestBeside(t *testing.T) {
	r, paths := example()
	r.NotHere = []absence{{"weave-cage", "wireguard"}}
	dir := t.TempDir()
	if err := r.lookBeside(filepath.Join(dir, "vm.json")); err != nil || r.beside != nil {
		t.Fatalf("no file: got %v, %v, want nothing", r.beside, err)
	}
	if svg := plot(r, paths); strings.Contains(svg, "emulated") || !strings.Contains(svg, "not here") {
		t.Error("want a plot that tells what is missing, without a panel for it")
	}
	b, err := json.Marshal(emulatedExample())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vm.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.lookBeside(filepath.Join(dir, "vm.json")); err != nil {
		t.Fatal(err)
	}
	for name, report := range map[string]string{"text": textReport(r, paths), "markdown": markdownReport(r, paths, "latest"), "SVG": plot(r, paths)} {
		for _, want := range []string{"ChaCha20: not here: kernel lacks wireguard", "weave fastdp (ovs), clear", "0.90", "emulated"} {
			if !strings.Contains(strings.ToLower(report), strings.ToLower(want)) {
				t.Errorf("%s: no %q in\n%s", name, want, report)
			}
		}
	}
	r.NotHere, r.beside = nil, nil
	if err := r.lookBeside(filepath.Join(dir, "vm.json")); err != nil || r.beside != nil {
		t.Error("a kernel that has everything needs no other's figures")
	}
}

func TestDrawAgain(t *testing.T) {
	dir := t.TempDir()
	r := emulatedExample()
	if err := r.write(dir, "vm", r.paths()); err != nil {
		t.Fatal(err)
	}
	read := func(ext string) string {
		b, err := os.ReadFile(filepath.Join(dir, "vm."+ext))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := map[string]string{}
	for _, ext := range []string{"json", "txt", "md", "svg"} {
		want[ext] = read(ext)
	}
	os.Remove(filepath.Join(dir, "vm.txt"))
	if err := draw(filepath.Join(dir, "vm.json"), "", "", ""); err != nil {
		t.Fatal(err)
	}
	for ext, text := range want {
		if diff := cmp.Diff(text, read(ext)); diff != "" {
			t.Errorf("%s (-first +again)\n%s", ext, diff)
		}
	}
	for name, text := range map[string]string{"other.json": `{"schema":99}`, "none.json": "{"} {
		os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		if err := draw(filepath.Join(dir, name), "", "", ""); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Runs of one machine with different underlays make one result.
func TestDrawTogether(t *testing.T) {
	dir := t.TempDir()
	var files []string
	save := func(change func(*result)) string {
		r := emulatedExample()
		change(r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, fmt.Sprint(len(files), ".json")))
		if err := os.WriteFile(files[len(files)-1], b, 0o600); err != nil {
			t.Fatal(err)
		}
		return files[len(files)-1]
	}
	of := func(mtu int) func(*result) {
		return func(r *result) {
			r.Options.MTUs = []int{mtu}
			r.Samples = slices.DeleteFunc(r.Samples, func(s sample) bool { return s.MTU != mtu })
		}
	}
	small, jumbo := save(of(1500)), save(of(9000))
	if err := draw(small+","+jumbo, "", dir, "vm"); err != nil {
		t.Fatal(err)
	}
	got, err := readResult(filepath.Join(dir, "vm.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := emulatedExample()
	if diff := cmp.Diff(want.Options, got.Options); diff != "" || len(got.Samples) != len(want.Samples) {
		t.Errorf("%d samples, want %d (-want +got)\n%s", len(got.Samples), len(want.Samples), diff)
	}
	other := save(func(r *result) { of(9000)(r); r.Machine.Version = "another" })
	for name, list := range map[string]string{"twice": small + "," + small, "another version": small + "," + other} {
		if err := draw(list, "", dir, "bad"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
