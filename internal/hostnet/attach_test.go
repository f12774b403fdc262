package hostnet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/hostnet"
	"weave/internal/testnet"
)

var byText = cmpopts.EquateComparable(netip.Prefix{})

func TestParseContainer(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"netns:web", true},
		{"netns:/proc/1/ns/net", true},
		{"netns:/run/netns/a b", false},
		{"pid:1", true},
		{"pid:0", false},
		{"pid:-1", false},
		{"pid:abc", false},
		{"pid:", false},
		{"pid:99999999999", false},
		{"netns:", false},
		{"netns:.", false},
		{"netns:..", false},
		{"netns:a/b", false},
		{"netns:../etc/passwd", false},
		{"netns:a\nb", false},
		{"netns:" + strings.Repeat("x", 300), false},
		{"web", false},
		{"docker:web", false},
		{"", false},
		{":", false},
	} {
		c, err := hostnet.ParseContainer(tt.in)
		if (err == nil) != tt.ok || (err != nil && !errors.Is(err, hostnet.ErrContainerName)) {
			t.Errorf("ParseContainer(%q) = %v, want ok %v", tt.in, err, tt.ok)
		}
		if err == nil && c.String() != tt.in {
			t.Errorf("ParseContainer(%q).String() = %q", tt.in, c)
		}
	}
	if _, err := hostnet.ParseContainer("web"); !strings.Contains(err.Error(), "netns:") || !strings.Contains(err.Error(), "Docker") {
		t.Errorf("error %q does not say what to do", err)
	}
}

func TestAttach(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	att := w.attach(t, c, "10.55.0.1/24", "fd55::1/64")

	in := link(t, n, "ethwe").Attrs()
	want := hostnet.Attachment{
		Container: n.Ref(),
		HostIf:    att.HostIf,
		IfName:    "ethwe",
		MAC:       ether.MAC(in.HardwareAddr),
		MTU:       1376,
		Addrs:     prefixes("10.55.0.1/24", "fd55::1/64"),
	}
	if diff := cmp.Diff(want, att, byText); diff != "" {
		t.Errorf("attachment (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(att.HostIf, "vethwepl") || len(att.HostIf) != unix.IFNAMSIZ-1 {
		t.Errorf("host interface is called %q", att.HostIf)
	}
	out := link(t, w.Namespace, att.HostIf).Attrs()
	if br := link(t, w.Namespace, bridge).Attrs(); out.MasterIndex != br.Index || out.Flags&net.FlagUp == 0 || out.MTU != 1376 {
		t.Errorf("host end is %+v", out)
	}
	if got := ether.MAC(link(t, w.Namespace, bridge).Attrs().HardwareAddr); got != bridgeMAC {
		t.Errorf("the bridge's MAC became %v", got)
	}
	if out.Alias != "weave "+n.Ref() {
		t.Errorf("alias is %q", out.Alias)
	}
	if in.MTU != 1376 || in.GSOMaxSize != 65536 || (in.GSOIPv4MaxSize != 0 && in.GSOIPv4MaxSize != 65536) {
		t.Errorf("container's end has MTU %d, gso_max_size %d, gso_ipv4_max_size %d", in.MTU, in.GSOMaxSize, in.GSOIPv4MaxSize)
	}
	if out.GSOMaxSize != 65536 {
		t.Errorf("host end has gso_max_size %d", out.GSOMaxSize)
	}
	if lo := link(t, n, "lo").Attrs(); lo.Flags&net.FlagUp == 0 {
		t.Error("lo is down")
	}
	if routes := n.Exec("ip", "-4", "route"); !strings.Contains(routes, "224.0.0.0/4 dev ethwe") {
		t.Errorf("no multicast route in\n%s", routes)
	}
	if addrs := n.Exec("ip", "-6", "addr", "show", "dev", "ethwe"); !strings.Contains(addrs, "fd55::1/64 scope global nodad") {
		t.Errorf("IPv6 address is not usable at once:\n%s", addrs)
	}
	if addrs := w.Exec("ip", "addr", "show", "dev", att.HostIf); strings.Contains(addrs, "inet") {
		t.Errorf("host end has an address:\n%s", addrs)
	}
	list, err := w.host.List(bridge)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]hostnet.Attachment{att}, list, byText); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestAttachedContainersTalk(t *testing.T) {
	w := newBridged(t)
	a, ca := w.container(t, "a")
	_, cb := w.container(t, "b")
	w.attach(t, ca, "10.55.0.1/24", "fd55::1/64")
	w.attach(t, cb, "10.55.0.2/24", "fd55::2/64")
	for _, addr := range []string{"10.55.0.2", "fd55::2"} {
		a.Exec("ping", "-n", "-c", "1", "-W", "2", addr)
	}
}

