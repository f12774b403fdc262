// Package hostnet makes and mends what weave needs of the host's network: the
// bridge, its ports, the containers' interfaces and addresses, and the entries of
// the bridge's forwarding table (FDB). Everything is done over netlink, in the
// network namespace of a [Host], and is found again by looking at the kernel: the
// package keeps no state of its own, so a restarted daemon, or one that meets the
// remains of a crash, sees what is there.
//
// # What it leaves in the kernel
//
//	weave               the bridge; STP, multicast snooping and VLANs off
//	vethwepl*           a container's host end; its ifalias "weave REF" records the
//	                    container as the user named it. The alias is written last:
//	                    a veth without one is half made, and [Host.Repair] removes it.
//	ethwe               the container's end, in its namespace
//	extern_learn        FDB entries of remote MACs, on the router's ports
//	ip weave, ip6 weave nftables tables with the rules of an exposed host: rules.go
//
// Offloads stay on everywhere. The container's end has the largest gso_max_size that
// needs no segmenting on the way (64 KiB): the kernel path costs per superframe, and
// user space, which needs two sends for such a one, loses nothing by it. The router's
// TAP must never get a smaller one, because the bridge would then segment in software
// what it forwards to the TAP.
//
// # Concurrency
//
// All methods of a Host may be called from any goroutine; those that change links
// or addresses run one at a time. [FDB.Watch] and [Host.WatchLink] block until
// their context ends. No call needs a particular OS thread: see the package ns.
//
// # Errors
//
// Those a caller may want to tell apart are listed in errors.go. An error means
// that nothing of what was asked for is left behind.
package hostnet

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
)

// netlinkTimeout bounds each request to the kernel.
const netlinkTimeout = 10 * time.Second

// Host is the network namespace that the bridge lives in.
type Host struct {
	*space
	mu sync.Mutex // held by calls that change links or addresses
}

// Open returns the Host of the calling thread's network namespace, which for a
// daemon is that of the process.
func Open() (*Host, error) { return OpenAt("/proc/thread-self/ns/net") }

// OpenAt returns the Host of the namespace that the file at path stands for, such
// as /run/netns/NAME.
func OpenAt(path string) (*Host, error) {
	s, err := openSpace(path)
	if err != nil {
		return nil, hint(err)
	}
	return &Host{space: s}, nil
}

// Close frees the Host's descriptors. What it made in the kernel stays. Watches
// must have ended.
func (h *Host) Close() error {
	h.space.close()
	return nil
}

// space is an open network namespace with netlink sockets inside.
type space struct {
	file *os.File
	id   nsID
	nl   *netlink.Handle
	raw  map[int]*nl.SocketHandle // for the requests that netlink.Handle lacks
}

// nsID is the identity of a namespace: the inode of its file in nsfs.
type nsID struct{ dev, ino uint64 }

// openSpace opens the namespace at path. Its error wraps ErrNoNamespace if there
// is none.
func openSpace(path string) (*space, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("opening network namespace: %w: run as root", err)
		}
		return nil, fmt.Errorf("%s: %w", path, ErrNoNamespace)
	}
	s := &space{file: f}
	if err := s.open(path); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) open(path string) error {
	// A directory or plain file answers ENOTTY. NS_GET_NSTYPE is in linux/nsfs.h.
	typ, err := unix.IoctlRetInt(s.fd(), unix.NS_GET_NSTYPE)
	if err != nil || typ != unix.CLONE_NEWNET {
		return fmt.Errorf("%s is not a network namespace: %w", path, ErrNoNamespace)
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd(), &st); err != nil {
		return fmt.Errorf("identifying network namespace %s: %w", path, err)
	}
	s.id = nsID{uint64(st.Dev), st.Ino}
	return s.do(func() (err error) {
		if s.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("opening netlink: %w", err)
		}
		if err = s.nl.SetSocketTimeout(netlinkTimeout); err != nil {
			return fmt.Errorf("setting netlink timeout: %w", err)
		}
		s.raw, err = openRaw()
		return err
	})
}

func (s *space) fd() int { return int(s.file.Fd()) }

// do runs fn on a thread inside the namespace.
func (s *space) do(fn func() error) error { return ns.Do(s.fd(), fn) }

func (s *space) close() {
	if s.nl != nil {
		s.nl.Close()
	}
	for _, sh := range s.raw {
		sh.Close()
	}
	s.file.Close()
}
