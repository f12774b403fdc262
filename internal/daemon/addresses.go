package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"weave/internal/api"
	"weave/internal/hostnet"
	"weave/internal/store"
	"weave/ipam"
	"weave/mesh"
)

// Buckets of the store.
const (
	bucketIPAM    = "ipam"
	bucketExposed = "exposed"
	bucketNames   = "names"
)

// Names of what is no container.
const (
	identExpose = "weave:expose" // the bridge
	identExtern = "weave:extern" // addresses that dns-add was given without a container
)

// addresses keeps together who has which address on this host: the allocator's
// records, the containers' interfaces, the bridge, and the names of all these.
type addresses struct {
	host   *hostnet.Host
	bridge string
	mtu    int
	subnet netip.Prefix    // the default one
	alloc  *ipam.Allocator // nil: addresses are not allocated
	names  *names
	store  *store.Store
	log    *slog.Logger
	poke   chan struct{} // has room for one: look at the host

	turns turns // taken before mu

	// mu makes one of what happens to an interface and what is kept of it. Nobody waits
	// for other peers with it held.
	mu      sync.Mutex
	exposed []hostnet.Exposure // sorted
	trouble string             // what went wrong when the host was last looked at
}

// ipamStore keeps the allocator's records in a bucket of the store.
type ipamStore struct{ *store.Store }

// Load returns all records.
func (s ipamStore) Load() (out []ipam.Record, err error) {
	err = s.View(func(tx *store.Tx) error {
		for key := range tx.Keys(bucketIPAM) {
			var value []byte
			if _, err := tx.Get(bucketIPAM, key, &value); err != nil {
				return err
			}
			out = append(out, ipam.Record{Key: key, Value: value})
		}
		return nil
	})
	return out, err
}

