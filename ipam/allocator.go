package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/mesh/gossip"
)

const (
	channelName = "ipam"
	queueLen    = 1024 // events that wait for the loop
	batchMax    = 512  // events of one transaction
	tickTime    = 100 * time.Millisecond
)

// Allocator is the loop around the core. Make it with New, run it with Run; its
// methods answer while Run runs.
type Allocator struct {
	cfg     Config
	begin   time.Time
	events  chan event
	done    chan struct{}                 // closed when Run is over
	sender  atomic.Pointer[gossip.Sender] // nil until the mesh opens the channel
	digest  atomic.Pointer[[]byte]        // of the state that is on the disk
	dropped atomic.Uint64

	core  *core   // owned by Run
	start effects // of New, carried out by Run
}

// Options of a request.
type Options struct {
	Container bool // the address is freed 30 s after the container named by ident is gone
	Wait      bool // wait as long as the context allows, instead of at most 5 s
}

// New loads what is stored and checks the configuration. It writes nothing yet.
func New(cfg Config) (*Allocator, error) {
	if !cfg.DefaultSubnet.IsValid() {
		cfg.DefaultSubnet = cfg.Range
	}
	sub, err := addr.FromPrefix(cfg.DefaultSubnet)
	if err != nil {
		return nil, fmt.Errorf("default subnet: %w", err)
	}
	universe, err := addr.FromPrefix(cfg.Range)
	if err != nil {
		return nil, fmt.Errorf("allocation range: %w", err)
	}
	if !sub.Overlaps(universe) {
		return nil, refuse(ErrSubnet, "default subnet %v is outside the allocation range %v", cfg.DefaultSubnet, cfg.Range)
	}
	records, err := cfg.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("loading addresses: %w", err)
	}
	a := &Allocator{cfg: cfg, begin: time.Now(), events: make(chan event, queueLen), done: make(chan struct{})}
	stored, err := restore(records)
	if errors.Is(err, ErrStore) {
		cfg.Log.Error("stored addresses are unreadable, starting without them", "reason", err)
		stored = &restored{keys: stored.keys, name: peer.NameFromBytes([peer.NameLen]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})}
	}
	a.core, a.start, err = newCore(setup{
		self: cfg.Name, nick: cfg.Nick, run: cfg.UID, universe: cfg.Range, init: cfg.Init, seed: uint64(cfg.UID),
	}, stored)
	if err != nil {
		return nil, err
	}
	a.publish()
	return a, nil
}

// Open is given to the mesh, which calls it once.
func (a *Allocator) Open(s gossip.Sender) gossip.Channel {
	a.sender.Store(&s)
	return channel{a}
}

// Run decides until ctx ends, and returns nil then; or an error when the store
// fails: then nothing that was asked meanwhile has been promised to anybody.
func (a *Allocator) Run(ctx context.Context) error {
	defer close(a.done)
	if err := a.carryOut(a.start); err != nil {
		return err
	}
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	if err := a.carryOut(a.core.step(evMesh{a.cfg.Mesh()}, a.now())); err != nil {
		return err
	}
	for {
		var ev event
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			ev = evMesh{a.cfg.Mesh()}
		case ev = <-a.events:
		}
		if err := a.carryOut(a.batch(ev)); err != nil {
			a.cfg.Log.Error("saving addresses", "error", err)
			return err
		}
	}
}

func (a *Allocator) now() time.Duration { return time.Since(a.begin) }

// batch steps through ev and whatever else waits, so that all share one write.
func (a *Allocator) batch(ev event) effects {
	all := a.core.step(ev, a.now())
	for range batchMax {
		select {
		case ev = <-a.events:
		default:
			return all
		}
		out := a.core.step(ev, a.now())
		all.save = append(all.save, out.save...)
		all.sends = append(all.sends, out.sends...)
		all.replies = append(all.replies, out.replies...)
		all.notes = append(all.notes, out.notes...)
	}
	return all
}

// carryOut: save, then send, then reply.
func (a *Allocator) carryOut(e effects) error {
	if len(e.save) > 0 {
		if err := a.cfg.Store.Save(latest(e.save)); err != nil {
			err = fmt.Errorf("saving addresses: %w", err)
			for _, r := range e.replies {
				finish(r.op, result{err: err})
			}
			return err
		}
	}
	a.publish()
	if s := a.sender.Load(); s != nil {
		for _, m := range e.sends {
			if m.to.IsZero() {
				(*s).Update(data{m.msg})
			} else if err := (*s).Unicast(m.to, m.msg.encode()); err != nil {
				a.cfg.Log.Debug("address message not sent", "peer", m.to, "error", err)
			}
		}
	}
	for _, r := range e.replies {
		finish(r.op, r.res)
	}
	for _, n := range e.notes {
		a.log(n)
	}
	return nil
}

