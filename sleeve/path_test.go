package sleeve_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/ether/ethertest"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve"
	"weave/sleeve/sleevetest"
)

// pair is two overlays with a link that is up.
type pair struct {
	*sleevetest.Mesh
	rx   *received // of node 1
	link *sleeve.Link
	rt   peer.Route
}

func newPair(t *testing.T, net *sleevetest.Net, opts sleevetest.Options) *pair {
	t.Helper()
	p := &pair{rx: &received{t: t}}
	opts.Receiver = func(host int) sleeve.Receiver {
		if host == 1 {
			return p.rx
		}
		return &received{t: t}
	}
	p.Mesh = sleevetest.NewMesh(t, net, 2, opts)
	p.WaitUp(t)
	p.link = p.Nodes[0].Links[p.Nodes[1].Name]
	p.rt = peer.Route{Origin: p.Nodes[0].Name, Dest: p.Nodes[1].Name}
	return p
}

func (p *pair) send(batch ...sent) {
	for _, s := range batch {
		p.link.Send(0, p.rt, s.sf)
	}
	p.Nodes[0].Overlay.Flush(0)
	synctest.Wait()
}

// TestDeliversWhatWasSent: without faults every packet arrives, in order, and
// superframes arrive whole where they can.
func TestDeliversWhatWasSent(t *testing.T) {
	for _, c := range []session.Cipher{session.CipherNone, session.CipherChaCha, session.CipherAES} {
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{Cipher: c})
				tr := newTraffic(7)
				for round := range 300 {
					var want [][]byte
					var batch []sent
					for range 1 + tr.rng.IntN(4) {
						s := tr.any()
						batch = append(batch, s)
						want = append(want, s.packets...)
					}
					p.send(batch...)
					got, _ := p.rx.take()
					if i := firstDifference(got, want); i >= 0 {
						t.Fatalf("round %d: %d packets, want %d; packet %d is wrong", round, len(got), len(want), i)
					}
				}
			})
		})
	}
}

func firstDifference(got, want [][]byte) int {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || string(got[i]) != string(want[i]) {
			return i
		}
	}
	return -1
}

// TestWholeSuperframe: a complete run is one call with the sender's own header.
func TestWholeSuperframe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{Cipher: session.CipherAES})
		tr := newTraffic(1)
		s := tr.superframe(ethertest.Packet{Flags: ether.ACK | ether.PSH}, 45*1324-7, 1324)
		want := call{from: p.Nodes[0].Name, rt: p.rt, off: s.sf.Offload, size: len(s.sf.Frame())}
		p.send(s)
		_, calls := p.rx.take()
		if len(calls) != 1 || calls[0] != want {
			t.Errorf("calls %+v, want %+v", calls, want)
		}
	})
}

// TestFaults: over a net that loses, repeats, reorders and damages, nothing is
// delivered twice or that was not sent.
func TestFaults(t *testing.T) {
	faults := []sleevetest.Faults{
		{Loss: 0.01},
		{Loss: 0.3},
		{Reorder: 0.1},
		{Duplicate: 0.3},
		{Corrupt: 0.1},
		{Loss: 0.05, Reorder: 0.2, Duplicate: 0.1, Corrupt: 0.05},
	}
	for i, f := range faults {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := sleevetest.NewNet(uint64(i))
				p := newPair(t, net, sleevetest.Options{Cipher: session.CipherChaCha})
				tr := newTraffic(uint64(i))
				net.SetFaults(f)
				expect := map[string]int{}
				total, got := 0, 0
				for range 300 {
					s := tr.any()
					for _, q := range s.packets {
						expect[string(q)]++
						total++
					}
					p.send(s)
				}
				net.SetFaults(sleevetest.Faults{})
				synctest.Wait()
				frames, _ := p.rx.take()
				for _, q := range frames {
					got++
					if expect[string(q)]--; expect[string(q)] < 0 {
						t.Fatalf("packet of %d bytes was delivered that was not sent, or twice", len(q))
					}
				}
				if f.Loss+f.Corrupt == 0 && got != total {
					t.Errorf("%d packets delivered of %d, and none was lost", got, total)
				}
				t.Logf("%d of %d packets delivered", got, total)
			})
		})
	}
}