// Save makes all changes in one transaction.
func (s ipamStore) Save(changes []ipam.Record) error {
	return s.Update(func(tx *store.Tx) error {
		for _, c := range changes {
			if c.Value == nil {
				if err := tx.Delete(bucketIPAM, c.Key); err != nil {
					return err
				}
			} else if err := tx.Put(bucketIPAM, c.Key, c.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

// storedExposure is what is remembered of an exposure, under its address.
type storedExposure struct {
	Masquerade bool `cbor:"1,keyasint"`
}

func (a *addresses) load() error {
	return a.store.View(func(tx *store.Tx) error {
		for key := range tx.Keys(bucketExposed) {
			var v storedExposure
			if _, err := tx.Get(bucketExposed, key, &v); err != nil {
				return err
			}
			p, err := netip.ParsePrefix(key)
			if err != nil {
				continue // nothing that we wrote
			}
			a.exposed = append(a.exposed, hostnet.Exposure{Addr: p, Masquerade: v.Masquerade})
		}
		sortExposed(a.exposed)
		return nil
	})
}

func sortExposed(es []hostnet.Exposure) {
	slices.SortFunc(es, func(x, y hostnet.Exposure) int { return x.Addr.Compare(y.Addr) })
}

func (a *addresses) save(es []hostnet.Exposure) error {
	err := a.store.Update(func(tx *store.Tx) error {
		if err := tx.Clear(bucketExposed); err != nil {
			return err
		}
		for _, e := range es {
			if err := tx.Put(bucketExposed, e.Addr.String(), storedExposure{e.Masquerade}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remembering where the host is exposed: %w", err)
	}
	return nil
}

// attach puts a container on the bridge.
func (a *addresses) attach(ctx context.Context, req api.AttachRequest) (got []netip.Prefix, err error) {
	c, err := hostnet.ParseContainer(req.Container.String())
	if err != nil {
		return nil, err
	}
	ident, _, err := a.identOf(c)
	if err != nil {
		return nil, err
	}
	ctx, end, err := a.turns.take(ctx, ident, false)
	if err != nil {
		return nil, err
	}
	defer end()
	defer func() { err = because(ctx, err) }()
	full, err := a.names.check(ident, req.Names)
	if err != nil {
		return nil, err
	}
	got, release, err := a.obtain(ctx, ident, req.Addrs, ipam.Options{Container: true, Wait: req.Wait})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.host.Attach(ctx, a.bridge, c, got, hostnet.AttachOptions{MTU: a.mtu, NoMulticastRoute: req.NoMulticastRoute}); err != nil {
		release()
		return nil, err
	}
	a.look()
	a.names.welcome(got)
	return got, a.names.give(ident, full, addrsOf(got))
}

// identOf is what a container is called in all records: as it was called when it came
// to the bridge, whatever it is called now.
func (a *addresses) identOf(c hostnet.Container) (ident string, att hostnet.Attachment, err error) {
	att, ok, err := a.host.Find(a.bridge, c)
	if err != nil {
		return "", att, err
	}
	if ok {
		return att.Container, att, nil
	}
	return c.String(), att, nil
}

func addrsOf(ps []netip.Prefix) (out []netip.Addr) {
	for _, p := range ps {
		out = append(out, p.Addr())
	}
	return out
}

// releaseTime bounds how long giving back what came to nothing may take.
const releaseTime = 5 * time.Second

// obtain gets the addresses that are asked for, all or none. release gives back those
// that ident did not have before.
func (a *addresses) obtain(ctx context.Context, ident string, want []api.Addr, o ipam.Options) (got []netip.Prefix, release func(), err error) {
	if len(want) == 0 {
		want = []api.Addr{api.DefaultNet}
	}
	var had, fresh []netip.Prefix
	if a.alloc != nil {
		if had, err = a.alloc.Lookup(ctx, ident, netip.Prefix{}); err != nil {
			return nil, nil, err
		}
	}
	release = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer cancel()
		for _, p := range fresh {
			a.free(ctx, ident, p)
		}
	}
	has := func(p netip.Prefix) bool {
		return slices.ContainsFunc(had, func(h netip.Prefix) bool { return h.Addr() == p.Addr() })
	}
	for _, w := range want {
		p, err := a.obtainOne(ctx, ident, w, o)
		if err != nil {
			release()
			return nil, nil, err
		}
		if !has(p) {
			fresh = append(fresh, p)
		}
		if !slices.Contains(got, p) {
			got = append(got, p)
		}
	}
	return got, release, nil
}

func (a *addresses) obtainOne(ctx context.Context, ident string, w api.Addr, o ipam.Options) (netip.Prefix, error) {
	p := w.Prefix()
	switch {
	case a.alloc == nil && w.IsNet():
		return p, api.Errorf(api.CodeUsage, "addresses are not allocated (--ipalloc-range is empty): give one, such as 10.55.0.1/24")
	case w.IsNet():
		return a.alloc.Allocate(ctx, ident, p, o)
	case a.alloc == nil || !p.Addr().Is4():
		return p, nil
	}
	return p, a.alloc.Claim(ctx, ident, p, o)
}

// free gives an address back. That it was none of the allocator's is no matter.
func (a *addresses) free(ctx context.Context, ident string, p netip.Prefix) {
	if a.alloc == nil || !p.Addr().Is4() {
		return
	}
	if err := a.alloc.Free(ctx, ident, p.Addr()); err != nil && !errors.Is(err, ipam.ErrNotFound) {
		a.log.Warn("giving an address back", "container", ident, "addr", p, "err", err)
	}
}

// pick chooses from what there is: the given addresses, or those in the given
// subnets; all if nothing is given.
func (a *addresses) pick(have []netip.Prefix, want []api.Addr) (out []netip.Prefix) {
	if len(want) == 0 {
		return have
	}
	for _, w := range want {
		subnet := w.Prefix()
		if w == api.DefaultNet {
			subnet = a.subnet
		}
		for _, p := range have {
			if (p == w.Prefix() && !w.IsNet() || w.IsNet() && p.Masked() == subnet) && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// detach takes addresses from a container. It never needs other peers.
func (a *addresses) detach(ctx context.Context, req api.DetachRequest) ([]netip.Prefix, error) {
	c, err := hostnet.ParseContainer(req.Container.String())
	if err != nil {
		return nil, err
	}
	ident, _, err := a.identOf(c)
	if err != nil {
		ident = c.String()
	}
	ctx, end, err := a.turns.take(ctx, ident, true)
	if err != nil {
		return nil, err
	}
	defer end()
	a.mu.Lock()
	defer a.mu.Unlock()
	// Again, now that nobody else is at it.
	ident, att, err := a.identOf(c)
	if errors.Is(err, hostnet.ErrNoNamespace) {
		ident = c.String()
		a.forget(ctx, ident)
	}
	if err != nil {
		return nil, err
	}
	chosen := a.pick(att.Addrs, req.Addrs)
	if len(chosen) == 0 && len(att.Addrs) > 0 {
		return nil, nil
	}
	gone, err := a.host.Detach(ctx, a.bridge, c, chosen)
	if err != nil {
		return nil, err
	}
	if len(gone) == len(att.Addrs) {
		a.forget(ctx, ident)
		return gone, nil
	}
	for _, p := range gone {
		a.free(ctx, ident, p)
		a.names.take(ident, "", p.Addr())
	}
	return gone, nil
}

// forget drops all that is kept of a container.
func (a *addresses) forget(ctx context.Context, ident string) {
	if a.alloc != nil {
		if _, err := a.alloc.FreeAll(ctx, ident); err != nil {
			a.log.Warn("giving addresses back", "container", ident, "err", err)
		}
	}
	a.names.take(ident, "", netip.Addr{})
}

// expose puts the host on the network.
func (a *addresses) expose(ctx context.Context, req api.ExposeRequest) (got []netip.Prefix, err error) {
	ctx, end, err := a.turns.take(ctx, identExpose, false)
	if err != nil {
		return nil, err
	}
	defer end()
	defer func() { err = because(ctx, err) }()
	full, err := a.names.check(identExpose, req.Names)
	if err != nil {
		return nil, err
	}
	got, release, err := a.obtain(ctx, identExpose, req.Addrs, ipam.Options{Wait: req.Wait})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(a.exposed), func(e hostnet.Exposure) bool { return slices.Contains(got, e.Addr) })
	for _, p := range got {
		next = append(next, hostnet.Exposure{Addr: p, Masquerade: !req.WithoutMasquerade})
	}
	sortExposed(next)
	if err := a.setExposed(ctx, got, next, !req.WithoutMasquerade); err != nil {
		release()
		return nil, err
	}
	if chain := a.host.ForwardDropped(); chain != "" {
		a.log.Warn("the firewall drops what passes this host unless told otherwise: other machines reach containers through it only if it accepts that", "chain", chain)
	}
	a.names.follow(a.exposed)
	a.look()
	a.names.welcome(got)
	return got, a.names.give(identExpose, full, addrsOf(got))
}

// setExposed makes next the exposures, of which got may be new; on failure all is as
// before.
func (a *addresses) setExposed(ctx context.Context, got []netip.Prefix, next []hostnet.Exposure, needRules bool) error {
	before, err := a.host.Exposed(a.bridge)
	if err != nil {
		return err
	}
	if err := a.host.Expose(ctx, a.bridge, got); err != nil {
		return err
	}
	undo := func() {
		ctx := context.WithoutCancel(ctx)
		added := slices.DeleteFunc(slices.Clone(got), func(p netip.Prefix) bool { return slices.Contains(before, p) })
		_, err1 := a.host.Hide(ctx, a.bridge, added)
		_, err2 := a.host.SetRules(a.bridge, a.exposed)
		if err := errors.Join(err1, err2); err != nil {
			a.log.Warn("undoing a failed expose", "err", err)
		}
	}
	_, err = a.host.SetRules(a.bridge, next)
	if errors.Is(err, hostnet.ErrNoNftables) && !needRules {
		a.log.Warn("exposed subnets are not kept apart on this host", "err", err)
		err = nil
	}
	if err == nil {
		err = a.save(next)
	}
	if err != nil {
		undo()
		return err
	}
	a.exposed = next
	return nil
}

// hide takes the host off the network. It never needs other peers.
func (a *addresses) hide(ctx context.Context, req api.HideRequest) ([]netip.Prefix, error) {
	ctx, end, err := a.turns.take(ctx, identExpose, true)
	if err != nil {
		return nil, err
	}
	defer end()
	a.mu.Lock()
	defer a.mu.Unlock()
	var have []netip.Prefix
	for _, e := range a.exposed {
		have = append(have, e.Addr)
	}
	gone := a.pick(have, req.Addrs)
	if len(gone) == 0 {
		return nil, nil
	}
	next := slices.DeleteFunc(slices.Clone(a.exposed), func(e hostnet.Exposure) bool { return slices.Contains(gone, e.Addr) })
	if err := a.save(next); err != nil {
		return nil, err
	}
	a.exposed = next
	a.names.follow(next)
	for _, p := range gone {
		a.names.take(identExpose, "", p.Addr())
		a.free(ctx, identExpose, p)
	}
	_, err = a.host.Hide(ctx, a.bridge, gone)
	_, rules := a.host.SetRules(a.bridge, next)
	if errors.Is(rules, hostnet.ErrNoNftables) {
		rules = nil
	}
	return gone, errors.Join(err, rules)
}

// look has the host looked at soon.
func (a *addresses) look() { wake(a.poke) }

// Times of keep.
const (
	lookAgain = 10 * time.Second       // without any news
	lookRetry = time.Second            // when something was not in order
	lookPause = 100 * time.Millisecond // for a burst of changes to pass
)

// keep watches the host: what belongs to containers that are gone is freed, and what
// somebody takes from the bridge or the rules is put back.
func (a *addresses) keep(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // first: a panic here must not wait for the watchers for ever
	for what, watch := range map[string]func(context.Context, func()) error{"addresses": a.host.WatchHost, "rules": a.host.WatchRules} {
		watchers.Go(func() { a.watch(ctx, what, watch) })
	}
	again := time.NewTimer(lookAgain)
	defer again.Stop()
	for {
		next := lookAgain
		if err := a.inspect(ctx); err != nil && ctx.Err() == nil {
			next = lookRetry
		}
		again.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-a.poke:
			if !pause(ctx, lookPause) {
				return nil
			}
		}
	}
}

func (a *addresses) watch(ctx context.Context, what string, watch func(context.Context, func()) error) {
	for ctx.Err() == nil {
		err := watch(ctx, a.look)
		if ctx.Err() == nil {
			a.log.Warn("watching the host ended; starting again", "what", what, "err", err)
			pause(ctx, lookAgain)
		}
	}
}

// inspect compares the host with what is kept of it. The error has been logged.
func (a *addresses) inspect(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := errors.Join(a.restore(ctx), a.reconcile(ctx))
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != a.trouble && text != "" && ctx.Err() == nil {
		a.log.Warn("addresses are not in order", "err", err)
	}
	a.trouble = text
	return err
}

// restore puts the host's own addresses and rules back.
func (a *addresses) restore(ctx context.Context) error {
	var addrs []netip.Prefix
	for _, e := range a.exposed {
		addrs = append(addrs, e.Addr)
	}
	if len(addrs) > 0 {
		have, err := a.host.Exposed(a.bridge)
		if err != nil {
			return err
		}
		if err := a.host.Expose(ctx, a.bridge, addrs); err != nil {
			return err
		}
		for _, p := range addrs {
			if !slices.Contains(have, p) {
				a.log.Info("host exposed again", "addr", p)
			}
		}
	}
	changed, err := a.host.SetRules(a.bridge, a.exposed)
	if errors.Is(err, hostnet.ErrNoNftables) {
		return nil // said when it was exposed
	}
	if changed {
		a.log.Info("nftables rules set again")
	}
	return err
}

// reconcile tells the allocator and the name server what there is.
func (a *addresses) reconcile(ctx context.Context) error {
	list, err := a.host.List(a.bridge)
	if err != nil {
		return err
	}
	live := []ipam.Live{{Ident: identExpose}}
	for _, e := range a.exposed {
		live[0].Addrs = append(live[0].Addrs, e.Addr)
	}
	for _, c := range list {
		live = append(live, ipam.Live{Ident: c.Container, Container: true, Addrs: c.Addrs})
	}
	if a.alloc != nil {
		if err := a.alloc.Reconcile(ctx, live); err != nil {
			return err
		}
	}
	return a.names.reconcile(live)
}

// How often the mesh is asked what an election depends on, and after the election.
// For a while after the start it is asked often anyway: whether this host is the copy
// of another has to be known before it gives out addresses.
const (
	quorumPoll  = 500 * time.Millisecond
	dividedPoll = 5 * time.Second
	startTime   = 15 * time.Second
)

// count follows the number of targets that are other hosts, and looks for a second
// host with our identity.
func (d *daemon) count(ctx context.Context) error {
	every, fenced := quorumPoll, false
	for pause(ctx, every) {
		if s, err := d.addrs.alloc.Status(ctx); err == nil && s.Seeds != nil && time.Since(d.started) > startTime {
			every = dividedPoll
		}
		st := d.router.Status()
		n := len(st.Targets)
		for _, c := range d.connections(st) {
			if c.Reason == api.ReasonSelf {
				n--
			}
		}
		d.targets.Store(int64(max(n, 0)))
		if why := impostor(st); why != "" && !fenced {
			fenced = d.addrs.alloc.Fence(ctx, why) == nil
		}
	}
	return nil
}

// impostor says why this host must not give out addresses under its name: another
// host in the network has the same name and key, or this one is turned away for its
// name by all that it knows. A host that is in the network and meets a copy of itself
// goes on.
func impostor(st mesh.Status) string {
	for _, c := range st.Conflicts {
		if c.Clone && c.Name == st.Local.Name && !c.Refused {
			return c.Text
		}
	}
	why := ""
	for _, c := range st.Conns {
		switch {
		case c.State == mesh.StateEstablished:
			return ""
		case (c.Reason == mesh.ReasonClone || c.Reason == mesh.ReasonCollision) && strings.Contains(c.Error, st.Local.Name.String()):
			why = c.Error
		}
	}
	return why
}

// meshFacts is what the allocator needs of the mesh.
func (d *daemon) meshFacts() ipam.Mesh {
	v := d.view.Load()
	m := ipam.Mesh{Targets: int(d.targets.Load())}
	for name, p := range v.Peers {
		if name != v.Local {
			_, reachable := v.Routes.Unicast[name]
			m.Peers = append(m.Peers, ipam.Peer{Name: name, Nick: p.NickName, Reachable: reachable})
		}
	}
	return m
}
