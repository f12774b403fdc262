package cage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
	"weave/odp/keeper"
)

// namespaceDir is where `ip netns` looks.
const namespaceDir = "/run/netns"

// place is the cage's network namespace, held by its name alone.
type place struct {
	path string
	host *keeper.Host
}

// placeOf names the cage of a host's namespace after it: several daemons on one machine
// have several.
func placeOf(host *keeper.Host) (place, error) {
	var st unix.Stat_t
	if err := unix.Fstat(host.FD(), &st); err != nil {
		return place{}, fmt.Errorf("looking at the network namespace: %w", err)
	}
	return place{filepath.Join(namespaceDir, fmt.Sprintf("weave-cage-%d", st.Ino)), host}, nil
}

// make makes the namespace where there is none.
func (p place) make() error {
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(p.path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.Close()
	th, err := ns.NewNamespace()
	if err != nil {
		return err
	}
	defer th.Close()
	err = th.Do(func() error {
		return unix.Mount("/proc/thread-self/ns/net", p.path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("naming the cage's network namespace: %w", err)
	}
	return nil
}

// remove removes the name, and with it the namespace; none is no error.
func (p place) remove() error {
	err := unix.Unmount(p.path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not a mount
		return fmt.Errorf("removing the cage's network namespace: %w", err)
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// do runs fn inside. An error that is os.ErrNotExist says that there is no cage.
func (p place) do(fn func() error) error {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return ns.Do(int(f.Fd()), fn)
}

// id is the cage's number as seen from the host, which the kernel gives it with the
// first device whose socket is there; negative: it has none.
func (p place) id() int {
	f, err := os.Open(p.path)
	if err != nil {
		return -1
	}
	defer f.Close()
	id, err := p.host.NL.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return -1
	}
	return id
}
