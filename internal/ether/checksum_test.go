package ether_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.Join(bytes.Fields([]byte(s)), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func randBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sameSum compares as numbers modulo 0xffff: a sum has two zeros.
func sameSum(a, b uint16) bool { return a%0xffff == b%0xffff }

func TestSum(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		want uint16
	}{
		{"empty", nil, 0},
		{"one byte", []byte{0x12}, 0x1200},
		{"RFC 1071 §3", []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0xddf2},
		{"ones", bytes.Repeat([]byte{0xff}, 1000), 0xffff}, // each end-around carry happens
		{"zeros", make([]byte, 1000), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ether.Sum(tt.b, 0); got != tt.want {
				t.Errorf("Sum = %#04x, want %#04x", got, tt.want)
			}
		})
	}
	data := randBytes(70000)
	for n := range 300 { // every remainder of the unrolled loop, at odd addresses too
		for _, at := range []int{0, 1, 3} {
			b := data[at : at+n]
			if got, want := ether.Sum(b, 0), ethertest.SlowSum(b); !sameSum(got, want) {
				t.Fatalf("Sum of %d bytes = %#04x, want %#04x", n, got, want)
			}
		}
	}
	if got, want := ether.Sum(data[:65535], 0), ethertest.SlowSum(data[:65535]); got != want {
		t.Errorf("Sum of 65535 bytes = %#04x, want %#04x", got, want)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add(bytes.Repeat([]byte{0xff}, 129), uint16(0xffff))
	f.Add(randBytes(77), uint16(0x1234))
	f.Fuzz(func(t *testing.T, b []byte, init uint16) {
		whole := append([]byte{byte(init >> 8), byte(init)}, b...)
		if got, want := ether.Sum(b, init), ethertest.SlowSum(whole); !sameSum(got, want) {
			t.Errorf("Sum = %#04x, want %#04x", got, want)
		}
	})
}

func TestPseudoSum(t *testing.T) {
	got := ether.PseudoSum([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, ether.ProtoTCP, 20)
	if want := uint16(0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + 20); got != want {
		t.Errorf("PseudoSum = %#04x, want %#04x", got, want)
	}
}

func TestFinishChecksum(t *testing.T) {
	for _, tt := range packets {
		t.Run(tt.name, func(t *testing.T) {
			got, off := tt.p.Superframe(0)
			if err := ether.FinishChecksum(got, off); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.p.Frame(), got); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

// A datagram whose sum comes out as 0xffff must not be sent with checksum field 0.
func TestFinishChecksumZero(t *testing.T) {
	p := ethertest.Packet{UDP: true, Payload: []byte{0, 0}}
	f := p.Frame()
	check := f[len(f)-4 : len(f)-2]
	p.Payload = bytes.Clone(check) // payload complements the rest to zero
	got, off := p.Superframe(0)
	if err := ether.FinishChecksum(got, off); err != nil {
		t.Fatal(err)
	}
	l, _ := ether.Parse(got)
	if c := ether.UDP(got[l.L4:]).Checksum(); c != 0xffff {
		t.Errorf("checksum %#04x, want 0xffff", c)
	}
}

func TestFinishChecksumErrors(t *testing.T) {
	frame, off := ethertest.Packet{Payload: randBytes(100)}.Superframe(0)
	gso := off
	gso.GSO = ether.GSOTCPv4
	if err := ether.FinishChecksum(frame, gso); !errors.Is(err, ether.ErrMalformed) {
		t.Errorf("superframe: error %v, want ErrMalformed", err)
	}
	off.CsumStart, off.CsumOff = 0xffff, 0xffff
	if err := ether.FinishChecksum(frame, off); !errors.Is(err, ether.ErrTruncated) {
		t.Errorf("beyond the end: error %v, want ErrTruncated", err)
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 1400, 60000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			data := randBytes(n)
			b.SetBytes(int64(n))
			for b.Loop() {
				ether.Sum(data, 0)
			}
		})
	}
}
