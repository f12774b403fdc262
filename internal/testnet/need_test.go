package testnet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"weave/internal/testnet"
)

// In the virtual machine all of these run; see scripts/vm-tests.txt.
func TestNeedModule(t *testing.T) {
	for _, name := range []string{"openvswitch", "wireguard", "vxlan", "dummy", "netem"} {
		t.Run(name, func(t *testing.T) { testnet.NeedModule(t, name) })
	}
}

func TestNeedNoModule(t *testing.T) {
	testnet.NeedNoModule(t, "openvswitch")
	testnet.NeedNoModule(t, "wireguard")
}

// What is skipped is noted for the machine to answer.
func TestSkippedIsNoted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skipped")
	t.Setenv(testnet.SkippedEnv, file)
	t.Run("has", func(t *testing.T) { testnet.NeedModule(t, "vxlan") })
	if text, err := os.ReadFile(file); err == nil {
		t.Errorf("a feature that is there was noted: %s", text)
	}
	rec := &skipRecorder{T: t}
	func() {
		defer func() { recover() }()
		testnet.NeedNoModule(rec, "vxlan")
	}()
	text, err := os.ReadFile(file)
	if want := "internal/testnet TestSkippedIsNoted vxlan\n"; err != nil || string(text) != want {
		t.Errorf("noted %q (%v), want %q", text, err, want)
	}
	if want := "needs a kernel without vxlan"; rec.reason != want {
		t.Errorf("skipped because %q, want %q", rec.reason, want)
	}
}

// skipRecorder panics where a test would be skipped.
type skipRecorder struct {
	*testing.T
	reason string
}

func (r *skipRecorder) Skipf(format string, args ...any) {
	r.reason = fmt.Sprintf(format, args...)
	panic("skipped")
}
