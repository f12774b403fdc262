package tun

import (
	"log/slog"

	"weave/internal/ether"
)

// probeWrites finds out whether the kernel takes superframes: some releases answer
// EINVAL to good ones (e269d79c7d35, mended by 89add40066f9). The probes go to a
// unicast address that nobody has, so the host drops them behind the device's
// receive counters. The device must be up and not yet a bridge port.
func (d *Device) probeWrites(fd int, log *slog.Logger) {
	d.features.WriteTSO = d.probe(fd, ether.GSOTCPv4, log) && d.probe(fd, ether.GSOTCPv6, log)
	if r := d.host.release(); !parseRelease(r).atLeast(minWriteUSO) {
		log.Warn("kernel loses UDP superframes; writing single frames", "release", r)
		return
	}
	d.features.WriteUSO = d.probe(fd, ether.GSOUDPL4, log)
}

// probe reports whether the kernel takes a superframe of kind g.
func (d *Device) probe(fd int, g ether.GSO, log *slog.Logger) bool {
	frame, off := probeFrame(g)
	var hdr [vnetHdrLen]byte
	writeVnet(&hdr, off, frame)
	if err := d.host.write(fd, append(hdr[:], frame...)); err != nil {
		log.Warn("kernel refuses superframes; writing single frames", "gso", int(g), "error", err)
		return false
	}
	return true
}

// Both are locally administered and stand for nobody.
var (
	probeDst = ether.MAC{0x02, 'w', 'e', 'a', 'v', 'P'}
	probeSrc = ether.MAC{0x02, 'w', 'e', 'a', 'v', 'p'}
)

// probeFrame builds a superframe of zeros between two addresses for documentation
// (RFC 5737, RFC 3849). The broken kernels look at the tail: it is shorter than the
// headers here.
func probeFrame(g ether.GSO) ([]byte, ether.Offload) {
	const size, payload = 512, 2*512 + 7
	off := ether.Offload{GSO: g, NeedsCsum: true, CsumOff: 16, Size: size}
	proto, l4Len := byte(ether.ProtoTCP), ether.TCPHeaderLen
	if g == ether.GSOUDPL4 {
		proto, l4Len, off.CsumOff = ether.ProtoUDP, ether.UDPHeaderLen, 6
	}
	length := l4Len + payload

	f := append(append([]byte(nil), probeDst[:]...), probeSrc[:]...)
	var pseudo uint16
	if g == ether.GSOTCPv6 {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, proto, 64)
		f = append(f, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
		f = append(f, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2)
		ip := ether.IPv6(f[ether.HeaderLen:])
		ip.SetPayloadLen(uint16(length))
		pseudo = ether.PseudoSum(ip[8:24], ip[24:40], proto, length)
	} else {
		f = append(f, 0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0)
		f = append(f, 192, 0, 2, 1, 192, 0, 2, 2)
		ip := ether.IPv4(f[ether.HeaderLen:])
		ip.SetTotalLen(uint16(ether.IPv4HeaderLen + length))
		ip.UpdateChecksum()
		pseudo = ether.PseudoSum(ip[12:16], ip[16:20], proto, length)
	}
	off.CsumStart = uint16(len(f))
	f = append(f, make([]byte, length)...)
	l4 := f[off.CsumStart:]
	l4[1], l4[3] = 9, 9 // ports: discard (RFC 863)
	if g == ether.GSOUDPL4 {
		ether.UDP(l4).SetLen(uint16(length))
		ether.UDP(l4).SetChecksum(pseudo)
	} else {
		l4[12] = ether.TCPHeaderLen / 4 << 4
		ether.TCP(l4).SetChecksum(pseudo)
	}
	return f, off
}
