package dial

import (
	"strings"
	"testing"
)

// play performs events with semicolons between on the target x, and returns the effects
// of the last.
func (w *world) play(x, events string) (effects string) {
	for _, e := range strings.Split(events, "; ") {
		w.do(x, e)
		effects = w.step()
	}
	return effects
}

// A peer that moved while it was connected is dialed where it was seen last, then
// where it always was.
func TestMovedPeer(t *testing.T) {
	for _, tt := range []struct{ target, events, effects string }{
		{lit, "connect; up; established; moved 10.0.0.7:6783; down", "dial 10.0.0.7:6783"},
		{lit, "connect; up; established; moved 10.0.0.7:6783; down; unreachable", "dial 10.0.0.1:6783"},
		{lit, "connect; up; established; moved 10.0.0.7:6783; down; unreachable; unreachable; wait 1s", "dial 10.0.0.7:6783"},
		{lit, "connect; up; established; moved 10.0.0.7:6783; moved 0.0.0.0:0; down", "dial 10.0.0.1:6783"},
		// Found there, it is looked for there again.
		{lit, "connect; up; established; moved 10.0.0.7:6783; down; up; established; wait 2m; down", "dial 10.0.0.7:6783"},
		// Found at home, it is at home.
		{lit, "connect; up; established; moved 10.0.0.7:6783; down; unreachable; up; established; wait 2m; down", "dial 10.0.0.1:6783"},
		{lit, "connect; up; established; moved 10.0.0.7:6783; down; unreachable; unreachable; connect", "dial 10.0.0.1:6783"},
		{name, "connect; resolved 10.0.0.1; up; established; moved 10.0.0.7:6783; down; resolved 10.0.0.1", "dial 10.0.0.7:6783"},
	} {
		w := newWorld(0)
		got := w.play(tt.target, tt.events)
		if got != tt.effects {
			t.Errorf("%s: %s: %q, want %q", tt.target, tt.events, got, tt.effects)
		}
	}
}

// While a connection is in doubt its peer is looked for, elsewhere first.
func TestDoubt(t *testing.T) {
	for _, tt := range []struct{ target, events, effects, state string }{
		{lit, "connect; up; established; wait 2m; doubt", "dial 10.0.0.1:6783", "dialing"},
		{lit, "connect; up; established; wait 2m; doubt; unreachable", "", "waiting 500ms"},
		{lit, "connect; up; established; wait 2m; doubt; unreachable; answer", "", "served"},
		{lit, "connect; up; established; wait 2m; doubt; unreachable; answer; wait 1m; doubt", "dial 10.0.0.1:6783", "dialing"},
		{lit, "connect; up; established; wait 2m; doubt; unreachable; wait 100ms; down", "dial 10.0.0.1:6783", "dialing"},
		{lit, "connect; up; established; wait 2m; doubt; unreachable; answer; down", "dial 10.0.0.1:6783", "dialing"},
		{lit, "connect; up; established; wait 2m; doubt; duplicate; answer", "", "served"},
		{lit, "connect; up; established; doubt; down; wait 1m; connect; up", "", "served"},
		{name, "connect; resolved 10.0.0.1 10.0.0.9; up; established; wait 2m; doubt; resolved 10.0.0.1 10.0.0.9", "dial 10.0.0.9:7000", "dialing"},
		{name, "connect; resolved 10.0.0.1 10.0.0.9; up; established; wait 2m; doubt; resolved 10.0.0.1 10.0.0.9; unreachable", "dial 10.0.0.1:7000", "dialing"},
		{lit, "connect; inbound; doubt", "", "dialing"},
		{lit, "inbound; connect; established; doubt", "dial 10.0.0.1:6783", "dialing"},
	} {
		w := newWorld(0)
		got := w.play(tt.target, tt.events)
		if got != tt.effects || w.show(tt.target) != tt.state {
			t.Errorf("%s: %s: %q and %s, want %q and %s", tt.target, tt.events, got, w.show(tt.target), tt.effects, tt.state)
		}
	}
}
