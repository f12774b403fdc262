package vm

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// said is what a machine sends, with ^ for the byte that frames the testing
// package's own lines.
func said(lines ...string) string {
	return strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "^", frame)
}

var oneJob = Job{Groups: []Group{
	{Without: []string{"openvswitch"}, Runs: []Run{{Name: "odp/ovs", Expect: []string{"TestMissing"}}}},
	{Runs: []Run{{Name: "odp/ovs", Expect: []string{"TestFlow", "TestPort"}}, {Name: "bench"}}},
}}

func TestReport(t *testing.T) {
	good := []string{
		"@@vm boot 4.21", "@@vm group 0", "@@vm start 0 0",
		"^=== RUN   TestMissing", "^--- PASS: TestMissing (0.1s)", "PASS", "@@vm exit 0 0 120 0",
		"@@vm group 1", "@@vm start 1 0",
		"^=== RUN   TestFlow", "text without an end^--- PASS: TestFlow (1.00s)",
		"^=== RUN   TestPort", "--- FAIL: TestPort (this is the test's own text)", "^--- PASS: TestPort (1.00s)",
		"@@vm exit 1 0 2000 0", "@@vm start 1 1", "hello", "@@vm exit 1 1 5 0",
		"@@vm file figures.txt aGVsbG8=", "@@vm done 9.00",
	}
	without := func(lines ...string) []string {
		var out []string
		for _, l := range good {
			keep := true
			for _, w := range lines {
				keep = keep && l != w
			}
			if keep {
				out = append(out, l)
			}
		}
		return out
	}
	replaced := func(old string, lines ...string) []string {
		var out []string
		for _, l := range good {
			if l == old {
				out = append(out, lines...)
			} else {
				out = append(out, l)
			}
		}
		return out
	}
	for _, test := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"all well", good, nil},
		{"nothing", nil, []string{
			"odp/ovs (without openvswitch): did not run", "odp/ovs (all modules): did not run",
			"bench (all modules): did not run", "the machine did not come up",
		}},
		{"a test is silent", without("^=== RUN   TestFlow", "text without an end^--- PASS: TestFlow (1.00s)"),
			[]string{"odp/ovs (all modules): TestFlow did not report"}},
		{"a test fails", replaced("^--- PASS: TestPort (1.00s)", "^--- FAIL: TestPort (1.00s)"),
			[]string{"odp/ovs (all modules): TestPort failed"}},
		{"a feature is missing", replaced("^--- PASS: TestPort (1.00s)", "    x_test.go:1: needs a kernel with openvswitch", "^--- SKIP: TestPort (1.00s)"),
			[]string{"odp/ovs (all modules): TestPort was skipped: x_test.go:1: needs a kernel with openvswitch"}},
		{"skipped for another reason", replaced("^--- PASS: TestPort (1.00s)", "    x_test.go:1: needs -long", "^--- SKIP: TestPort (1.00s)"), nil},
		{"a subtest's feature is missing", replaced("^--- PASS: TestPort (1.00s)", "^=== RUN   TestPort/vxlan", "    x_test.go:1: needs a kernel without vxlan",
			"^--- SKIP: TestPort/vxlan (0.00s)", "^=== NAME  TestPort", "^--- PASS: TestPort (1.00s)"),
			[]string{"odp/ovs (all modules): TestPort/vxlan was skipped: x_test.go:1: needs a kernel without vxlan"}},
		{"exit status", replaced("@@vm exit 1 0 2000 0", "@@vm exit 1 0 2000 exit status 2"),
			[]string{"odp/ovs (all modules): exit status 2"}},
		{"crash", good[:11], []string{
			"odp/ovs (all modules): TestPort did not report", "odp/ovs (all modules): did not end",
			"bench (all modules): did not run", "the machine stopped before the job was done",
		}},
		{"module not withheld", replaced("@@vm group 0", "@@vm group 0", "@@vm broken module openvswitch was loaded"),
			[]string{"without openvswitch: module openvswitch was loaded"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewReport(oneJob)
			text := said(test.lines...)
			for len(text) > 0 { // a serial line has no respect for lines
				n := min(7, len(text))
				if _, err := io.WriteString(r, text[:n]); err != nil {
					t.Fatal(err)
				}
				text = text[n:]
			}
			if diff := cmp.Diff(test.want, r.Problems()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("what ran", func(t *testing.T) {
		r := NewReport(oneJob)
		io.WriteString(r, said(good...))
		for test, want := range map[string]bool{"TestFlow": true, "TestFlow/sub": true, "TestNo": false} {
			if got := r.Ran("odp/ovs", test); got != want {
				t.Errorf("%s ran: %t, want %t", test, got, want)
			}
		}
		if r.Ran("odp/cage", "TestFlow") {
			t.Error("a test of another package is said to have run")
		}
		if got := string(r.Files["figures.txt"]); got != "hello" {
			t.Errorf("file: %q", got)
		}
	})
}

func TestParseList(t *testing.T) {
	reqs, err := ParseList(strings.NewReader(`
# comment
all: ./odp/ovs
without wireguard,openvswitch: ./internal/e2e/fastdp -run No -short # why
---
all: ./odp/cage
`))
	want := []Request{
		{Package: "./odp/ovs", Flags: []string{}},
		{Package: "./internal/e2e/fastdp", Flags: []string{"-run", "No", "-short"}, Without: []string{"openvswitch", "wireguard"}},
		{Package: "./odp/cage", Flags: []string{}, Machine: 1},
	}
	if diff := cmp.Diff(want, reqs); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	var runs []Run
	for _, r := range reqs {
		runs = append(runs, Run{Name: r.Package})
	}
	groups := []Group{
		{Without: []string{"openvswitch", "wireguard"}, Runs: runs[1:2]},
		{Runs: []Run{runs[0], runs[2]}},
	}
	if diff := cmp.Diff(groups, Groups(reqs, runs)); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"all:", "some: ./odp", "./odp/ovs"} {
		if got, err := ParseList(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