func TestAttachTwiceIsHarmless(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	first := w.attach(t, c, "10.55.0.1/24")
	index := link(t, n, "ethwe").Attrs().Index
	if again := w.attach(t, c, "10.55.0.1/24", "10.55.0.1/24"); !cmp.Equal(first, again, byText) {
		t.Errorf("second time: %+v, want %+v", again, first)
	}
	// By another name, with another address.
	both := w.attach(t, ref(t, "netns:"+n.Path()), "10.56.0.1/24")
	if got, want := both.Addrs, prefixes("10.55.0.1/24", "10.56.0.1/24"); !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if both.Container != n.Ref() || both.HostIf != first.HostIf || link(t, n, "ethwe").Attrs().Index != index {
		t.Errorf("the container got another interface or name: %+v", both)
	}
	if got := links(t, w.Namespace); len(got) != 2 {
		t.Errorf("links %q, want the bridge and one veth", got)
	}
}

func TestAttachMends(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	att := w.attach(t, c, "10.55.0.1/24")
	w.Exec("ip", "link", "set", att.HostIf, "nomaster", "down")
	n.Exec("ip", "link", "set", "ethwe", "down", "mtu", "1000")
	w.attach(t, c, "10.55.0.1/24")
	out, in := link(t, w.Namespace, att.HostIf).Attrs(), link(t, n, "ethwe").Attrs()
	if out.MasterIndex == 0 || out.Flags&net.FlagUp == 0 || in.Flags&net.FlagUp == 0 || in.MTU != 1376 {
		t.Errorf("host end %+v\ncontainer's end %+v", out, in)
	}
}

func TestAttachOptions(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	att, err := w.host.Attach(t.Context(), bridge, c, prefixes("10.55.0.1/24"), hostnet.AttachOptions{IfName: "net1", MTU: 1300, NoMulticastRoute: true})
	if err != nil {
		t.Fatal(err)
	}
	if att.IfName != "net1" || att.MTU != 1300 || link(t, n, "net1").Attrs().MTU != 1300 {
		t.Errorf("got %+v", att)
	}
	if routes := n.Exec("ip", "-4", "route"); strings.Contains(routes, "224.0.0.0") {
		t.Errorf("a multicast route in\n%s", routes)
	}
}

// Container runtimes turn IPv6 off where their own network has none.
func TestAttachTurnsIPv6On(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	setSysctl(t, n, "net/ipv6/conf/all/disable_ipv6", "1")
	setSysctl(t, n, "net/ipv6/conf/default/disable_ipv6", "1")
	w.attach(t, c, "10.55.0.1/24")
	if got := sysctl(t, n, "net/ipv6/conf/ethwe/disable_ipv6"); got != "1" {
		t.Errorf("IPv6 is on without an IPv6 address asked for")
	}
	if att := w.attach(t, c, "fd55::1/64"); !slices.Contains(att.Addrs, netip.MustParsePrefix("fd55::1/64")) {
		t.Errorf("got %+v", att)
	}
}

