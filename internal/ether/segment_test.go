package ether_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// slowSegments is the oracle: it describes each segment as a packet of its own and
// builds it from scratch.
func slowSegments(p ethertest.Packet, size int) [][]byte {
	var out [][]byte
	for i := 0; ; i++ {
		q := p
		q.Payload = p.Payload[i*size : min((i+1)*size, len(p.Payload))]
		q.ID = p.ID + uint16(i)
		q.Seq = p.Seq + uint32(i*size)
		last := (i+1)*size >= len(p.Payload)
		if i > 0 {
			q.Flags &^= ether.CWR
		}
		if !last {
			q.Flags &^= ether.FIN | ether.PSH
		}
		out = append(out, q.Frame())
		if last {
			return out
		}
	}
}

// segments runs a Segmenter and completes the checksums of its frames.
func segments(t testing.TB, frame []byte, off ether.Offload) [][]byte {
	t.Helper()
	var s ether.Segmenter
	if err := s.Reset(frame, off); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	var out [][]byte
	for {
		hdr, payload, off, ok := s.Next()
		if !ok {
			return out
		}
		f := append(bytes.Clone(hdr), payload...)
		if err := ether.FinishChecksum(f, off); err != nil {
			t.Fatalf("FinishChecksum: %v", err)
		}
		out = append(out, f)
	}
}

func TestSegmenter(t *testing.T) {
	for _, tt := range packets {
		for _, size := range []int{1, 536, 1000, 1448, 9000} {
			if len(tt.p.Payload)/size > 200 {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				frame, off := tt.p.Superframe(size)
				before := bytes.Clone(frame)
				got := segments(t, append(frame, 0, 0, 0), off) // Ethernet padding does not count
				if diff := cmp.Diff(slowSegments(tt.p, size), got); diff != "" {
					t.Errorf("segments of %d (-want +got):\n%s", size, diff)
				}
				if !bytes.Equal(frame, before) {
					t.Error("superframe changed")
				}
			})
		}
	}
}

func TestSegmenterPlain(t *testing.T) {
	frame, off := packets[0].p.Superframe(0)
	var s ether.Segmenter
	if err := s.Reset(frame, off); err != nil {
		t.Fatal(err)
	}
	hdr, payload, got, ok := s.Next()
	if !ok || len(payload) != 0 || !bytes.Equal(hdr, frame) || got != off {
		t.Errorf("plain frame came back as %d+%d bytes, %+v, %v", len(hdr), len(payload), got, ok)
	}
	if _, _, _, ok := s.Next(); ok {
		t.Error("a second frame")
	}
}

// Every run of segments is a superframe whose segments are those of the whole.
func TestCutTemplate(t *testing.T) {
	const size = 700
	for _, tt := range packets {
		t.Run(tt.name, func(t *testing.T) {
			frame, off := tt.p.Superframe(size)
			want := segments(t, frame, off)
			n, err := ether.TemplateLen(frame, off)
			if err != nil {
				t.Fatal(err)
			}
			payload := frame[n:]
			for a := range want {
				for b := a + 1; b <= len(want); b++ {
					run := payload[a*size : min(b*size, len(payload))]
					tmpl := bytes.Clone(frame[:n])
					r := ether.Run{First: a, Len: len(run), Last: b == len(want)}
					if err := ether.CutTemplate(tmpl, off, r); err != nil {
						t.Fatalf("run %+v: %v", r, err)
					}
					if diff := cmp.Diff(want[a:b], segments(t, append(tmpl, run...), off)); diff != "" {
						t.Fatalf("run %+v (-want +got):\n%s", r, diff)
					}
				}
			}
		})
	}
}

