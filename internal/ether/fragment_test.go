package ether_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// fragments runs a Fragmenter to its end.
func fragments(t testing.TB, frame []byte, off ether.Offload, mtu int) [][]byte {
	t.Helper()
	var f ether.Fragmenter
	if err := f.Reset(frame, off, mtu); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	var out [][]byte
	for {
		hdr, payload, ok := f.Next()
		if !ok {
			return out
		}
		out = append(out, append(bytes.Clone(hdr), payload...))
	}
}

// reassemble checks fragments as a receiver would and returns the whole frame,
// with the first fragment's header.
func reassemble(t testing.TB, frags [][]byte, mtu int) []byte {
	t.Helper()
	var whole []byte
	for i, f := range frags {
		l, err := ether.Parse(f)
		if err != nil && i == 0 && len(f)-l.L3 > 60+20 {
			t.Fatalf("fragment %d: %v", i, err)
		}
		ip := ether.IPv4(f[l.L3:])
		switch {
		case len(ip) > mtu || ip.TotalLen() != len(ip):
			t.Fatalf("fragment %d has %d bytes, says %d; mtu %d", i, len(ip), ip.TotalLen(), mtu)
		case ethertest.SlowSum(ip[:ip.HeaderLen()]) != 0xffff:
			t.Fatalf("fragment %d: wrong header checksum", i)
		case ip.MoreFragments() != (i < len(frags)-1):
			t.Fatalf("fragment %d of %d: MF %v", i, len(frags), ip.MoreFragments())
		}
		if i == 0 {
			whole = bytes.Clone(f[:l.L3+ip.HeaderLen()])
		}
		if at := len(whole) - l.L3 - ip.HeaderLen(); ip.FragmentOffset() != at {
			t.Fatalf("fragment %d at %d, want %d", i, ip.FragmentOffset(), at)
		}
		whole = append(whole, ip[ip.HeaderLen():]...)
	}
	ip := ether.IPv4(whole[mustL3(t, whole):])
	ip.SetTotalLen(uint16(len(ip)))
	ip[6] = 0
	ip.UpdateChecksum()
	return whole
}

func mustL3(t testing.TB, frame []byte) int {
	t.Helper()
	l, _ := ether.Parse(frame)
	if l.IPVersion != 4 {
		t.Fatalf("not IPv4: %x", frame)
	}
	return l.L3
}

func TestFragmenter(t *testing.T) {
	for _, tt := range packets {
		if tt.p.SrcIP.Is6() || tt.p.DF {
			continue
		}
		for _, mtu := range []int{68, 576, 1000, 1376, 5000} {
			t.Run(tt.name, func(t *testing.T) {
				frame, off := tt.p.Superframe(0)
				got := fragments(t, append(frame, 0, 0), off, mtu)
				if diff := cmp.Diff(tt.p.Frame(), reassemble(t, got, mtu)); diff != "" {
					t.Errorf("mtu %d, reassembled (-want +got):\n%s", mtu, diff)
				}
			})
		}
	}
}

// A fragment can be cut once more; its offset and MF carry over.
func TestFragmenterTwice(t *testing.T) {
	p := ethertest.Packet{Dst: macB, Src: macA, UDP: true, ID: 7, Payload: randBytes(3000)}
	var got [][]byte
	for _, f := range fragments(t, p.Frame(), ether.Offload{}, 1376) {
		got = append(got, fragments(t, f, ether.Offload{}, 576)...)
	}
	if diff := cmp.Diff(p.Frame(), reassemble(t, got, 576)); diff != "" {
		t.Errorf("reassembled (-want +got):\n%s", diff)
	}
}