func TestAttachByPid(t *testing.T) {
	w := newBridged(t)
	n, _ := w.container(t, "web")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sleep := n.Command(ctx, "sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("pid:%d", sleep.Process.Pid)
	c := ref(t, name)
	if att := w.attach(t, c, "10.55.0.1/24"); att.Container != name {
		t.Errorf("got %+v", att)
	}
	cancel()
	sleep.Wait()
	// The namespace lives on under its other name, so the attachment does as well.
	list, err := w.host.List(bridge)
	if err != nil || len(list) != 1 || list[0].Container != name || len(list[0].Addrs) != 1 {
		t.Errorf("list %+v, %v", list, err)
	}
	if _, err := w.host.Detach(t.Context(), bridge, c, prefixes("10.9.9.9/24")); !errors.Is(err, hostnet.ErrNoNamespace) {
		t.Errorf("detaching one address: %v", err)
	}
	if removed, err := w.host.Detach(t.Context(), bridge, c, nil); err != nil || len(removed) != 1 {
		t.Errorf("detaching: %v, %v", removed, err)
	}
	if _, err := w.host.Attach(t.Context(), bridge, c, prefixes("10.55.0.1/24"), hostnet.AttachOptions{}); !errors.Is(err, hostnet.ErrNoNamespace) {
		t.Errorf("attaching a process that is gone: %v", err)
	}
}

func TestAttachRefuses(t *testing.T) {
	w := newBridged(t)
	n, web := w.container(t, "web")
	n.Exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	n.Exec("ip", "addr", "add", "10.1.0.5/16", "dev", "eth0")
	n.Exec("ip", "addr", "add", "fd01::5/64", "dev", "eth0")
	other, taken := w.container(t, "taken")
	other.Exec("ip", "link", "add", "ethwe", "type", "veth", "peer", "name", "x")
	plain := t.TempDir() + "/file"
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		c     hostnet.Container
		addrs string
		opts  hostnet.AttachOptions
		want  error
		say   string
	}{
		{"address there", web, "10.1.0.5/24", hostnet.AttachOptions{}, hostnet.ErrAddressInUse, "eth0"},
		{"network there", web, "10.1.0.9/16", hostnet.AttachOptions{}, hostnet.ErrAddressInUse, "eth0"},
		{"IPv6 address there", web, "fd01::5/48", hostnet.AttachOptions{}, hostnet.ErrAddressInUse, "eth0"},
		{"second address there", web, "10.2.0.1/24 10.1.0.5/24", hostnet.AttachOptions{}, hostnet.ErrAddressInUse, "10.1.0.5/16"},
		{"interface there", taken, "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrInterfaceExists, "ethwe"},
		{"no name", ref(t, "netns:nope-nope"), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrNoNamespace, "netns:nope-nope"},
		{"no process", ref(t, "pid:2147483647"), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrNoNamespace, "pid:"},
		{"plain file", ref(t, "netns:"+plain), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrNoNamespace, plain},
		{"directory", ref(t, "netns:/proc"), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrNoNamespace, "/proc"},
		{"mount namespace", ref(t, "netns:/proc/self/ns/mnt"), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrNoNamespace, "mnt"},
		{"host", ref(t, w.Ref()), "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrHostNamespace, w.Name},
		{"zero container", hostnet.Container{}, "10.2.0.1/24", hostnet.AttachOptions{}, hostnet.ErrContainerName, ""},
		{"no address", web, "", hostnet.AttachOptions{}, hostnet.ErrBadAddress, "10.32.0.1/12"},
		{"network's own", web, "10.2.0.0/24", hostnet.AttachOptions{}, hostnet.ErrBadAddress, "network's own"},
		{"broadcast", web, "10.2.0.255/24", hostnet.AttachOptions{}, hostnet.ErrBadAddress, "broadcast"},
		{"multicast", web, "224.0.0.5/24", hostnet.AttachOptions{}, hostnet.ErrBadAddress, ""},
		{"loopback", web, "127.0.0.5/8", hostnet.AttachOptions{}, hostnet.ErrBadAddress, ""},
		{"unspecified", web, "::/64", hostnet.AttachOptions{}, hostnet.ErrBadAddress, ""},
		{"everything", web, "10.2.0.1/0", hostnet.AttachOptions{}, hostnet.ErrBadAddress, ""},
		{"mapped", web, "::ffff:10.2.0.1/120", hostnet.AttachOptions{}, hostnet.ErrBadAddress, "IPv6 form"},
		{"IPv6 network's own", web, "fd02::/64", hostnet.AttachOptions{}, hostnet.ErrBadAddress, ""},
		{"large MTU", web, "10.2.0.1/24", hostnet.AttachOptions{MTU: 9000}, hostnet.ErrBadOption, "1376"},
		{"small MTU", web, "10.2.0.1/24", hostnet.AttachOptions{MTU: 67}, hostnet.ErrBadOption, ""},
		{"bad name", web, "10.2.0.1/24", hostnet.AttachOptions{IfName: "a/b"}, hostnet.ErrBadOption, "a/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.host.Attach(t.Context(), bridge, tt.c, prefixes(strings.Fields(tt.addrs)...), tt.opts)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.say) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want %q and a word of %q", err, tt.want, tt.say)
			}
			if got := links(t, w.Namespace); len(got) != 1 {
				t.Errorf("links %q, want only the bridge", got)
			}
		})
	}
	_, err := w.host.Attach(t.Context(), "nobridge", web, prefixes("10.2.0.1/24"), hostnet.AttachOptions{})
	if !errors.Is(err, hostnet.ErrNoBridge) {
		t.Errorf("no bridge: got %v", err)
	}
	var inUse *hostnet.AddressInUseError
	_, err = w.host.Attach(t.Context(), bridge, web, prefixes("10.1.0.5/24"), hostnet.AttachOptions{})
	want := hostnet.AddressInUseError{Want: netip.MustParsePrefix("10.1.0.5/24"), Have: netip.MustParsePrefix("10.1.0.5/16"), Interface: "eth0", Container: n.Ref()}
	if !errors.As(err, &inUse) || *inUse != want {
		t.Errorf("got %+v, want %+v", inUse, want)
	}
}

