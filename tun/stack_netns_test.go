package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/ether/ethertest"
)

// These tests let the kernel's own TCP and UDP judge what is read and written.

// family is one IP version of the host and its peer.
type family struct {
	name       string
	host, peer netip.Addr
	headers    int // L3 and L4 headers without options, for TCP
	tcp        ether.GSO
}

var families = []family{
	{"ipv4", hostIP4, peerIP4, 40, ether.GSOTCPv4},
	{"ipv6", hostIP6, peerIP6, 60, ether.GSOTCPv6},
}

// handPeer is a TCP peer whose segments the test makes by hand.
type handPeer struct {
	t        *testing.T
	q        *Queue
	sf       *ether.Superframe
	p        ethertest.Packet // from the peer to the host; Seq is that of the next byte
	ack      uint32           // next byte expected from the host
	received []byte
}

const peerPort = 7

// connect makes a connection from a socket of the host to the hand peer.
func connect(t *testing.T, d *Device, f family) (*handPeer, net.Conn) {
	t.Helper()
	h := &handPeer{t: t, q: d.Queue(0), sf: ether.NewSuperframe()}
	s, err := unix.Socket(map[bool]int{true: unix.AF_INET6, false: unix.AF_INET}[f.host.Is6()],
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(s), "tcp")
	defer file.Close()
	if err := unix.Connect(s, sockaddr(netip.AddrPortFrom(f.peer, peerPort))); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	l := h.next(ether.SYN)
	syn := ether.TCP(h.sf.Frame()[l.L4:])
	h.p = ethertest.Packet{Dst: ether.Header(h.sf.Frame()).Src(), Src: peerMAC, SrcIP: f.peer, DstIP: f.host,
		SrcPort: peerPort, DstPort: syn.SrcPort(), Seq: 1000}
	h.ack = syn.Seq() + 1
	ecn := ether.TCPFlags(0)
	if syn.Flags()&(ether.ECE|ether.CWR) == ether.ECE|ether.CWR {
		ecn = ether.ECE
	}
	mss := testMTU - f.headers
	h.p.TCPOptions = []byte{2, 4, byte(mss >> 8), byte(mss)}
	h.send(ether.SYN|ether.ACK|ecn, nil, 0)
	h.p.TCPOptions = nil
	h.p.Seq++
	h.next(ether.ACK)
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return h, conn
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// next reads the host's next segment to us that has all of flags; it is in h.sf.
func (h *handPeer) next(flags ether.TCPFlags) ether.Layers {
	h.t.Helper()
	return readMatch(h.t, h.q, h.sf, func(l ether.Layers, f []byte) bool {
		if l.Proto != ether.ProtoTCP || l.L4 == 0 {
			return false
		}
		tcp := ether.TCP(f[l.L4:])
		return tcp.DstPort() == peerPort && tcp.Flags()&flags == flags
	})
}

// send writes a segment, or with a size a superframe, to the host.
func (h *handPeer) send(flags ether.TCPFlags, payload []byte, size int) {
	h.t.Helper()
	p := h.p
	p.Flags, p.Payload = flags, payload
	frame, off := p.Superframe(size)
	l, err := ether.Parse(frame)
	if err != nil {
		h.t.Fatal(err)
	}
	// ethertest knows no acknowledgement but 1. The partial checksum does not cover it.
	binary.BigEndian.PutUint32(frame[l.L4+8:], h.ack)
	run := [][]byte{frame}
	if size > 0 {
		run = pieces(frame, l.Payload, size)
	}
	if err := h.q.Write(off, run); err != nil {
		h.t.Fatal(err)
	}
	h.p.Seq += uint32(len(payload))
}

// receive acknowledges what the host sends, flags added, until n bytes are there.
// It returns the most segments that came in one superframe, and whether one came
// with the ECN flag.
func (h *handPeer) receive(n int, kind ether.GSO, flags ether.TCPFlags) (most int, ecn bool) {
	h.t.Helper()
	for len(h.received) < n {
		l := h.next(ether.ACK)
		frame := h.sf.Frame()
		tcp := ether.TCP(frame[l.L4:])
		if tcp.Seq() != h.ack || l.Payload == l.End {
			continue
		}
		h.checkOffload(l, kind)
		if h.sf.GSO != ether.GSONone {
			most = max(most, (l.End-l.Payload+int(h.sf.Size)-1)/int(h.sf.Size))
		}
		if h.sf.ECN {
			ecn = true
			if tcp.Flags()&ether.CWR == 0 {
				h.t.Error("ECN superframe without CWR")
			}
		}
		h.received = append(h.received, frame[l.Payload:l.End]...)
		h.ack += uint32(l.End - l.Payload)
		h.send(ether.ACK|flags, nil, 0)
	}
	return most, ecn
}

// checkOffload insists that the host left the checksum to us, and where.
func (h *handPeer) checkOffload(l ether.Layers, kind ether.GSO) {
	h.t.Helper()
	if !h.sf.NeedsCsum || int(h.sf.CsumStart) != l.L4 || h.sf.CsumOff != 16 {
		h.t.Fatalf("offload %+v, L4 at %d", h.sf.Offload, l.L4)
	}
	if h.sf.GSO == ether.GSONone {
		return
	}
	if n, err := ether.TemplateLen(h.sf.Frame(), h.sf.Offload); h.sf.GSO != kind || err != nil || n != l.Payload {
		h.t.Fatalf("offload %+v: template of %d bytes, %v", h.sf.Offload, n, err)
	}
}

// Bulk TCP of a socket comes out in superframes with partial checksums.
func TestReadTCP(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			inNetns(t)
			d := openTAP(t, Config{Name: "tap"})
			addHost(t, d)
			h, conn := connect(t, d, f)
			sent := randBytes(200_000)
			wrote := make(chan error, 1)
			go func() {
				_, err := conn.Write(sent)
				wrote <- err
			}()
			most, _ := h.receive(len(sent), f.tcp, 0)
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
			if at, ok := firstDiff(h.received, sent); !ok {
				t.Errorf("received other bytes from %d on", at)
			}
			if most < 4 {
				t.Errorf("at most %d segments in a superframe", most)
			}
		})
	}
}