// Options that are not to be copied become no-ops behind the first fragment.
func TestFragmenterOptions(t *testing.T) {
	const noop, recordRoute, looseRoute = 1, 7, 0x83
	opts := []byte{recordRoute, 3, 4, noop, looseRoute, 7, 4, 9, 9, 9, 9, 0}
	p := ethertest.Packet{Dst: macB, Src: macA, UDP: true, IPOptions: opts, Payload: randBytes(100)}
	got := fragments(t, p.Frame(), ether.Offload{}, 80)
	want := []byte{noop, noop, noop, noop, looseRoute, 7, 4, 9, 9, 9, 9, 0}
	if diff := cmp.Diff(opts, got[0][34:46]); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, got[1][34:46]); diff != "" {
		t.Errorf("second (-want +got):\n%s", diff)
	}
}

func TestFragmenterErrors(t *testing.T) {
	plain := ethertest.Packet{UDP: true, Payload: randBytes(100)}
	df := plain
	df.DF = true
	v6 := ethertest.Packet{SrcIP: ip6A, DstIP: ip6B}
	frame := plain.Frame()
	huge := bytes.Clone(frame)
	huge[20], huge[21] = 0x1f, 0xff // offset 65528
	super, off := packets[0].p.Superframe(1000)
	for _, tt := range []struct {
		name  string
		frame []byte
		off   ether.Offload
		mtu   int
		want  error
	}{
		{"df", df.Frame(), ether.Offload{}, 1000, ether.ErrDontFragment},
		{"ipv6", v6.Frame(), ether.Offload{}, 1000, ether.ErrDontFragment},
		{"arp", unhex(t, golden[0].hex), ether.Offload{}, 1000, ether.ErrDontFragment},
		{"truncated", frame[:100], ether.Offload{}, 1000, ether.ErrTruncated},
		{"no room", frame, ether.Offload{}, 27, ether.ErrMalformed},
		{"beyond 64 KiB", huge, ether.Offload{}, 1000, ether.ErrMalformed},
		{"superframe", super, off, 1000, ether.ErrMalformed},
		// The sum would be written over the version and the length of the IP header.
		{"checksum in the header", frame, ether.Offload{NeedsCsum: true, CsumStart: 12, CsumOff: 2}, 1000, ether.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f ether.Fragmenter
			if err := f.Reset(tt.frame, tt.off, tt.mtu); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if _, _, ok := f.Next(); ok {
				t.Error("a fragment after the error")
			}
		})
	}
}

func TestFragmenterNoAllocs(t *testing.T) {
	frame := packets[0].p.Frame()
	f := new(ether.Fragmenter)
	if n := testing.AllocsPerRun(100, func() {
		f.Reset(frame, ether.Offload{}, 576)
		for {
			if _, _, ok := f.Next(); !ok {
				return
			}
		}
	}); n != 0 {
		t.Errorf("Fragmenter: %v allocations", n)
	}
}

func FuzzFragmenter(f *testing.F) {
	addFrames(f, func(frame []byte, off ether.Offload) { f.Add(frame, off.NeedsCsum, off.CsumStart, off.CsumOff, 576) })
	f.Fuzz(func(t *testing.T, frame []byte, csum bool, start, field uint16, mtu int) {
		if len(frame) > 5000 {
			return
		}
		frame = bytes.Clone(frame) // Reset writes to it
		off := ether.Offload{NeedsCsum: csum, CsumStart: start, CsumOff: field}
		var g ether.Fragmenter
		if g.Reset(frame, off, mtu) != nil {
			return
		}
		l, _ := ether.Parse(frame)
		var joined []byte
		for {
			hdr, payload, ok := g.Next()
			if !ok {
				break
			}
			joined = append(joined, payload...)
			ip := ether.IPv4(hdr[l.L3:])
			if n := len(ip) + len(payload); n > mtu || ip.TotalLen() != n {
				t.Fatalf("fragment of %d bytes says %d; mtu %d", n, ip.TotalLen(), mtu)
			}
		}
		if want := frame[l.L3+ether.IPv4(frame[l.L3:]).HeaderLen() : l.End]; !bytes.Equal(joined, want) {
			t.Fatalf("fragments hold %d bytes, want %d", len(joined), len(want))
		}
	})
}
