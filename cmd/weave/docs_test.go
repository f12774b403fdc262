package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weave/internal/api"
	"weave/internal/forward"
	"weave/sleeve"
	"weave/tun"
)

// documents are the pages that users read.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	pages := map[string]string{}
	for _, p := range append(paths, "../../README.md", "../../ARCHITECTURE.md") {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(p)] = string(text)
	}
	return pages
}

var (
	fence  = regexp.MustCompile("(?ms)^```.*?^```$")
	inline = regexp.MustCompile("`([^`]+)`")
	prompt = regexp.MustCompile(`^\S*[#$] `)
	splits = regexp.MustCompile(`&&|\|\||[|;()]`)
)

// commands finds the weave commands of a page: whole lines in blocks of code, which
// must be complete, and those in running text, which may leave arguments out.
func commands(page string) (complete, partial []string) {
	for _, block := range fence.FindAllString(page, -1) {
		for line := range strings.Lines(block) {
			line = prompt.ReplaceAllString(strings.TrimSpace(line), "")
			line, _, _ = strings.Cut(line, " #")
			for _, c := range splits.Split(line, -1) {
				if c = strings.TrimSpace(strings.TrimPrefix(c, "$")); strings.HasPrefix(c, "weave ") {
					complete = append(complete, c)
				}
			}
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		for _, c := range splits.Split(strings.Join(strings.Fields(m[1]), " "), -1) {
			if c = strings.TrimPrefix(strings.TrimSpace(c), "$"); strings.HasPrefix(c, "weave ") {
				partial = append(partial, c)
			}
		}
	}
	return complete, partial
}

// Every command in the documents is one that this program has, with flags that it has
// and, in blocks of code, arguments that it takes.
func TestDocumentedCommands(t *testing.T) {
	total := 0
	for page, text := range documents(t) {
		complete, partial := commands(text)
		total += len(complete) + len(partial)
		for i, line := range append(complete, partial...) {
			if err := tryCommand(line, i < len(complete)); err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	}
	if total < 50 {
		t.Errorf("%d commands were found: does the test still read the pages?", total)
	}
	for _, wrong := range []string{"weave lunch", "weave launch --no-such-flag", "weave status --check now", "weave dns-lookup", "weave launch --mtu"} {
		if tryCommand(wrong, true) == nil {
			t.Errorf("%s passes", wrong)
		}
	}
}

// tryCommand reads a command line as far as that goes without a daemon.
func tryCommand(line string, complete bool) error {
	var words []string
	for _, w := range strings.Fields(line)[1:] {
		switch {
		case w == "…": // and so on
		case w == "N":
			words = append(words, "1500")
		default:
			words = append(words, strings.Trim(w, `'"`))
		}
	}
	root := newApp().rootCommand()
	cmd, rest, err := root.Find(words)
	if err == nil && cmd == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		err = newApp().unknownVerb(root, rest[0])
	}
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if complete {
		return cmd.ValidateArgs(cmd.Flags().Args())
	}
	return nil
}

// visitFlags calls see with each flag of each command.
func visitFlags(c *cobra.Command, see func(*cobra.Command, *pflag.Flag)) {
	for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
		set.VisitAll(func(f *pflag.Flag) { see(c, f) })
	}
	for _, sub := range c.Commands() {
		visitFlags(sub, see)
	}
}

// Every flag that a page names by itself is one of ours.
func TestDocumentedFlags(t *testing.T) {
	flags := map[string]bool{"help": true, "version": true}
	visitFlags(newApp().rootCommand(), func(_ *cobra.Command, f *pflag.Flag) { flags[f.Name] = true })
	foreign := []string{"dns", "dns-search"} // docker run's
	flag := regexp.MustCompile(`^--([a-z][-a-z]*)`)
	for page, text := range documents(t) {
		for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if f := flag.FindStringSubmatch(m[1]); f != nil && !flags[f[1]] && !slices.Contains(foreign, f[1]) {
				t.Errorf("%s: %s is no flag", page, m[1])
			}
		}
	}
}

// sources is the text of the files that match, without tests.
func sources(t *testing.T, patterns ...string) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, p := range paths {
			if text, err := os.ReadFile(p); err == nil && !strings.HasSuffix(p, "_test.go") {
				all.Write(text)
			}
		}
	}
	return all.String()
}

