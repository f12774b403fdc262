package upstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Reasons why there is no answer.
var (
	ErrNoServers = errors.New("no upstream DNS server is known")
	ErrBusy      = errors.New("too many questions wait for upstream")
	ErrLoop      = errors.New("own question came back")
	ErrRefused   = errors.New("no upstream DNS server gives an answer")
)

// Times of the race between servers.
const (
	hedge    = 400 * time.Millisecond  // of silence, then the next server is asked as well
	again    = 1500 * time.Millisecond // of silence, then the same server is asked again
	penalty  = 10 * time.Second        // a server that was silent is asked last
	maxTries = 6
)

// Config is what a Forwarder needs. Only ResolvConf must be set.
type Config struct {
	ResolvConf string
	Port       uint16                    // of the servers; 53 if zero
	Own        func(netip.AddrPort) bool // never asked; may be nil
	Now        func() time.Time          // nil: time.Now
	Log        *slog.Logger
}

// Forwarder asks upstream servers.
type Forwarder struct {
	// set once
	own  func(netip.AddrPort) bool
	port uint16
	now  func() time.Time
	log  *slog.Logger
	mark [markLen]byte // in our questions, to know them again
	conf conf

	hedge, again time.Duration // as the constants say, but in tests

	cache  *cache
	counts struct{ asked, cached, joined, forged, suspect, silent atomic.Uint64 }

	mu      sync.Mutex // never held while waiting
	flights map[key]*flight
	late    map[netip.AddrPort]time.Time // servers that were silent: asked last until then
	noEDNS  map[netip.AddrPort]bool
}

// flight is a question that is under way. msg and err are set before done is closed.
type flight struct {
	name string // as it is spelled upstream
	done chan struct{}
	msg  *dns.Msg
	err  error
}

// New makes a Forwarder.
func New(c Config) *Forwarder {
	f := &Forwarder{
		own: c.Own, port: c.Port, now: c.Now, log: c.Log, cache: newCache(), hedge: hedge, again: again,
		flights: map[key]*flight{}, late: map[netip.AddrPort]time.Time{}, noEDNS: map[netip.AddrPort]bool{},
	}
	if f.own == nil {
		f.own = func(netip.AddrPort) bool { return false }
	}
	if f.port == 0 {
		f.port = 53
	}
	if f.now == nil {
		f.now = time.Now
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.conf = conf{path: c.ResolvConf, log: f.log}
	rand.Read(f.mark[:])
	return f
}

// Stats are totals since the start.
type Stats struct {
	Asked   uint64 `json:"asked"`   // attempts at servers
	Cached  uint64 `json:"cached"`  // answers from the cache
	Joined  uint64 `json:"joined"`  // questions that were under way already
	Forged  uint64 `json:"forged"`  // replies that did not match
	Suspect uint64 `json:"suspect"` // questions that went to TCP for that
	Silent  uint64 `json:"silent"`  // servers that did not answer in time
}

// Stats returns the totals.
func (f *Forwarder) Stats() Stats {
	c := &f.counts
	return Stats{c.asked.Load(), c.cached.Load(), c.joined.Load(), c.forged.Load(), c.suspect.Load(), c.silent.Load()}
}

func (f *Forwarder) count(c *atomic.Uint64) { c.Add(1) }

// Servers returns the servers in the order of the file, our own addresses left out.
func (f *Forwarder) Servers() (out []netip.AddrPort) {
	addrs, changed := f.conf.get(f.now())
	if changed {
		f.forget()
	}
	for _, a := range addrs {
		if s := netip.AddrPortFrom(a, f.port); !f.own(s) {
			out = append(out, s)
		}
	}
	return out
}

// forget drops what was learned of other servers.
func (f *Forwarder) forget() {
	f.cache.clear()
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.late)
	clear(f.noEDNS)
}

// Exchange answers a request of class IN with one question, from the cache or by asking
// until ctx ends. The reply is the caller's, has the request's number and spelling, and
// no OPT record.
func (f *Forwarder) Exchange(ctx context.Context, request *dns.Msg) (*dns.Msg, error) {
	if len(request.Question) != 1 {
		return nil, fmt.Errorf("%d questions: %w", len(request.Question), ErrRefused)
	}
	q := request.Question[0]
	k := key{name: strings.ToLower(q.Name), qtype: q.Qtype, cd: request.CheckingDisabled}
	if opt := request.IsEdns0(); opt != nil {
		k.do = opt.Do()
	}
	marks := marksOf(request)
	if marked(marks, f.mark) {
		return nil, ErrLoop
	}
	servers := f.Servers() // also notices that the cache is of other servers
	if m := f.cache.get(k, f.now()); m != nil {
		f.count(&f.counts.cached)
		return finish(m, request), nil
	}
	if len(servers) == 0 {
		return nil, ErrNoServers
	}
	m, err := f.fly(ctx, k, q.Name, servers, append(slices.Clone(marks), f.mark[:]...))
	if err != nil {
		return nil, err
	}
	return finish(m.Copy(), request), nil
}

