package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/odp"
)

// probeName is the device that Probe makes.
const probeName = "weavevxprobe"

// Probe reports whether the kernel of the calling thread's network namespace can do
// what the backend needs, by doing it: it makes a device that is never up, and removes
// it. The error has a reason.
func Probe() error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(probeName)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(VNI-1))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, 1))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	req.AddData(info)
	removeProbe() // of a run that was killed here
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPFNOSUPPORT) {
		return &odp.ReasonError{Why: odp.ReasonModule, Err: fmt.Errorf("the kernel has no vxlan: %w", err)}
	}
	// Any other failure, for instance of permissions, tells in its own place.
	if err == nil {
		if err := removeProbe(); err != nil {
			return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("removing %s: %w", probeName, err)}
		}
	}
	return probeFilter()
}

func removeProbe() error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(probeName)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// probeFilter asks for the tables of nftables, which a kernel without it refuses.
func probeFilter() error {
	nft, err := nftables.New()
	if err == nil {
		_, err = nft.ListTables()
	}
	if err != nil {
		return &odp.ReasonError{Why: odp.ReasonFilter, Err: fmt.Errorf("the kernel has no nftables: %w", err)}
	}
	return nil
}
