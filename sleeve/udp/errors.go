package udp

import (
	"errors"

	"golang.org/x/sys/unix"
)

var (
	// ErrPortInUse is returned by Listen, wrapped with the port, when any other
	// socket of the network namespace holds the port.
	ErrPortInUse = errors.New("udp port is in use")

	// ErrTooBig says that datagrams were larger than the MTU of the interface they
	// would leave by, and were dropped. Smaller ones of the same call were sent.
	ErrTooBig = errors.New("datagram exceeds the interface MTU")

	// ErrCongested says that the socket buffer stayed full for 100 ms; what was
	// left of the call was dropped.
	ErrCongested = errors.New("socket buffer full")

	// ErrUnreachable says that this host has no way to the destination (no route,
	// interface down, firewall, address family not there); what was left of the
	// call was dropped.
	ErrUnreachable = errors.New("destination unreachable from this host")

	// ErrSource says that there is no route from the endpoint's source address, most
	// often because it is no longer an address of this host; what was left of the
	// call was dropped. An endpoint without source lets the kernel choose.
	ErrSource = errors.New("source address does not work")

	// ErrRejected says that the kernel refused the message for another reason.
	ErrRejected = errors.New("message rejected by the kernel")

	// ErrWouldBlock is returned by Recv when nothing is queued.
	ErrWouldBlock = errors.New("no datagram queued")

	// ErrClosed is returned by operations on a closed socket.
	ErrClosed = errors.New("udp socket is closed")
)

// isFull holds for the errors that go away when the queues drain.
func isFull(e unix.Errno) bool {
	return e == unix.EAGAIN || e == unix.ENOBUFS || e == unix.ENOMEM
}

// isStale holds for errors that tell of an earlier datagram, or of a signal: the
// call did nothing, and the next one may work. Sockets without IP_RECVERR are
// told of ICMP errors only when connected (net/ipv4/udp.c, udp_err), so this is a
// belt to those braces.
func isStale(e unix.Errno) bool {
	return e == unix.EINTR || e == unix.ECONNREFUSED || e == unix.EPROTO || e == unix.ENOPROTOOPT
}

// refusesTrain holds for errors that a train can get where plain datagrams do
// not (net/ipv4/udp.c, udp_send_skb): EIO for a route through xfrm, or a device
// without checksum offload on older kernels; EINVAL, on newer ones EMSGSIZE, for a
// segment above the MTU; EINVAL for too many segments.
func refusesTrain(e unix.Errno) bool {
	return e == unix.EIO || e == unix.EMSGSIZE || e == unix.EINVAL
}

// sendError names the errno of a plain send. hasSource says that the message
// carried a source address. One that is not local gives EINVAL or, on newer kernels
// for IPv4, ENETUNREACH, just as a missing route does.
func sendError(e unix.Errno, hasSource bool) error {
	switch e {
	case unix.EINVAL, unix.EADDRNOTAVAIL, unix.ENETUNREACH:
		if hasSource {
			return ErrSource
		}
		if e == unix.ENETUNREACH {
			return ErrUnreachable
		}
	case unix.EMSGSIZE:
		return ErrTooBig
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return ErrCongested
	case unix.EPERM, unix.EACCES, unix.EHOSTUNREACH, unix.ENETDOWN,
		unix.EHOSTDOWN, unix.ENODEV, unix.ENONET, unix.EAFNOSUPPORT, unix.ECONNREFUSED:
		return ErrUnreachable
	case unix.EBADF, unix.ENOTSOCK:
		return ErrClosed
	}
	return ErrRejected
}