// latest keeps the last value of each key, in the order of first mention.
func latest(rs []Record) []Record {
	at := make(map[string]int, len(rs))
	out := rs[:0:0]
	for _, r := range rs {
		if i, ok := at[r.Key]; ok {
			out[i] = r
			continue
		}
		at[r.Key] = len(out)
		out = append(out, r)
	}
	return out
}

func finish(o *op, r result) {
	if o.done != nil {
		o.done <- r // has room for the one answer there is
	}
}

func (a *Allocator) publish() {
	b := a.core.digest(1).encode()
	a.digest.Store(&b)
}

func (a *Allocator) log(n Note) {
	level := slog.LevelInfo
	switch n.Kind {
	case NoteConflict, NoteLost, NoteDouble, NoteIdentity:
		level = slog.LevelError
	case NoteStale, NoteStore, NoteRemoved:
		level = slog.LevelWarn
	case NoteGiven:
		level = slog.LevelDebug
	}
	facts := []any{"kind", string(n.Kind)}
	if !n.Peer.IsZero() {
		facts = append(facts, "peer", n.Peer, "nick", n.Nick)
	}
	if len(n.Addrs) > 0 {
		facts = append(facts, "addrs", n.Addrs)
	}
	a.cfg.Log.Log(context.Background(), level, "addresses", append(facts, "text", n.Text)...)
	if a.cfg.OnNote != nil {
		a.cfg.OnNote(n)
	}
}