// TestLostDatagramCostsOneSegment: each datagram of a superframe in turn is lost.
func TestLostDatagramCostsOneSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		tr := newTraffic(1)
		const segs = 45
		for lost := range segs {
			s := tr.superframe(tr.packet(), segs*1300-9, 1300)
			n := 0
			net.SetTap(func(_, _ netip.AddrPort, d []byte) bool {
				if d[1] == byte(session.LaneControl) {
					return true
				}
				n++
				return n != lost+1
			})
			p.send(s)
			got, calls := p.rx.take()
			want := slices.Delete(slices.Clone(s.packets), lost, lost+1)
			if i := firstDifference(got, want); i >= 0 || len(calls) > 2 {
				t.Fatalf("datagram %d lost: %d packets in %d calls, want %d in at most 2; packet %d is wrong", lost, len(got), len(calls), len(want), i)
			}
		}
	})
}

// TestResliced: a path that is too small for a TCP superframe's segments gets
// smaller ones; the stream is the same.
func TestResliced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		net.SetMTU(func(_, _ netip.Addr) int { return 1300 })
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		// The link comes up with a size of the table and searches for more at once.
		time.Sleep(5 * time.Second)
		if st := p.link.Status(); st.Reason != "mtu" || st.MTU != 1300-28-sleeve.Overhead {
			t.Fatalf("status %+v, want reason mtu and the MTU of a 1300-byte path", st)
		}
		for _, segs := range []int{40, 2, 1} {
			testResliced(t, p, segs)
		}
	})
}

func testResliced(t *testing.T, p *pair, segs int) {
	t.Helper()
	size := 1324
	if segs == 1 {
		size = 0 // one packet with a partial checksum
	}
	tr := newTraffic(1)
	pkt := ethertest.Packet{Seq: 1000, Flags: ether.ACK | ether.PSH, DF: true}
	s := tr.superframe(pkt, segs*1324-5, size)
	stream := slices.Clone(s.sf.Frame()[54:])
	p.send(s)
	frames, _ := p.rx.take()
	at := 0
	for i, f := range frames {
		if seq := int(ether.TCP(f[34:]).Seq()); seq != 1000+at {
			t.Fatalf("segment %d has sequence number %d, want %d", i, seq, 1000+at)
		}
		if string(f[54:]) != string(stream[at:at+len(f)-54]) || len(f) > 14+p.link.Status().MTU {
			t.Fatalf("segment %d of %d bytes is wrong", i, len(f))
		}
		at += len(f) - 54
	}
	if at != len(stream) {
		t.Errorf("%d bytes delivered of %d", at, len(stream))
	}
}

// TestTooBig: what fits no datagram and may not be re-sliced is cut into pieces
// or, if nobody may cut it, handed to the hook.
func TestTooBig(t *testing.T) {
	tests := []struct {
		name  string
		pkt   ethertest.Packet
		size  int // of segments
		whole bool
	}{
		{"UDP over IPv4, DF clear", ethertest.Packet{UDP: true}, 0, true},
		{"UDP over IPv4, DF set", ethertest.Packet{UDP: true, DF: true}, 0, false},
		{"UDP over IPv6", ethertest.Packet{UDP: true, SrcIP: netip.MustParseAddr("fd00::1"), DstIP: netip.MustParseAddr("fd00::2")}, 0, false},
		{"UDP superframe, DF clear", ethertest.Packet{UDP: true}, 1300, true},
		{"UDP superframe, DF set", ethertest.Packet{UDP: true, DF: true}, 1300, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := sleevetest.NewNet(1)
				net.SetMTU(func(_, _ netip.Addr) int { return 1300 })
				var told int
				p := newPair(t, net, sleevetest.Options{
					Cipher: session.CipherAES,
					Config: func(_ int, cfg *sleeve.Config) {
						cfg.TooBig = func(_ int, _ peer.Route, frame []byte, mtu int) {
							if len(frame)-14 <= mtu {
								t.Errorf("told of a packet of %d bytes, mtu %d", len(frame)-14, mtu)
							}
							told++
						}
					},
				})
				s := newTraffic(3).superframe(tt.pkt, 4*1300, tt.size)
				p.send(s)
				got, _ := p.rx.take()
				want := s.packets
				if !tt.whole {
					want = nil
				}
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("%d packets, want %d; packet %d is wrong", len(got), len(want), i)
				}
				if (told > 0) == tt.whole {
					t.Errorf("hook called %d times", told)
				}
				if drops := p.link.Status().Counters.Drops["too_big"]; (drops > 0) == tt.whole {
					t.Errorf("%d drops counted as too_big", drops)
				}
			})
		})
	}
}

