package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The requests here are those that netlink.Handle has no method for, or makes in
// several steps that other processes could come between.

// Attributes missing from the libraries (linux/if_link.h, linux/if_addr.h).
const (
	iflaTargetNetnsid = 46
	ifaTargetNetnsid  = 10
)

// noNSID stands for "this namespace" where the id of another could stand.
const noNSID = -1

// openRaw opens a rtnetlink socket in the calling thread's namespace. It checks
// requests strictly, which is what makes the kernel heed filters and namespace
// ids in dumps (Linux 5.0). Extended acknowledgements stay off: with them, a dump that
// fails on its way makes the library panic (netlink 1.3.1, ExecuteIter).
func openRaw() (map[int]*nl.SocketHandle, error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	unix.SetsockoptInt(sock.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	tv := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	sock.SetSendTimeout(&tv)
	sock.SetReceiveTimeout(&tv)
	return map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: sock}}, nil
}

func (s *space) request(typ, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = s.raw
	return req
}

func infomsg(family, index int) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(family)
	m.Index = int32(index)
	return m
}

// setBridge sets bridge attributes (IFLA_BR_*) all at once.
func (s *space) setBridge(index int, attrs map[uint16][]byte) error {
	req := s.request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(infomsg(unix.AF_UNSPEC, index))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for typ, val := range attrs {
		data.AddRtAttr(int(typ), val)
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// bridgeAttrs reads a bridge's attributes (IFLA_BR_*).
func (s *space) bridgeAttrs(index int) (map[uint16][]byte, error) {
	msg, err := s.linkMsg(index, noNSID)
	if err != nil {
		return nil, err
	}
	return nested(msg[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA)
}

// portForwards reports whether a bridge port is in state forwarding.
func (s *space) portForwards(index int) (bool, error) {
	msg, err := s.linkMsg(index, noNSID)
	if err != nil {
		return false, err
	}
	attrs, err := nested(msg[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO, nl.IFLA_INFO_SLAVE_DATA)
	if err != nil {
		return false, err
	}
	state := attrs[nl.IFLA_BRPORT_STATE]
	return len(state) == 1 && state[0] == brStateForwarding, nil
}

const brStateForwarding = 3 // linux/if_bridge.h

// portFlags are the attributes of a bridge port (IFLA_BRPORT_*) that are switches.
type portFlags map[int]bool

// setPort sets the switches of a bridge port all at once.
func (s *space) setPort(index int, flags portFlags) error {
	req := s.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.AddData(infomsg(unix.AF_BRIDGE, index))
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for typ, on := range flags {
		val := []byte{0}
		if on {
			val[0] = 1
		}
		info.AddRtAttr(typ, val)
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// linkMsg reads one link, in the namespace that s knows as nsid if that is not
// noNSID, and returns the RTM_NEWLINK message with its ifinfomsg.
func (s *space) linkMsg(index, nsid int) ([]byte, error) {
	req := s.request(unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.AddData(infomsg(unix.AF_UNSPEC, index))
	if nsid != noNSID {
		req.AddData(nl.NewRtAttr(iflaTargetNetnsid, nl.Uint32Attr(uint32(nsid))))
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 || len(msgs[0]) < unix.SizeofIfInfomsg {
		return nil, unix.ENODEV
	}
	return msgs[0], nil
}

// linkIn reads one link of the namespace that s knows as nsid.
func (s *space) linkIn(nsid, index int) (netlink.Link, error) {
	msg, err := s.linkMsg(index, nsid)
	if err != nil {
		return nil, err
	}
	return netlink.LinkDeserialize(nil, msg)
}

// ifAddr is an address of an interface.
type ifAddr struct {
	prefix netip.Prefix
	index  int
	scope  uint8
}

// addrs lists the addresses of link index, or of all links if that is 0, in the
// namespace that s knows as nsid, or in s itself if that is noNSID.
func (s *space) addrs(nsid, index int) ([]ifAddr, error) {
	for try := 0; ; try++ {
		req := s.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		m := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		m.Index = uint32(index)
		req.AddData(m)
		if nsid != noNSID {
			req.AddData(nl.NewRtAttr(ifaTargetNetnsid, nl.Uint32Attr(uint32(nsid))))
		}
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		var out []ifAddr
		for _, msg := range msgs {
			if a, ok := parseAddr(msg); ok && (index == 0 || a.index == index) {
				out = append(out, a)
			}
		}
		return out, nil
	}
}

// dumpTries is how often a dump that a change interrupted is started again.
const dumpTries = 10

// parseAddr reads struct ifaddrmsg (linux/if_addr.h) and its attributes:
//
//	0 family  1 prefixlen  2 flags  3 scope  4 index (4, host order)  8 attributes
//
// IFA_LOCAL is the address; IPv6 without a peer has only IFA_ADDRESS.
func parseAddr(msg []byte) (a ifAddr, ok bool) {
	if len(msg) < unix.SizeofIfAddrmsg {
		return a, false
	}
	attrs, err := attributes(msg[unix.SizeofIfAddrmsg:])
	if err != nil {
		return a, false
	}
	ip, ok := netip.AddrFromSlice(attrs[unix.IFA_LOCAL])
	if !ok {
		if ip, ok = netip.AddrFromSlice(attrs[unix.IFA_ADDRESS]); !ok {
			return a, false
		}
	}
	a.prefix = netip.PrefixFrom(ip, int(msg[1]))
	a.scope = msg[3]
	a.index = int(binary.NativeEndian.Uint32(msg[4:]))
	return a, a.prefix.IsValid()
}

// attributes reads a run of netlink attributes; of equal types the last counts.
// Each is length (2, with this header), type (2), value, padding to 4; host order
// (linux/netlink.h). The last one's padding may be missing, which
// nl.ParseRouteAttr would not survive.
func attributes(b []byte) (map[uint16][]byte, error) {
	out := make(map[uint16][]byte)
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		typ := binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil, fmt.Errorf("netlink attribute %d of %d bytes: %w", typ, n, unix.EBADMSG)
		}
		out[typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:n]
		b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return out, nil
}

// parseNeigh reads struct ndmsg (linux/neighbour.h) and its attributes, as far as
// FDB entries need it:
//
//	0 family  4 ifindex (4, host order)  8 state (2)  10 flags  11 type  12 attributes
func parseNeigh(msg []byte) (*netlink.Neigh, error) {
	if len(msg) < unix.SizeofNdMsg {
		return nil, fmt.Errorf("neighbour message of %d bytes: %w", len(msg), unix.EBADMSG)
	}
	attrs, err := attributes(msg[unix.SizeofNdMsg:])
	if err != nil {
		return nil, err
	}
	n := &netlink.Neigh{
		Family:       int(msg[0]),
		LinkIndex:    int(binary.NativeEndian.Uint32(msg[4:])),
		State:        int(binary.NativeEndian.Uint16(msg[8:])),
		Flags:        int(msg[10]),
		HardwareAddr: attrs[netlink.NDA_LLADDR],
	}
	if v := attrs[netlink.NDA_MASTER]; len(v) == 4 {
		n.MasterIndex = int(binary.NativeEndian.Uint32(v))
	}
	if v := attrs[netlink.NDA_VLAN]; len(v) == 2 {
		n.Vlan = int(binary.NativeEndian.Uint16(v))
	}
	return n, nil
}

// nested reads the attributes within the attribute at path. An absent attribute
// has none.
func nested(b []byte, path ...uint16) (map[uint16][]byte, error) {
	attrs, err := attributes(b)
	for _, typ := range path {
		if err != nil {
			return nil, err
		}
		attrs, err = attributes(attrs[typ])
	}
	return attrs, err
}

// isGone reports whether err says that a link or entry is not there.
func isGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOENT) || errors.As(err, &notFound)
}
