package dial

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weave/internal/peer"
)

var (
	t0    = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	peerA = peer.NameFromBytes([6]byte{5: 0xa})
	peerB = peer.NameFromBytes([6]byte{5: 0xb})
	errX  = errors.New("refused")
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// world drives a Maker and writes what comes out as text.
type world struct {
	m    *Maker
	now  time.Time
	last map[string]uint64 // target -> latest attempt
	next time.Time
}

func newWorld(limit int) *world {
	return &world{m: New(Config{Port: 6783, Limit: limit, Rand: func() float64 { return 0.5 }}), now: t0, last: map[string]uint64{}}
}

func (w *world) step() string {
	var out []string
	var effects []Effect
	effects, w.next = w.m.Step(w.now)
	for _, e := range effects {
		w.last[e.Target] = e.Attempt
		switch {
		case e.Resolve != "":
			out = append(out, fmt.Sprintf("resolve %s:%d", e.Resolve, e.Port))
		case !e.Find.IsZero():
			out = append(out, fmt.Sprintf("find %s", e.Find))
		case !e.Peer.IsZero():
			out = append(out, fmt.Sprintf("dial %s found", e.Dial))
		default:
			out = append(out, fmt.Sprintf("dial %s", e.Dial))
		}
	}
	return strings.Join(out, ", ")
}

// show gives the state of a target as a word, with the time of the next attempt.
func (w *world) show(text string) string {
	t := w.m.targets[text]
	switch {
	case t == nil:
		return "-"
	case t.state != waiting:
		return t.state.String()
	case t.never:
		return "never"
	case w.m.serves(t):
		return "served"
	}
	return "waiting " + t.due.Sub(w.now).String()
}

// do performs one event, written as text, on the target x.
func (w *world) do(x, event string) {
	f := strings.Fields(event)
	attempt := w.last[x]
	switch f[0] {
	case "connect":
		w.m.Connect(w.now, []string{x}, false)
	case "forget":
		w.m.Forget([]string{x})
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			panic(err)
		}
		w.now = w.now.Add(d)
	case "resolved":
		var addrs []netip.Addr
		for _, a := range f[1:] {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		w.m.Resolved(w.now, attempt, addrs, nil)
	case "unresolved":
		w.m.Resolved(w.now, attempt, nil, errX)
	case "unreachable":
		w.m.Ended(w.now, attempt, Unreachable, peer.Name{}, errX)
	case "failed":
		w.m.Ended(w.now, attempt, Failed, peerA, errX)
	case "duplicate":
		w.m.Ended(w.now, attempt, Duplicate, peerA, errX)
	case "self":
		w.m.Ended(w.now, attempt, Self, peer.Name{}, errX)
	case "collision":
		w.m.Ended(w.now, attempt, Collision, peer.Name{}, errX)
	case "up": // our connection, key 1
		w.m.Up(w.now, 1, Conn{Attempt: attempt, Addr: w.m.targets[x].addr, Peer: peerA})
	case "inbound": // key 2
		w.m.Up(w.now, 2, Conn{Addr: ap("10.0.0.1:40000"), Listen: ap("10.0.0.1:6783"), Peer: peerA})
	case "inboundB": // key 3
		w.m.Up(w.now, 3, Conn{Addr: ap("10.0.0.9:40000"), Listen: ap("10.0.0.9:6783"), Peer: peerB})
	case "established":
		w.m.Established(1)
		w.m.Established(2)
	case "down":
		w.m.Down(w.now, 1, Failed, errX)
		w.m.Down(w.now, 2, Failed, errX)
	case "moved": // the peer of key 1
		to := ap(f[1])
		if to.Port() == 0 {
			to = netip.AddrPort{}
		}
		w.m.Moved(1, to)
	case "doubt":
		w.m.Doubt(w.now, 1, errX)
		w.m.Doubt(w.now, 2, errX)
	case "answer":
		w.m.Doubt(w.now, 1, nil)
		w.m.Doubt(w.now, 2, nil)
	case "downB":
		w.m.Down(w.now, 3, Failed, errX)
	case "lost-duplicate":
		w.m.Down(w.now, 1, Duplicate, errX)
	case "lost-collision":
		w.m.Down(w.now, 1, Collision, errX)
	default:
		panic(event)
	}
}

const (
	lit  = "10.0.0.1"
	name = "host1:7000"
)

func TestTransitions(t *testing.T) {
	tests := []struct {
		target, before, event string
		state, effects        string
	}{
		// waiting
		{lit, "", "connect", "dialing", "dial 10.0.0.1:6783"},
		{name, "", "connect", "resolving", "resolve host1:7000"},
		{"[fe80::1]:99", "", "connect", "dialing", "dial [fe80::1]:99"},
		{lit, "inbound", "connect", "served", ""},
		{lit, "connect; failed", "inbound", "served", ""},
		{lit, "connect; failed", "wait 1s", "waiting 1s", ""},
		{lit, "connect; failed", "wait 2s", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; failed", "connect", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; self", "wait 1000h", "never", ""},
		{lit, "connect; self", "connect", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; collision", "wait 1000h", "never", ""},
		{lit, "connect; collision", "connect", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; failed", "forget", "-", ""},
		// resolving
		{name, "connect", "resolved 10.0.0.1 10.0.0.2", "dialing", "dial 10.0.0.1:7000"},
		{name, "connect", "unresolved", "waiting 2s", ""},
		{name, "connect", "resolved", "waiting 2s", ""},
		{name, "connect", "connect", "resolving", ""},
		{name, "connect", "forget", "-", ""},
		{"host1", "connect; inbound", "resolved 10.0.0.1", "served", ""},
		{"host1", "connect; inbound", "resolved ::ffff:10.0.0.1", "served", ""},
		// dialing
		{name, "connect; resolved 10.0.0.1 10.0.0.2", "unreachable", "dialing", "dial 10.0.0.2:7000"},
		{name, "connect; resolved 10.0.0.1 10.0.0.2; unreachable", "unreachable", "waiting 2s", ""},
		{name, "connect; resolved 10.0.0.1 10.0.0.2", "failed", "waiting 2s", ""},
		{lit, "connect", "failed", "waiting 2s", ""},
		{lit, "connect", "self", "never", ""},
		{lit, "connect", "collision", "never", ""},
		{lit, "connect", "duplicate", "waiting 1s", ""},
		{lit, "connect; inbound", "duplicate", "served", ""},
		{"10.9.9.9", "connect; inbound", "duplicate", "served", ""},
		{lit, "connect", "connect", "dialing", ""},
		{lit, "connect", "up", "served", ""},
		{lit, "connect", "forget", "-", ""},
		// served, then lost
		{lit, "connect; up", "wait 1000h", "served", ""},
		{lit, "connect; up", "down", "waiting 2s", ""},
		{lit, "connect; up; established", "down", "dialing", "dial 10.0.0.1:6783"},
		{name, "connect; resolved 10.0.0.1; up; established", "down", "resolving", "resolve host1:7000"},
		{lit, "connect; up; established; down", "failed", "waiting 500ms", ""},
		{lit, "connect; up; established; down; up; established; wait 1m", "down", "waiting 500ms", ""},
		{lit, "connect; up; established; down; up; established; wait 61s", "down", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; failed; inbound; established", "down", "dialing", "dial 10.0.0.1:6783"},
		{lit, "connect; up; inbound", "lost-duplicate", "served", ""},
		{lit, "connect; up", "lost-duplicate", "waiting 1s", ""},
		{lit, "connect; up", "lost-collision", "never", ""},
		{lit, "connect; up", "connect", "served", ""},
		{lit, "connect; inboundB; up; established", "downB", "served", ""},
	}
	for _, tt := range tests {
		t.Run(tt.target+"/"+tt.before+"/"+tt.event, func(t *testing.T) {
			w := newWorld(0)
			w.step()
			for e := range strings.SplitSeq(tt.before, "; ") {
				if e != "" {
					w.do(tt.target, e)
					w.step()
				}
			}
			w.do(tt.target, tt.event)
			effects := w.step()
			if state := w.show(tt.target); state != tt.state || effects != tt.effects {
				t.Errorf("state %q, effects %q; want %q, %q", state, effects, tt.state, tt.effects)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	tests := []struct {
		i       time.Duration
		fast    bool
		r       float64
		d, next time.Duration
	}{
		{firstDelay, false, 0, time.Second, 3 * time.Second},
		{firstDelay, false, 0.5, 2 * time.Second, 3 * time.Second},
		{firstDelay, false, 0.999999999, 2999999998, 3 * time.Second},
		{5 * time.Minute, false, 0, 150 * time.Second, maxDelay},
		{maxDelay, false, 1, 9 * time.Minute, maxDelay},
		{fastFirst, true, 0.5, fastFirst, 750 * time.Millisecond},
		{fastMax, true, 1, 4500 * time.Millisecond, fastMax},
		{time.Minute, true, 1, 4500 * time.Millisecond, fastMax},
		{fastMax, false, 0, fastMax / 2, 4500 * time.Millisecond},
	}
	for _, tt := range tests {
		if d, next := delay(tt.i, tt.fast, tt.r); d != tt.d || next != tt.next {
			t.Errorf("delay(%v, %v, %v) = %v, %v; want %v, %v", tt.i, tt.fast, tt.r, d, next, tt.d, tt.next)
		}
	}
}

// schedule fails every attempt for a while and returns the times of all.
func schedule(w *world, x string, n int) (at []time.Duration) {
	start := w.now
	for range n {
		for w.step() == "" {
			w.now = w.next
		}
		at = append(at, w.now.Sub(start).Round(time.Millisecond))
		w.do(x, "failed")
	}
	return at
}

func TestScheduleOfFailures(t *testing.T) {
	w := newWorld(0)
	w.do(lit, "connect")
	const s, ms = time.Second, time.Millisecond
	want := []time.Duration{0, 2 * s, 5 * s, 9500 * ms, 16250 * ms, 26375 * ms}
	if d := cmp.Diff(want, schedule(w, lit, 6)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	got := schedule(w, lit, 14)
	if last := got[13] - got[12]; last != maxDelay {
		t.Errorf("last delay %v, want %v", last, maxDelay)
	}
}

// A peer that was there a moment ago is tried often enough to be back within 5 s
// of its return, for ten minutes.
func TestScheduleAfterLoss(t *testing.T) {
	w := newWorld(0)
	w.m.cfg.Rand = func() float64 { return 1 } // the slowest
	for _, e := range []string{"connect", "up", "established", "wait 2m", "down"} {
		w.step()
		w.do(lit, e)
	}
	at := schedule(w, lit, 150)
	if at[0] != 0 || at[1] > 800*time.Millisecond {
		t.Errorf("first attempts at %v", at[:3])
	}
	for i, a := range at[1:] {
		if gap := a - at[i]; at[i] < fastFor && gap > 4500*time.Millisecond {
			t.Fatalf("no attempt between %v and %v", at[i], a)
		}
	}
	if gap := at[149] - at[148]; gap < time.Minute {
		t.Errorf("still a try each %v after %v", gap, at[148])
	}
}

func TestLimit(t *testing.T) {
	w := newWorld(2)
	w.m.Connect(w.now, []string{"10.0.1.1", "10.0.1.2", "10.0.1.3"}, false)
	if got := w.step(); got != "dial 10.0.1.1:6783, dial 10.0.1.2:6783" {
		t.Errorf("started %q", got)
	}
	if u := w.m.Unserved(); len(u) != 3 || !errors.Is(u[2].Err, ErrLimit) {
		t.Errorf("%+v", u)
	}
	w.do("10.0.1.1", "up")
	if got := w.step(); got != "" {
		t.Errorf("over the limit: %q", got)
	}
	w.m.Down(w.now, 1, Failed, errX)
	if got := w.step(); got != "dial 10.0.1.3:6783" {
		t.Errorf("after a connection went: %q", got)
	}
}

func TestTwoTargetsOfOneAddress(t *testing.T) {
	w := newWorld(0)
	w.m.Connect(w.now, []string{lit, lit + ":6783"}, false)
	if got := w.step(); got != "dial 10.0.0.1:6783" {
		t.Errorf("started %q", got)
	}
	w.do(lit, "up")
	w.step()
	w.do(lit, "wait 1h")
	if got := w.step() + w.show(lit) + w.show(lit+":6783"); got != "servedserved" {
		t.Errorf("got %q", got)
	}
	if got := w.m.Serving(1); got != lit {
		t.Errorf("connection serves %q", got)
	}
}

func TestForgottenAttempt(t *testing.T) {
	w := newWorld(0)
	w.do(lit, "connect")
	w.step()
	id := w.last[lit]
	if !w.m.Wants(id) {
		t.Error("attempt isn't wanted")
	}
	w.do(lit, "forget")
	w.do(lit, "connect") // again: another attempt
	w.step()
	if w.m.Wants(id) || !w.m.Wants(w.last[lit]) || w.m.Wants(0) {
		t.Error("the forgotten attempt is wanted, or the new one isn't")
	}
	w.m.Ended(w.now, id, Self, peer.Name{}, errX)
	if got := w.show(lit); got != "dialing" {
		t.Errorf("state %q, want dialing", got)
	}
}

func TestConnectReplace(t *testing.T) {
	w := newWorld(0)
	w.m.Connect(w.now, []string{"a", "b"}, false)
	w.m.Find(w.now, []Candidate{{Peer: peerB}})
	if err := w.m.Connect(w.now, []string{"c", "a:b:c"}, true); !errors.Is(err, ErrBadTarget) {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff([]string{"a", "b", "c"}, w.m.Targets()); d != "" {
		t.Error("a bad list must not remove: " + d)
	}
	if err := w.m.Connect(w.now, []string{"b", "d"}, true); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"b", "d"}, w.m.Targets()); d != "" {
		t.Error(d)
	}
	w.m.Connect(w.now, nil, true)
	if n := len(w.m.targets); n != 1 {
		t.Errorf("%d targets left, want the discovered one", n)
	}
}

func TestFind(t *testing.T) {
	w := newWorld(0)
	x := foundPrefix + peerA.String()
	w.m.Find(w.now, []Candidate{{Peer: peerA, Wait: time.Second}})
	if got := w.step() + w.show(x); got != "waiting 1s" {
		t.Errorf("new: %q", got)
	}
	if len(w.m.Unserved()) != 0 {
		t.Error("shown before it was dialed")
	}
	w.do(x, "wait 1s")
	if got := w.step(); got != "find "+peerA.String() {
		t.Errorf("due: %q", got)
	}
	w.m.Found(w.now, w.last[x], []netip.AddrPort{ap("10.0.0.7:1"), ap("10.0.0.8:2")})
	if got := w.step(); got != "dial 10.0.0.7:1 found" || !w.m.IsFound(w.last[x]) {
		t.Errorf("found: %q", got)
	}
	w.do(x, "unreachable")
	if got := w.step(); got != "dial 10.0.0.8:2 found" {
		t.Errorf("not there: %q", got)
	}
	w.do(x, "failed")
	w.do(x, "wait 50ms")
	w.m.Find(w.now, []Candidate{{Peer: peerB}, {Peer: peerA}})
	if got := w.step() + " " + w.show(x); got != "find "+peerB.String()+" waiting 1.95s" {
		t.Errorf("told again: %q, want the back-off kept", got)
	}
	w.m.Found(w.now, w.last[foundPrefix+peerB.String()], nil)
	if got := w.show(foundPrefix + peerB.String()); got != "waiting 2s" {
		t.Errorf("without an address: %q", got)
	}
	w.do(x, "inbound")
	if got := w.step() + w.show(x); got != "served" {
		t.Errorf("connected meanwhile: %q", got)
	}
	w.m.Find(w.now, nil)
	if len(w.m.targets) != 0 {
		t.Errorf("%d targets left", len(w.m.targets))
	}
}

// A peer that was lost is tried as often as a lost target.
func TestFindLost(t *testing.T) {
	w := newWorld(0)
	x := foundPrefix + peerA.String()
	w.m.Find(w.now, []Candidate{{Peer: peerA, Lost: true}})
	for _, want := range []string{"waiting 500ms", "waiting 750ms", "waiting 1.125s", "waiting 1.6875s", "waiting 2.53125s", "waiting 3s", "waiting 3s"} {
		w.step()
		w.m.Found(w.now, w.last[x], []netip.AddrPort{ap("10.0.0.7:1")})
		w.step()
		w.do(x, "unreachable")
		if got := w.show(x); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		w.do(x, "wait 3s")
	}
}

// Found peers are dialed in order, apart from one another, and leave room.
func TestFindPace(t *testing.T) {
	w := newWorld(100)
	w.m.cfg.FindLimit = 20
	var all []Candidate
	for i := range 50 {
		all = append(all, Candidate{Peer: peer.NameFromBytes([6]byte{byte(50 - i), 0, 0, 0, 0, 9})})
	}
	w.m.Find(w.now, all)
	dialed := 0
	for range 200 {
		effects, next := w.m.Step(w.now)
		if len(effects) > 1 {
			t.Fatalf("%d attempts at once", len(effects))
		}
		for _, e := range effects {
			if e.Find != all[dialed].Peer {
				t.Fatalf("attempt %d is to %v, want %v", dialed, e.Find, all[dialed].Peer)
			}
			dialed++
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(dialed)}), 1)
			w.m.Found(w.now, e.Attempt, []netip.AddrPort{at})
			effects, _ := w.m.Step(w.now)
			if dialed > maxFinding { // the first don't answer
				w.m.Up(w.now, uint64(dialed), Conn{Attempt: effects[0].Attempt, Addr: at, Peer: e.Find})
			}
		}
		if dialed == maxFinding {
			for _, x := range w.m.targets {
				if x.state == dialing {
					w.m.Ended(w.now, x.attempt, Failed, peer.Name{}, errX)
				}
			}
		}
		if next.After(w.now) {
			w.now = next
		} else {
			w.now = w.now.Add(findGap)
		}
	}
	if len(w.m.conns) != 20 {
		t.Errorf("%d connections, want 20", len(w.m.conns))
	}
	if took := w.now.Sub(t0); took < 28*findGap {
		t.Errorf("took %v", took)
	}
	w.m.Connect(w.now, []string{lit}, false)
	if got := w.step(); got != "dial 10.0.0.1:6783" {
		t.Errorf("no room for a target of the user: %q", got)
	}
}

// Another peer at the address of a found one doesn't count as that.
func TestFindOther(t *testing.T) {
	w := newWorld(0)
	x := foundPrefix + peerA.String()
	w.m.Find(w.now, []Candidate{{Peer: peerA}})
	w.step()
	w.m.Found(w.now, w.last[x], []netip.AddrPort{ap("10.0.0.7:1")})
	w.step()
	w.m.Up(w.now, 1, Conn{Attempt: w.last[x], Addr: ap("10.0.0.7:1"), Peer: peerB})
	w.do(x, "wait 2s")
	w.m.Down(w.now, 1, Failed, errX)
	if got := w.step(); got != "find "+peerA.String() {
		t.Errorf("got %q", got)
	}
}

func TestHint(t *testing.T) {
	w := newWorld(0)
	var many []netip.AddrPort
	for i := range 100 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 1))
	}
	w.m.Hint(w.now, many)
	if len(w.m.targets) != maxHints || w.m.IsFound(1) || len(w.m.Targets()) != 0 {
		t.Errorf("%d hints", len(w.m.targets))
	}
	w.step()
	x := many[0].String()
	w.do(x, "failed")
	w.do(many[1].String(), "inboundB")
	w.do(x, "wait 1m")
	w.step()
	if got := w.show(x); got != "-" {
		t.Errorf("after a minute: %q", got)
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct {
		in, host string
		port     uint16
		bad      bool
	}{
		{"host1", "host1", 0, false},
		{"host-1.example.org:6783", "host-1.example.org", 6783, false},
		{"192.0.2.1", "192.0.2.1", 0, false},
		{"192.0.2.1:1", "192.0.2.1", 1, false},
		{"2001:db8::1", "2001:db8::1", 0, false},
		{"[2001:db8::1]", "2001:db8::1", 0, false},
		{"[2001:db8::1]:6783", "2001:db8::1", 6783, false},
		{"[fe80::1%eth0]:6783", "fe80::1%eth0", 6783, false},
		{"", "", 0, true},
		{":6783", "", 0, true},
		{"host:", "", 0, true},
		{"host:0", "", 0, true},
		{"host:65536", "", 0, true},
		{"host:http", "", 0, true},
		{"a:b:c", "", 0, true},
		{"[host]:1", "", 0, true},
		{"[1.2.3.4]:1", "", 0, true},
		{"[::1", "", 0, true},
		{"-rf", "", 0, true},
		{"a b", "", 0, true},
		{"http://x", "", 0, true},
		{strings.Repeat("a", 254), "", 0, true},
	}
	for _, tt := range tests {
		host, port, err := ParseTarget(tt.in)
		if host != tt.host || port != tt.port || errors.Is(err, ErrBadTarget) != tt.bad {
			t.Errorf("ParseTarget(%q) = %q, %d, %v", tt.in, host, port, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"host", "h:1", "[::1]:2", "::1", "1.2.3.4:5", "[::1%a]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseTarget(s)
		if err == nil && (host == "" || (port == 0 && strings.HasSuffix(s, ":0"))) {
			t.Fatalf("ParseTarget(%q) = %q, %d", s, host, port)
		}
	})
}

// Any order of events keeps the invariants.
func TestRandomEvents(t *testing.T) {
	targets := []string{lit, name, "10.0.0.1:6783", "host1", "10.0.0.9"}
	events := []string{"connect", "forget", "wait 1s", "wait 10m", "resolved 10.0.0.1 10.0.0.9", "unresolved", "unreachable",
		"failed", "duplicate", "self", "collision", "up", "inbound", "inboundB", "established", "doubt", "answer", "down", "downB", "lost-duplicate", "lost-collision"}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(0, 3).Draw(t, "limit"))
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			x := rapid.SampledFrom(targets).Draw(t, "target")
			e := rapid.SampledFrom(events).Draw(t, "event")
			if e == "up" && (w.m.byAttempt(w.last[x]) == nil || w.m.targets[x].state != dialing || w.m.conns[1] != nil) {
				continue // a caller asks Wants first
			}
			w.do(x, e)
			w.step()
			checkInvariants(t, w)
		}
	})
}

