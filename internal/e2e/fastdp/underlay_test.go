package fastdp_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// The kinds of frames that hosts with a password may have on the underlay. Whatever
// else there is has a kind that starts with unexpected.
const (
	kindData      = "WireGuard data"
	kindHandshake = "WireGuard handshake"
	kindControl   = "control connection, TCP"
	kindSleeve    = "sleeve, UDP"
	kindNeighbour = "neighbour discovery"
	kindReport    = "ICMP report of " // and a kind: it quotes a packet
	unexpected    = "unexpected: "
)

// Ports and types of what may be there.
const (
	controlPort = 6783
	cagePortNum = 6785
	sessionData = 0x14 // first byte of what package session seals

	cageFull = 32 + 50 + 1376 // data of the full MTU, which WireGuard does not pad beyond
)

// frameKind tells what an Ethernet frame of the underlay is, by its outer headers.
func frameKind(b []byte) string {
	if len(b) < 14 {
		return unexpected + "no frame"
	}
	switch kind := binary.BigEndian.Uint16(b[12:]); kind {
	case 0x0806:
		return kindNeighbour // ARP
	case 0x0800, 0x86dd:
		return packetKind(b[14:], false)
	default:
		return fmt.Sprintf("%sethertype %04x", unexpected, kind)
	}
}

// packetKind tells what an IP packet is; a quoted one is cut off somewhere.
func packetKind(b []byte, quoted bool) string {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&15) * 4
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return unexpected + "fragment"
		}
		if header >= 20 && len(b) >= header {
			return protocolKind(b[9], b[header:], quoted)
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		next, rest := b[6], b[40:]
		if next == 0 && len(rest) >= 8 && len(rest) >= 8+int(rest[1])*8 { // hop-by-hop options, of MLD
			next, rest = rest[0], rest[8+int(rest[1])*8:]
		}
		return protocolKind(next, rest, quoted)
	}
	return unexpected + "no IP packet"
}

func protocolKind(protocol byte, b []byte, quoted bool) string {
	const icmp, tcp, udp, icmp6 = 1, 6, 17, 58
	if len(b) < 8 {
		return fmt.Sprintf("%sprotocol %d, %d bytes", unexpected, protocol, len(b))
	}
	switch protocol {
	case icmp:
		if b[0] == 3 && !quoted { // destination unreachable
			return reportKind(b[8:])
		}
	case icmp6:
		switch {
		case b[0] >= 130 && b[0] <= 137, b[0] == 143: // routers, neighbours, MLD
			return kindNeighbour
		case b[0] >= 1 && b[0] <= 4 && !quoted:
			return reportKind(b[8:])
		}
	case tcp:
		if binary.BigEndian.Uint16(b) == controlPort || binary.BigEndian.Uint16(b[2:]) == controlPort {
			return kindControl
		}
	case udp:
		return datagramKind(b, quoted)
	}
	return fmt.Sprintf("%sprotocol %d, %x", unexpected, protocol, b[:8])
}

func reportKind(quote []byte) string {
	kind := packetKind(quote, true)
	if strings.HasPrefix(kind, unexpected) {
		return kind
	}
	return kindReport + kind
}

func datagramKind(b []byte, quoted bool) string {
	src, dst, payload := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[8:]
	whole := func(ok bool) bool { return ok || quoted }
	switch {
	case len(payload) < 4:
	case src == cagePortNum && dst == cagePortNum && payload[1]|payload[2]|payload[3] == 0:
		// Types and lengths as in the protocol's paper, section 5.4.
		switch n := len(payload); {
		case payload[0] == 4 && whole(n >= 32 && n%16 == 0 || n == cageFull):
			return kindData
		case payload[0] == 1 && whole(n == 148), payload[0] == 2 && whole(n == 92), payload[0] == 3 && whole(n == 64):
			return kindHandshake
		}
	case (src == controlPort || dst == controlPort) && payload[0] == sessionData && whole(len(payload) >= 32):
		return kindSleeve
	}
	return fmt.Sprintf("%sUDP %d to %d, %d bytes, %x", unexpected, src, dst, len(payload), payload[:min(4, len(payload))])
}

// innerHeaders are the addresses of containers as packets between them have them.
func innerHeaders(a, b *site) []string {
	return []string{string(append(a.In4.AsSlice(), b.In4.AsSlice()...)), string(append(b.In4.AsSlice(), a.In4.AsSlice()...))}
}

// goesByCage has a container talk and looks at what that makes on the underlay.
func goesByCage(t *testing.T, c *testnet.Capture, a, b *site, text string) {
	t.Helper()
	const sung = 60 // by three calls
	before := c.Kinds()
	for range sung / 20 {
		a.sing(b, text)
	}
	var data, others int
	harness.Within(t, 10*time.Second, "WireGuard's data on the underlay", func() bool {
		now := c.Kinds()
		data, others = now[kindData]-before[kindData], now[kindSleeve]-before[kindSleeve]
		return data >= sung
	})
	t.Logf("%d datagrams of a container: %d frames of WireGuard's data, %d of sleeve", sung, data, others)
	if others >= sung {
		t.Errorf("%d datagrams of sleeve while the cage carries the data", others)
	}
}

