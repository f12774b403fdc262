package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpack reads an archive back: names with type, and what is in files and links.
func unpack(t *testing.T, b []byte) (out []string) {
	t.Helper()
	at := 0
	take := func(n int) []byte {
		if at+n > len(b) {
			t.Fatalf("the archive ends at %d of %d", len(b), at+n)
		}
		s := b[at : at+n]
		at += n
		return s
	}
	align := func() { take(-at & 3) }
	for {
		var f [13]uint32
		head := string(take(110))
		for i := range f {
			if _, err := fmt.Sscanf(head[6+8*i:14+8*i], "%08x", &f[i]); err != nil {
				t.Fatal(err)
			}
		}
		if head[:6] != "070701" {
			t.Fatalf("magic %q at %d", head[:6], at)
		}
		name := strings.TrimSuffix(string(take(int(f[11]))), "\x00")
		align()
		data := string(take(int(f[6])))
		align()
		if name == "TRAILER!!!" {
			return out
		}
		out = append(out, fmt.Sprintf("%o %s %s", f[1], name, data))
	}
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/tree/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(dir+"/tree/sub/x", []byte("odd"), 0o640)
	os.Symlink("sub/x", dir+"/tree/l")
	file := filepath.Join(dir, "initrd")
	m, err := Create(file)
	if err != nil {
		t.Fatal(err)
	}
	m.Data("/etc/hosts", "12345", 0o644)
	m.Dir("/etc")
	m.Data("/etc/hosts", "again", 0o644)
	m.Tree("/data", dir+"/tree")
	m.Tree("/none", dir+"/none")
	m.Link("/bin/sh", "dash")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"40755 etc ", "100644 etc/hosts 12345", "40755 data ", "120777 data/l sub/x",
		"40755 data/sub ", "100640 data/sub/x odd", "40755 bin ", "120777 bin/sh dash",
	}
	if diff := cmp.Diff(want, unpack(t, b)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	t.Run("missing file", func(t *testing.T) {
		m, err := Create(file)
		if err != nil {
			t.Fatal(err)
		}
		m.File("/x", dir+"/none")
		if err := m.Close(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}
