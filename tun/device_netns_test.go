package tun

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/rawio"
)

func TestOpen(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "weavetap%d", Queues: 3, MTU: 1400, TxQueueLen: 77})
	link, err := netlink.LinkByName(d.Name())
	if err != nil {
		t.Fatal(err)
	}
	a := link.Attrs()
	if a.Index != d.Index() || a.MTU != 1400 || a.TxQLen != 77 || a.RawFlags&unix.IFF_UP == 0 || link.Type() != "tuntap" {
		t.Errorf("link %+v", a)
	}
	if !strings.HasPrefix(d.Name(), "weavetap") || d.Queues() != 3 || !d.Features().MultiQueue {
		t.Errorf("name %q, %d queues, features %v", d.Name(), d.Queues(), d.Features())
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + d.Name() + "/disable_ipv6"); err != nil || string(b) != "1\n" {
		t.Errorf("disable_ipv6 is %q, %v", b, err)
	}
	// Nothing comes out of a silent device, and the probes went nowhere.
	for i := range d.Queues() {
		if err := d.Queue(i).Read(ether.NewSuperframe()); err != rawio.ErrWouldBlock {
			t.Errorf("queue %d: Read: %v, want ErrWouldBlock", i, err)
		}
	}
}

// The kernels that we test on have all features.
func TestOpenFeatures(t *testing.T) {
	inNetns(t)
	want := Features{ReadCsum: true, ReadTSO: true, ReadECN: true, ReadUSO: true, WriteTSO: true, WriteUSO: true}
	if r := parseRelease((linux{}).release()); !r.atLeast(minWriteUSO) {
		want.WriteUSO = false
		want.ReadUSO = r.atLeast(release{6, 2, 0})
	}
	if diff := cmp.Diff(want, openTAP(t, Config{Name: "tap"}).Features()); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

func TestOpenBusy(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap", Queues: 2})
	for _, name := range []string{"tap", "lo"} {
		if _, err := Open(Config{Name: name, Queues: 2, Log: discard()}); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: error %v, want ErrBusy", name, err)
		}
	}
	d.Close()
	again := openTAP(t, Config{Name: "tap"}) // it went with its last descriptor
	again.Close()
}

// A user without CAP_NET_ADMIN is told so.
func TestOpenPermission(t *testing.T) {
	inNetns(t)
	var hdr = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps, none [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		t.Fatal(err)
	}
	none = caps
	none[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&hdr, &none[0]); err != nil { // this thread's
		t.Fatal(err)
	}
	_, err := Open(Config{Name: "tap", Log: discard()})
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrPermission) {
		t.Errorf("error %v, want ErrPermission", err)
	}
}

func TestClosed(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*Device) error
	}{
		{"closed", (*Device).Close},
		{"deleted by somebody", func(d *Device) error {
			return netlink.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: d.Index()}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNetns(t)
			d := openTAP(t, Config{Name: "tap"})
			if err := tt.end(d); err != nil {
				t.Fatal(err)
			}
			if err := d.Queue(0).Read(ether.NewSuperframe()); err != ErrClosed {
				t.Errorf("Read: %v, want ErrClosed", err)
			}
			if err := d.Queue(0).Write(ether.Offload{}, [][]byte{make([]byte, 60)}); err != ErrClosed {
				t.Errorf("Write: %v, want ErrClosed", err)
			}
		})
	}
}

func TestDownCountsDrops(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap"})
	link, _ := netlink.LinkByIndex(d.Index())
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	if err := d.Queue(0).Write(ether.Offload{}, [][]byte{make([]byte, 60)}); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"tap write down": 1}
	if diff := cmp.Diff(want, d.Queue(0).Counters().Drops); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// bridged returns two TAPs on one bridge.