// After congestion was reported the next superframe carries CWR, and says so.
func TestReadTCPECN(t *testing.T) {
	inNetns(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	d := openTAP(t, Config{Name: "tap"})
	addHost(t, d)
	h, conn := connect(t, d, families[0])
	sent := randBytes(4_000_000)
	go conn.Write(sent)
	for seen := false; !seen; { // sometimes the host has one segment to send just then
		if len(h.received) > 3_900_000 {
			t.Fatal("no superframe with ECN")
		}
		h.receive(len(h.received)+1, ether.GSOTCPv4, ether.ECE)
		_, seen = h.receive(len(h.received)+50_000, ether.GSOTCPv4, 0)
	}
	if at, ok := firstDiff(h.received, sent[:len(h.received)]); !ok {
		t.Errorf("received other bytes from %d on", at)
	}
}

// A socket receives a joined run as the bytes that it holds, whether the kernel or
// Write cuts it, whole or as a part of a superframe.
func TestWriteTCP(t *testing.T) {
	for _, f := range families {
		for _, can := range []Features{{WriteTSO: true}, {}} {
			t.Run(fmt.Sprintf("%s %v", f.name, can), func(t *testing.T) {
				inNetns(t)
				d := openTAP(t, Config{Name: "tap"})
				addHost(t, d)
				h, conn := connect(t, d, f)
				h.q.can = can
				sent := randBytes(30_000)
				h.send(ether.ACK|ether.PSH, sent[:29_000], 1300)
				h.send(ether.ACK|ether.PSH|ether.FIN, sent[29_000:], 0)
				got, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				if at, ok := firstDiff(got, sent); !ok {
					t.Errorf("received %d bytes of %d, other from %d on", len(got), len(sent), at)
				}
			})
		}
	}
}

// listenUDP opens a socket of the host.
func listenUDP(t *testing.T, f family) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.host, 9000)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// Datagrams sent with UDP_SEGMENT come out as one superframe.
func TestReadUSO(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			inNetns(t)
			d := openTAP(t, Config{Name: "tap"})
			addHost(t, d)
			conn := listenUDP(t, f)
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1200)
			})
			if err != nil {
				t.Fatal(err)
			}
			sent := randBytes(10*1200 + 5)
			if _, err := conn.WriteToUDPAddrPort(sent, netip.AddrPortFrom(f.peer, peerPort)); err != nil {
				t.Fatal(err)
			}
			sf := ether.NewSuperframe()
			l := readMatch(t, d.Queue(0), sf, func(l ether.Layers, _ []byte) bool { return l.Proto == ether.ProtoUDP })
			want := ether.Offload{GSO: ether.GSOUDPL4, NeedsCsum: true, CsumStart: uint16(l.L4), CsumOff: 6, Size: 1200}
			if sf.Offload != want {
				t.Errorf("offload %+v, want %+v", sf.Offload, want)
			}
			if !bytes.Equal(sf.Frame()[l.Payload:l.End], sent) {
				t.Error("other bytes")
			}
		})
	}
}

