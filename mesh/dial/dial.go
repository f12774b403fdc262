// Package dial decides which address to dial when: the connection maker.
//
// The idea to read it: a [Maker] is told what happens (targets given and
// forgotten, names resolved, attempts that failed, connections up and down) and
// answers with what to do next, from Step. It knows no socket, goroutine or
// clock. Whether a target needs an attempt isn't a state but a question asked at
// each Step: is there any connection, from whichever end, that serves it?
//
// # States of a target
//
//	waiting    until its time comes, or for ever, or because a connection serves it
//	resolving  a Resolve effect is out
//	dialing    a Dial effect is out: until the connection is up or has failed
//
//	state      event                    next       what happens
//	waiting    due, name                resolving  Resolve
//	waiting    due, literal address     dialing    Dial
//	waiting    due, served              waiting    nothing until the connection is down
//	waiting    due, limit reached       waiting    nothing until a connection is down, but see Full
//	waiting    connect                  waiting    due now, also after a self or collision
//	resolving  resolved                 dialing    Dial the first address
//	resolving  resolved, served         waiting    as above
//	resolving  no address               waiting    back-off
//	dialing    unreachable, more addrs  dialing    Dial the next address
//	dialing    unreachable, failed      waiting    back-off
//	dialing    duplicate                waiting    served by that peer's other connection
//	dialing    self, collision          waiting    never again until connect
//	dialing    up                       waiting    served
//	any        forget                   -          later results of the attempt are ignored
//
// # Back-off
//
// The first attempt is made at once. After a failure the next comes after a
// uniform draw from [i/2, 3i/2], where i starts at 2 s and grows by half each
// time up to 6 min. A connection that is lost before it was established counts as
// a failure.
//
// When an established connection that served a target is lost the other end was
// most likely restarted, so users wait for it: the first attempt is made at once,
// i starts again at 0.5 s and stays at most 3 s for 10 min, and the wait counts
// from the start of an attempt, not from its end, so that a restarted peer is
// found within 4.5 s. A connection that lived less than a minute doesn't
// start this again, so that a peer that accepts and breaks off isn't dialed in a
// circle.
//
// # Moved
//
// A peer's data tells where it is now when its address changes. A target that a
// lost connection served is dialed there first, and then where it always was.
//
// # Served
//
// A connection serves a target when its remote address, or the address its peer
// says it listens on, is one that the target last resolved to, or when its peer is
// the one that the target last led to (by another address, perhaps).
//
// # In doubt
//
// A peer that no longer answers on a connection may do so at another of its
// addresses. While the caller says so ([Maker.Doubt]) the connection serves nothing,
// and of a target's addresses its own is dialed last.
//
// # Found peers
//
// Besides the targets that users give there are peers that other peers know
// ([Maker.Find]). Such a peer is a target whose addresses the caller looks up when
// it is due. Found peers are dialed in the order that they were given in, only as
// far as Config.FindLimit leaves room, and one after the other with findGap between,
// so that many peers that start at once don't storm one another.
//
// Hints ([Maker.Hint]) are addresses that a peer gave which had no room for us. They
// are dialed one after the other until one leads to a connection, and forgotten
// then, or after a minute.
//
// # Full
//
// At Config.Limit a target waits, unless nothing leads to the peer there, or nobody
// knows who is there: then the network may be in parts that are closed to one another,
// and an attempt over the limit is made (Effect.Over). The caller makes room if it
// comes to a connection. One such attempt is made at a time, not before overAfter has
// passed without a new connection, and a while after the one before. The same holds for
// hints, and for found peers that nothing leads to ([Candidate].Far).
package dial

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"weave/internal/peer"
)

// Back-off, see the package comment.
const (
	firstDelay = 2 * time.Second
	maxDelay   = 6 * time.Minute
	fastFirst  = 500 * time.Millisecond
	fastMax    = 3 * time.Second
	fastFor    = 10 * time.Minute
	longLived  = time.Minute
	soon       = time.Second // after an attempt that met another of the same
)

// Bounds of what a Maker keeps and does at a time.
const (
	maxTargets = 4096 // of users
	maxFound   = 10_000
	maxHints   = 32
	maxFinding = 8 // attempts to found peers under way
	findGap    = 50 * time.Millisecond
	hintTime   = time.Minute

	overAfter = 2 * time.Second        // with as many connections as may be
	overGap   = 500 * time.Millisecond // between attempts over the limit, half to three halves of it
)

var (
	// ErrBadTarget reports text that is no target.
	ErrBadTarget = errors.New("not a peer address: want HOST, HOST:PORT or [IPV6]:PORT")
	// ErrLimit is a target's error while the connection limit keeps it waiting.
	ErrLimit = errors.New("connection limit reached")
	// ErrTooMany reports targets beyond maxTargets.
	ErrTooMany = errors.New("too many targets")
)

