package ether

import "errors"

// ErrDontFragment reports a packet that must not be cut: IPv4 with DF, or not IPv4.
var ErrDontFragment = errors.New("packet may not be fragmented")

// Fragmenter cuts an IPv4 packet inside a frame into fragments (RFC 791 §3.2) for
// a path that is too narrow for it. The zero Fragmenter is empty; Reset makes it
// ready, over and over.
type Fragmenter struct {
	frame  []byte // no padding
	layers Layers
	step   int // payload bytes per fragment but the last, a multiple of 8
	at     int // of the next fragment's payload in frame
	body   int // of the IP payload in frame
	hdr    [HeaderLen + MaxVLANTags*VLANTagLen + 60]byte
}

// Reset starts on a frame whose IP packets may be up to mtu bytes long. A partial
// checksum is completed in frame first, as its datagram is about to fall apart;
// off.GSO must be GSONone. frame must stay as it is until the last Next. It may be
// a fragment itself. ErrDontFragment asks for [AppendTooBig] instead.
func (f *Fragmenter) Reset(frame []byte, off Offload, mtu int) error {
	f.frame, f.at = nil, 0
	l, err := Parse(frame)
	if l.IPVersion != 4 {
		if err == nil {
			err = ErrDontFragment
		}
		return err
	}
	// What is behind the IP header need not make sense, but it must be there.
	if errors.Is(err, ErrTruncated) {
		return err
	}
	ip := IPv4(frame[l.L3:])
	if ip.DontFragment() {
		return ErrDontFragment
	}
	body := l.L3 + ip.HeaderLen()
	step := (mtu - ip.HeaderLen()) &^ 7
	last := ip.FragmentOffset() + l.End - body
	if step <= 0 || last > 0xffff || off.NeedsCsum && int(off.CsumStart) < body {
		return ErrMalformed
	}
	if err := FinishChecksum(frame[:l.End], off); err != nil {
		return err
	}
	f.frame, f.layers, f.step = frame[:l.End], l, step
	f.body, f.at = body, body
	return nil
}

// Next returns the next fragment's frame in two pieces, its header and its
// payload. The header is valid until the next Next or Reset. ok is false after the
// last one.
func (f *Fragmenter) Next() (hdr, payload []byte, ok bool) {
	if f.frame == nil {
		return nil, nil, false
	}
	end := min(f.at+f.step, len(f.frame))
	payload = f.frame[f.at:end]
	hdr = f.hdr[:copy(f.hdr[:], f.frame[:f.body])]
	ip := IPv4(hdr[f.layers.L3:])
	fragment := be.Uint16(ip[6:]) + uint16((f.at-f.body)/8)
	if end < len(f.frame) {
		fragment |= ipv4MF
	}
	be.PutUint16(ip[6:], fragment)
	if f.at > f.body {
		blankOptions(ip[IPv4HeaderLen:])
	}
	ip.SetTotalLen(uint16(len(ip) + len(payload)))
	ip.UpdateChecksum()
	if f.at = end; end == len(f.frame) {
		f.frame = nil
	}
	return hdr, payload, true
}

// blankOptions overwrites with no-ops the options that only the first fragment may
// have, those without the copied flag (RFC 791 §3.1); the header keeps its length.
func blankOptions(opts []byte) {
	const end, noop, copied = 0, 1, 0x80
	for len(opts) > 0 && opts[0] != end {
		n := 1
		if opts[0] != noop {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				return
			}
			n = int(opts[1])
		}
		if opts[0]&copied == 0 {
			for i := range n {
				opts[i] = noop
			}
		}
		opts = opts[n:]
	}
}
