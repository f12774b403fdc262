package sleeve

import (
	"bytes"
	"fmt"
	"testing"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// sealedLens returns the lengths of what is sealed in the datagrams.
func sealedLens(datagrams [][]byte) (n []int) {
	for _, d := range datagrams {
		n = append(n, len(d)-session.HeaderLen-session.TagLen)
	}
	return n
}

// TestPadding sends superframes with segments of every size near a multiple of the
// stride: what arrives is what was sent, whichever shards were padded.
func TestPadding(t *testing.T) {
	payload := make([]byte, 7000)
	for i := range payload {
		payload[i] = byte(i * i >> 3)
	}
	for _, c := range ciphers {
		t.Run(c.String(), func(t *testing.T) {
			rx := &counting{keep: true}
			d := newDirect(t, c, 1472, rx)
			padded := 0
			for size := 1310; size <= 1360; size++ {
				// The last segment: whole, long, as short as padding is long, shorter.
				for _, tail := range []int{size, size / 2, maxPadding, 1} {
					frame, off := ethertest.Packet{Payload: payload[:3*size+tail]}.Superframe(size)
					sf := ether.NewSuperframe()
					refill(sf, frame, off)
					d.send(sf)
					datagrams := d.datagrams()
					if len(datagrams) != 4 {
						t.Fatalf("segments of %d bytes and %d: %d datagrams, want 4", size, tail, len(datagrams))
					}
					bare := metaLen + (len(frame) - (3*size + tail)) + size
					for i, n := range sealedLens(datagrams[:3]) {
						want := bare
						if pad := -bare & 127; c == session.CipherAES && pad <= maxPadding && (i < 2 || pad <= tail) {
							want += pad
							padded++
						}
						if c != session.CipherNone && n != want {
							t.Errorf("segments of %d bytes and %d: datagram %d seals %d bytes, want %d", size, tail, i, n, want)
						}
					}
					d.give(datagrams...)
					if len(rx.frames) != 1 || !bytes.Equal(rx.frames[0], frame) {
						t.Fatalf("segments of %d bytes and %d: %d frames arrived, or another than was sent", size, tail, len(rx.frames))
					}
					rx.frames, rx.offs = nil, nil
				}
			}
			if (padded > 0) != (c == session.CipherAES) {
				t.Errorf("%d datagrams padded", padded)
			}
		})
	}
}

// TestPaddingFits: what has no room for padding goes without it, in as many
// datagrams.
func TestPaddingFits(t *testing.T) {
	const size = 1324 // of a segment at the default MTU: 1398 bytes to seal
	frame, off := ethertest.Packet{Payload: make([]byte, 8*size), TCPOptions: bytes.Repeat([]byte{1}, 12)}.Superframe(size)
	for limit, want := range map[int]int{1430: 1398, 1432: 1398, 1439: 1398, 1440: 1408, 1472: 1408} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			rx := &counting{keep: true}
			d := newDirect(t, session.CipherAES, limit, rx)
			sf := ether.NewSuperframe()
			refill(sf, frame, off)
			d.send(sf)
			datagrams := d.datagrams()
			if got := sealedLens(datagrams); len(got) != 8 || got[0] != want || got[6] != want || got[7] != 1398 {
				t.Errorf("sealed %d, want 8 of %d bytes, the last 1398", got, want)
			}
			d.give(datagrams...)
			if len(rx.frames) != 1 || !bytes.Equal(rx.frames[0], frame) {
				t.Errorf("%d frames arrived, or another than was sent", len(rx.frames))
			}
		})
	}
}

// TestPaddingIsOfTheSuperframe: never of what the buffer held before, which may have
// been for another peer.
func TestPaddingIsOfTheSuperframe(t *testing.T) {
	const size = 1324
	for tail := 1; tail <= maxPadding; tail++ {
		rx := &counting{}
		d := newDirect(t, session.CipherAES, 1472, rx)
		frame, off := ethertest.Packet{Payload: make([]byte, 2*size+tail), TCPOptions: bytes.Repeat([]byte{1}, 12)}.Superframe(size)
		sf := ether.NewSuperframe()
		stale := sf.Buf[:cap(sf.Buf)]
		for i := range stale {
			stale[i] = 0xa5
		}
		refill(sf, frame, off)
		d.send(sf)
		for i, p := range d.datagrams() {
			h, _ := session.ParseHeader(p)
			plain, err := d.rxKeys.Opener(h.Lane).Open(h, p)
			if err != nil {
				t.Fatal(err)
			}
			m, data, ok := parseMeta(plain)
			if behind := data[m.tmplLen:]; !ok || bytes.Contains(behind, []byte{0xa5}) {
				t.Errorf("last segment of %d bytes: datagram %d is %v, and ends in %x", tail, i, ok, behind[len(behind)-tail:])
			}
		}
	}
}

// TestPaddingUnderLoss: a lost datagram costs its segment, padded or not.
func TestPaddingUnderLoss(t *testing.T) {
	const size = 1324
	rx := &counting{keep: true}
	d := newDirect(t, session.CipherAES, 1472, rx)
	frame, off := ethertest.Packet{Payload: make([]byte, 10*size), TCPOptions: bytes.Repeat([]byte{1}, 12)}.Superframe(size)
	sf := ether.NewSuperframe()
	refill(sf, frame, off)
	d.send(sf)
	datagrams := d.datagrams()
	d.give(append(datagrams[:4:4], datagrams[5:]...)...)
	if rx.calls != 2 || rx.bytes != 2*(len(frame)-10*size)+9*size {
		t.Errorf("%d frames of %d bytes arrived, want 2 with 9 segments", rx.calls, rx.bytes)
	}
}