// An address that is on ethwe with another prefix length is in the way as well.
func TestAttachRefusesOtherPrefixLength(t *testing.T) {
	w := newBridged(t)
	_, c := w.container(t, "web")
	w.attach(t, c, "10.55.0.1/24")
	_, err := w.host.Attach(t.Context(), bridge, c, prefixes("10.55.0.1/16"), hostnet.AttachOptions{})
	if !errors.Is(err, hostnet.ErrAddressInUse) {
		t.Errorf("got %v", err)
	}
}

// endingContext ends at the n-th look at it.
type endingContext struct {
	context.Context
	left *int
}

func (c endingContext) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestFailedAttachLeavesNothing(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	kept, ck := w.container(t, "kept")
	w.attach(t, ck, "10.55.0.9/24")
	before := links(t, w.Namespace)
	for steps := 0; ; steps++ {
		if steps > 30 {
			t.Fatal("attach never succeeds")
		}
		left := steps
		_, err := w.host.Attach(endingContext{t.Context(), &left}, bridge, c, prefixes("10.55.0.1/24", "fd55::1/64"), hostnet.AttachOptions{})
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		if got := links(t, w.Namespace); !slices.Equal(got, before) {
			t.Fatalf("after %d steps: links %q, want %q", steps, got, before)
		}
		if got := links(t, n); len(got) != 0 {
			t.Fatalf("after %d steps: links %q in the container", steps, got)
		}
	}
	// Nor does a failure take away what was there before.
	for steps := 0; steps < 6; steps++ {
		left := steps
		if _, err := w.host.Attach(endingContext{t.Context(), &left}, bridge, ck, prefixes("10.56.0.9/24"), hostnet.AttachOptions{}); err == nil {
			t.Fatalf("attach needs only %d steps", steps)
		}
		if got := kept.Exec("ip", "-4", "-o", "addr", "show", "dev", "ethwe"); !strings.Contains(got, "10.55.0.9/24") || strings.Contains(got, "10.56") {
			t.Fatalf("after %d steps: addresses\n%s", steps, got)
		}
	}
}

// A re-used address must work at once for those who knew it at another MAC.
func TestAttachAnnounces(t *testing.T) {
	w := newBridged(t)
	a, ca := w.container(t, "a")
	_, cb := w.container(t, "b")
	_, cc := w.container(t, "c")
	w.attach(t, ca, "10.55.0.1/24", "fd55::1/64")
	old := w.attach(t, cb, "10.55.0.2/24", "fd55::2/64")
	a.Exec("ping", "-n", "-c", "1", "-W", "2", "10.55.0.2")
	a.Exec("ping", "-n", "-c", "1", "-W", "2", "fd55::2")
	if _, err := w.host.Detach(t.Context(), bridge, cb, nil); err != nil {
		t.Fatal(err)
	}
	att := w.attach(t, cc, "10.55.0.2/24", "fd55::2/64")
	for _, ip := range []string{"10.55.0.2", "fd55::2"} {
		eventually(t, "neighbour "+ip+" moved from "+old.MAC.String(), func() bool {
			return strings.Contains(a.Exec("ip", "neigh", "show", ip), att.MAC.String())
		})
	}
}