// mustBeSealed fails the test unless each frame on the underlay was of a kind that
// may be there, and there was each that must.
func mustBeSealed(t *testing.T, c *testnet.Capture) {
	t.Helper()
	kinds := c.Kinds()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%6d frames: %s", kinds[kind], kind)
		if strings.HasPrefix(kind, unexpected) {
			t.Errorf("%d frames on the underlay: %s", kinds[kind], kind)
		}
	}
	for _, kind := range []string{kindData, kindHandshake, kindControl, kindSleeve} {
		if kinds[kind] == 0 {
			t.Errorf("no frame on the underlay: %s", kind)
		}
	}
}

// udpFrame is an Ethernet frame with a datagram over IPv4.
func udpFrame(src, dst uint16, payload ...byte) []byte {
	b := make([]byte, 14+20+8, 14+20+8+len(payload))
	b[12], b[14], b[14+9] = 0x08, 0x45, 17
	binary.BigEndian.PutUint16(b[34:], src)
	binary.BigEndian.PutUint16(b[36:], dst)
	return append(b, payload...)
}

func TestFrameKind(t *testing.T) {
	t.Parallel()
	message := func(kind byte, size int) []byte { return append([]byte{kind}, make([]byte, size-1)...) }
	tcp := udpFrame(40000, controlPort, make([]byte, 12)...)
	tcp[14+9] = 6
	elsewhere := slices.Clone(tcp)
	elsewhere[37]++
	fragment := udpFrame(cagePortNum, cagePortNum, message(4, 32)...)
	fragment[14+7] = 9
	report := func(quote []byte) []byte {
		b := append(udpFrame(0x0303, 0), quote[14:]...) // type 3, code 3
		b[14+9] = 1
		return b
	}
	solicitation := append(make([]byte, 14), append([]byte{0x60, 0, 0, 0, 0, 24, 58, 255}, make([]byte, 32+24)...)...)
	solicitation[12], solicitation[13], solicitation[54] = 0x86, 0xdd, 135
	wild := slices.Clone(solicitation)
	wild[54] = 128
	for _, tt := range []struct {
		name  string
		frame []byte
		want  string // a prefix
	}{
		{"data", udpFrame(cagePortNum, cagePortNum, message(4, 128)...), kindData},
		{"data of the full MTU, not padded", udpFrame(cagePortNum, cagePortNum, message(4, 1458)...), kindData},
		{"keepalive", udpFrame(cagePortNum, cagePortNum, message(4, 32)...), kindData},
		{"initiation", udpFrame(cagePortNum, cagePortNum, message(1, 148)...), kindHandshake},
		{"response", udpFrame(cagePortNum, cagePortNum, message(2, 92)...), kindHandshake},
		{"cookie", udpFrame(cagePortNum, cagePortNum, message(3, 64)...), kindHandshake},
		{"data of no length that WireGuard has", udpFrame(cagePortNum, cagePortNum, message(4, 33)...), unexpected},
		{"a type that WireGuard has not", udpFrame(cagePortNum, cagePortNum, message(5, 64)...), unexpected},
		{"reserved bytes in use", udpFrame(cagePortNum, cagePortNum, append([]byte{4, 1}, make([]byte, 30)...)...), unexpected},
		{"vxlan on the cage's port", udpFrame(50000, cagePortNum, message(8, 64)...), unexpected},
		{"vxlan", udpFrame(50000, 6784, message(8, 64)...), unexpected},
		{"vxlan of the cage", udpFrame(50000, 4789, message(8, 64)...), unexpected},
		{"sleeve", udpFrame(controlPort, controlPort, message(sessionData, 64)...), kindSleeve},
		{"sleeve, too short for a tag", udpFrame(controlPort, controlPort, message(sessionData, 31)...), unexpected},
		{"another type", udpFrame(controlPort, controlPort, message(0x15, 64)...), unexpected},
		{"control connection", tcp, kindControl},
		{"another connection", elsewhere, unexpected},
		{"fragment", fragment, unexpected},
		{"report of sleeve", report(udpFrame(controlPort, controlPort, sessionData, 0, 0, 0)), kindReport + kindSleeve},
		{"report of vxlan", report(udpFrame(50000, 6784, 8, 0, 0, 0)), unexpected},
		{"report of a report", report(report(tcp)), unexpected},
		{"IPv6 neighbours", solicitation, kindNeighbour},
		{"IPv6 ping", wild, unexpected},
		{"ARP", append(make([]byte, 12), 0x08, 0x06), kindNeighbour},
		{"another ethertype", append(make([]byte, 12), 0x88, 0xcc), unexpected},
		{"cut off", udpFrame(1, 2)[:33], unexpected},
		{"nothing", nil, unexpected},
	} {
		if got := frameKind(tt.frame); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, tt := range [][]byte{solicitation, tcp, report(tcp)} {
		for n := range tt {
			frameKind(tt[:n])
		}
	}
}
