package udp

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments is the longest train. Linux 6.9 allows 128, but a train that
	// leaves a virtual machine whole must pass the host's kernel too, and an older
	// one drops what is longer than 64 without a word (linux/virtio_net.h,
	// virtio_net_hdr_to_skb). Receivers rejoin 64 at most anyway.
	maxSegments = 64

	// maxTrain is the largest train in bytes: an IPv4 packet of 65535 bytes.
	maxTrain = 65535 - 20 - 8
)

// probeSegments returns the number of datagrams a train may have: 64, or 63 on
// kernels that count the UDP header too, or 1 if fd knows no UDP_SEGMENT (before
// Linux 4.18). It asks by sending to itself over the loopback device; where that
// tells nothing the careful answer is 63.
func probeSegments(fd int) int {
	if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		return 1
	}
	probe, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return maxSegments - 1
	}
	defer unix.Close(probe)
	if err := unix.Bind(probe, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return maxSegments - 1
	}
	self, err := unix.Getsockname(probe)
	if err != nil {
		return maxSegments - 1
	}
	// Segments must not be shorter than a UDP header for the header to count as one.
	const segment = 16
	var ctl [segmentCtl]byte
	putCmsg(ctl[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(ctl[cmsgHdr:], segment)
	if unix.Sendmsg(probe, make([]byte, maxSegments*segment), ctl[:], self, 0) == nil {
		return maxSegments
	}
	return maxSegments - 1
}

// kernelRelease returns uname -r, empty if unknown.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// needsFiller reports whether a kernel has the tail bug of the package comment:
// 7.0 to 7.1.4. Distributions that took the fix into such a version lose nothing but
// the filler's few bytes.
func needsFiller(release string) bool {
	v := parseRelease(release)
	return v[0] == 7 && (v[1] == 0 || v[1] == 1 && v[2] <= 4)
}

// parseRelease reads "7.1.4-rc2+deb" as 7, 1, 4; what is missing is 0.
func parseRelease(release string) (v [3]int) {
	for i := range v {
		end := strings.IndexFunc(release, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(release)
		}
		v[i], _ = strconv.Atoi(release[:end])
		if end == len(release) || release[end] != '.' {
			break
		}
		release = release[end+1:]
	}
	return v
}
