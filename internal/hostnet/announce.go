package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// announce tells the network, from inside the namespace, that addrs are at mac.
// Neighbours that knew an address at another MAC change over at once, and every bridge
// on the way learns where mac is.
func (s *space) announce(ifindex int, mac ether.MAC, addrs []netip.Prefix) error {
	return s.transmit(ifindex, announcements(mac, addrs))
}

// Announce tells those behind the router's port dev where the addresses of the
// containers and of the bridge are, as Attach and Expose did when they may not have been
// there yet. The frames leave through dev only, so it needs no access to the containers.
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

// Transmit sends frames out of an interface as they are. Sent through the router's port
// they come to the router as if a container had sent them.
func (h *Host) Transmit(dev string, frames [][]byte) error {
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return hint(fmt.Errorf("sending through %s: %w", dev, err))
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
		frames = append(frames, ether.AppendAnnouncement(nil, mac, p.Addr()))
	}
	return frames
}
