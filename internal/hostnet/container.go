package hostnet

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// maxRef keeps a reference, with its prefix, within an ifalias (IFALIASZ, 256
// bytes with the terminating zero).
const maxRef = 255 - len(aliasPrefix)

// netnsDir is where `ip netns add` keeps names.
const netnsDir = "/run/netns"

// Container refers to a network namespace the way a user does. It is a comparable
// value; parsing one does not look whether it exists.
type Container struct{ ref, path string }

// ParseContainer reads "netns:NAME", "netns:/path" or "pid:N". Anything else is an
// error that wraps ErrContainerName.
func ParseContainer(s string) (Container, error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case len(s) > maxRef:
		return Container{}, fmt.Errorf("reference of %d bytes is too long (limit %d): %w", len(s), maxRef, ErrContainerName)
	case !printable(s):
		return Container{}, fmt.Errorf("%q has a blank or a control character: %w", s, ErrContainerName)
	case !ok && s != "":
		return Container{}, fmt.Errorf("%q: names of Docker containers are not supported yet: %w", s, ErrContainerName)
	case kind == "netns" && filepath.IsAbs(rest):
		return Container{s, rest}, nil
	case kind == "netns" && rest != "" && rest != "." && rest != ".." && !strings.Contains(rest, "/"):
		return Container{s, filepath.Join(netnsDir, rest)}, nil
	case kind == "pid":
		if pid, err := strconv.ParseUint(rest, 10, 31); err == nil && pid > 0 {
			return Container{s, fmt.Sprintf("/proc/%d/ns/net", pid)}, nil
		}
	}
	return Container{}, fmt.Errorf("%q: %w", s, ErrContainerName)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// String returns the reference as it was given.
func (c Container) String() string { return c.ref }

// enter opens the container's namespace and refuses the host's own.
func (h *Host) enter(c Container) (*space, error) {
	if c.path == "" {
		return nil, fmt.Errorf("empty reference: %w", ErrContainerName)
	}
	s, err := openSpace(c.path)
	if errors.Is(err, ErrNoNamespace) {
		return nil, fmt.Errorf("%s: %w", c, ErrNoNamespace)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	if s.id == h.id {
		s.close()
		return nil, fmt.Errorf("%s: %w: attach needs a container's", c, ErrHostNamespace)
	}
	return s, nil
}
