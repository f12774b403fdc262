package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/mesh/wire"
)

func TestQueueBounds(t *testing.T) {
	q := newQueue()
	n := 0
	for q.push(wire.Msg{Tag: wire.TagOverlay, Body: make([]byte, wire.MaxMessage)}) == nil {
		n++
	}
	if n != 2 {
		t.Errorf("%d of the largest messages fit, want 2", n)
	}
	if err := q.push(wire.Msg{Tag: wire.TagOverlay, Body: []byte{1}}); !errors.Is(err, errQueueFull) {
		t.Errorf("full by bytes: %v", err)
	}
	q.take(nil)
	for i := range queueMsgs {
		if err := q.push(wire.Msg{Tag: wire.TagOverlay}); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := q.push(wire.Msg{}); !errors.Is(err, errQueueFull) {
		t.Errorf("full by number: %v", err)
	}
}

func TestQueueOrder(t *testing.T) {
	q := newQueue()
	for i := range uint64(1000) { // these replace one another
		q.pushEcho(i)
		q.pushBeat(i)
	}
	q.push(wire.Msg{Tag: wire.TagHello})
	got, _, ended := q.take(nil)
	want := []wire.Msg{{Tag: wire.TagHello}, wire.Echo(999), wire.Heartbeat(999)}
	if d := cmp.Diff(want, got); d != "" || ended {
		t.Errorf("ended %v, -want +got:\n%s", ended, d)
	}

	q.push(wire.Msg{Tag: wire.TagOverlay})
	q.pushBeat(1)
	q.end(&wire.Close{Code: wire.CodeShutdown})
	q.end(&wire.Close{Code: wire.CodeLimit}) // too late
	q.pushEcho(1)
	if err := q.push(wire.Msg{}); !errors.Is(err, errQueueEnded) {
		t.Errorf("push after the end: %v", err)
	}
	got, _, ended = q.take(nil)
	last, _ := wire.Close{Code: wire.CodeShutdown}.Msg()
	if d := cmp.Diff([]wire.Msg{{Tag: wire.TagOverlay}, last}, got); d != "" || !ended {
		t.Errorf("ended %v, -want +got:\n%s", ended, d)
	}
}

func TestRefusedList(t *testing.T) {
	var r refusedList
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	lines := 0
	add := func(addr int, reason Reason) {
		if _, log := r.add(now, netip.AddrFrom4([4]byte{10, 0, byte(addr >> 8), byte(addr)}), &Error{Reason: reason}); log {
			lines++
		}
	}
	for range 100 {
		add(1, ReasonPassword)
	}
	if lines != 1 || r.snapshot(now)[0].Count != 100 {
		t.Errorf("%d lines, %+v", lines, r.snapshot(now))
	}
	for i := range 1000 {
		add(i, ReasonNotWeave)
	}
	if lines != 1+refusedLogs || len(r.entries) != maxRefused {
		t.Errorf("%d lines, %d entries", lines, len(r.entries))
	}
	if got := r.snapshot(now)[0].Addr.String(); got != "10.0.3.231" {
		t.Errorf("newest is %s", got)
	}
	add(2000, ReasonPassword) // has a budget of its own
	now = now.Add(refusedLogTime)
	add(2000, ReasonPassword)
	if lines != 3+refusedLogs {
		t.Errorf("%d lines", lines)
	}
	// Old ones are not shown, nor those of an address where a peer was admitted.
	now = now.Add(refusedKeep - 1)
	if got := r.snapshot(now); len(got) != 1 || got[0].Reason != ReasonPassword {
		t.Errorf("after a while: %+v", got)
	}
	r.forget(netip.AddrFrom4([4]byte{10, 0, 2000 >> 8, 2000 & 0xff}))
	if got := r.snapshot(now); len(got) != 0 {
		t.Errorf("after admission: %+v", got)
	}
}

// What one end says is what the other understands.
func TestReasonsOnTheWire(t *testing.T) {
	for _, c := range codes {
		e := &Error{Reason: c.reason, Text: "text"}
		if got := fromPeer(e.message()); got.Reason != c.received || got.Text != "text" {
			t.Errorf("%q arrives as %+v", c.reason, got)
		}
	}
	got := fromPeer(wire.Close{Code: 250, Text: "new"})
	if got.Reason != ReasonRemote || got.Error() != "refused by peer: new" {
		t.Errorf("unknown code arrives as %+v", got)
	}
	if got := fmt.Sprint((&Error{Reason: ReasonLost, Err: errNoAnswer}).message().Text); got != "connection lost" {
		t.Errorf("text %q", got)
	}
}
