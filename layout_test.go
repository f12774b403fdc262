package weave

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// leaves may be imported by every package: nouns and contracts.
var leaves = []string{
	"internal/peer", "internal/ether", "internal/rawio", "crypto/policy",
	"mesh/overlay", "mesh/gossip",
}

// allowed says, for a tree of packages, which other trees its non-test code may
// import besides the leaves and itself. A tree that is not listed may import the
// leaves only. "a < b" in ARCHITECTURE.md's graph is a line here.
var allowed = map[string][]string{
	"internal/peer":    {},
	"internal/ether":   {},
	"internal/rawio":   {},
	"crypto":           {},
	"tun":              {},
	"sleeve":           {"crypto/session"},
	"odp":              {"crypto/session", "internal/hostnet/ns"},
	"mesh":             {"crypto/handshake", "crypto/session"},
	"mesh/overlay":     {"crypto/session"},
	"mesh/gossip":      {},
	"ipam":             {},
	"nameserver":       {},
	"internal/forward": {},
	"internal/hostnet": {},
	"internal/store":   {},
	"internal/api":     {},
	"internal/daemon":  {"*"},
	"internal/testnet": {"*"},
	"internal/vm":      {},
	"internal/e2e":     {"*"},
	"plugin":           {"internal/api"},
	"bench":            {},
	"cmd/weave":        {"internal/api", "internal/store", "internal/daemon", "internal/hostnet", "crypto/session"},
}

// pure packages have no goroutine, socket, file or clock of their own.
var pure = []string{
	"internal/peer", "internal/ether", "mesh/topo", "mesh/gossip", "mesh/wire",
	"mesh/dial", "ipam/addr", "ipam/ring", "ipam/space", "ipam/paxos", "crypto/policy",
	"odp/proof", "odp/ovs/wire",
	"nameserver/registry",
}

// impure are imports that no pure package needs.
var impure = []string{"net", "os", "syscall", "golang.org/x/sys/unix", "net/http"}

type goPackage struct {
	dir     string
	imports map[string]bool // of non-test files
	doc     bool
}

func packages(t *testing.T) map[string]*goPackage {
	t.Helper()
	pkgs := map[string]*goPackage{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		p := pkgs[dir]
		if p == nil {
			p = &goPackage{dir: dir, imports: map[string]bool{}}
			pkgs[dir] = p
		}
		p.doc = p.doc || f.Doc != nil && len(f.Doc.Text()) > 40
		for _, i := range f.Imports {
			s, _ := strconv.Unquote(i.Path.Value)
			p.imports[s] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

func within(dir, tree string) bool { return dir == tree || strings.HasPrefix(dir, tree+"/") }

// rules returns the longest tree of allowed that holds dir.
func rules(dir string) (tree string, may []string, ok bool) {
	for t, m := range allowed {
		if within(dir, t) && len(t) >= len(tree) {
			tree, may, ok = t, m, true
		}
	}
	return tree, may, ok
}

func TestImports(t *testing.T) {
	for dir, p := range packages(t) {
		if dir == "." {
			continue
		}
		tree, may, ok := rules(dir)
		if !ok {
			t.Errorf("%s: not in the table of layout_test.go: decide what it may import", dir)
			continue
		}
		for imp := range p.imports {
			to, ours := strings.CutPrefix(imp, "weave/")
			if !ours || within(to, tree) || permitted(to, may) {
				continue
			}
			t.Errorf("%s imports %s: packages under %s may import %v and the leaves %v", dir, to, tree, may, leaves)
		}
	}
}

func permitted(to string, may []string) bool {
	for _, l := range leaves {
		if to == l {
			return true
		}
	}
	for _, m := range may {
		if m == "*" || within(to, m) {
			return true
		}
	}
	return false
}

func TestPurePackages(t *testing.T) {
	pkgs := packages(t)
	for _, dir := range pure {
		p := pkgs[dir]
		if p == nil {
			continue // not built yet
		}
		for _, i := range impure {
			if p.imports[i] {
				t.Errorf("%s is pure and imports %s", dir, i)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for dir, p := range packages(t) {
		if !p.doc {
			t.Errorf("%s: no package doc comment", dir)
		}
	}
}

// ARCHITECTURE.md names every package that is in the program.
func TestArchitectureIsComplete(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, layers, _ := strings.Cut(string(text), "| layer |")
	layers, _, _ = strings.Cut(layers, "\n\n")
	for dir := range packages(t) {
		parent, last := path.Split(dir)
		if dir == "." || strings.HasSuffix(dir, "test") || slices.ContainsFunc([]string{"bench", "demo", "crypto", "internal/e2e", "internal/testnet", "internal/vm", "nameserver/dnsbench"},
			func(tree string) bool { return dir == tree || tree != "crypto" && within(dir, tree) }) {
			continue // tools, tests, and a package that is all documentation
		}
		sibling := regexp.MustCompile("`" + parent + `\w+.*` + "`" + last + "`") // "`ipam/addr`, `ring`"
		if !strings.Contains(layers, "`"+dir+"`") && !sibling.MatchString(layers) {
			t.Errorf("%s: not in the table of layers", dir)
		}
	}
}