// TestLeastMTU: on the narrowest path, packets that every link must carry arrive
// without asking their sender for less, and no sender is asked for less than that.
func TestLeastMTU(t *testing.T) {
	v6 := ethertest.Packet{UDP: true, SrcIP: netip.MustParseAddr("fd00::1"), DstIP: netip.MustParseAddr("fd00::2")}
	v4 := ethertest.Packet{UDP: true, DF: true}
	tests := []struct {
		name   string
		pkt    ethertest.Packet
		packet int // bytes
		told   int // MTU; 0: it arrives
	}{
		{"IPv6, 1280", v6, 1280, 0},
		{"IPv6, 1281", v6, 1281, 1280},
		{"IPv4 with DF, 576", v4, 576, 0},
		{"IPv4 with DF, 577", v4, 577, 576},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := sleevetest.NewNet(1)
				net.SetMTU(func(_, _ netip.Addr) int { return 576 })
				told := 0
				p := newPair(t, net, sleevetest.Options{
					Cipher: session.CipherAES,
					Config: func(_ int, cfg *sleeve.Config) {
						cfg.TooBig = func(_ int, _ peer.Route, _ []byte, mtu int) { told = mtu }
					},
				})
				headers := 28
				if tt.pkt.SrcIP.IsValid() {
					headers = 48
				}
				s := newTraffic(3).superframe(tt.pkt, tt.packet-headers, 0)
				p.send(s)
				got, _ := p.rx.take()
				if told != tt.told || (len(got) == 1) != (told == 0) {
					t.Errorf("%d packets arrived, sender told of MTU %d, want %d", len(got), told, tt.told)
				}
				if told == 0 && firstDifference(got, s.packets) >= 0 {
					t.Error("another packet arrived")
				}
			})
		})
	}
}

// TestFragmentsAreBounded: pieces that never become a frame are given up.
func TestFragmentsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		tr := newTraffic(1)
		for range 40 {
			n := 0
			net.SetTap(func(_, _ netip.AddrPort, d []byte) bool {
				if d[1] == byte(session.LaneControl) {
					return true
				}
				n++
				return n != 2
			})
			p.send(tr.superframe(ethertest.Packet{UDP: true}, 4000, 0))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		frames, _ := p.rx.take()
		back := p.Nodes[1].Links[p.Nodes[0].Name].Status()
		if len(frames) != 0 || back.Counters.Drops["frag_timeout"] != 40 {
			t.Errorf("%d frames, drops %v, want 40 frag_timeout", len(frames), back.Counters.Drops)
		}
		net.SetTap(nil)
		s := tr.superframe(ethertest.Packet{UDP: true}, 60000, 0)
		p.send(s)
		if got, _ := p.rx.take(); firstDifference(got, s.packets) >= 0 {
			t.Error("a frame of 60000 bytes does not arrive")
		}
	})
}

