package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/rawio"
)

// LinkState is what a link looks like. The zero LinkState is a link that does not
// exist.
type LinkState struct {
	Index  int
	MTU    int
	Master int // ifindex of the bridge it is a port of; 0: none
	MAC    ether.MAC
	Up     bool // administratively; says nothing of the carrier
}

// WatchLink calls fn with the state of the link of that name now and after every
// change, until ctx ends, and returns ctx's error or the one that made watching
// impossible. fn runs on the caller's goroutine; several changes in quick
// succession may be one call. A bridge that was deleted and made again has a new
// Index.
func (h *Host) WatchLink(ctx context.Context, name string, fn func(LinkState)) error {
	l, err := h.listen(unix.RTNLGRP_LINK)
	if err != nil {
		return hint(err)
	}
	defer l.close()
	last, err := h.linkState(name)
	if err != nil {
		return err
	}
	fn(last)
	look := func() error {
		now, err := h.linkState(name)
		if err == nil && now != last {
			last = now
			fn(now)
		}
		return err
	}
	return l.run(ctx, func(msgs []syscall.NetlinkMessage) error {
		for _, m := range msgs {
			if index, ifname, ok := linkOf(m); ok && (ifname == name || index == last.Index) {
				return look()
			}
		}
		return nil
	}, look)
}

func (h *Host) linkState(name string) (LinkState, error) {
	link, err := h.nl.LinkByName(name)
	if isGone(err) {
		return LinkState{}, nil
	}
	if err != nil {
		return LinkState{}, fmt.Errorf("looking at %s: %w", name, err)
	}
	a := link.Attrs()
	return LinkState{Index: a.Index, MTU: a.MTU, Master: a.MasterIndex, MAC: macOf(a.HardwareAddr), Up: a.Flags&net.FlagUp != 0}, nil
}

func macOf(b net.HardwareAddr) (m ether.MAC) {
	copy(m[:], b)
	return m
}

// linkOf says which link a message is about. Messages on a link's role as bridge
// port are left out.
func linkOf(m syscall.NetlinkMessage) (index int, name string, ok bool) {
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
		return 0, "", false
	}
	if len(m.Data) < unix.SizeofIfInfomsg {
		return 0, "", false
	}
	info := nl.DeserializeIfInfomsg(m.Data)
	attrs, err := attributes(m.Data[unix.SizeofIfInfomsg:])
	if err != nil || info.Family != unix.AF_UNSPEC {
		return 0, "", false
	}
	return int(info.Index), unix.ByteSliceToString(attrs[unix.IFLA_IFNAME]), true
}

// listener receives netlink notifications of a namespace.
type listener struct {
	fd   int
	poll *rawio.Poller
}

// listenBuf is the receive buffer asked for: some ten thousand notifications.
const listenBuf = 4 << 20

func (s *space) listen(groups ...int) (*listener, error) {
	return s.listenTo(unix.NETLINK_ROUTE, groups...)
}

func (s *space) listenTo(protocol int, groups ...int) (*listener, error) {
	l := &listener{fd: -1}
	err := s.do(func() (err error) {
		l.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	if unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, listenBuf) != nil {
		unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, listenBuf)
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		addr.Groups |= 1 << (g - 1)
	}
	if err = unix.Bind(l.fd, addr); err == nil {
		l.poll, err = rawio.NewPoller(l.fd)
	}
	if err != nil {
		unix.Close(l.fd)
		return nil, fmt.Errorf("subscribing to netlink: %w", err)
	}
	return l, nil
}

func (l *listener) close() {
	l.poll.Close()
	unix.Close(l.fd)
}

// run calls handle with each batch of notifications, and resync when some were
// lost, until ctx ends or either of them fails.
func (l *listener) run(ctx context.Context, handle func([]syscall.NetlinkMessage) error, resync func() error) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.poll.Wake()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // the poller is about to be closed
		}
	}()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if err := l.drain(ctx, buf, handle, resync); err != nil {
			return err
		}
		if _, err := l.poll.Wait(-1); err != nil {
			return fmt.Errorf("waiting for netlink: %w", err)
		}
	}
	return ctx.Err()
}

// drain handles what is queued. What follows a loss is handled before resync,
// which looks at the present.
func (l *listener) drain(ctx context.Context, buf []byte, handle func([]syscall.NetlinkMessage) error, resync func() error) error {
	lost := false
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(l.fd, buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if lost {
				return resync()
			}
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			continue
		case err != nil:
			return fmt.Errorf("reading netlink: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:min(n, len(buf))])
		if err != nil || n > len(buf) {
			lost = true
			continue
		}
		if err := handle(msgs); err != nil {
			return err
		}
	}
	return nil
}

// dumpFDB lists the FDB entries of all bridges.
func (s *space) dumpFDB() ([]netlink.Neigh, error) {
	for try := 0; ; try++ {
		list, err := s.nl.NeighList(0, unix.AF_BRIDGE)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		return list, err
	}
}
