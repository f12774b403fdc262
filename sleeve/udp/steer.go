package udp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlLane is the lane whose datagrams go to socket 0 whatever the number of
// sockets.
const controlLane = 63

// steerProgram is the classic BPF program that picks one of n sockets. It sees the
// datagram from its first payload byte (net/core/sock_reuseport.c,
// run_bpf_filter); a load beyond the end returns 0.
func steerProgram(n int) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 1},                          // A = lane
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: controlLane, Jt: 0, Jf: 1}, // control?
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},                                        //   socket 0
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 31},                        // relay lanes follow their worker
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
}

// steer puts the program on the reuseport group that fd is in.
func steer(fd, n int) error {
	prog := steerProgram(n)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
		unix.SO_ATTACH_REUSEPORT_CBPF, uintptr(unsafe.Pointer(&fprog)), unsafe.Sizeof(fprog), 0)
	if e != 0 {
		return fmt.Errorf("attaching the steering program: %w", e)
	}
	return nil
}