func checkInvariants(t *rapid.T, w *world) {
	attempts := map[uint64]bool{}
	trying, over := 0, 0
	for text, x := range w.m.targets {
		if (x.state == waiting) != (x.attempt == 0) {
			t.Fatalf("%s is %v with attempt %d", text, x.state, x.attempt)
		}
		if x.attempt != 0 && attempts[x.attempt] {
			t.Fatalf("attempt %d twice", x.attempt)
		}
		if x.state != waiting && x.over {
			over++
			attempts[x.attempt] = true
			continue
		}
		if x.state != waiting {
			trying++
			attempts[x.attempt] = true
			continue
		}
		idle := x.never || w.m.serves(x) || x.limited
		if !idle && (w.next.IsZero() || w.next.After(x.due)) {
			t.Fatalf("%s is due at %v, next step at %v", text, x.due, w.next)
		}
		if !idle && !x.due.After(w.now) {
			t.Fatalf("%s is due and nothing was done", text)
		}
		if x.due.Sub(w.now) > maxDelay*3/2 {
			t.Fatalf("%s waits %v", text, x.due.Sub(w.now))
		}
	}
	if w.m.cfg.Limit > 0 && (trying > w.m.cfg.Limit || over > 1) || w.m.cfg.Limit == 0 && over > 0 {
		t.Fatalf("%d attempts at once, %d over the limit", trying, over)
	}
}

