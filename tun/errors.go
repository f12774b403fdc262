package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Errors of Open that the user can do something about.
var (
	ErrNoDevice    = errors.New("no TAP devices here: load module tun or create /dev/net/tun")
	ErrPermission  = errors.New("no permission to make a TAP device: run as root or with CAP_NET_ADMIN")
	ErrBusy        = errors.New("an interface of this name exists: stop its owner or delete it")
	ErrUnsupported = errors.New("this kernel has no TAP device with virtio headers")
)

// ErrClosed is returned by Read and Write when the device is gone: closed, or
// deleted by somebody else.
var ErrClosed = errors.New("TAP device is gone")

// openError names the errno of opening /dev/net/tun.
func openError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("opening /dev/net/tun: %w (%w)", ErrNoDevice, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("opening /dev/net/tun: %w (%w)", ErrPermission, err)
	}
	return fmt.Errorf("opening /dev/net/tun: %w", err)
}

// attachError names the errno of TUNSETIFF (tun_set_iff in drivers/net/tun.c).
func attachError(name string, err error) error {
	reason := error(nil)
	switch {
	case errors.Is(err, unix.EBUSY):
		reason = ErrBusy
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		reason = ErrPermission
	case errors.Is(err, unix.EINVAL):
		reason = ErrUnsupported
	default:
		return fmt.Errorf("making TAP device %q: %w", name, err)
	}
	return fmt.Errorf("making TAP device %q: %w (%w)", name, reason, err)
}
