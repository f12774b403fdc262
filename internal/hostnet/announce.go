package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// announce tells the network, from inside the namespace, that addr is at mac: by an
// ARP announcement (RFC 5227 §3) or an unsolicited neighbour advertisement
// (RFC 4861 §7.2.6). Neighbours that knew the address at another MAC change over
// at once, and every bridge on the way learns where mac is.
func (s *space) announce(ifindex int, mac ether.MAC, addrs []netip.Prefix) error {
	return s.transmit(ifindex, announcements(mac, addrs))
}

// Announce tells those behind the router's port dev where the addresses of the
// containers and of the bridge are, as Attach and Expose did when they may not have been there yet. The frames leave
// through dev only, so it needs no access to the containers.
func (h *Host) Announce(bridge, dev string) error {
	list, err := h.List(bridge)
	if err != nil {
		return err
	}
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return hint(fmt.Errorf("announcing through %s: %w", dev, err))
	}
	var frames [][]byte
	for _, a := range list {
		frames = append(frames, announcements(a.MAC, a.Addrs)...)
	}
	if br, err := h.bridge(bridge); err == nil {
		if own, err := h.exposed(br.Index); err == nil {
			frames = append(frames, announcements(macOf(br.HardwareAddr), own)...)
		}
	}
	return hint(h.transmit(link.Attrs().Index, frames))
}

// transmit sends frames out of an interface.
func (s *space) transmit(ifindex int, frames [][]byte) error {
	if len(frames) == 0 {
		return nil
	}
	return s.do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening packet socket: %w", err)
		}
		defer unix.Close(fd)
		var errs []error
		for _, f := range frames {
			errs = append(errs, unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: ifindex}))
		}
		return errors.Join(errs...)
	})
}

func announcements(mac ether.MAC, addrs []netip.Prefix) (frames [][]byte) {
	for _, p := range addrs {
		frames = append(frames, announcement(mac, p.Addr()))
	}
	return frames
}

// announcement builds the frame for one address, an IPv4 or IPv6 one.
func announcement(mac ether.MAC, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpAnnouncement(mac, addr)
	}
	return neighborAdvertisement(mac, addr)
}

// arpAnnouncement is an ARP request (RFC 826) for the sender's own address.
func arpAnnouncement(mac ether.MAC, addr netip.Addr) []byte {
	b := append([]byte{}, ether.Broadcast[:]...)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	b = append(b, mac[:]...)
	b = append(b, addr.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, addr.AsSlice()...)
}

// neighborAdvertisement is an ICMPv6 type 136 with the override flag and the target
// link-layer address option, to all nodes.
func neighborAdvertisement(mac ether.MAC, addr netip.Addr) []byte {
	const icmpLen = 32
	allNodes := netip.MustParseAddr("ff02::1")
	b := []byte{0x33, 0x33, 0, 0, 0, 1}
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0, 0, icmpLen, unix.IPPROTO_ICMPV6, 255)
	b = append(b, addr.AsSlice()...)
	b = append(b, allNodes.AsSlice()...)
	icmp := len(b)
	b = append(b, 136, 0, 0, 0, 0x20, 0, 0, 0)
	b = append(b, addr.AsSlice()...)
	b = append(b, 2, 1) // target link-layer address, 8 bytes
	b = append(b, mac[:]...)
	binary.BigEndian.PutUint16(b[icmp+2:], icmpv6Sum(addr, allNodes, b[icmp:]))
	return b
}

// icmpv6Sum is the checksum of RFC 4443 §2.3 over an even number of bytes.
func icmpv6Sum(src, dst netip.Addr, msg []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	sum := uint32(len(msg)) + unix.IPPROTO_ICMPV6
	for _, b := range [][]byte{pseudo, msg} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