// TestRelay: a frame for a third peer goes on in the shape it came in, with its route.
func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rx := &received{t: t}
		var m *sleevetest.Mesh
		relay := receiverFunc(func(lane int, _ peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
			m.Nodes[1].Links[rt.Dest].Relay(lane, rt, off, bufs)
		})
		net := sleevetest.NewNet(1)
		m = sleevetest.NewMesh(t, net, 3, sleevetest.Options{
			Cipher: session.CipherAES,
			Receiver: func(host int) sleeve.Receiver {
				return []sleeve.Receiver{relay, relay, rx}[host]
			},
		})
		m.WaitUp(t)
		rt := peer.Route{Origin: m.Nodes[0].Name, Dest: m.Nodes[2].Name}
		tr := newTraffic(5)
		for range 200 {
			s := tr.any()
			frame := len(s.sf.Frame())
			m.Nodes[0].Links[m.Nodes[1].Name].Send(0, rt, s.sf)
			m.Nodes[0].Overlay.Flush(0)
			synctest.Wait()
			got, calls := rx.take()
			if i := firstDifference(got, s.packets); i >= 0 {
				t.Fatalf("superframe of %d bytes: %d packets, want %d; packet %d is wrong", frame, len(got), len(s.packets), i)
			}
			for _, c := range calls {
				if c.rt != rt || c.from != m.Nodes[1].Name {
					t.Fatalf("route %v from %v, want %v from %v", c.rt, c.from, rt, m.Nodes[1].Name)
				}
			}
		}
	})
}

type receiverFunc func(int, peer.Name, peer.Route, ether.Offload, [][]byte)

func (f receiverFunc) Receive(lane int, from peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
	f(lane, from, rt, off, bufs)
}

// TestRekeyLosesNothing: keys change under traffic, many times.
func TestRekeyLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{
			Cipher: session.CipherAES,
			Config: func(_ int, cfg *sleeve.Config) { cfg.RekeyAfter, cfg.RejectAfter = 2*time.Second, 3*time.Second },
		})
		tr := newTraffic(1)
		for i := range 3000 {
			s := tr.superframe(tr.packet(), 3000, 1000)
			p.send(s)
			if got, _ := p.rx.take(); firstDifference(got, s.packets) >= 0 {
				t.Fatalf("superframe %d: %d packets arrived, want %d", i, len(got), len(s.packets))
			}
			time.Sleep(10 * time.Millisecond)
		}
		if st := p.link.Status(); st.KeyEpoch < 10 {
			t.Errorf("epoch %d after 30 s, want 10 at least", st.KeyEpoch)
		}
	})
}

// TestKeysExpire: when the ends cannot agree on new keys the link falls silent
// instead of using old ones, and comes back when they can.
func TestKeysExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Bool
		p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{
			Cipher:  session.CipherAES,
			Control: func([]byte) bool { return !cut.Load() },
			Config:  func(_ int, cfg *sleeve.Config) { cfg.RekeyAfter, cfg.RejectAfter = 20*time.Second, 30*time.Second },
		})
		a, b := p.Nodes[0], p.Nodes[1]
		a.ClearEvents(b.Name)
		cut.Store(true)
		time.Sleep(25 * time.Second)
		if st := p.link.Status(); !st.Up {
			t.Errorf("down before the keys expired: %+v", st)
		}
		e := a.WaitEvent(t, b.Name, func(e overlay.Event) bool { return !e.Up })
		if e.Reason != "keys expired" || e.Fatal {
			t.Errorf("event %+v, want keys expired", e)
		}
		p.send(newTraffic(1).any())
		if got, _ := p.rx.take(); len(got) > 0 {
			t.Error("a frame was sent without keys")
		}
		cut.Store(false)
		a.WaitEvent(t, b.Name, func(e overlay.Event) bool { return e.Up })
	})
}

// TestRoaming: each end in turn changes its address, and traffic follows.
func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, sleevetest.NewNet(1), sleevetest.Options{Cipher: session.CipherAES})
		tr := newTraffic(1)
		for i, node := range []int{0, 1, 0, 1} {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), uint16(7000+i))
			p.Nodes[node].Host.Move(addr)
			time.Sleep(2 * time.Second)
			s := tr.superframe(tr.packet(), 3000, 1000)
			p.send(s)
			if got, _ := p.rx.take(); firstDifference(got, s.packets) >= 0 {
				t.Fatalf("move %d: traffic does not arrive after 2 s", i)
			}
			other := p.Nodes[1-node]
			if st := other.Links[p.Nodes[node].Name].Status(); st.Remote != addr || !st.Up {
				t.Errorf("move %d: status %+v, want remote %v", i, st, addr)
			}
		}
	})
}

