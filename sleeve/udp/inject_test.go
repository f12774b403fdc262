package udp

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// refuse puts refusals in front of a Sender's system calls. train answers messages
// with UDP_SEGMENT, plain all others; 0 lets them through. It counts calls.
type refuse struct {
	train, plain unix.Errno
	calls, waits int
}

// put installs r.
func (r *refuse) put(s *Sender) {
	next := s.sys
	check := func(m *unix.Msghdr) unix.Errno {
		r.calls++
		if m.Controllen >= segmentCtl && m.Control != nil && isTrain(m) {
			return r.train
		}
		return r.plain
	}
	s.sys.sendmsg = func(fd int, m *unix.Msghdr) unix.Errno {
		if e := check(m); e != 0 {
			return e
		}
		return next.sendmsg(fd, m)
	}
	s.sys.sendmmsg = func(fd int, m *mmsghdr, n int) (int, unix.Errno) {
		if e := check(&m.hdr); e != 0 {
			return 0, e
		}
		return next.sendmmsg(fd, m, 1) // a short count is always allowed
	}
	s.sys.wait = func([]unix.PollFd, int) { r.waits++ }
}

// isTrain reports whether the control messages start with UDP_SEGMENT, by its length:
// those of a source address are longer.
func isTrain(m *unix.Msghdr) bool {
	var want [segmentCtl]byte
	putCmsg(want[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	return *m.Control == want[0]
}

// What each errno does to a train of 5 datagrams and a tail: to the offload, the
// datagrams, and the caller.
func TestRefusals(t *testing.T) {
	const n = 6
	tests := []struct {
		name         string
		train, plain unix.Errno
		want         error
		stats        Stats
		gso          bool // still on
		received     int
	}{
		{"no checksum offload, or xfrm on the route", unix.EIO, 0, nil,
			Stats{TxDatagrams: n, TxPlain: 1}, false, n},
		{"train refused, EINVAL", unix.EINVAL, 0, nil,
			Stats{TxDatagrams: n, TxPlain: 1}, true, n},
		{"train refused, EMSGSIZE", unix.EMSGSIZE, 0, nil,
			Stats{TxDatagrams: n, TxPlain: 1}, true, n},
		{"above the MTU, old kernel", unix.EINVAL, unix.EMSGSIZE, ErrTooBig,
			Stats{TxTooBig: n, TxPlain: 1}, true, 0},
		{"above the MTU", unix.EMSGSIZE, unix.EMSGSIZE, ErrTooBig,
			Stats{TxTooBig: n, TxPlain: 1}, true, 0},
		{"buffer full", unix.EAGAIN, unix.EAGAIN, ErrCongested,
			Stats{TxCongested: n, TxWaits: sendWaits}, true, 0},
		{"no memory", unix.ENOBUFS, unix.ENOBUFS, ErrCongested,
			Stats{TxCongested: n, TxWaits: sendWaits}, true, 0},
		{"firewall", unix.EPERM, unix.EPERM, ErrUnreachable,
			Stats{TxUnreachable: n}, true, 0},
		{"interface down", unix.ENETDOWN, unix.ENETDOWN, ErrUnreachable,
			Stats{TxUnreachable: n}, true, 0},
		{"ICMP for an earlier datagram, for ever", unix.ECONNREFUSED, unix.ECONNREFUSED, ErrUnreachable,
			Stats{TxUnreachable: n}, true, 0},
		{"unknown", unix.EDOM, unix.EDOM, ErrRejected,
			Stats{TxRejected: n}, true, 0},
		{"EINVAL for all", unix.EINVAL, unix.EINVAL, ErrRejected,
			Stats{TxRejected: n, TxPlain: 1}, true, 0},
	}
	for _, tt := range tests {
		for _, how := range []string{"Send", "SendBatch"} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				g, err := Listen(Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				in, s := newInbox(t, g.Sockets()[0]), g.Sockets()[0].NewSender()
				r := &refuse{train: tt.train, plain: tt.plain}
				r.put(s)
				buf := train(0, 5, 100, 7)
				ep := endpoint(t, "::1", g.Port(), "")
				if how == "Send" {
					err = s.Send(ep, buf, 100)
				} else {
					err = s.SendBatch([]Message{{To: ep, Buf: buf, SegSize: 100}})
				}
				if err != tt.want {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				got := g.Stats()
				got.TxBytes, got.TxCalls = 0, 0
				if diff := cmp.Diff(tt.stats, got); diff != "" {
					t.Errorf("stats differ:\n%s", diff)
				}
				if g.Features().GSO != tt.gso {
					t.Errorf("GSO on: got %v, want %v", !tt.gso, tt.gso)
				}
				if r.calls > 20 || r.waits > sendWaits {
					t.Errorf("%d calls, %d waits", r.calls, r.waits)
				}
				if tt.received > 0 {
					data, _, _ := in.read(t, tt.received)
					same(t, cut(buf, 100), data)
				}
				in.empty(t)
			})
		}
	}
}

// After EIO trains are not tried again, by any Sender of the socket.
func TestOffloadStaysOff(t *testing.T) {
	g, err := Listen(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.Sockets()[0].NewSender()
	r := &refuse{train: unix.EIO}
	r.put(s)
	ep := endpoint(t, "127.0.0.1", g.Port(), "")
	for range 3 {
		if err := s.Send(ep, train(0, 100, 100, 0), 100); err != nil {
			t.Error(err)
		}
	}
	if err := s.SendBatch([]Message{{To: ep, Buf: train(0, 100, 100, 0), SegSize: 100}}); err != nil {
		t.Error(err)
	}
	if err := g.Sockets()[0].NewSender().Send(ep, train(0, 100, 100, 0), 100); err != nil {
		t.Error(err)
	}
	newInbox(t, g.Sockets()[0]).read(t, 500)
	if got := g.Stats(); got.TxPlain != 1 || got.TxTrains != 0 || got.TxDatagrams != 500 {
		t.Errorf("got %+v, want one refusal", got)
	}
}

// A train that is refused in the middle of a batch is sent plain in its place, and the
// messages behind it go out as they are.
func TestBatchRefused(t *testing.T) {
	g, err := Listen(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.Sockets()[0].NewSender()
	(&refuse{train: unix.EINVAL}).put(s)
	ep := endpoint(t, "127.0.0.1", g.Port(), "")
	var msgs []Message
	var want [][]byte
	for i := range 20 {
		m := Message{To: ep, Buf: train(byte(i), 1+i%2*9, 100+i, 0), SegSize: 100 + i}
		msgs, want = append(msgs, m), append(want, cut(m.Buf, m.SegSize)...)
	}
	if err := s.SendBatch(msgs[1:]); err != nil {
		t.Error(err)
	}
	got, _, _ := newInbox(t, g.Sockets()[0]).read(t, len(want)-1)
	same(t, want[1:], got)
	if st := g.Stats(); st.TxPlain != 10 || st.TxDatagrams != uint64(len(got)) {
		t.Errorf("got %+v", st)
	}
}

// A congested socket ends the batch, and the messages that went out before it stay
// without error.
func TestBatchCongested(t *testing.T) {
	g, err := Listen(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.Sockets()[0].NewSender()
	ep := endpoint(t, "127.0.0.1", g.Port(), "")
	r := &refuse{}
	r.put(s)
	left, sendmmsg := 10, s.sys.sendmmsg
	s.sys.sendmmsg = func(fd int, m *mmsghdr, n int) (int, unix.Errno) {
		if left--; left < 0 {
			return 0, unix.EAGAIN
		}
		return sendmmsg(fd, m, n)
	}
	msgs := make([]Message, 100)
	for i := range msgs {
		msgs[i] = Message{To: ep, Buf: train(0, 1, 100, 0)}
	}
	if err := s.SendBatch(msgs); err != ErrCongested {
		t.Errorf("got %v, want ErrCongested", err)
	}
	for i, m := range msgs {
		if want := i >= 10; (m.Err == ErrCongested) != want || (m.Err == nil) == want {
			t.Fatalf("message %d: got %v", i, m.Err)
		}
	}
	if st := g.Stats(); st.TxDatagrams != 10 || st.TxCongested != 90 {
		t.Errorf("got %+v", st)
	}
	if r.waits > sendWaits || left < -10 {
		t.Errorf("waited %d times, %d calls in vain, want few", r.waits, -left)
	}
}

// On kernels with the tail bug no train ends with a segment as long as the others,
// and the receiver sees nothing of it.
func TestFiller(t *testing.T) {
	tests := []struct{ n, size, tail int }{
		{5, 100, 0},
		{5, 100, 99},
		{1, 100, 0},
		{64, 200, 0}, // does not fit with its filler
		{5, 2, 0},
		{45, 1455, 0}, // the filler needs room in the train
		{46, 1420, 0}, // nor does this one
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.n, tt.size, tt.tail), func(t *testing.T) {
			g, err := Listen(Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			in, sock := newInbox(t, g.Sockets()[0]), g.Sockets()[0]
			sock.filler = true
			s := sock.NewSender()
			next := s.sys.sendmsg
			s.sys.sendmsg = func(fd int, m *unix.Msghdr) unix.Errno {
				if m.Iovlen == 1 && s.scratch[0].iov[0].Len%uint64(tt.size) == 0 {
					t.Error("a train ends with a full segment")
				}
				return next(fd, m)
			}
			buf := train(0, tt.n, tt.size, tt.tail)
			ep := endpoint(t, "127.0.0.1", g.Port(), "")
			if err := s.Send(ep, buf, tt.size); err != nil {
				t.Fatal(err)
			}
			want := cut(buf, tt.size)
			got, _, _ := in.read(t, len(want))
			same(t, want, got)
			if st := g.Stats(); st.TxDatagrams != uint64(len(want)) {
				t.Errorf("got %d datagrams sent, want %d", st.TxDatagrams, len(want))
			}
		})
	}
}
