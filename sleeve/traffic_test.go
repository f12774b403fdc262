package sleeve_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
)

// traffic makes superframes and, without any code of this package or of package
// ether, the packets that they stand for. Payloads differ, so that packets of 8 bytes and more are
// unique.
type traffic struct {
	rng *rand.Rand
	n   uint64
}

func newTraffic(seed uint64) *traffic {
	return &traffic{rng: rand.New(rand.NewPCG(seed, 1))}
}

// sent is a superframe and its packets with complete checksums.
type sent struct {
	sf      *ether.Superframe
	packets [][]byte
}

func (tr *traffic) payload(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		tr.n++
		var w [8]byte
		binary.BigEndian.PutUint64(w[:], tr.n*0x9e3779b97f4a7c15)
		copy(b[i:], w[:])
	}
	return b
}

// packet draws headers of any kind.
func (tr *traffic) packet() ethertest.Packet {
	p := ethertest.Packet{
		Dst: ether.MAC{2, 0, 0, 0, 1, 2}, Src: ether.MAC{2, 0, 0, 0, 1, 1},
		ID: uint16(tr.rng.Uint32()), DF: tr.rng.IntN(2) == 0,
		SrcPort: 1000, DstPort: 2000, Seq: tr.rng.Uint32(),
		UDP: tr.rng.IntN(3) == 0,
	}
	if tr.rng.IntN(2) == 0 {
		p.SrcIP, p.DstIP = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	}
	for range tr.rng.IntN(3) {
		p.VLANs = append(p.VLANs, uint16(tr.rng.IntN(4095)))
	}
	if !p.UDP {
		p.Flags = ether.ACK
		for _, f := range []ether.TCPFlags{ether.PSH, ether.FIN, ether.CWR} {
			if tr.rng.IntN(3) == 0 {
				p.Flags |= f
			}
		}
		p.TCPOptions = make([]byte, 4*tr.rng.IntN(4))
		for i := range p.TCPOptions {
			p.TCPOptions[i] = 1 // no operation
		}
	}
	return p
}

// superframe makes one of the given payload and segment size; size 0 is one packet.
func (tr *traffic) superframe(p ethertest.Packet, payload, size int) sent {
	p.Payload = tr.payload(payload)
	frame, off := p.Superframe(size)
	off.ECN = !p.UDP && p.Flags&ether.CWR != 0 && size > 0
	s := sent{sf: ether.NewSuperframe()}
	s.sf.Offload = off
	s.sf.Buf = append(s.sf.Buf, frame...)
	if size == 0 {
		s.packets = [][]byte{p.Frame()}
		return s
	}
	for at := 0; at < payload; at += size {
		q := p
		end := min(at+size, payload)
		q.Payload = p.Payload[at:end]
		q.Seq += uint32(at)
		q.ID += uint16(at / size)
		if at > 0 {
			q.Flags &^= ether.CWR
		}
		if end < payload {
			q.Flags &^= ether.PSH | ether.FIN
		}
		s.packets = append(s.packets, q.Frame())
	}
	return s
}

// any draws a superframe of any size.
func (tr *traffic) any() sent {
	p := tr.packet()
	switch tr.rng.IntN(4) {
	case 0: // small packets
		return tr.superframe(p, tr.rng.IntN(200), 0)
	case 1: // packets up to the MTU
		return tr.superframe(p, tr.rng.IntN(1300), 0)
	}
	size := []int{1, 8, 100, 536, 1024, 1300}[tr.rng.IntN(6)]
	limit := min(61000, 127*size)
	return tr.superframe(p, size+1+tr.rng.IntN(limit), size)
}

// received cuts what a Receiver gets into packets with complete checksums.
type received struct {
	mu     sync.Mutex
	t      testing.TB
	frames [][]byte
	calls  []call
	seg    ether.Segmenter
}

// call is one call of Receive.
type call struct {
	from peer.Name
	rt   peer.Route
	off  ether.Offload
	size int
}

func (r *received) Receive(_ int, from peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	frame := bytes.Join(bufs, nil)
	r.calls = append(r.calls, call{from, rt, off, len(frame)})
	if off.ECN && ether.TCP(frame[off.CsumStart:]).Flags()&ether.CWR == 0 {
		r.t.Errorf("superframe with ECN offload and no CWR: %+v", off)
	}
	if err := r.seg.Reset(frame, off); err != nil {
		r.t.Errorf("received superframe of %d bytes, %+v: %v", len(frame), off, err)
		return
	}
	for {
		hdr, payload, left, ok := r.seg.Next()
		if !ok {
			return
		}
		p := append(append([]byte(nil), hdr...), payload...)
		if err := ether.FinishChecksum(p, left); err != nil {
			r.t.Errorf("finishing checksum of received packet: %v", err)
		}
		r.frames = append(r.frames, p)
	}
}

func (r *received) take() (frames [][]byte, calls []call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	frames, calls = r.frames, r.calls
	r.frames, r.calls = nil, nil
	return frames, calls
}
