package sleeve

import (
	"bytes"
	"encoding/binary"

	"weave/internal/ether"
	"weave/internal/peer"
)

const (
	maxJoin      = 64 // frames: what a kernel takes in one UDP superframe (UDP_MAX_SEGMENTS before 6.9)
	minSmallJoin = 4  // frames of up to bundleMax bytes: fewer do better in a bundle
)

// join gathers datagrams of one UDP flow, which its sender's kernel did not join,
// into the superframe that it could have made. Both ends then work once for all of
// them, above all at the TAP device. Nothing waits: what one batch brings is joined.
//
// Only frames are joined that the segmentation of the superframe gives back to the
// byte. So each has the headers of the first but for lengths, checksums and an IPv4
// identification that counts up; checksums are what segmentation would put there;
// payloads are of one size, the last one may be shorter.
type join struct {
	buf    []byte // the frames; nil until first used
	n      int    // frames in it; 0: none, and the rest means nothing
	closed bool   // the last one is shorter
	rt     peer.Route
	off    ether.Offload // of each frame
	l      ether.Layers  // of the first
	size   int           // payload bytes of each but the last
	id     uint16        // IPv4: of the next frame
}

// joined takes a frame of one packet that the join can take. It reports false, and
// has ended the open join, when the frame has to go by itself.
func (t *txLane) joined(rt peer.Route, off ether.Offload, frame []byte) bool {
	if !off.NeedsCsum || off.CsumOff != udpCsumOff {
		t.endJoin()
		return false
	}
	j := &t.join
	if j.n > 0 && j.continuedBy(rt, off, frame) {
		j.add(frame)
		if j.closed || j.n == maxJoin || len(j.buf)+j.size > ether.Headroom+ether.MaxSuperframe {
			t.endJoin()
		}
		return true
	}
	t.endJoin()
	if len(frame)+maxPrefix > t.room {
		return false
	}
	return j.begin(rt, off, frame)
}

// begin opens the join with frame, if that could be the first segment of a
// superframe.
func (j *join) begin(rt peer.Route, off ether.Offload, frame []byte) bool {
	l, err := ether.Parse(frame)
	if err != nil || l.Proto != ether.ProtoUDP || l.L4 == 0 || l.Fragment ||
		int(off.CsumStart) != l.L4 || l.Payload > ether.MaxTemplate || l.Payload == l.End || l.End != len(frame) {
		return false
	}
	*j = join{buf: j.buf, rt: rt, off: off, l: l, size: l.End - l.Payload}
	if l.IPVersion == 4 {
		j.id = ether.IPv4(frame[l.L3:]).ID()
	}
	if !j.sound(frame) {
		return false
	}
	if j.buf == nil {
		j.buf = make([]byte, ether.Headroom, ether.Headroom+ether.MaxSuperframe)
	}
	j.buf = append(j.buf[:ether.Headroom], frame...)
	j.n = 1
	j.id++
	return true
}

// continuedBy reports whether frame is the next segment.
func (j *join) continuedBy(rt peer.Route, off ether.Offload, frame []byte) bool {
	n := len(frame) - j.l.Payload
	if n <= 0 || n > j.size || off != j.off || rt != j.rt {
		return false
	}
	first := j.buf[ether.Headroom:]
	l3, ports := j.l.L3, j.l.L4+4
	if j.l.IPVersion == 4 {
		// Between these: total length, identification; header checksum.
		if !bytes.Equal(frame[:l3+2], first[:l3+2]) || !bytes.Equal(frame[l3+6:l3+10], first[l3+6:l3+10]) ||
			!bytes.Equal(frame[l3+12:ports], first[l3+12:ports]) {
			return false
		}
	} else if !bytes.Equal(frame[:l3+4], first[:l3+4]) || !bytes.Equal(frame[l3+6:ports], first[l3+6:ports]) {
		return false // between these: payload length
	}
	return j.sound(frame)
}

// sound reports whether what segmentation writes is in frame already: lengths,
// identification, the header's checksum and the pseudo-header's sum. l holds for it.
func (j *join) sound(frame []byte) bool {
	be := binary.BigEndian
	l := &j.l
	udp := ether.UDP(frame[l.L4:])
	if udp.Len() != len(udp) {
		return false
	}
	var pseudo uint16
	if l.IPVersion == 4 {
		ip := ether.IPv4(frame[l.L3:l.L4])
		if ip.TotalLen() != len(frame)-l.L3 || ip.ID() != j.id || ^ether.Sum(ip[12:], ether.Sum(ip[:10], 0)) != be.Uint16(ip[10:]) {
			return false
		}
		pseudo = ether.PseudoSum(ip[12:16], ip[16:20], ether.ProtoUDP, len(udp))
	} else {
		ip := ether.IPv6(frame[l.L3:])
		if ip.PayloadLen() != len(frame)-l.L3-ether.IPv6HeaderLen {
			return false
		}
		pseudo = ether.PseudoSum(ip[8:24], ip[24:40], ether.ProtoUDP, len(udp))
	}
	// Zero has two forms as a sum; both this and segmentation write 0xffff.
	return pseudo == udp.Checksum()
}

func (j *join) add(frame []byte) {
	payload := frame[j.l.Payload:]
	j.buf = append(j.buf, payload...)
	j.closed = len(payload) < j.size
	j.n++
	j.id++
}

// endJoin sends what is joined: as a superframe, or as frames if it isn't worth one.
func (t *txLane) endJoin() {
	j := &t.join
	n := j.n
	if n == 0 {
		return
	}
	j.n = 0
	tmpl, buf := j.l.Payload, j.buf
	if n == 1 {
		t.plain(j.rt, j.off, buf, ether.Headroom)
		return
	}
	off := j.off
	off.GSO, off.Size = ether.GSOUDPL4, uint16(j.size)
	run := ether.Run{Len: len(buf) - ether.Headroom - tmpl, Last: true}
	if ether.CutTemplate(buf[ether.Headroom:ether.Headroom+tmpl], off, run) != nil {
		t.drop(dropBadOffload) // cannot be: begin has looked
		return
	}
	if n < minSmallJoin && tmpl+j.size <= bundleMax {
		t.segmented(j.rt, off, buf, ether.Headroom, tmpl)
		return
	}
	t.super(j.rt, off, buf, ether.Headroom, tmpl)
}
