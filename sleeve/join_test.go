package sleeve_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/sleeve/sleevetest"
)

// flood draws UDP frames as a sender without segmentation offload makes them: the
// same flow most of the time, with every difference that must not be joined.
type flood struct {
	rng *rand.Rand
	tr  *traffic
	p   ethertest.Packet
	n   int  // payload bytes
	any bool // of other flows, too
}

func newFlood(seed uint64) *flood {
	f := &flood{rng: rand.New(rand.NewPCG(seed, 9)), tr: newTraffic(seed)}
	f.turn()
	return f
}

// turn begins another flow.
func (f *flood) turn() {
	f.p = f.tr.packet()
	f.p.UDP, f.p.TCPOptions, f.p.Flags = true, nil, 0
	f.p.SrcPort = uint16(f.rng.Uint32())
	f.n = []int{1, 8, 64, 64, 333, 512, 900, 1300}[f.rng.IntN(8)]
}

func (f *flood) hit(n int) bool { return f.rng.IntN(n) == 0 }

// next returns a frame, and the packet it stands for: the frame with its checksum
// completed, whatever else is wrong with it.
func (f *flood) next() sent {
	switch {
	case f.hit(40):
		f.turn()
	case f.any && f.hit(60):
		return f.tr.any()
	}
	p, n := f.p, f.n
	switch {
	case f.hit(30):
		n = 1 + f.rng.IntN(f.n)
	case f.hit(60):
		n = min(f.n+1, 1300)
	case f.hit(80):
		n = 0
	}
	switch f.rng.IntN(300) {
	case 0:
		p.DF = !p.DF
	case 1:
		p.ID += 7
	case 2:
		p.DstPort++
	case 3:
		p.Dst[5]++
	case 4:
		p.VLANs = append(p.VLANs[:len(p.VLANs):len(p.VLANs)], 5)
	}
	f.p.ID++
	s := f.tr.superframe(p, n, 0)
	frame := s.sf.Frame()
	if f.hit(25) { // any byte of the headers, checksums not adapted
		frame[f.rng.IntN(len(frame)-n)] ^= byte(1 << f.rng.IntN(8))
	}
	if f.hit(200) { // Ethernet padding
		s.sf.Buf = append(s.sf.Buf, 0, 0, 0)
		frame = s.sf.Frame()
	}
	if f.hit(200) { // its checksum is complete
		s.sf.Offload = ether.Offload{}
	}
	s.packets = [][]byte{bytes.Clone(frame)}
	if err := ether.FinishChecksum(s.packets[0], s.sf.Offload); err != nil {
		panic(err)
	}
	return s
}

// TestJoinGivesBackWhatWasSent: what the segmentation of all that arrives gives is,
// to the byte and in order, what was sent.
func TestJoinGivesBackWhatWasSent(t *testing.T) {
	for _, mtu := range []int{1500, 1460, 1280} { // on the last the largest frames are cut
		synctest.Test(t, func(t *testing.T) {
			net := sleevetest.NewNet(1)
			net.SetMTU(func(_, _ netip.Addr) int { return mtu })
			p := newPair(t, net, sleevetest.Options{Cipher: session.CipherNone})
			f := newFlood(uint64(mtu))
			f.any = mtu == 1500 // TCP would be cut otherwise
			frames, calls := 0, 0
			for round := range 300 {
				var want [][]byte
				var batch []sent
				for range 1 + f.rng.IntN(100) {
					s := f.next()
					if mtu == 1280 && s.packets[0][12] != 0x08 { // too big, and may not be cut
						continue
					}
					batch = append(batch, s)
					want = append(want, s.packets...)
				}
				p.send(batch...)
				got, c := p.rx.take()
				got, want = small(got, mtu), small(want, mtu)
				if i := firstDifference(got, want); i >= 0 {
					t.Fatalf("mtu %d, round %d: %d packets, want %d; packet %d is wrong", mtu, round, len(got), len(want), i)
				}
				frames, calls = frames+len(want), calls+len(c)
			}
			t.Logf("mtu %d: %d packets in %d calls", mtu, frames, calls)
			if calls > frames/2 {
				t.Errorf("mtu %d: %d packets in %d calls: hardly anything was joined", mtu, frames, calls)
			}
		})
	}
}