// With all connections in use targets that nothing leads to are dialed, one at a time;
// others wait.
func TestOverLimit(t *testing.T) {
	w := newWorld(1)
	reached := map[peer.Name]bool{}
	w.m.cfg.Reaches = func(p peer.Name) bool { return reached[p] }
	w.m.Up(w.now, 9, Conn{Peer: peerB})
	w.m.Connect(w.now, []string{"10.0.1.1", "10.0.1.2"}, false)
	if got := w.step(); got != "" {
		t.Errorf("at once: %q", got)
	}
	w.now = w.now.Add(overAfter)
	if got := w.step(); got != "dial 10.0.1.1:6783" || !w.m.targets["10.0.1.1"].over {
		t.Errorf("when all rest: %q", got)
	}
	w.now = w.now.Add(time.Second)
	if got := w.step(); got != "" {
		t.Errorf("two at a time: %q", got)
	}
	reached[peerA] = true
	w.m.Ended(w.now, w.last["10.0.1.1"], NoRoom, peerA, errX)
	if got := w.step(); got != "dial 10.0.1.2:6783" {
		t.Errorf("then: %q", got)
	}
	w.m.Ended(w.now, w.last["10.0.1.2"], NoRoom, peerA, errX)
	w.now = w.now.Add(time.Hour)
	if got := w.step(); got != "" || !w.next.IsZero() {
		t.Errorf("others lead there: %q, again %v", got, w.next)
	}
	for _, u := range w.m.Unserved() {
		if u.Err != ErrLimit || u.Peer != peerA {
			t.Errorf("%+v", u)
		}
	}
	clear(reached)
	w.m.Rerouted()
	if got := w.step(); got != "dial 10.0.1.1:6783" {
		t.Errorf("nobody leads there any more: %q", got)
	}
	w.m.Ended(w.now, w.last["10.0.1.1"], NoRoom, peerA, errX)
	w.m.Down(w.now, 9, Failed, errX)
	if got := w.step(); !strings.Contains(got, "dial 10.0.1.") || w.m.targets["10.0.1.1"].over {
		t.Errorf("when there is room: %q", got)
	}
}
