package mesh_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestMain runs more labs side by side than there are processors: those of tests that
// are marked parallel are small, and wait most of the time. Afterwards it writes down
// what tests had to report, if it is told where.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "6")
	code := m.Run()
	if path := os.Getenv(soakResultEnv); path != "" && code == 0 {
		if err := os.WriteFile(path, []byte(strings.Join(results.text, "\n")), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// results are for the file of soakResultEnv.
var results struct {
	sync.Mutex
	text []string
}

// record logs what a long run found, and keeps it.
func record(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Log(text)
	results.Lock()
	defer results.Unlock()
	results.text = append(results.text, text+"\n")
}
