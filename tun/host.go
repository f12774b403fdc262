package tun

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// host is what Open wants of the operating system. Tests give it one that lacks
// features.
type host interface {
	open() (fd int, err error)                                    // /dev/net/tun, non-blocking
	attach(fd int, name string, flags uint16) (string, error)     // TUNSETIFF; returns the interface's name
	setHeaderSize(fd, n int) error                                // TUNSETVNETHDRSZ
	setOffload(fd, flags int) error                               // TUNSETOFFLOAD
	disableIPv6(name string) error                                // on the interface, for good
	linkUp(name string, mtu, queueLen int) (index int, err error) // 0 leaves the kernel's default
	write(fd int, b []byte) error
	close(fd int)
	release() string // of the kernel
}

// linux is the host as it is. Its methods act in the calling thread's network
// namespace.
type linux struct{}

func (linux) open() (int, error) {
	return unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

func (linux) attach(fd int, name string, flags uint16) (string, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return "", err
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return "", err
	}
	return req.Name(), nil
}

func (linux) setHeaderSize(fd, n int) error {
	return unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, n)
}

func (linux) setOffload(fd, flags int) error {
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags)
}

func (linux) disableIPv6(name string) error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
}

func (linux) linkUp(name string, mtu, queueLen int) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if mtu > 0 {
		req.SetUint32(uint32(mtu))
		if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, req); err != nil {
			return 0, fmt.Errorf("setting MTU %d: %w", mtu, err)
		}
	}
	if queueLen > 0 {
		req.SetUint32(uint32(queueLen))
		if err := unix.IoctlIfreq(s, unix.SIOCSIFTXQLEN, req); err != nil {
			return 0, fmt.Errorf("setting queue length %d: %w", queueLen, err)
		}
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("looking up the index: %w", err)
	}
	index := int(req.Uint32())
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, req); err != nil {
		return 0, fmt.Errorf("reading flags: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return 0, fmt.Errorf("setting it up: %w", err)
	}
	return index, nil
}

func (linux) write(fd int, b []byte) error {
	_, err := unix.Write(fd, b)
	return err
}

func (linux) close(fd int) { unix.Close(fd) }

func (linux) release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
