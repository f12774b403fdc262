package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// congestionControls reads a comma list. The first must be there: what a kernel uses
// by default differs, and figures by it would be of nothing in particular. Others
// that the kernel lacks are left out.
func congestionControls(list string, try func(name string) error) ([]string, error) {
	var names []string
	for i, name := range strings.Split(list, ",") {
		switch err := try(name); {
		case err == nil:
			names = append(names, name)
		case i == 0:
			return nil, fmt.Errorf("-congestion %q: the kernel does not take it: %w", name, err)
		}
	}
	return names, nil
}

// setCongestion tries a congestion control on a socket: the kernel then loads its
// module, if root asks.
func setCongestion(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
}
