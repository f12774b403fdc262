package testnet

import (
	"fmt"
	"net/netip"
)

// Behind adds a host that is reached by nobody: it sits in a network of its own behind
// router, which translates what it sends to its own addresses and drops what comes
// uninvited. It keeps the ports of what it sends, while they are free, or chooses them at
// random. Cut, Loss and the lab's Capture see the host as router.
func (l *Lab) Behind(router *Host, label string, randomPorts bool) *Host {
	l.t.Helper()
	h := l.newHost(label)
	h.wired = true
	h.IP4 = netip.AddrFrom4([4]byte{192, 168, byte(h.index), 2})
	h.IP6 = netip.MustParseAddr(fmt.Sprintf("fd78:%x::2", h.index))
	inner := fmt.Sprintf("in%d", h.index)
	l.must(veth(router.Namespace, inner, h.Namespace, Uplink, 1500))
	for _, a := range []netip.Addr{h.IP4, h.IP6} {
		bits, gate, how := "/24", a.Prev().String(), []string{}
		if a.Is6() {
			bits, how = "/64", []string{"nodad"}
		}
		router.Exec("ip", append([]string{"addr", "add", gate + bits, "dev", inner}, how...)...)
		h.Exec("ip", append([]string{"addr", "add", a.String() + bits, "dev", Uplink}, how...)...)
		h.Exec("ip", "route", "add", "default", "via", gate)
	}
	translate := "masquerade"
	if randomPorts {
		translate += " fully-random"
	}
	router.Exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; "+
		"nft 'table inet nat { chain out { type nat hook postrouting priority 100; oifname "+Uplink+" "+translate+"; }; "+
		"chain through { type filter hook forward priority 0; iifname "+Uplink+" ct state new drop; }; "+
		"chain in { type filter hook input priority 0; iifname "+Uplink+" ct state new drop; }; }'")
	return h
}