// A socket receives each datagram of a joined run on its own, and of any part of
// it that CutTemplate makes.
func TestWriteUSO(t *testing.T) {
	const size = 1200
	for _, f := range families {
		for _, can := range []Features{{WriteUSO: true}, {}} {
			t.Run(fmt.Sprintf("%s %v", f.name, can), func(t *testing.T) {
				inNetns(t)
				d := openTAP(t, Config{Name: "tap"})
				p := ethertest.Packet{Dst: addHost(t, d), Src: peerMAC, SrcIP: f.peer, DstIP: f.host, UDP: true,
					SrcPort: peerPort, DstPort: 9000, Payload: randBytes(5*size + 7)}
				conn := listenUDP(t, f)
				q := d.Queue(0)
				q.can = can
				whole, off := p.Superframe(size)
				n, err := ether.TemplateLen(whole, off)
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 65536)
				for _, r := range []ether.Run{{First: 0, Len: 5*size + 7, Last: true}, {First: 0, Len: 3 * size},
					{First: 2, Len: size}, {First: 3, Len: 2*size + 7, Last: true}, {First: 5, Len: 7, Last: true}} {
					run := append(bytes.Clone(whole[:n]), p.Payload[r.First*size:r.First*size+r.Len]...)
					if err := ether.CutTemplate(run[:n], off, r); err != nil {
						t.Fatal(err)
					}
					if err := q.Write(off, pieces(run, n, size)); err != nil {
						t.Fatal(err)
					}
					for at := 0; at < r.Len; at += size {
						got, _, err := conn.ReadFromUDPAddrPort(buf)
						if err != nil {
							t.Fatalf("run %+v: %v; drops %v", r, err, q.Counters().Drops)
						}
						if want := run[n+at : n+min(at+size, r.Len)]; !bytes.Equal(buf[:got], want) {
							t.Fatalf("run %+v at %d: %d bytes, want %d", r, at, got, len(want))
						}
					}
				}
			})
		}
	}
}

// Frames without anything left to do, as from a peer without offloads.
func TestWriteComplete(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap", Queues: 2})
	p := ethertest.Packet{Dst: addHost(t, d), Src: peerMAC, SrcIP: peerIP4, DstIP: hostIP4, UDP: true,
		SrcPort: peerPort, DstPort: 9000, Payload: []byte("weave")}
	conn := listenUDP(t, families[0])
	buf := make([]byte, 100)
	for i := range d.Queues() {
		frame := p.Frame()
		if err := d.Queue(i).Write(ether.Offload{}, [][]byte{frame}); err != nil {
			t.Fatal(err)
		}
		if n, _, err := conn.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "weave" {
			t.Errorf("queue %d: %q, %v", i, buf[:n], err)
		}
		// The kernel does check what it is not told to trust.
		frame[len(frame)-1]++
		d.Queue(i).Write(ether.Offload{}, [][]byte{frame})
	}
	conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _, err := conn.ReadFromUDPAddrPort(buf); err == nil {
		t.Errorf("received %q with a wrong checksum", buf[:n])
	}
}

// What the host answers comes out of the queue that the question was written to,
// so a flow stays with one lane without any help.
func TestQueueFollowsFlow(t *testing.T) {
	inNetns(t)
	d := openTAP(t, Config{Name: "tap", Queues: 2})
	mac := addHost(t, d)
	conn := listenUDP(t, families[0])
	buf := make([]byte, 100)
	sf := ether.NewSuperframe()
	for port := uint16(20000); port < 20016; port++ { // several hashes
		i := int(port) % d.Queues()
		p := ethertest.Packet{Dst: mac, Src: peerMAC, SrcIP: peerIP4, DstIP: hostIP4, UDP: true,
			SrcPort: port, DstPort: 9000, Payload: []byte("weave")}
		if err := d.Queue(i).Write(ether.Offload{}, [][]byte{p.Frame()}); err != nil {
			t.Fatal(err)
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		readMatch(t, d.Queue(i), sf, func(l ether.Layers, f []byte) bool {
			return l.Proto == ether.ProtoUDP && ether.UDP(f[l.L4:]).DstPort() == port
		})
	}
}
