// Package tun is the router's port on the bridge: a TAP device whose queues give
// and take superframes.
//
// The one idea: every frame travels with a virtio_net_hdr, so that segmentation
// and checksums that a container's kernel left undone stay undone. One read is
// then up to 64 KiB of one flow, and one write gives the kernel as much.
//
// # Life of a frame
//
//	read    [Queue.Read]   read(2) of header and frame into a Superframe's buffer
//	write   [Queue.Write]  writev(2) of header and the pieces of a joined run;
//	                       cut into single frames if the kernel takes no more
//
// # Wire format
//
// struct virtio_net_hdr (include/uapi/linux/virtio_net.h), native byte order as
// long as neither TUNSETVNETLE nor TUNSETVNETBE was called:
//
//	0  flags        1 NEEDS_CSUM: csum_start and csum_offset hold; the rest is ignored
//	1  gso_type     ether.GSO, with 0x80 for ECN
//	2  hdr_len (2)  a hint, and on bridged frames not even that: never read
//	4  gso_size (2)
//	6  csum_start (2)   from the first byte of the frame, VLAN tags included
//	8  csum_offset (2)
//
// Rules of the kernel that Write keeps: GSO kinds need NEEDS_CSUM, csum_offset is
// 16 for TCP and 6 for UDP, and UDP has no ECN flag.
//
// # Concurrency
//
// A [Queue] has two owners, which may be two threads: one calls Read, one calls
// Write. Neither method blocks; who wants to wait polls [Queue.FD]. Everything
// else may be called from any goroutine. [Device.Close] comes last: when nobody is
// in Read or Write any more.
//
// # Errors
//
// [Open] returns the sentinels of errors.go, whose text says what to do. Read and
// Write return rawio.ErrWouldBlock and [ErrClosed] as they are, to be compared
// with ==. A frame that cannot be read or written is dropped and counted, and is
// no error.
package tun
