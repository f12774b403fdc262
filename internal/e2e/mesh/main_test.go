package mesh_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs more labs side by side than there are processors: those of tests that
// are marked parallel are small, and wait most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "6")
	os.Exit(m.Run())
}
