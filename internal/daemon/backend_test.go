package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/hostnet"
	"weave/internal/store"
	"weave/sleeve/udp"
	"weave/tun"
)

// Whatever keeps a daemon from starting, or a command from being done, has a code
// and says what to do.
func TestCoded(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code api.Code
		hint string
	}{
		{hostnet.ErrNoNamespace, api.CodeNotFound, "is the container running?"},
		{hostnet.ErrAddressInUse, api.CodeConflict, ""},
		{hostnet.ErrHostNamespace, api.CodeUsage, ""},
		{tun.ErrBusy, api.CodeConflict, "delete it"},
		{tun.ErrNoDevice, api.CodeKernelFeature, "load module tun"},
		{tun.ErrPermission, api.CodeFailure, "run as root"}, // never without its errno
		{fmt.Errorf("%w (%w)", tun.ErrPermission, unix.EPERM), api.CodePermission, "run as root"},
		{store.ErrLocked, api.CodeConflict, ""},
		{store.ErrUnsafeDir, api.CodePermission, ""},
		{udp.ErrPortInUse, api.CodeConflict, "choose another --port"},
		{os.NewSyscallError("bind", unix.EADDRINUSE), api.CodeConflict, "choose another --port"},
		{os.NewSyscallError("bind", unix.EADDRNOTAVAIL), api.CodeUsage, "--host"},
		{&os.PathError{Op: "write", Path: "weave.db", Err: unix.ENOSPC}, api.CodeFailure, "make room"},
		{&os.PathError{Op: "open", Path: "weave.db", Err: unix.EROFS}, api.CodeFailure, "another --state-dir"},
		{errors.New("something else"), api.CodeFailure, ""},
	} {
		err := coded(fmt.Errorf("doing it: %w", tt.err))
		if api.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.hint) || !errors.Is(err, tt.err) {
			t.Errorf("%v: got %v %q, want %v and %q", tt.err, api.CodeOf(err), err, tt.code, tt.hint)
		}
		if again := coded(err); again != err {
			t.Errorf("%v: coded twice: %v", tt.err, again)
		}
	}
	if coded(nil) != nil {
		t.Error("no error became one")
	}
}
