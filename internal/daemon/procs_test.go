package daemon

import (
	"runtime"
	"testing"
)

func TestReserveProcs(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	undo := reserveProcs(3)
	if got := runtime.GOMAXPROCS(0); got != before+3 {
		t.Errorf("GOMAXPROCS is %d, want %d and 3", got, before)
	}
	undo()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("GOMAXPROCS is %d afterwards, want %d", got, before)
	}
}