// Every metric and environment variable that a page names is in the program.
func TestDocumentedNames(t *testing.T) {
	source := sources(t, "*.go", "../../internal/daemon/metrics*.go")
	metric, variable := regexp.MustCompile(`\bweave_([a-z][a-z_]*)`), regexp.MustCompile(`\bWEAVE_[A-Z_]+`)
	for page, text := range documents(t) {
		for _, m := range metric.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(source, `"`+m[1]+`"`) {
				t.Errorf("%s: there is no metric %s", page, m[0])
			}
		}
		for _, m := range variable.FindAllString(text, -1) {
			if !strings.Contains(source, m) && m != "WEAVE_SIM" { // of the mesh's simulation
				t.Errorf("%s: nobody reads %s", page, m)
			}
		}
	}
}

// The reference has every flag with its default, every metric with its labels, every
// exit status, state and reason.
func TestReferenceIsComplete(t *testing.T) {
	pages := documents(t)
	reference := pages["reference.md"]
	row := func(word string) string {
		for line := range strings.Lines(reference) {
			if strings.HasPrefix(line, "| ") && strings.Contains(line, "`"+word+"`") {
				return line
			}
		}
		t.Errorf("reference.md: no row with `%s`", word)
		return ""
	}
	visitFlags(newApp().rootCommand(), func(c *cobra.Command, f *pflag.Flag) {
		if f.Name == "help" || c.Hidden || c.HasParent() && c.Parent().Name() == "completion" { // cobra's own
			return
		}
		line := row("--" + f.Name)
		if c.Name() == "launch" && line != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "" && f.DefValue != "0" &&
			!strings.Contains(line, "| "+f.DefValue+" |") {
			t.Errorf("reference.md: --%s: the default is %s", f.Name, f.DefValue)
		}
		if _, env, ok := strings.Cut(f.Usage, "(env "); ok && !strings.Contains(line, "`"+strings.TrimSuffix(env, ")")+"`") {
			t.Errorf("reference.md: --%s: no %s", f.Name, env)
		}
	})
	metric, word := regexp.MustCompile(`desc\("([a-z_]+)", "[^"]*"((?:, "[a-z]+")*)\)`), regexp.MustCompile(`"([^"]+)"`)
	found := metric.FindAllStringSubmatch(sources(t, "../../internal/daemon/metrics*.go"), -1)
	for _, m := range found {
		line := row("weave_" + m[1])
		for _, label := range word.FindAllStringSubmatch(m[2], -1) {
			if !strings.Contains(line, "`"+label[1]+"`") {
				t.Errorf("reference.md: weave_%s has a label %s", m[1], label[1])
			}
		}
	}
	for code := range 11 {
		if !strings.Contains(reference, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("reference.md: no exit status %d", code)
		}
	}
	for _, s := range api.States {
		row(string(s))
	}
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "([^"]+)"`).FindAllStringSubmatch(sources(t, "../../mesh/reason.go"), -1)
	for _, r := range reasons {
		row(r[1])
	}
	for _, names := range [][]string{sleeve.DropReasons(), forward.DropReasons(), tun.DropReasons()} {
		for _, name := range names {
			row(name)
		}
	}
	paths := regexp.MustCompile(`(?m)^\tReason\w+ += "([^"]+)"`).FindAllStringSubmatch(sources(t, "../../odp/backend.go"), -1)
	for _, r := range paths {
		if !strings.Contains(pages["fastdp.md"], "`"+r[1]+"`") {
			t.Errorf("fastdp.md: no reason `%s`", r[1])
		}
		if api.Meaning(r[1]) == "" {
			t.Errorf("weave why has nothing to say of %s", r[1])
		}
	}
	if len(found) < 30 || len(reasons) < 20 || len(paths) < 20 {
		t.Errorf("%d metrics, %d and %d reasons were found: does the test still read the sources?", len(found), len(reasons), len(paths))
	}
}

// Every link of a page to a file leads somewhere.
func TestDocumentedLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for page, text := range documents(t) {
		dir := "../../docs"
		if page == "README.md" || page == "ARCHITECTURE.md" {
			dir = "../.."
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