// fly joins the flight of an equal question, or is its pilot.
func (f *Forwarder) fly(ctx context.Context, k key, spelled string, servers []netip.AddrPort, marks []byte) (*dns.Msg, error) {
	f.mu.Lock()
	fl := f.flights[k]
	if fl != nil {
		f.mu.Unlock()
		if spelled == fl.name && spelled != k.name && letters(spelled) >= minLetters {
			return nil, ErrLoop
		}
		f.count(&f.counts.joined)
		select {
		case <-fl.done:
			return fl.msg, fl.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	fl = &flight{name: mixCase(k.name), done: make(chan struct{})}
	f.flights[k] = fl
	f.mu.Unlock()

	r, err := f.race(ctx, k, fl.name, servers, marks)
	if err == nil {
		r.msg.Extra = slices.DeleteFunc(r.msg.Extra, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeOPT })
		fl.msg = r.msg
		f.cache.put(k, r.msg, r.size, f.now())
	}
	fl.err = err
	f.mu.Lock()
	delete(f.flights, k)
	f.mu.Unlock()
	close(fl.done)
	return fl.msg, fl.err
}

// finish makes a server's reply the answer to our asker.
func finish(m, request *dns.Msg) *dns.Msg {
	asked := m.Question[0].Name
	m.Id = request.Id
	m.Response, m.Opcode = true, dns.OpcodeQuery
	m.Authoritative, m.AuthenticatedData, m.Truncated, m.Zero = false, false, false, false
	m.RecursionDesired, m.RecursionAvailable, m.CheckingDisabled = request.RecursionDesired, true, request.CheckingDisabled
	m.Question = slices.Clone(request.Question)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			if h := r.Header(); strings.EqualFold(h.Name, asked) {
				h.Name = request.Question[0].Name
			}
		}
	}
	return m
}

// order puts the servers that were silent lately last.
func (f *Forwarder) order(servers []netip.AddrPort) []netip.AddrPort {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(servers)
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		x, y := now.Before(f.late[a]), now.Before(f.late[b])
		switch {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	return out
}

func (f *Forwarder) setLate(server netip.AddrPort, late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if late {
		f.late[server] = f.now().Add(penalty)
	} else {
		delete(f.late, server)
	}
}

func (f *Forwarder) plain(server netip.AddrPort) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.noEDNS[server]
}

func (f *Forwarder) setPlain(server netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noEDNS[server] = true
}

// outcome is how an attempt ended.
type outcome struct {
	server netip.AddrPort
	reply  *reply
	err    error
}

// good reports whether a reply settles the question.
func (o outcome) good() bool {
	return o.err == nil && (o.reply.msg.Rcode == dns.RcodeSuccess || o.reply.msg.Rcode == dns.RcodeNameError)
}

// race asks servers until one answers.
func (f *Forwarder) race(ctx context.Context, k key, name string, servers []netip.AddrPort, marks []byte) (*reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan outcome, maxTries)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // first: it ends what is waited for
	servers = f.order(servers)
	started, running := 0, 0
	start := func() {
		server := servers[started%len(servers)]
		started, running = started+1, running+1
		f.count(&f.counts.asked)
		wg.Go(func() {
			r, err := f.attempt(ctx, server, name, k, marks)
			results <- outcome{server, r, err}
		})
	}
	start()
	silence := time.NewTimer(f.pace(started, len(servers)))
	defer silence.Stop()
	last := ErrRefused
	for running > 0 {
		select {
		case o := <-results:
			running--
			if o.good() {
				f.setLate(o.server, false)
				return o.reply, nil
			}
			last = o.reason()
			if started < len(servers) { // who failed at once is not asked again
				start()
				silence.Reset(f.pace(started, len(servers)))
			}
		case <-silence.C:
			f.count(&f.counts.silent)
			f.setLate(servers[(started-1)%len(servers)], true)
			if started < min(maxTries, 3*len(servers)) {
				start()
				silence.Reset(f.pace(started, len(servers)))
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrRefused, ctx.Err())
		}
	}
	return nil, last
}

// pace is how long the attempt that was started last may be silent.
func (f *Forwarder) pace(started, servers int) time.Duration {
	if started < servers {
		return f.hedge
	}
	return f.again
}

func (o outcome) reason() error {
	if o.err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, o.err)
	}
	return fmt.Errorf("%w: %s says %s", ErrRefused, o.server, dns.RcodeToString[o.reply.msg.Rcode])
}
