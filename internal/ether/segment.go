package ether

// A superframe is one L2 to L4 header, the template, in front of a payload of many
// segments. Everything in this file edits copies of the template; the payload
// never moves.

// TemplateLen returns how many bytes of frame are its template: everything in
// front of the L4 payload. It is an error (ErrMalformed, ErrTruncated) if frame's
// headers do not fit off, which must have a GSO kind, or if the template is longer
// than MaxTemplate. frame may end anywhere behind its template.
func TemplateLen(frame []byte, off Offload) (int, error) {
	l, err := parseTemplate(frame, off)
	return l.Payload, err
}

// parseTemplate is parseHeaders with the rules that the kernel has for offloads
// (virtio_net_hdr_to_skb in include/linux/virtio_net.h).
func parseTemplate(frame []byte, off Offload) (Layers, error) {
	l, err := parseHeaders(frame)
	if err != nil {
		return l, err
	}
	var ok bool
	switch off.GSO {
	case GSOTCPv4:
		ok = l.IPVersion == 4 && l.Proto == ProtoTCP
	case GSOTCPv6:
		ok = l.IPVersion == 6 && l.Proto == ProtoTCP
	case GSOUDPL4:
		ok = l.Proto == ProtoUDP && !off.ECN
	}
	if !ok || l.L4 == 0 || l.Fragment || l.Payload > MaxTemplate ||
		!off.NeedsCsum || off.Size == 0 ||
		int(off.CsumStart) != l.L4 || off.CsumOff != off.GSO.csumOff() {
		return l, ErrMalformed
	}
	return l, nil
}

// csumOff returns where the checksum field of a segment's L4 header is.
func (g GSO) csumOff() uint16 {
	if g == GSOUDPL4 {
		return 6
	}
	return 16
}

// Run is a run of consecutive segments of a superframe.
type Run struct {
	First int  // index of its first segment
	Len   int  // its payload in bytes
	Last  bool // it holds the superframe's last segment
}

// CutTemplate turns tmpl, a copy of a superframe's whole template, into the header
// of a superframe (or single frame) that consists of run r alone, as the kernel's
// own segmentation would (tcp_gso_segment, __udp_gso_segment): lengths, IPv4
// identification and header checksum, TCP sequence number and flags, and the
// pseudo-header sum in the L4 checksum field, which stays partial. off is the
// whole superframe's. The run 0 to Last gives tmpl back unchanged.
func CutTemplate(tmpl []byte, off Offload, r Run) error {
	l, err := parseTemplate(tmpl, off)
	if err != nil {
		return err
	}
	if l.Payload != len(tmpl) {
		return ErrMalformed
	}
	return l.cut(tmpl, off, r)
}

// cut is CutTemplate behind its checks; l are the layers of tmpl.
func (l *Layers) cut(tmpl []byte, off Offload, r Run) error {
	length := len(tmpl) - l.L3 + r.Len
	if r.First < 0 || r.Len < 0 || length > 0xffff {
		return ErrMalformed
	}
	before, after := l.End-l.L4, len(tmpl)-l.L4+r.Len // L4 lengths
	if l.IPVersion == 4 {
		ip := IPv4(tmpl[l.L3:])
		ip.SetTotalLen(uint16(length))
		ip.SetID(ip.ID() + uint16(r.First))
		ip.UpdateChecksum()
	} else {
		IPv6(tmpl[l.L3:]).SetPayloadLen(uint16(length - IPv6HeaderLen))
	}
	if off.GSO == GSOUDPL4 {
		udp := UDP(tmpl[l.L4:])
		udp.SetLen(uint16(after))
	} else {
		tcp := TCP(tmpl[l.L4:])
		tcp.SetSeq(tcp.Seq() + uint32(r.First)*uint32(off.Size))
		tcp.SetFlags(tcp.Flags() &^ r.clearFlags())
	}
	// The field holds a sum, not its complement, hence no UpdateChecksum.
	field := tmpl[off.CsumStart+off.CsumOff:]
	be.PutUint16(field, AddSums(be.Uint16(field), AddSums(^uint16(before), uint16(after))))
	return nil
}

// clearFlags returns the TCP flags that belong to another segment: CWR to the
// first one (RFC 3168 §6.1.2), FIN and PSH to the last.
func (r Run) clearFlags() TCPFlags {
	var f TCPFlags
	if r.First > 0 {
		f |= CWR
	}
	if !r.Last {
		f |= FIN | PSH
	}
	return f
}

// Segmenter cuts a superframe into single frames, for a receiver that cannot take
// it whole. The zero Segmenter is empty; Reset makes it ready, over and over.
type Segmenter struct {
	frame  []byte // template and payload, no padding
	off    Offload
	layers Layers
	index  int // of the next segment
	at     int // of the next segment's payload in frame
	done   bool
	hdr    [MaxTemplate]byte
}

// Reset starts on a superframe, which must stay as it is until the last Next. A
// frame without GSO comes back in one piece.
func (s *Segmenter) Reset(frame []byte, off Offload) error {
	s.frame, s.off, s.index, s.at, s.done = frame, off, 0, 0, false
	if off.GSO == GSONone {
		return nil
	}
	s.done = true // in case of error
	l, err := parseTemplate(frame, off)
	if err != nil {
		return err
	}
	if l.End > len(frame) {
		return ErrTruncated
	}
	s.layers, s.frame, s.at, s.done = l, frame[:l.End], l.Payload, false
	return nil
}

// Next returns the next frame in two pieces, its header and its payload, and what
// is still to be done with it: at most a partial checksum. The header is valid
// until the next Next or Reset. ok is false after the last frame.
func (s *Segmenter) Next() (hdr, payload []byte, off Offload, ok bool) {
	if s.done {
		return nil, nil, Offload{}, false
	}
	if s.off.GSO == GSONone {
		s.done = true
		return s.frame, nil, s.off, true
	}
	end := min(s.at+int(s.off.Size), len(s.frame))
	s.done = end == len(s.frame)
	payload = s.frame[s.at:end]
	hdr = s.hdr[:copy(s.hdr[:], s.frame[:s.layers.Payload])]
	// cut only fails on lengths, which are those of a frame that Reset accepted.
	_ = s.layers.cut(hdr, s.off, Run{First: s.index, Len: len(payload), Last: s.done})
	s.at = end
	s.index++
	off = Offload{NeedsCsum: true, CsumStart: s.off.CsumStart, CsumOff: s.off.CsumOff}
	return hdr, payload, off, true
}