func bridged(t testing.TB) (a, b *Device) {
	t.Helper()
	inNetns(t)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	(linux{}).disableIPv6("br")
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	a, b = openTAP(t, Config{Name: "a"}), openTAP(t, Config{Name: "b"})
	for _, d := range []*Device{a, b} {
		link, err := netlink.LinkByIndex(d.Index())
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMaster(link, br); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// shapes are frames that must cross a bridge as they are.
var shapes = []struct {
	name string
	size int // of a segment; 0: a single frame
	ecn  bool
	p    ethertest.Packet
}{
	{"single tcp", 0, false, ethertest.Packet{Payload: []byte("weave")}},
	{"jumbo udp", 0, false, ethertest.Packet{UDP: true, Payload: randBytes(1300)}},
	{"tso4", 1336, false, ethertest.Packet{Flags: ether.ACK | ether.PSH, Payload: randBytes(60000)}},
	{"tso4 ecn", 1336, true, ethertest.Packet{Flags: ether.ACK | ether.CWR | ether.ECE, Payload: randBytes(20000)}},
	{"tso6", 1316, false, ethertest.Packet{SrcIP: hostIP6, DstIP: peerIP6, Flags: ether.ACK, Payload: randBytes(60000)}},
	{"uso4", 1300, false, ethertest.Packet{UDP: true, Payload: randBytes(13001)}},
	{"uso6", 1300, false, ethertest.Packet{SrcIP: hostIP6, DstIP: peerIP6, UDP: true, Payload: randBytes(13001)}},
	{"vlan single", 0, false, ethertest.Packet{VLANs: []uint16{5}, UDP: true, Payload: []byte("weave")}},
	{"vlan tso4", 1332, false, ethertest.Packet{VLANs: []uint16{5}, Flags: ether.ACK, Payload: randBytes(30000)}},
	{"vlan uso6", 1000, false, ethertest.Packet{VLANs: []uint16{5}, SrcIP: hostIP6, DstIP: peerIP6, UDP: true, Payload: randBytes(5001)}},
	{"largest", 1336, false, ethertest.Packet{Flags: ether.ACK, Payload: randBytes(ether.MaxSuperframe - 54)}},
}

// What is written to one port of a bridge is read from the other one byte for byte,
// with the same work left undone: partial checksum, segmentation, ECN, the tag
// counted in csum_start.
func TestBridged(t *testing.T) {
	a, b := bridged(t)
	sf := ether.NewSuperframe()
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.p
			p.Dst, p.Src = peerMAC, ether.MAC{2, 0, 0, 0, 0, 1}
			want, off := p.Superframe(tt.size)
			off.ECN = tt.ecn
			l, err := ether.Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			run := [][]byte{want}
			if tt.size > 0 {
				run = pieces(want, l.Payload, tt.size)
			}
			if err := a.Queue(0).Write(off, run); err != nil {
				t.Fatal(err)
			}
			readMatch(t, b.Queue(0), sf, func(_ ether.Layers, f []byte) bool { return ether.Header(f).Src() == p.Src })
			if diff := cmp.Diff(off, sf.Offload); diff != "" {
				t.Errorf("offload (-written +read):\n%s", diff)
			}
			if at, ok := firstDiff(sf.Frame(), want); !ok {
				t.Errorf("read %d bytes, wrote %d; first difference at %d", len(sf.Frame()), len(want), at)
			}
			if sf.Head != ether.Headroom {
				t.Errorf("Head %d, want %d", sf.Head, ether.Headroom)
			}
		})
	}
	if c := a.Queue(0).Counters(); c.Segmented != 0 || len(c.Drops) != 0 || c.WriteFrames != uint64(len(shapes)) {
		t.Errorf("counters of the writer: %+v", c)
	}
}

// A device that may not write superframes writes the same bytes frame by frame,
// and so does one whose kernel refuses a particular superframe.
func TestBridgedSegmented(t *testing.T) {
	a, b := bridged(t)
	a.Queue(0).can = Features{}
	sf := ether.NewSuperframe()
	for _, tt := range shapes {
		if tt.size == 0 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			p := tt.p
			p.Dst, p.Src = peerMAC, ether.MAC{2, 0, 0, 0, 0, 1}
			frame, off := p.Superframe(tt.size)
			off.ECN = tt.ecn
			l, _ := ether.Parse(frame)
			if err := a.Queue(0).Write(off, pieces(frame, l.Payload, tt.size)); err != nil {
				t.Fatal(err)
			}
			var seg ether.Segmenter
			if err := seg.Reset(frame, off); err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				hdr, payload, off, ok := seg.Next()
				if !ok {
					break
				}
				want := append(bytes.Clone(hdr), payload...)
				readMatch(t, b.Queue(0), sf, func(_ ether.Layers, f []byte) bool { return ether.Header(f).Src() == p.Src })
				if at, ok := firstDiff(sf.Frame(), want); !ok || sf.Offload != off {
					t.Fatalf("segment %d: first difference at %d of %d; %+v, want %+v", i, at, len(want), sf.Offload, off)
				}
			}
		})
	}
	if c := a.Queue(0).Counters(); c.Segmented == 0 || len(c.Drops) != 0 {
		t.Errorf("counters of the writer: %+v", c)
	}
}

