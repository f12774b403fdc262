package sleeve_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve"
	"weave/sleeve/udp"
)

// TestRealSockets: two overlays over the loopback device, with steering to several
// sockets, trains and joined receives as the kernel gives them.
func TestRealSockets(t *testing.T) {
	for _, lanes := range []int{1, 4} {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			t.Run(fmt.Sprintf("%s/lanes=%d", addr, lanes), func(t *testing.T) {
				testRealSockets(t, netip.MustParseAddr(addr), lanes)
			})
		}
	}
}

func testRealSockets(t *testing.T, addr netip.Addr, lanes int) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	rx := &received{t: t}
	arrived := make(chan struct{}, 1)
	up := make(chan struct{}, 2)
	var links [2]overlay.Link
	var ovs [2]*sleeve.Overlay
	var nets [2]*sleeve.UDPNetwork
	for i := range nets {
		g, err := udp.Listen(udp.Config{Addr: addr, Sockets: lanes})
		if err != nil {
			t.Fatal(err)
		}
		if nets[i], err = sleeve.UDP(g, 0); err != nil {
			t.Fatal(err)
		}
		ovs[i], err = sleeve.New(sleeve.Config{
			Network: nets[i],
			Receiver: receiverFunc(func(l int, from peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
				rx.Receive(l, from, rt, off, bufs)
				select {
				case arrived <- struct{}{}:
				default:
				}
			}),
			Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer nets[i].Close()
			if err := ovs[i].Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	for i := range links {
		p := params()
		if i == 1 {
			p.Local, p.Remote, p.Initiator = p.Remote, p.Local, false
		}
		p.RemoteAddr = netip.AddrPortFrom(addr, nets[1-i].Port())
		p.Send = func(m []byte) error { links[1-i].Control(m); return nil }
		p.Notify = func(e overlay.Event) {
			if e.Up {
				up <- struct{}{}
			}
		}
		var err error
		if links[i], err = ovs[i].Prepare(p); err != nil {
			t.Fatal(err)
		}
	}
	links[0].Start()
	links[1].Start()
	timeout := time.After(10 * time.Second)
	for range links {
		select {
		case <-up:
		case <-timeout:
			t.Fatalf("not up: %+v, %+v", links[0].Status(), links[1].Status())
		}
	}
	rt := peer.Route{Origin: params().Local, Dest: params().Remote}
	tr := newTraffic(1)
	want := map[string]int{}
	for n := range 200 {
		lane := n % lanes
		s := tr.any()
		for _, p := range s.packets {
			want[string(p)]++
		}
		links[0].(*sleeve.Link).Send(lane, rt, s.sf)
		ovs[0].Flush(lane)
		for got := 0; got < len(s.packets); {
			select {
			case <-arrived:
			case <-timeout:
				t.Fatalf("superframe %d: %d packets of %d; drops %v", n, got, len(s.packets), links[1].Status().Counters.Drops)
			}
			frames, _ := rx.take()
			got += len(frames)
			for _, f := range frames {
				if want[string(f)]--; want[string(f)] < 0 {
					t.Fatal("a packet arrived that was not sent, or too often")
				}
			}
		}
	}
	st := links[0].Status()
	if st.Cipher != session.CipherAES || st.MTU < 8000 || st.RTT <= 0 {
		t.Errorf("status %+v", st)
	}
	t.Logf("offloads %q, %d datagrams", st.Offloads, st.Counters.TxDatagrams)
}
