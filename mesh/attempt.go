package mesh

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/wire"
)

// Limits of the parts of an attempt.
const (
	resolveTimeout = 5 * time.Second
	dialTimeout    = 5 * time.Second
)

// start performs an effect of the connection maker in a goroutine.
func (l *loop) start(e dial.Effect) {
	if e.Resolve != "" {
		l.tasks.Go(func() { l.r.resolve(l.ctx, e) })
		return
	}
	l.counters.Dialed++
	port, room := l.ask(e), l.roomOf(e)
	l.tasks.Go(func() { l.r.dial(l.ctx, e, port, room) })
}

func (r *Router) resolve(ctx context.Context, e dial.Effect) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := r.cfg.Net.Resolve(ctx, e.Resolve)
	if err != nil {
		err = &Error{Reason: ReasonUnreachable, Text: "can't find the host's address", Err: err}
	}
	r.call(func(l *loop) {
		if err != nil {
			l.r.log.Log(l.ctx, l.newsLevel(e.Attempt, err, slog.LevelInfo), "target has no address", "target", e.Target, "err", err)
		}
		l.maker.Resolved(time.Now(), e.Attempt, addrs, err)
	})
}

// dial makes an attempt from a port of ours; 0: any.
func (r *Router) dial(ctx context.Context, e dial.Effect, port uint16, room wire.Room) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	nc, err := r.dialFrom(dctx, port, e.Dial)
	cancel()
	if err == nil {
		s := r.newSocket(nc, e.Attempt)
		s.found, s.hinted, s.room = !e.Peer.IsZero(), e.Hint, room
		s.serve(ctx, func() {})
		return
	}
	failed := &Error{Reason: ReasonUnreachable, Text: "can't connect", Err: err}
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		failed.Err = errNoAnswer
	}
	r.call(func(l *loop) {
		l.counters.DialFailed++
		l.r.log.Log(l.ctx, l.newsLevel(e.Attempt, failed, slog.LevelInfo), "target doesn't answer", "target", e.Target, "addr", e.Dial, "err", failed)
		l.maker.Ended(time.Now(), e.Attempt, dial.Unreachable, peer.Name{}, failed)
	})
}

// newsLevel is level, or Debug for a failure like that of the attempt before.
func (l *loop) newsLevel(attempt uint64, err error, level slog.Level) slog.Level {
	if last := l.maker.LastErr(attempt); last != nil && last.Error() == err.Error() {
		return slog.LevelDebug
	}
	return level
}

var errNoAnswer = errors.New("no answer")