// More UDP segments than the kernel takes at once, in more pieces than writev does.
func TestWriteRefusedSuperframe(t *testing.T) {
	a, b := bridged(t)
	p := ethertest.Packet{Dst: peerMAC, Src: ether.MAC{2, 0, 0, 0, 0, 1}, UDP: true, Payload: randBytes(400)}
	frame, off := p.Superframe(1)
	if err := a.Queue(0).Write(off, pieces(frame, 42, 1)); err != nil {
		t.Fatal(err)
	}
	sf := ether.NewSuperframe()
	for i := range p.Payload {
		l := readMatch(t, b.Queue(0), sf, func(_ ether.Layers, f []byte) bool { return ether.Header(f).Src() == p.Src })
		if got := sf.Frame()[l.Payload:l.End]; !bytes.Equal(got, p.Payload[i:i+1]) {
			t.Fatalf("datagram %d holds %x, want %x", i, got, p.Payload[i])
		}
	}
	if c := a.Queue(0).Counters(); c.Segmented != 1 || len(c.Drops) != 0 {
		t.Errorf("counters: %+v", c)
	}
}

func TestWriteDrops(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap"})
	q := d.Queue(0)
	frame, off := ethertest.Packet{Payload: randBytes(3000)}.Superframe(1000)
	noCsum, noSize, udp := off, off, off
	noCsum.NeedsCsum = false
	noSize.Size = 0
	udp.GSO = ether.GSOUDPL4
	outside := ether.Offload{NeedsCsum: true, CsumStart: 0xfff0, CsumOff: 0xfff0}
	for _, tt := range []struct {
		name  string
		off   ether.Offload
		frame []byte
		want  string
	}{
		{"gso without checksum", noCsum, frame, "tap write malformed"},
		{"gso without size", noSize, frame, "tap write malformed"},
		{"udp with tcp's offset", udp, frame, "tap write malformed"},
		{"csum outside", outside, frame, "tap write refused"},
		{"short", ether.Offload{}, frame[:13], "tap write length"},
		{"empty", ether.Offload{}, nil, "tap write length"},
		{"long", ether.Offload{}, make([]byte, ether.MaxSuperframe+1), "tap write length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := q.Counters().Drops[tt.want]
			if err := q.Write(tt.off, [][]byte{tt.frame}); err != nil {
				t.Fatal(err)
			}
			if got := q.Counters().Drops; got[tt.want] != before+1 {
				t.Errorf("drops %v, want one more %q than %d", got, tt.want, before)
			}
		})
	}
	if err := q.Write(ether.Offload{}, nil); err != nil {
		t.Errorf("no pieces: %v", err)
	}
}

func TestReadShortBuffer(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap"})
	if err := d.Queue(0).Read(&ether.Superframe{Buf: make([]byte, 2000)}); err != errShortBuffer {
		t.Errorf("error %v, want errShortBuffer", err)
	}
}

func TestNoAllocs(t *testing.T) {
	a, b := bridged(t)
	p := ethertest.Packet{Dst: peerMAC, Src: ether.MAC{2, 0, 0, 0, 0, 1}, Flags: ether.ACK, Payload: randBytes(30000)}
	frame, off := p.Superframe(1336)
	run := pieces(frame, 54, 1336)
	sf := ether.NewSuperframe()
	check := func(name string, f func()) {
		t.Helper()
		f() // what is made once
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check("write and read", func() {
		a.Queue(0).Write(off, run)
		if b.Queue(0).Read(sf) != nil {
			t.Error("nothing to read")
		}
	})
	check("nothing to read", func() { b.Queue(0).Read(sf) })
	a.Queue(0).can = Features{}
	check("segmented write", func() {
		a.Queue(0).Write(off, run)
		for b.Queue(0).Read(sf) == nil {
		}
	})
}

func BenchmarkWriteRead(b *testing.B) {
	for _, tt := range []struct {
		name       string
		size, load int
	}{{"64", 0, 10}, {"1400", 0, 1346}, {"64k", 1336, 60000}} {
		b.Run(tt.name, func(b *testing.B) {
			w, r := bridged(b)
			p := ethertest.Packet{Dst: peerMAC, Src: ether.MAC{2, 0, 0, 0, 0, 1}, Flags: ether.ACK, Payload: randBytes(tt.load)}
			frame, off := p.Superframe(tt.size)
			run := pieces(frame, 54, 1336)
			sf := ether.NewSuperframe()
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if w.Queue(0).Write(off, run) != nil || r.Queue(0).Read(sf) != nil {
					b.Fatal("lost")
				}
			}
		})
	}
}