func TestDetach(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	detach := func(want []netip.Prefix, addrs ...string) {
		t.Helper()
		got, err := w.host.Detach(t.Context(), bridge, c, prefixes(addrs...))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("detach %q: %v, %v, want %v", addrs, got, err, want)
		}
	}
	detach(nil)
	w.attach(t, c, "10.55.0.1/24", "10.55.0.2/24", "10.55.0.3/24", "10.56.0.1/24", "fd55::1/64")
	detach(prefixes("10.56.0.1/24"), "10.56.0.1/24", "10.57.0.1/24")
	detach(nil, "10.56.0.1/24")
	// The kernel takes the secondary addresses with the first of their network.
	detach(prefixes("10.55.0.1/24"), "10.55.0.1/24")
	list, err := w.host.List(bridge)
	if want := prefixes("10.55.0.2/24", "10.55.0.3/24", "fd55::1/64"); err != nil || len(list) != 1 || !slices.Equal(list[0].Addrs, want) {
		t.Fatalf("list %+v, %v, want addresses %v", list, err, want)
	}
	if routes := n.Exec("ip", "-4", "route"); !strings.Contains(routes, "224.0.0.0/4") || !strings.Contains(routes, "10.55.0.0/24") {
		t.Errorf("routes are\n%s", routes)
	}
	detach(prefixes("10.55.0.2/24", "10.55.0.3/24"), "10.55.0.2/24", "10.55.0.3/24")
	detach(prefixes("fd55::1/64"))
	detach(nil)
	if got := links(t, n); len(got) != 0 {
		t.Errorf("links %q in the container", got)
	}
	if got := links(t, w.Namespace); len(got) != 1 {
		t.Errorf("links %q on the host", got)
	}
	w.attach(t, c, "10.55.0.1/24")
	detach(prefixes("10.55.0.1/24"), "10.55.0.1/24")
	if got := links(t, n); len(got) != 0 {
		t.Errorf("links %q in the container after the last address", got)
	}
	if _, err := w.host.Detach(t.Context(), bridge, ref(t, "netns:nope-nope"), nil); !errors.Is(err, hostnet.ErrNoNamespace) {
		t.Errorf("unknown container: %v", err)
	}
}

func TestContainerGone(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	w.attach(t, c, "10.55.0.1/24")
	n.Delete()
	eventually(t, "the kernel removes the pair", func() bool { return len(links(t, w.Namespace)) == 1 })
	if list, err := w.host.List(bridge); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v", list, err)
	}
	if _, err := w.host.Detach(t.Context(), bridge, c, nil); !errors.Is(err, hostnet.ErrNoNamespace) {
		t.Errorf("detach: %v", err)
	}
}

// A container that is made again at once has the name of the one that ends.
func TestContainerReplaced(t *testing.T) {
	w := newBridged(t)
	path := filepath.Join(t.TempDir(), "web")
	name := func(n *testnet.Namespace) {
		os.Remove(path)
		if err := os.Symlink(n.Path(), path); err != nil {
			t.Fatal(err)
		}
	}
	n := w.lab.Namespace("web")
	name(n)
	for i := range 10 {
		w.attach(t, ref(t, "netns:"+path), "10.55.0.1/24")
		next := w.lab.Namespace(fmt.Sprintf("web%d", i))
		name(next)
		n.Delete()
		n = next
		eventually(t, "the kernel removes the pair", func() bool {
			list, err := w.host.List(bridge)
			if err != nil {
				t.Fatalf("while container %d ends: %v", i, err)
			}
			return len(list) == 0
		})
	}
}

