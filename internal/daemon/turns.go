package daemon

import (
	"context"
	"sync"

	"weave/internal/api"
)

// turns lets one request at a time change what belongs to a container: between getting
// an address and putting it on an interface nobody may give it back.
type turns struct {
	mu   sync.Mutex
	busy map[string]*turn
}

type turn struct {
	push   bool // it does not wait for others, and is not ended
	cancel context.CancelCauseFunc
	over   chan struct{}
}

// errDetached is why a request ends that a later one has overtaken.
var errDetached = api.Errorf(api.CodeConflict, "detached meanwhile")

// take waits for the caller's turn, or for ctx to end. With push it ends a request
// without, whose turn it is: a detach need not wait for an attach that waits for an
// address. The request goes on with the context returned, and calls end.
func (t *turns) take(ctx context.Context, key string, push bool) (_ context.Context, end func(), err error) {
	mine := &turn{push: push, over: make(chan struct{})}
	ctx, mine.cancel = context.WithCancelCause(ctx)
	for {
		t.mu.Lock()
		other := t.busy[key]
		if other == nil {
			if t.busy == nil {
				t.busy = map[string]*turn{}
			}
			t.busy[key] = mine
			t.mu.Unlock()
			return ctx, func() { t.end(key, mine) }, nil
		}
		t.mu.Unlock()
		if push && !other.push {
			other.cancel(errDetached)
		}
		select {
		case <-other.over:
		case <-ctx.Done():
			mine.cancel(nil)
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (t *turns) end(key string, mine *turn) {
	t.mu.Lock()
	delete(t.busy, key)
	t.mu.Unlock()
	mine.cancel(nil)
	close(mine.over)
}

// because returns why ctx ended, if that is why there is an error.
func because(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == error(errDetached) {
		return errDetached
	}
	return err
}