// A whole superframe survives its own rejoining byte for byte.
func TestCutTemplateWhole(t *testing.T) {
	for _, tt := range packets {
		frame, off := tt.p.Superframe(700)
		n, _ := ether.TemplateLen(frame, off)
		tmpl := bytes.Clone(frame[:n])
		if err := ether.CutTemplate(tmpl, off, ether.Run{Len: len(frame) - n, Last: true}); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(frame[:n], tmpl); diff != "" {
			t.Errorf("%s: template (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	frame, off := packets[0].p.Superframe(1000)
	udp, udpOff := packets[2].p.Superframe(1000)
	long := packets[5].p
	long.IPOptions = append([]byte{ether.ProtoTCP, 27}, make([]byte, 222)...)
	longFrame, longOff := long.Superframe(1000)
	with := func(o ether.Offload, f func(*ether.Offload)) ether.Offload { f(&o); return o }
	for _, tt := range []struct {
		name  string
		frame []byte
		off   ether.Offload
		want  error
	}{
		{"no gso", frame, with(off, func(o *ether.Offload) { o.GSO = ether.GSONone }), ether.ErrMalformed},
		{"unknown gso", frame, with(off, func(o *ether.Offload) { o.GSO = 3 }), ether.ErrMalformed},
		{"wrong ip version", frame, with(off, func(o *ether.Offload) { o.GSO = ether.GSOTCPv6 }), ether.ErrMalformed},
		{"wrong protocol", frame, with(off, func(o *ether.Offload) { o.GSO = ether.GSOUDPL4 }), ether.ErrMalformed},
		{"no size", frame, with(off, func(o *ether.Offload) { o.Size = 0 }), ether.ErrMalformed},
		{"complete checksum", frame, with(off, func(o *ether.Offload) { o.NeedsCsum = false }), ether.ErrMalformed},
		{"csum start", frame, with(off, func(o *ether.Offload) { o.CsumStart++ }), ether.ErrMalformed},
		{"csum offset", frame, with(off, func(o *ether.Offload) { o.CsumOff = 6 }), ether.ErrMalformed},
		{"udp with ecn", udp, with(udpOff, func(o *ether.Offload) { o.ECN = true }), ether.ErrMalformed},
		{"long template", longFrame, longOff, ether.ErrMalformed},
		{"short template", frame[:50], off, ether.ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ether.TemplateLen(tt.frame, tt.off); !errors.Is(err, tt.want) {
				t.Errorf("TemplateLen: error %v, want %v", err, tt.want)
			}
			if tt.off.GSO == ether.GSONone {
				return
			}
			var s ether.Segmenter
			if err := s.Reset(tt.frame, tt.off); !errors.Is(err, tt.want) {
				t.Errorf("Reset: error %v, want %v", err, tt.want)
			}
			if _, _, _, ok := s.Next(); ok {
				t.Error("a segment after the error")
			}
		})
	}
	var s ether.Segmenter
	if err := s.Reset(frame[:len(frame)-1], off); !errors.Is(err, ether.ErrTruncated) {
		t.Errorf("payload cut off: error %v, want ErrTruncated", err)
	}
	n, _ := ether.TemplateLen(frame, off)
	for _, r := range []ether.Run{{First: -1}, {Len: -1}, {Len: 65536}} {
		if err := ether.CutTemplate(bytes.Clone(frame[:n]), off, r); !errors.Is(err, ether.ErrMalformed) {
			t.Errorf("CutTemplate %+v: error %v, want ErrMalformed", r, err)
		}
	}
	if err := ether.CutTemplate(bytes.Clone(frame[:n+1]), off, ether.Run{}); !errors.Is(err, ether.ErrMalformed) {
		t.Errorf("CutTemplate of template and payload: error %v, want ErrMalformed", err)
	}
}

func TestSegmenterNoAllocs(t *testing.T) {
	frame, off := packets[0].p.Superframe(100)
	s := new(ether.Segmenter)
	if n := testing.AllocsPerRun(100, func() {
		s.Reset(frame, off)
		for {
			if _, _, _, ok := s.Next(); !ok {
				return
			}
		}
	}); n != 0 {
		t.Errorf("Segmenter: %v allocations", n)
	}
}

func FuzzSegmenter(f *testing.F) {
	addFrames(f, func(frame []byte, off ether.Offload) {
		f.Add(frame, uint8(off.GSO), off.NeedsCsum, off.CsumStart, off.CsumOff, off.Size)
	})
	f.Fuzz(func(t *testing.T, frame []byte, gso uint8, csum bool, start, field, size uint16) {
		off := ether.Offload{GSO: ether.GSO(gso), NeedsCsum: csum, CsumStart: start, CsumOff: field, Size: size}
		var s ether.Segmenter
		if s.Reset(frame, off) != nil || off.GSO == ether.GSONone {
			return
		}
		l, err := ether.Parse(frame)
		if err != nil {
			t.Fatalf("Reset accepts what Parse does not: %v", err)
		}
		var joined []byte
		for {
			hdr, payload, o, ok := s.Next()
			if !ok {
				break
			}
			joined = append(joined, payload...)
			single := append(bytes.Clone(hdr), payload...)
			m, err := ether.Parse(single)
			if err != nil || m.End != len(single) || m.L4 != l.L4 || m.Payload != l.Payload {
				t.Fatalf("segment parses as %+v, %v; superframe as %+v", m, err, l)
			}
			if err := ether.FinishChecksum(single, o); err != nil {
				t.Fatal(err)
			}
		}
		if want := frame[l.Payload:l.End]; !bytes.Equal(joined, want) {
			t.Fatalf("segments hold %d bytes, want %d", len(joined), len(want))
		}
	})
}