// A restarted daemon has a new Host and must find everything.
func TestListAfterRestart(t *testing.T) {
	w := newBridged(t)
	var want []hostnet.Attachment
	for i := range 5 {
		_, c := w.container(t, fmt.Sprintf("c%d", i))
		want = append(want, w.attach(t, c, fmt.Sprintf("10.55.0.%d/24", i+1)))
	}
	slices.SortFunc(want, func(a, b hostnet.Attachment) int { return strings.Compare(a.Container, b.Container) })
	second, err := hostnet.OpenAt(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	got, err := second.List(bridge)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byText); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestOffloadsStayOn(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	att := w.attach(t, c, "10.55.0.1/24")
	for _, end := range []struct {
		n    *testnet.Namespace
		name string
	}{{w.Namespace, att.HostIf}, {n, "ethwe"}} {
		// GTXCSUM, GSG, GTSO and GGSO of linux/ethtool.h answer with one word.
		for what, cmd := range map[string]uint32{"tx checksum": 0x16, "scatter-gather": 0x18, "tso": 0x1e, "gso": 0x23} {
			on, err := ethtool(end.n, end.name, cmd)
			if err != nil {
				t.Fatal(err)
			}
			if !on {
				t.Errorf("%s is off on %s", what, end.name)
			}
		}
	}
}

// One attach and detach must leave nothing, so two hundred must not either.
func TestNoLeakOver200Cycles(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	_, busy := w.container(t, "busy")
	w.attach(t, busy, "10.55.0.200/24")
	cycle := func() {
		w.attach(t, c, "10.55.0.1/24", "fd55::1/64")
		if _, err := w.host.Detach(t.Context(), bridge, c, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.host.Attach(t.Context(), bridge, c, prefixes("10.55.0.0/24"), hostnet.AttachOptions{}); err == nil {
			t.Fatal("a bad address was taken")
		}
	}
	cycle()
	linksBefore, fdsBefore := links(t, w.Namespace), openFDs(t)
	start := time.Now()
	for range 200 {
		cycle()
	}
	t.Logf("%v per cycle", time.Since(start)/200)
	if got := links(t, w.Namespace); !slices.Equal(got, linksBefore) {
		t.Errorf("links %q, were %q", got, linksBefore)
	}
	if got := links(t, n); len(got) != 0 {
		t.Errorf("links %q in the container", got)
	}
	if diff := cmp.Diff(fdsBefore, openFDs(t)); diff != "" {
		t.Errorf("descriptors (-before +after):\n%s", diff)
	}
}

func TestConcurrentCalls(t *testing.T) {
	w := newBridged(t)
	var wg sync.WaitGroup
	for i := range 6 {
		n, c := w.container(t, fmt.Sprintf("c%d", i))
		addr := prefixes(fmt.Sprintf("10.55.0.%d/24", i+1))
		wg.Go(func() {
			for range 3 {
				if att, err := w.host.Attach(t.Context(), bridge, c, addr, hostnet.AttachOptions{}); err != nil || att.Container != n.Ref() {
					t.Errorf("attach: %+v, %v", att, err)
				}
				if _, err := w.host.List(bridge); err != nil {
					t.Errorf("list: %v", err)
				}
				if removed, err := w.host.Detach(t.Context(), bridge, c, nil); err != nil || len(removed) != 1 {
					t.Errorf("detach: %v, %v", removed, err)
				}
			}
		})
	}
	wg.Wait()
	if got := links(t, w.Namespace); len(got) != 1 {
		t.Errorf("links %q, want the bridge only", got)
	}
}

// Those who come later are told through the router's port.
func TestAnnounce(t *testing.T) {
	w := newBridged(t)
	tap := w.tap(t, "tap0")
	if _, err := w.host.AddRouterPort(bridge, "tap0"); err != nil {
		t.Fatal(err)
	}
	_, c := w.container(t, "web")
	att := w.attach(t, c, "10.55.0.1/24", "fd55::1/64")
	// read returns the announcements, without their Ethernet addresses, that come
	// within a moment.
	read := func() (got []string) {
		buf := make([]byte, 2048)
		for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
			unix.Poll([]unix.PollFd{{Fd: int32(tap.Fd()), Events: unix.POLLIN}}, 50)
			n, err := unix.Read(int(tap.Fd()), buf)
			isARP := n == 42 && buf[13] == unix.ETH_P_ARP&0xff
			isAdvertisement := n > 54 && buf[54] == 136
			if err == nil && ether.MAC(buf[6:12]) == att.MAC && (isARP || isAdvertisement) {
				got = append(got, fmt.Sprintf("%x", buf[12:n]))
			}
		}
		return got
	}
	first := read() // what attaching sends
	if err := w.host.Announce(bridge, "tap0"); err != nil {
		t.Fatal(err)
	}
	again := read()
	if len(first) != 2 || !slices.Equal(again, first) {
		t.Errorf("announced %q, want %q", again, first)
	}
	if err := w.host.Announce(bridge, "tap9"); err == nil {
		t.Error("announced through a device that is not there")
	}
}
