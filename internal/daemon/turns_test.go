package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts turns
		ctx, end, err := ts.take(t.Context(), "a", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, end, err := ts.take(t.Context(), "b", false); err != nil {
			t.Error(err)
		} else {
			end()
		}
		// A second request waits, as long as its caller likes.
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := ts.take(short, "a", false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited until %v", err)
		}
		if ctx.Err() != nil {
			t.Error("who waits ends the other")
		}
		// One that pushes ends the first, and goes on when that is over.
		type result struct {
			ctx context.Context
			end func()
		}
		pushed := make(chan result)
		for range 2 {
			go func() {
				ctx, end, _ := ts.take(t.Context(), "a", true)
				pushed <- result{ctx, end}
			}()
		}
		<-ctx.Done()
		if err := because(ctx, ctx.Err()); err != error(errDetached) {
			t.Errorf("ended because %v", err)
		}
		if because(ctx, nil) != nil {
			t.Error("what had been done by then is an error")
		}
		synctest.Wait()
		select {
		case <-pushed:
			t.Error("two have the turn")
		default:
		}
		end()
		one := <-pushed
		synctest.Wait()
		if one.ctx.Err() != nil {
			t.Error("who pushed was pushed")
		}
		one.end()
		(<-pushed).end()
		if len(ts.busy) != 0 {
			t.Errorf("left: %v", ts.busy)
		}
	})
}
