package hostnet_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"weave/internal/hostnet"
)

// helperEnv makes the test binary open the Host and say what came of it.
const helperEnv = "HOSTNET_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		_, err := hostnet.Open()
		fmt.Println(errors.Is(err, os.ErrPermission), err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestOpenWithoutRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give it up")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, "true ") || !strings.Contains(got, "run as root") {
		t.Errorf("got %q, want a permission error that says what to do", got)
	}
}
