package upstream

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/nameserver/dnstest"
)

// A forwarding loop ends after one round: through servers that pass only our mark
// on, and through such that only keep the name as it is spelled.
func TestLoopEndsAfterOneRound(t *testing.T) {
	for _, keepsMark := range []bool{true, false} {
		up := dnstest.Start(t, 1, nil)
		f, _ := newForwarder(t, up...)
		var rounds atomic.Int32
		var looped atomic.Int32
		up[0].Handle(func(q *dns.Msg, tcp bool) *dns.Msg { // forwards to whom it heard it from
			rounds.Add(1)
			back := q.Copy()
			if keepsMark {
				back.Question[0].Name = strings.ToLower(back.Question[0].Name)
			} else {
				back.Extra = nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := f.Exchange(ctx, back); errors.Is(err, ErrLoop) {
				looped.Add(1)
			} else {
				t.Errorf("the question that came back: %v", err)
			}
			return dnstest.Code(dns.RcodeServerFailure)(q, tcp)
		})
		name := "loop-it-is." + strings.Repeat("x", 40) + ".example." // never spelled in lower case only
		_, err := exchange(t, f, question(name, dns.TypeA))
		if !errors.Is(err, ErrRefused) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrRefused at once", err)
		}
		if rounds.Load() != 1 || looped.Load() != 1 {
			t.Errorf("mark kept %v: %d rounds, %d seen", keepsMark, rounds.Load(), looped.Load())
		}
	}
}

// A circle of several forwarders ends too.
func TestCircleOfForwarders(t *testing.T) {
	up := dnstest.Start(t, 3, nil)
	var fs []*Forwarder
	for i := range up {
		f, _ := newForwarder(t, up[(i+1)%len(up)])
		fs = append(fs, f)
	}
	var asked atomic.Int32
	for i, s := range up {
		s.Handle(func(q *dns.Msg, tcp bool) *dns.Msg {
			asked.Add(1)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			m, err := fs[i].Exchange(ctx, q)
			if err != nil {
				return dnstest.Code(dns.RcodeServerFailure)(q, tcp)
			}
			return m
		})
	}
	if _, err := exchange(t, fs[0], question("circle.example.", dns.TypeA)); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("%d questions in a circle of three", n)
	}
}
