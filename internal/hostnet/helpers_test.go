package hostnet_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/hostnet"
	"weave/internal/testnet"
)

const bridge = "weave"

var (
	bridgeMAC = ether.MAC{2, 0, 0, 0, 0, 1}
	config    = hostnet.BridgeConfig{Name: bridge, MTU: 1376, MAC: bridgeMAC}
)

// world is a host in a namespace of its own.
type world struct {
	*testnet.Namespace
	lab  *testnet.Lab
	host *hostnet.Host
}

func newWorld(t *testing.T) *world {
	t.Helper()
	lab := testnet.New(t)
	w := &world{Namespace: lab.Namespace("host"), lab: lab}
	host, err := hostnet.OpenAt(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	w.host = host
	return w
}

// newBridged is a world with the bridge in it.
func newBridged(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	if _, err := w.host.EnsureBridge(config); err != nil {
		t.Fatal(err)
	}
	return w
}

// container makes a namespace and the reference to it.
func (w *world) container(t *testing.T, label string) (*testnet.Namespace, hostnet.Container) {
	t.Helper()
	n := w.lab.Namespace(label)
	return n, ref(t, n.Ref())
}

func ref(t *testing.T, s string) hostnet.Container {
	t.Helper()
	c, err := hostnet.ParseContainer(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// attach attaches with usual options.
func (w *world) attach(t *testing.T, c hostnet.Container, addrs ...string) hostnet.Attachment {
	t.Helper()
	att, err := w.host.Attach(t.Context(), bridge, c, prefixes(addrs...), hostnet.AttachOptions{})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	return att
}

func prefixes(text ...string) (out []netip.Prefix) {
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// link returns a link that must be there.
func link(t *testing.T, n *testnet.Namespace, name string) netlink.Link {
	t.Helper()
	l, err := n.NL.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s in %s: %v", name, n.Name, err)
	}
	return l
}

// links lists the names of a namespace's links but lo and the kernel's own.
func links(t *testing.T, n *testnet.Namespace) (out []string) {
	t.Helper()
	list, err := n.NL.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		switch l.Type() {
		case "bridge", "veth", "tuntap", "dummy":
			out = append(out, l.Attrs().Name)
		}
	}
	return out
}

// tap makes a TAP device and returns its descriptor, which keeps it alive.
func (w *world) tap(t *testing.T, name string) *os.File {
	t.Helper()
	var f *os.File
	err := w.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		f = os.NewFile(uintptr(fd), name)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		t.Fatalf("making a TAP: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// eventually waits until ok, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// sysctl reads a setting inside a namespace.
func sysctl(t *testing.T, n *testnet.Namespace, key string) string {
	t.Helper()
	var b []byte
	err := n.Do(func() (err error) {
		b, err = os.ReadFile("/proc/sys/" + key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func setSysctl(t *testing.T, n *testnet.Namespace, key, val string) {
	t.Helper()
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(val), 0) }); err != nil {
		t.Fatal(err)
	}
}

// openFDs counts this process's descriptors by what they are.
func openFDs(t *testing.T) map[string]int {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int)
	for _, e := range dir {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the descriptor of this very listing
		}
		kind, _, _ := strings.Cut(target, ":")
		out[kind]++
	}
	return out
}

func mac(last byte) ether.MAC { return ether.MAC{2, 0xaa, 0, 0, 0, last} }

// fdbLine returns the bridge's entry for a MAC as `bridge fdb` prints it.
func (w *world) fdbLine(t *testing.T, m ether.MAC) string {
	t.Helper()
	for line := range strings.Lines(w.Exec("bridge", "fdb", "show", "br", bridge)) {
		if strings.HasPrefix(line, m.String()+" ") && strings.Contains(line, "master") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// say sends a broadcast frame from m out of an interface in n.
func say(t *testing.T, n *testnet.Namespace, ifname string, m ether.MAC) {
	t.Helper()
	index := link(t, n, ifname).Attrs().Index
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := fmt.Appendf(nil, "%s%s\x88\xb5%46s", ether.Broadcast[:], m[:], "hello")
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ethtool asks for a setting of struct ethtool_value (linux/ethtool.h).
func ethtool(n *testnet.Namespace, ifname string, cmd uint32) (on bool, err error) {
	err = n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		value := struct{ cmd, data uint32 }{cmd: cmd}
		ifr := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(ifr.name[:], ifname)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
		if errno != 0 {
			return errno
		}
		on = value.data != 0
		return nil
	})
	return on, err
}

// fill enters n MACs on a port the way the bridge learns them, without ageing.
func (w *world) fill(macOf func(int) ether.MAC, n, port int) error {
	for i := range n {
		m := macOf(i)
		err := w.NL.NeighSet(&netlink.Neigh{
			LinkIndex: port, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP,
			Flags: netlink.NTF_MASTER, HardwareAddr: m[:],
		})
		if err != nil {
			return err
		}
	}
	return nil
}
