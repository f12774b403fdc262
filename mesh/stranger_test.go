package mesh_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weave/crypto/handshake"
	"weave/mesh"
)

func TestWrongPassword(t *testing.T) {
	tests := []struct {
		name           string
		a, b           *handshake.PSK
		reason         mesh.Reason
		accepts, dials string
	}{
		{"wrong", pskRight, pskWrong, mesh.ReasonPassword,
			"wrong password: the passwords of the two hosts differ", "wrong password: the passwords of the two hosts differ"},
		{"only the dialer has one", nil, pskWrong, mesh.ReasonOneSided,
			"the other host has a password, this one has none", "this host has a password, the other one has none"},
		{"only the acceptor has one", pskRight, nil, mesh.ReasonOneSided,
			"this host has a password, the other one has none", "the other host has a password, this one has none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, psk(tt.a))
				b := w.start(2, psk(tt.b), targets("10.0.0.1"))
				w.run(500 * time.Millisecond)
				b.wantConns("-> 10.0.0.1 failed (" + tt.dials + ")")
				if c := b.Status().Conns[0]; c.Reason != tt.reason || c.Retry.IsZero() {
					t.Errorf("status %+v", c)
				}
				a.wantConns()
				r := a.Status().Refused
				if len(r) != 1 || r[0].Reason != tt.reason || r[0].Error != tt.accepts || r[0].Addr.String() != "10.0.0.2" {
					t.Errorf("refused %+v", r)
				}
				w.run(50 * time.Second)
				for _, n := range []*node{a, b} {
					if got := strings.Count(n.log.String(), "level=WARN"); got != 1 {
						t.Errorf("%s warned %d times, want once:\n%s", n.name, got, n.log)
					}
				}
				a.wantLog("level=WARN", tt.accepts, "10.0.0.2")
				b.wantLog("level=WARN", tt.dials, "10.0.0.1")
				if n := a.Status().Refused[0].Count; n < 4 || n > 12 {
					t.Errorf("%d tries in 50 s", n)
				}
				if n := len(a.view().Peers); n != 1 {
					t.Errorf("%d peers known", n)
				}
			})
		})
	}
}

// raw dials host i without a router.
func (w *world) raw(from string, i int) net.Conn {
	w.t.Helper()
	c, err := w.net.Host(from).Dial(w.t.Context(), netip.AddrPort{}, netip.MustParseAddrPort(addrOf(i)+":6783"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestStrangers(t *testing.T) {
	preamble := "weave\x00\r\n\x01\x01\x00\x00\x00\x00\x00\x00"
	tests := []struct {
		name   string
		send   string
		then   time.Duration // between bytes
		silent bool          // nothing may be answered
		within time.Duration
		reason mesh.Reason
	}{
		{"garbage", "GET / HTTP/1.1\r\n\r\n", 0, true, time.Second, mesh.ReasonNotWeave},
		{"nothing", "", 0, true, 10 * time.Second, mesh.ReasonTimeout},
		{"half a preamble", preamble[:9], 0, true, 10 * time.Second, mesh.ReasonTimeout},
		{"one byte a second", preamble, time.Second, true, 10 * time.Second, mesh.ReasonTimeout},
		{"stops after its preamble", preamble, 0, false, 10 * time.Second, mesh.ReasonTimeout},
		{"oversized length", preamble + "\xff\xff", 0, false, time.Second, mesh.ReasonHandshake},
		{"zero length", preamble + "\x00\x00", 0, false, time.Second, mesh.ReasonHandshake},
		{"bad message", preamble + "\x00\x04\x01abc", 0, false, time.Second, mesh.ReasonHandshake},
		{"later version", "weave\x00\r\n\x07\x09\x00\x00\x00\x00\x00\x00", 0, false, time.Second, mesh.ReasonVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1)
				synctest.Wait()
				c := w.raw("10.0.0.66", 1)
				var answer int
				closed := make(chan time.Duration, 1)
				begin := time.Now()
				go func() {
					buf := make([]byte, 4096)
					for {
						n, err := c.Read(buf)
						answer += n
						if err != nil {
							closed <- time.Since(begin)
							return
						}
					}
				}()
				go func() {
					for i := range tt.send {
						if _, err := c.Write([]byte{tt.send[i]}); err != nil {
							return
						}
						time.Sleep(tt.then)
					}
				}()
				if took := <-closed; took > tt.within {
					t.Errorf("closed after %v, want %v", took, tt.within)
				}
				if tt.silent && answer > 0 {
					t.Errorf("%d bytes answered", answer)
				}
				c.Close()
				synctest.Wait()
				if r := a.Status().Refused; len(r) != 1 || r[0].Reason != tt.reason {
					t.Errorf("refused %+v, want %q", r, tt.reason)
				}
				b := w.start(2, targets("10.0.0.1"))
				w.run(time.Second)
				w.wantJoined(a, b)
			})
		})
	}
}