// small leaves out what may be too big for a path: what becomes of it is another
// test's business.
func small(packets [][]byte, mtu int) (out [][]byte) {
	for _, p := range packets {
		if mtu == 1500 || len(p) <= mtu-120 {
			out = append(out, p)
		}
	}
	return out
}

// zeroSum gives p the address with which the sum of its pseudo-header is zero, in the
// form 0xffff, for a payload of n bytes.
func zeroSum(p ethertest.Packet, n int) ethertest.Packet {
	p.Payload = make([]byte, n)
	for i := range 1 << 16 {
		p.SrcIP, p.DstIP = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 0, 0, 2})
		if frame, off := p.Superframe(0); frame[off.CsumStart+off.CsumOff] == 0xff && frame[off.CsumStart+off.CsumOff+1] == 0xff {
			return p
		}
	}
	panic("no such address")
}

const maxTrainBytes = 65507 // in one call of Sender.Send

// TestJoin: the cases one by one, with the calls of the receiver that they make.
func TestJoin(t *testing.T) {
	v4 := ethertest.Packet{UDP: true, ID: 100, SrcPort: 5, DstPort: 6}
	v6 := ethertest.Packet{UDP: true, SrcPort: 5, DstPort: 6, SrcIP: netip.MustParseAddr("fd00::1"), DstIP: netip.MustParseAddr("fd00::2")}
	type mod func(i int, p *ethertest.Packet)
	counting := func(i int, p *ethertest.Packet) { p.ID += uint16(i) }
	tests := []struct {
		name  string
		p     ethertest.Packet
		count int
		size  func(i int) int
		mod   mod
		calls int
	}{
		{"IPv4, identification counts", v4, 10, func(int) int { return 64 }, counting, 1},
		{"IPv4, identification stays", v4, 10, func(int) int { return 64 }, nil, 10},
		{"IPv4, identification counts down", v4, 10, func(int) int { return 64 }, func(i int, p *ethertest.Packet) { p.ID -= uint16(i) }, 10},
		{"IPv4, identification wraps", ethertest.Packet{UDP: true, ID: 65530}, 10, func(int) int { return 64 }, counting, 1},
		{"IPv4, sum of the pseudo-header is zero", zeroSum(v4, 64), 10, func(int) int { return 64 }, counting, 1},
		{"IPv6", v6, 10, func(int) int { return 64 }, nil, 1},
		{"large frames", v6, 10, func(int) int { return 1300 }, nil, 1},
		{"two large frames", v6, 2, func(int) int { return 1300 }, nil, 1},
		{"three small frames: a bundle", v6, 3, func(int) int { return 64 }, nil, 3},
		{"one byte", v6, 64, func(int) int { return 1 }, nil, 1},
		{"no byte", v6, 10, func(int) int { return 0 }, nil, 10},
		{"the last is shorter", v6, 10, func(i int) int { return 64 - i/9 }, nil, 1},
		{"a shorter one in the middle", v6, 10, func(i int) int { return 64 - i%5/4 }, nil, 2},
		{"as many as a kernel takes", v6, 130, func(int) int { return 10 }, nil, 2 + 2},
		{"64 KiB", v6, 60, func(int) int { return 1300 }, nil, 2},
		{"another port", v6, 10, func(int) int { return 64 }, func(i int, p *ethertest.Packet) { p.DstPort += uint16(i / 5) }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr := newPair(t, sleevetest.NewNet(1), sleevetest.Options{Cipher: session.CipherAES})
				tr := newTraffic(1)
				var batch []sent
				var want [][]byte
				for i := range tt.count {
					p := tt.p
					if tt.mod != nil {
						tt.mod(i, &p)
					}
					s := tr.superframe(p, tt.size(i), 0)
					batch = append(batch, s)
					want = append(want, s.packets...)
				}
				pr.send(batch...)
				got, calls := pr.rx.take()
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("%d packets, want %d; packet %d is wrong", len(got), len(want), i)
				}
				// Two trains may come in two batches, and make two calls of one superframe.
				trains := len(slices.Concat(want...)) / maxTrainBytes
				if len(calls) < tt.calls || len(calls) > tt.calls+trains {
					t.Errorf("%d calls, want %d", len(calls), tt.calls)
				}
			})
		})
	}
}