// Config of a Maker.
type Config struct {
	Port  uint16 // of targets that name none
	Limit int    // connections, dials under way included; 0: no limit
	// FindLimit is the number of connections, dials under way included, at which no
	// more are made to found peers; 0: no limit.
	FindLimit int
	Rand      func() float64 // uniform in [0, 1)
	// Reaches reports whether some way leads to a peer; nil: to none. When its answers
	// may have changed, call Maker.Rerouted.
	Reaches func(peer.Name) bool
}

// Effect is something to do. Exactly one of Resolve, Find and Dial is set; the
// outcome of the first two goes to Resolved or Found, that of Dial to Up or Ended.
type Effect struct {
	Attempt uint64 // names the attempt in later calls, never 0
	Target  string
	Resolve string    // host name to look up
	Port    uint16    // with Resolve: the port of the addresses
	Find    peer.Name // peer whose addresses are wanted; to be answered before the next Step
	Dial    netip.AddrPort
	Peer    peer.Name // with Dial: the found peer that others say is there; zero: it is none
	Over    bool      // with Dial: the limit is reached, so another connection must go for this one
	Hint    bool      // with Dial: the address is a hint
}

// Conn is a connection that passed all checks, dialed by either end.
type Conn struct {
	Attempt uint64         // of the Dial effect that made it; 0: inbound
	Addr    netip.AddrPort // remote end
	Listen  netip.AddrPort // where the peer says it listens; zero: unknown
	Peer    peer.Name
}

// Outcome is how an attempt ended.
type Outcome uint8

const (
	Unreachable Outcome = iota // no connection; another address of the target may do
	Failed                     // connection made, then refused by either end
	Duplicate                  // another connection to that peer stays
	Self                       // the address is our own
	Collision                  // the peer there has a name that another peer has
	NoRoom                     // one of the two ends has no room
)

type state uint8

const (
	waiting   state = iota // leaves when due
	resolving              // leaves by Resolved
	dialing                // leaves by Up or Ended
)

func (s state) String() string { return [...]string{"waiting", "resolving", "dialing"}[s] }

type target struct {
	text   string
	host   string
	port   uint16
	direct bool      // given by the user
	found  peer.Name // zero: it is no found peer
	rank   int       // of a found peer: lower is dialed first
	far    bool      // of a found peer: nothing leads to it
	until  time.Time // of a hint: when it is forgotten; zero: it is no hint

	state   state
	attempt uint64           // of the effect that is out; 0 while waiting
	over    bool             // not waiting: the attempt is one over the limit
	addrs   []netip.AddrPort // dialing: those still to try
	addr    netip.AddrPort   // dialed last
	known   []netip.AddrPort // all that it resolved to last
	seen    netip.AddrPort   // dialed before known: where its peer had moved; zero: it had not
	peer    peer.Name        // whom it led to last
	err     error            // of the last attempt
	began   time.Time        // the last attempt

	never     bool          // waiting: until connect
	limited   bool          // waiting: for room
	crowded   bool          // waiting: the last attempt found no room for us, or here
	due       time.Time     // waiting: next attempt
	interval  time.Duration // i of the next delay
	fastUntil time.Time     // interval <= fastMax until then; zero: never lost
}

type conn struct {
	Conn
	up          time.Time
	established bool
	doubt       bool
	moved       netip.AddrPort // where the peer listens now; zero: where it did
}

// Maker is the connection maker. It is owned by one goroutine.
type Maker struct {
	cfg      Config
	targets  map[string]*target
	busy     map[*target]bool       // those that aren't waiting
	conns    map[uint64]*conn       // by the caller's key
	addrs    map[netip.AddrPort]int // conns not in doubt by Addr and by Listen
	peers    map[peer.Name]int      // conns not in doubt by Peer
	attempt  uint64                 // last one given out
	nextFind time.Time              // the next attempt to a found peer
	nextOver time.Time              // the next attempt over the limit

	changed bool      // since the last Step
	next    time.Time // what it returned
}

// New makes a Maker without targets.
func New(cfg Config) *Maker {
	return &Maker{
		cfg: cfg, targets: map[string]*target{}, busy: map[*target]bool{}, conns: map[uint64]*conn{},
		addrs: map[netip.AddrPort]int{}, peers: map[peer.Name]int{},
	}
}

// ParseTarget splits a target; port is 0 when it names none. Host is an address
// or a name that is yet to be resolved.
func ParseTarget(s string) (host string, port uint16, err error) {
	bad := fmt.Errorf("%q: %w", s, ErrBadTarget)
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), 0, nil
	}
	host = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		p, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || p == 0 {
			return "", 0, bad
		}
		host, port = s[:i], uint16(p)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !a.Is6() || !strings.HasSuffix(inner, "]") {
			return "", 0, bad
		}
		return a.String(), port, nil
	}
	if !validHost(host) {
		return "", 0, bad
	}
	return host, port, nil
}

func validHost(s string) bool {
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._", r)) {
			return false
		}
	}
	return s != "" && len(s) <= 253 && s[0] != '-' && s[0] != '.'
}

