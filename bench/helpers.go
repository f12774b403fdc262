package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The bench starts itself inside namespaces for the traffic that common tools
// measure badly: iperf3's UDP sender makes one system call per packet, ping(8)
// rounds. The first argument says which helper it is to be.
const (
	helperSink  = "_sink"
	helperFlood = "_flood"
	helperPing  = "_ping"

	helperWireguard = "_wireguard"
)

var helpers = map[string]func(args []string) error{
	helperSink: runSink, helperFlood: runFlood, helperPing: runPing,
	helperWireguard: runWireguard,
}

const (
	floodPort = 5301
	batch     = 64 // datagrams per system call
	sinkReady = "ready\n"
)

// mmsghdr is the kernel's (include/linux/socket.h):
//
//	struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
type mmsghdr struct {
	hdr unix.Msghdr
	_   uint32 // msg_len: nobody looks
	_   [4]byte
}

// newBatch makes a batch of messages that share one buffer: nobody looks at what
// is in them.
func newBatch(buf []byte) *[batch]mmsghdr {
	iov := &unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	var msgs [batch]mmsghdr
	for i := range msgs {
		msgs[i].hdr.Iov = iov
		msgs[i].hdr.SetIovlen(1)
	}
	return &msgs
}

// mmsg is sendmmsg or recvmmsg with n messages; it returns how many it did.
func mmsg(trap uintptr, fd int, msgs *[batch]mmsghdr, n, flags int) (int, error) {
	done, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(msgs)), uintptr(n), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil
}

// sinkReport is what the receiver of a flood counted.
type sinkReport struct {
	Received int64   `json:"received"`
	Seconds  float64 `json:"seconds"` // from the first arrival to the last
}

// runSink receives until its standard input ends and the queues have drained.
func runSink([]string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	wake := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wake); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: floodPort}); err != nil {
		return err
	}
	var ended atomic.Bool
	go func() {
		os.Stdin.Read(make([]byte, 1)) // blocks until the bench closes it
		ended.Store(true)
	}()
	os.Stdout.WriteString(sinkReady)

	runtime.LockOSThread()
	msgs := newBatch(make([]byte, 2048))
	var r sinkReport
	var first, last time.Time
	for quiet := 0; quiet < 2; {
		n, err := mmsg(unix.SYS_RECVMMSG, fd, msgs, batch, unix.MSG_WAITFORONE)
		switch {
		case err == unix.EAGAIN && ended.Load():
			quiet++
		case err == unix.EAGAIN, err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("recvmmsg: %w", err)
		default:
			last = time.Now()
			if r.Received == 0 {
				first = last
			}
			r.Received += int64(n)
		}
	}
	r.Seconds = last.Sub(first).Seconds()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// flooderReport is what the sender of a flood counted.
type flooderReport struct {
	Sent    int64   `json:"sent"`
	Refused int64   `json:"refused"` // system calls that failed
	Seconds float64 `json:"seconds"`
}

// runFlood sends datagrams: ADDRESS PAYLOAD RATE DURATION, rate 0 is no limit.
func runFlood(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s: want 4 arguments", helperFlood)
	}
	addr, err1 := netip.ParseAddr(args[0])
	payload, err2 := strconv.Atoi(args[1])
	rate, err3 := strconv.Atoi(args[2])
	d, err4 := time.ParseDuration(args[3])
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return err
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: floodPort, Addr: addr.As4()}); err != nil {
		return err
	}
	runtime.LockOSThread()
	msgs := newBatch(make([]byte, payload))
	var r flooderReport
	began := time.Now()
	for {
		elapsed := time.Since(began)
		if elapsed >= d {
			r.Seconds = elapsed.Seconds()
			return json.NewEncoder(os.Stdout).Encode(r)
		}
		n := allowance(rate, elapsed, r.Sent)
		if n == 0 {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		sent, err := mmsg(unix.SYS_SENDMMSG, fd, msgs, n, 0)
		if err != nil {
			r.Refused++
		}
		r.Sent += int64(sent)
	}
}

// allowance says how many datagrams, up to a batch, a sender of rate per second
// may send now, when it has sent some in the time that has elapsed.
func allowance(rate int, elapsed time.Duration, sent int64) int {
	if rate == 0 {
		return batch
	}
	due := int64(float64(rate)*elapsed.Seconds()) - sent
	return int(max(0, min(due, batch)))
}

// pingInterval is the time between two echo requests.
const pingInterval = 10 * time.Millisecond

// pingReport has the round trip times that were measured.
type pingReport struct {
	Micros []float64 `json:"rtt_us"`
}

// runPing sends echo requests: ADDRESS COUNT. The time of arrival is the kernel's,
// as in ping(8), so that a busy processor that wakes this program late does not
// count; the answer is the far kernel's.
func runPing(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%s: want 2 arguments", helperPing)
	}
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	wait := unix.NsecToTimeval(time.Second.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	runtime.LockOSThread()
	var r pingReport
	id := uint16(os.Getpid())
	next := time.Now()
	for seq := range count {
		time.Sleep(time.Until(next))
		next = time.Now().Add(pingInterval) // no catching up after a slow reply
		rtt, err := echo(fd, addr, id, uint16(seq))
		if err != nil {
			continue // lost: the report is one shorter
		}
		r.Micros = append(r.Micros, float64(rtt.Nanoseconds())/1e3)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// echo sends one request and waits for its reply, a second at most.
func echo(fd int, addr netip.Addr, id, seq uint16) (time.Duration, error) {
	request := echoRequest(id, seq)
	sent := time.Now()
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		return 0, err
	}
	var packet [1500]byte
	var oob [64]byte
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, packet[:], oob[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if !isReply(packet[:n], id, seq) {
			continue
		}
		at, err := arrival(oob[:oobn])
		return at.Sub(sent.Round(0)), err // both by the wall clock
	}
}

// echoRequest is an ICMP echo request with 56 bytes of data, as ping(8) sends.
func echoRequest(id, seq uint16) []byte {
	b := make([]byte, 8+56)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// isReply reports whether an IPv4 packet is the echo reply with these numbers.
func isReply(packet []byte, id, seq uint16) bool {
	if len(packet) < 20 {
		return false
	}
	header := int(packet[0]&0x0f) * 4
	if header < 20 || len(packet) < header+8 {
		return false
	}
	icmp := packet[header:]
	return icmp[0] == 0 && binary.BigEndian.Uint16(icmp[4:]) == id && binary.BigEndian.Uint16(icmp[6:]) == seq
}

// arrival reads the kernel's time stamp.
func arrival(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(ts.Unix()), nil
		}
	}
	return time.Time{}, fmt.Errorf("no time stamp")
}