// post hands an event to the loop; false if the loop has ended or ctx has.
func (a *Allocator) post(ctx context.Context, ev event) error {
	select {
	case a.events <- ev:
		return nil
	case <-a.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call makes a request and waits for its answer. A request whose context ends is
// taken back; if it has been granted by then the caller gets it all the same.
func (a *Allocator) call(ctx context.Context, o *op) result {
	o.done = make(chan result, 1)
	if err := a.post(ctx, evOp{o}); err != nil {
		return result{err: err}
	}
	select {
	case r := <-o.done:
		return r
	case <-a.done:
	case <-ctx.Done():
		if err := a.post(context.Background(), evCancel{o, ctx.Err()}); err != nil {
			return result{err: err}
		}
	}
	select {
	case r := <-o.done:
		return r
	case <-a.done:
	}
	select { // answered just before the end
	case r := <-o.done:
		return r
	default:
		return result{err: ErrStopped}
	}
}

// Allocate gives ident an address in subnet, or in the default subnet if that is
// zero: the one it has there already, else the lowest free one of this host's
// share, else one that another host gives. It returns within 5 s unless told to
// wait, with an address that is on the disk or a reason: see errors.go. ident is the
// container's ID; "_" for nobody in particular.
func (a *Allocator) Allocate(ctx context.Context, ident string, subnet netip.Prefix, o Options) (netip.Prefix, error) {
	if !subnet.IsValid() {
		subnet = a.cfg.DefaultSubnet
	}
	return first(a.call(ctx, &op{kind: opAllocate, ident: ident, prefix: subnet, container: o.Container, wait: o.Wait}))
}

// Claim gives ident one address, p with the length of its subnet. An address
// outside the allocation range is only kept from other containers of this host.
func (a *Allocator) Claim(ctx context.Context, ident string, p netip.Prefix, o Options) error {
	return a.call(ctx, &op{kind: opClaim, ident: ident, prefix: p, container: o.Container, wait: o.Wait}).err
}

// Free takes an address back from ident: ErrNotFound if it has not got it. It
// never needs a divided range.
func (a *Allocator) Free(ctx context.Context, ident string, ip netip.Addr) error {
	return a.call(ctx, &op{kind: opFree, ident: ident, prefix: netip.PrefixFrom(ip, ip.BitLen())}).err
}

// FreeAll takes back all that ident has and returns it.
func (a *Allocator) FreeAll(ctx context.Context, ident string) ([]netip.Prefix, error) {
	r := a.call(ctx, &op{kind: opFreeAll, ident: ident})
	return r.prefixes, r.err
}

// Lookup returns what ident has, in subnet unless that is zero.
func (a *Allocator) Lookup(ctx context.Context, ident string, subnet netip.Prefix) ([]netip.Prefix, error) {
	o := &op{kind: opLookup, ident: ident}
	if subnet.IsValid() {
		r, err := addr.FromPrefix(subnet)
		if err != nil {
			return nil, refuse(ErrSubnet, "%v", err)
		}
		o.rng = r
	}
	r := a.call(ctx, o)
	return r.prefixes, r.err
}

// Prime returns when the range is divided; it begins the election if need be.
func (a *Allocator) Prime(ctx context.Context, wait bool) error {
	return a.call(ctx, &op{kind: opPrime, wait: wait}).err
}

// RmPeer takes over what a peer owned that is gone for good, named by name or
// nickname, and returns how many addresses that were. Run it on one host only.
// ErrAlive if the peer answers, ErrNotFound if nobody knows it.
func (a *Allocator) RmPeer(ctx context.Context, nameOrNick string) (uint64, error) {
	r := a.call(ctx, &op{kind: opRemove, target: nameOrNick})
	return r.count, r.err
}

// Shutdown gives all that is ours to another peer and waits for its confirmation,
// at most three seconds: ErrNotTaken. It returns how many addresses were given.
// Afterwards requests fail with ErrStopped; the store should be deleted.
func (a *Allocator) Shutdown(ctx context.Context) (uint64, error) {
	r := a.call(ctx, &op{kind: opShutdown})
	return r.count, r.err
}

// Status returns what there is to see. The caller owns it.
func (a *Allocator) Status(ctx context.Context) (*Status, error) {
	r := a.call(ctx, &op{kind: opStatus})
	if r.status != nil {
		r.status.DefaultSubnet = a.cfg.DefaultSubnet
	}
	return r.status, r.err
}

// ContainerDied says that a container stopped. Its addresses are freed in 30 s
// unless it asks for them before; its pending requests fail.
func (a *Allocator) ContainerDied(ctx context.Context, ident string) error {
	return a.post(ctx, evDied{ident})
}

// ContainerGone says that a container was destroyed: its addresses are free now.
func (a *Allocator) ContainerGone(ctx context.Context, ident string) error {
	return a.post(ctx, evDestroyed{ident})
}

// Reconcile says which containers and other users of addresses there are now, all
// of them. Addresses found in use are recorded, whoever owns them; containers
// that are missing are as if they had died. It has to be called once after each start,
// before which a start with a stored share hands out nothing for up to 3 s; and
// every minute or so. It returns when all is on the disk.
func (a *Allocator) Reconcile(ctx context.Context, live []Live) error {
	o := &op{kind: opReconcile, done: make(chan result, 1)}
	if err := a.post(ctx, evReconcile{live, o}); err != nil {
		return err
	}
	select {
	case r := <-o.done:
		return r.err
	case <-a.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fence says that the mesh met another daemon with this peer's name. This run hands
// out nothing any more; why is shown to people and should say what to do.
func (a *Allocator) Fence(ctx context.Context, why string) error { return a.post(ctx, evFenced{why}) }

// Dropped returns how many messages were dropped because the loop was busy. What
// they said is repeated by the next exchange of digests.
func (a *Allocator) Dropped() uint64 { return a.dropped.Load() }

func first(r result) (netip.Prefix, error) {
	if r.err != nil {
		return netip.Prefix{}, r.err
	}
	if len(r.prefixes) == 0 {
		return netip.Prefix{}, ErrStopped
	}
	return r.prefixes[0], nil
}

// channel is the Allocator as the mesh sees it. Answers go out as messages of
// their own, since they have to be on the disk first.
type channel struct{ a *Allocator }

func (ch channel) Name() string   { return channelName }
func (ch channel) Digest() []byte { return *ch.a.digest.Load() }

func (ch channel) OnMessage(from peer.Name, msg []byte) (gossip.Reaction, error) {
	return gossip.Reaction{}, ch.OnUnicast(from, msg)
}

func (ch channel) OnUnicast(from peer.Name, msg []byte) error {
	m, err := decode(msg)
	if err != nil {
		return err
	}
	ch.post(evMessage{from, m})
	return nil
}

func (ch channel) OnGone(n peer.Name) { ch.post(evGone{n}) }

func (ch channel) post(ev event) {
	select {
	case ch.a.events <- ev:
	default:
		ch.a.dropped.Add(1)
	}
}