// Connect adds direct targets, or with replace makes them the only direct ones,
// and makes all given ones due now. Bad ones are named in the error, the others
// are taken nevertheless. With replace a bad one leaves the others as they are.
func (m *Maker) Connect(now time.Time, texts []string, replace bool) error {
	m.changed = true
	var errs []error
	keep := map[string]bool{}
	for _, s := range texts {
		host, port, err := ParseTarget(s)
		if err == nil && m.targets[s] == nil && m.count() >= maxTargets {
			err = fmt.Errorf("%q: %w", s, ErrTooMany)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keep[s] = true
		t := m.targets[s]
		if t == nil {
			t = &target{text: s, host: host, port: port}
			m.targets[s] = t
		}
		t.direct, t.until = true, time.Time{}
		t.reset(now)
	}
	if replace && len(errs) == 0 {
		for s, t := range m.targets {
			if t.direct && !keep[s] {
				m.remove(t)
			}
		}
	}
	return errors.Join(errs...)
}

// reset forgets earlier failures and, since a name may mean another host now,
// where it led. An attempt under way goes on.
func (t *target) reset(now time.Time) {
	t.never, t.limited, t.err, t.interval, t.fastUntil = false, false, nil, firstDelay, time.Time{}
	t.due = now
	if t.state == waiting {
		t.peer, t.known, t.seen = peer.Name{}, nil, netip.AddrPort{}
	}
}

// Forget removes direct targets; unknown ones are ignored. Connections stay.
func (m *Maker) Forget(texts []string) {
	m.changed = true
	for _, s := range texts {
		if t := m.targets[s]; t != nil && t.direct {
			m.remove(t)
		}
	}
}

// remove forgets a target: later results of its attempt are ignored.
func (m *Maker) remove(t *target) {
	delete(m.targets, t.text)
	delete(m.busy, t)
}

// Candidate is a found peer.
type Candidate struct {
	Peer peer.Name
	Wait time.Duration // before the first attempt
	Lost bool          // it was connected to us: to be tried often at first, as a target that was lost
	Far  bool          // nothing leads to it, so that it may have a place that others leave free
}

// Find replaces the found peers, given in the order of preference. What is known of
// those that stay is kept.
func (m *Maker) Find(now time.Time, peers []Candidate) {
	m.changed = true
	keep := map[string]bool{}
	for rank, c := range peers[:min(len(peers), maxFound)] {
		s := foundPrefix + c.Peer.String()
		keep[s] = true
		t := m.targets[s]
		if t == nil {
			t = &target{text: s, found: c.Peer, peer: c.Peer}
			t.reset(now)
			t.peer, t.due = c.Peer, now.Add(c.Wait)
			if c.Lost {
				t.interval, t.fastUntil = fastFirst, now.Add(fastFor)
			}
			m.targets[s] = t
		}
		t.rank, t.far = rank, c.Far
	}
	for s, t := range m.targets {
		if !t.found.IsZero() && !keep[s] {
			m.remove(t)
		}
	}
}

// foundPrefix keeps the names of found peers apart from the texts of users.
const foundPrefix = "peer "

// Hint adds addresses to try.
func (m *Maker) Hint(now time.Time, addrs []netip.AddrPort) {
	m.changed = true
	hints := 0
	for _, t := range m.targets {
		if !t.until.IsZero() {
			hints++
		}
	}
	for _, a := range addrs {
		s := a.String()
		if m.targets[s] != nil || hints >= maxHints || a.Port() == 0 {
			continue
		}
		hints++
		t := &target{text: s, host: a.Addr().String(), port: a.Port(), until: now.Add(hintTime)}
		t.reset(now)
		m.targets[s] = t
	}
}

// Rerouted says that Config.Reaches may answer otherwise than before.
func (m *Maker) Rerouted() { m.changed = true }

func (m *Maker) count() (n int) {
	for _, t := range m.targets {
		if t.direct {
			n++
		}
	}
	return n
}

// Targets returns the direct targets as given, sorted.
func (m *Maker) Targets() []string {
	out := []string{}
	for s, t := range m.targets {
		if t.direct {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// Wants reports whether the attempt is still under way: its target wasn't
// forgotten meanwhile.
func (m *Maker) Wants(attempt uint64) bool { return m.byAttempt(attempt) != nil }

// LastErr returns what the attempt before this one failed with; nil: nothing.
func (m *Maker) LastErr(attempt uint64) error {
	if t := m.byAttempt(attempt); t != nil {
		return t.err
	}
	return nil
}

// IsFound reports whether the attempt is one to a found peer.
func (m *Maker) IsFound(attempt uint64) bool {
	t := m.byAttempt(attempt)
	return t != nil && !t.found.IsZero()
}

func (m *Maker) byAttempt(id uint64) *target {
	for t := range m.busy {
		if id != 0 && t.attempt == id {
			return t
		}
	}
	return nil
}
