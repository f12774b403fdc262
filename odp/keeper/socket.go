package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
	"weave/odp"
	"weave/odp/proof"
)

// probeSock is the packet socket of a device.
type probeSock struct {
	f    *os.File
	dead atomic.Bool // the device went away
}

// maxFrame is room for any frame of a device.
const maxFrame = 1<<16 + 64

// openProbe opens a socket that sends on the device and receives heartbeats. All
// ethertypes are asked for, since the bridge takes frames before those who ask for
// one of them; the filter runs before anything is copied. mu is held.
func (k *Keeper) openProbe(index int) (*probeSock, error) {
	var fd int
	err := ns.Do(k.host.FD(), func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := armProbe(fd, index); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &probeSock{f: os.NewFile(uintptr(fd), "heartbeats")}
	if ctx, sink := k.running, k.sink; sink != nil {
		k.readers.Go(func() { k.receive(ctx, sink, s) })
	} else {
		s.dead.Store(true) // opened again when there is somebody to receive
	}
	return s, nil
}

func armProbe(fd, index int) error {
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: proof.EtherType, SkipFalse: 1},
		bpf.RetConstant{Val: maxFrame},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	raw := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		raw[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}); err != nil {
		return fmt.Errorf("attaching filter: %w", err)
	}
	// Without it each frame that is sent would be cloned for us.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("ignoring outgoing frames: %w", err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
	return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: all})
}

// receive hands heartbeats on until the socket is closed or its device gone.
func (k *Keeper) receive(ctx context.Context, sink odp.Sink, s *probeSock) {
	buf := make([]byte, maxFrame)
	for {
		n, err := s.f.Read(buf)
		if err != nil {
			s.dead.Store(true)
			if ctx.Err() == nil && !errors.Is(err, os.ErrClosed) {
				k.Wake()
			}
			return
		}
		sink.Probe(buf[:n])
	}
}

// subscribe opens a netlink socket for notifications.
func (h *Host) subscribe(proto, groups int) (*os.File, error) {
	var fd int
	err := ns.Do(h.FD(), func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribing to netlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "notifications"), nil
}

// listen wakes Run at each notification, whatever it says: looking is cheap, and
// lost notifications (ENOBUFS) mean the same.
func (k *Keeper) listen(ctx context.Context, f *os.File) {
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if _, err := f.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return
		}
		k.Wake()
		select { // a storm of changes is looked at now and then
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
	}
}