// TestDownAndUp: a link whose path is cut goes down within 2 s and comes up again
// by itself.
func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		a, b := p.Nodes[0], p.Nodes[1]
		time.Sleep(5 * time.Second)
		a.ClearEvents(b.Name)
		b.ClearEvents(a.Name)
		cut := time.Now()
		net.SetFaults(sleevetest.Faults{Loss: 1})
		e := a.WaitEvent(t, b.Name, func(overlay.Event) bool { return true })
		if took := time.Since(cut); e.Up || e.Fatal || e.Reason != "timeout" || took < time.Second || took > 2*time.Second {
			t.Errorf("event %+v after %v, want down for timeout within 1 to 2 s", e, took)
		}
		time.Sleep(time.Minute)
		net.SetFaults(sleevetest.Faults{})
		healed := time.Now()
		a.WaitEvent(t, b.Name, func(e overlay.Event) bool { return e.Up })
		b.WaitEvent(t, a.Name, func(e overlay.Event) bool { return e.Up })
		if took := time.Since(healed); took > 2*time.Second {
			t.Errorf("up again after %v, want 2 s at most", took)
		}
	})
}

// TestPathMTUShrinksAndGrows: heartbeats find out and the link stays up.
func TestPathMTUShrinksAndGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		a, b := p.Nodes[0], p.Nodes[1]
		time.Sleep(time.Second)
		a.ClearEvents(b.Name)
		net.SetMTU(func(_, _ netip.Addr) int { return 1400 })
		time.Sleep(3 * time.Second)
		if st := p.link.Status(); !st.Up || st.Reason != "mtu" || st.MTU != 1400-28-sleeve.Overhead {
			t.Errorf("status %+v, want up with reason mtu and the MTU of a 1400-byte path", st)
		}
		net.SetMTU(func(_, _ netip.Addr) int { return 1500 })
		time.Sleep(15 * time.Second)
		if st := p.link.Status(); !st.Up || st.Reason != "" || st.MTU != 1500-28-sleeve.Overhead {
			t.Errorf("status %+v, want the full MTU again", st)
		}
		_ = b
	})
}

// TestClose: a closed link is silent and does not notify.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		p.link.Close()
		p.link.Close()
		from := p.Nodes[0].Host.Addr()
		net.SetTap(func(f, _ netip.AddrPort, _ []byte) bool {
			if f == from {
				t.Error("datagram after Close")
			}
			return true
		})
		p.send(newTraffic(1).any())
		time.Sleep(10 * time.Second)
		if st := p.link.Status(); st.Up || st.Reason != "closed" {
			t.Errorf("status %+v", st)
		}
		// A new control connection brings traffic back.
		net.SetTap(nil)
		p.Connect(t, 0, 1)
		p.WaitUp(t)
	})
}

// TestCloseWithQueue: what was sealed and not yet flushed stays here.
func TestCloseWithQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		p := newPair(t, net, sleevetest.Options{Cipher: session.CipherAES})
		s := newTraffic(1).superframe(ethertest.Packet{}, 3000, 1000)
		p.link.Send(0, p.rt, s.sf)
		p.link.Close()
		p.send()
		if got, _ := p.rx.take(); len(got) != 0 || p.link.Status().Counters.Drops["no_keys"] != 3 {
			t.Errorf("%d packets delivered, drops %v, want 3 no_keys", len(got), p.link.Status().Counters.Drops)
		}
	})
}

// TestInitBeforeStart: the peer's first message may be there before the mesh has
// called Start; the link comes up without a retry.
func TestInitBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := sleevetest.NewNet(1)
		start := time.Now()
		m := sleevetest.NewMesh(t, net, 2, sleevetest.Options{Cipher: session.CipherAES, StartDelay: time.Second})
		m.WaitUp(t)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("up after %v, want 2 s at most", took)
		}
	})
}