// Stalled strangers, from one address or many, don't keep an honest peer out.
func TestManyStrangers(t *testing.T) {
	for _, sources := range []int{1, 200} {
		t.Run(fmt.Sprint(sources), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.start(1, psk(pskRight))
				synctest.Wait()
				for i := range 1000 {
					c := w.raw(fmt.Sprintf("10.1.0.%d", i%sources+1), 1)
					defer c.Close()
					if i%50 == 0 {
						w.run(100 * time.Millisecond)
					}
				}
				synctest.Wait()
				if n := w.net.Open(); n > 1000+64 {
					t.Errorf("%d ends of connections are open", n)
				}
				b := w.start(2, psk(pskRight), targets("10.0.0.1"))
				w.run(time.Second)
				w.wantJoined(a, b)
				s := a.Status()
				if len(s.Refused) > 32 {
					t.Errorf("%d refusals kept", len(s.Refused))
				}
				if n := strings.Count(a.log.String(), "level=WARN"); n > 25 {
					t.Errorf("%d lines of log", n)
				}
				for _, r := range []mesh.Reason{mesh.ReasonRate, mesh.ReasonCrowded} {
					if sources == 1 && s.Counters.InboundRefused[r] == 0 {
						t.Errorf("nobody was %s: %v", r, s.Counters.InboundRefused)
					}
				}
			})
		})
	}
}

func TestConnLimit(t *testing.T) {
	inWorld(t, func(w *world) {
		hub := w.start(1, limit(2))
		a := w.start(2, targets("10.0.0.1"))
		b := w.start(3, targets("10.0.0.1"))
		w.run(time.Second)
		c := w.start(4, targets("10.0.0.1"))
		w.run(time.Second)
		w.wantJoined(hub, a)
		w.wantJoined(hub, b)
		c.wantConns("-> 10.0.0.1 failed (connection limit of 2 reached at 02:00:00:00:00:01)")
		hub.Connect([]string{"10.0.0.4"}, false)
		w.run(time.Second)
		if got := hub.conns(); !strings.HasPrefix(got, "-> 10.0.0.4 failed (connection limit reached)") {
			t.Errorf("connections of the hub:\n%s", got)
		}
		a.stop()
		w.run(time.Second)
		w.wantJoined(hub, c)
		if strings.Contains(hub.conns(), "failed") {
			t.Errorf("connections of the hub:\n%s", hub.conns())
		}
	})
}

// What a stranger costs while it stalls: at most 4 KiB, and the test's own socket.
func TestStrangerMemory(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start(1)
		const n = 60
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var open []net.Conn
		stall := func(from int) {
			c := w.raw(fmt.Sprintf("10.1.%d.1", from), 1)
			c.Write([]byte("weave\x00\r\n\x01\x01\x00\x00\x00\x00\x00\x00\x02\xff"))
			synctest.Wait()
			open = append(open, c)
		}
		stall(0) // what is made once
		before := heap()
		for i := range n {
			stall(i + 1)
		}
		const socket = 2048 // both ends of a meshtest connection, and the runtime's noise
		if each := (int64(heap()) - int64(before)) / n; each > 4096+socket {
			t.Errorf("%d bytes each", each)
		}
		for _, c := range open {
			c.Close()
		}
		runtime.KeepAlive(a)
	})
}
