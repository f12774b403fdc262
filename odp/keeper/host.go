package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
	"weave/mesh/overlay"
	"weave/odp"
)

// Host is a network namespace, and how to ask its kernel. Methods may be called from
// any goroutine.
type Host struct {
	NL *netlink.Handle
	ns *os.File
}

// OpenHost returns the calling thread's network namespace.
func OpenHost() (*Host, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	h := &Host{ns: f}
	if h.NL, err = netlink.NewHandle(unix.NETLINK_ROUTE); err == nil {
		err = h.NL.SetSocketTimeout(5 * time.Second)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Close frees descriptors.
func (h *Host) Close() {
	if h.NL != nil {
		h.NL.Close()
	}
	h.ns.Close()
}

// FD is a descriptor of the namespace; it is valid until Close.
func (h *Host) FD() int { return int(h.ns.Fd()) }

// Execute runs a request to rtnetlink; Ask returns what came back of a type. They run
// inside the namespace: the library opens a socket for each.
func (h *Host) Execute(req *nl.NetlinkRequest) error {
	_, err := h.Ask(req, 0)
	return err
}

// Ask is described at Execute.
func (h *Host) Ask(req *nl.NetlinkRequest, answer uint16) (msgs [][]byte, err error) {
	err = ns.Do(h.FD(), func() (err error) {
		msgs, err = req.Execute(unix.NETLINK_ROUTE, answer)
		return err
	})
	return msgs, err
}

// IsGone reports whether err says that a link or entry is not there.
func IsGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.As(err, &notFound)
}

// Mute keeps the kernel's own IPv6 off a device that is down, which would solicit routers
// there. A kernel without IPv6, or one that does not let us, has no such wish.
func (h *Host) Mute(link netlink.Link) {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
	h.NL.LinkSetIP6AddrGenMode(link, none)
	ns.Do(h.FD(), func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+link.Attrs().Name+"/disable_ipv6", []byte("1"), 0)
	})
}

// RemoveLink removes a device if it is of that kind; none is no error.
func (h *Host) RemoveLink(name, kind string) error {
	link, err := h.NL.LinkByName(name)
	if err == nil && link.Type() == kind {
		err = h.NL.LinkDel(link)
	}
	if IsGone(err) {
		return nil
	}
	return err
}

// attributes reads a run of netlink attributes (linux/netlink.h); what is malformed
// ends it.
func attributes(buf []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(buf) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(buf))
		typ := binary.NativeEndian.Uint16(buf[2:])
		if n < unix.SizeofRtAttr || n > len(buf) {
			break
		}
		out[typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = buf[unix.SizeofRtAttr:n]
		buf = buf[min(len(buf), (n+3)&^3):]
	}
	return out
}

// route is how a peer is reached.
type route struct {
	looked time.Time
	mtu    int        // largest inner IP packet
	source netip.Addr // of packets to the peer
	err    error
}

// look looks up how large packets to an address may be, and where they come from.
func (h *Host) look(to netip.Addr, e overlay.Encapsulation) (r route) {
	r.looked = time.Now()
	fail := func(err error) route {
		r.err = &odp.ReasonError{Why: odp.ReasonRoute, Err: err}
		return r
	}
	routes, err := h.NL.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return fail(err)
	}
	link, err := h.NL.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return fail(err)
	}
	mtu := link.Attrs().MTU
	if routes[0].MTU > 0 {
		mtu = min(mtu, routes[0].MTU)
	}
	r.mtu = overlay.InnerMTU(mtu, to.Is6(), e)
	r.source, _ = netip.AddrFromSlice(routes[0].Src)
	r.source = r.source.Unmap()
	return r
}

// VXLANError gives the error of making a vxlan device, or of bringing it up, a reason.
func VXLANError(err error, device string, port uint16) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EADDRINUSE):
		return &odp.ReasonError{Why: odp.ReasonPort, Err: fmt.Errorf("another vxlan device has UDP port %d: %w", port, err)}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPFNOSUPPORT):
		return &odp.ReasonError{Why: odp.ReasonModule, Err: fmt.Errorf("the kernel has no vxlan (module vxlan): %w", err)}
	}
	return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("making %s: %w", device, err)}
}
