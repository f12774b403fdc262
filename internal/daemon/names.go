package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/hostnet"
	"weave/internal/peer"
	"weave/internal/store"
	"weave/ipam"
	"weave/nameserver"
	"weave/nameserver/registry"
)

// names gives the name server its sockets and what it may know: the names of this
// host's containers, which live as long as these, over restarts of the daemon too.
type names struct {
	srv    *nameserver.Server
	bound  nameserver.Sockets // of srv
	store  *store.Store
	host   *hostnet.Host
	off    bool // it serves nothing here; names are told to the other hosts all the same
	static bool // it was told where to listen
	nets   []netip.Prefix
	listen netip.Addr
	log    *slog.Logger

	sources atomic.Pointer[sources]

	mu      sync.Mutex
	records map[record]bool // of this host; the value: further addresses of the container get the name too
	ctx     context.Context // of run, nil before
	serving map[netip.AddrPort]*listener
	wg      sync.WaitGroup
	wanted  []netip.AddrPort
	warning string
}

// record is a name of this host.
type record struct {
	container, name string // the name is full
	addr            netip.Addr
}

// key is the record in the store.
func (r record) key() string { return r.container + "\x00" + r.name + "\x00" + r.addr.String() }

func parseRecord(key string) (r record, ok bool) {
	parts := strings.Split(key, "\x00")
	if len(parts) != 3 {
		return r, false
	}
	addr, err := netip.ParseAddr(parts[2])
	return record{parts[0], parts[1], addr}, err == nil
}

// listener is the server on an address that came later.
type listener struct {
	stop context.CancelFunc
	done chan struct{}
}

// sources are who may ask. Immutable.
type sources struct {
	nets  []netip.Prefix
	hosts map[netip.Addr]bool
}

// openNames makes the name server and, if it was told where, its sockets.
func openNames(ctx context.Context, d *daemon, name peer.Name, host *hostnet.Host) (*names, error) {
	cfg := d.cfg.Naming
	n := &names{
		store: d.store, host: host, off: cfg.Off, static: cfg.Listen.IsValid() && !cfg.Off, listen: cfg.Listen.Addr(), log: d.log.With("part", "dns"),
		records: map[record]bool{}, serving: map[netip.AddrPort]*listener{},
	}
	for _, p := range []netip.Prefix{d.cfg.Addressing.Range, d.cfg.Addressing.DefaultSubnet} {
		if p.IsValid() {
			n.nets = append(n.nets, p)
		}
	}
	n.sources.Store(&sources{nets: n.nets})
	if err := n.load(); err != nil {
		return nil, err
	}
	var err error
	if n.static {
		if n.bound, err = nameserver.Listen(ctx, cfg.Listen, dnsSockets()); err != nil {
			return nil, fmt.Errorf("--dns-listen-address %v: %w", cfg.Listen, dnsBusy(err))
		}
	}
	conf := cfg.ResolvConf
	switch {
	case n.off:
		conf = "" // there is nobody to ask for
	case conf == "":
		conf = filepath.Join(d.cfg.HostRoot, "etc/resolv.conf")
	}
	n.srv, err = nameserver.New(nameserver.Config{
		Name: name, UID: d.uid, Domain: cfg.Domain, TTL: cfg.TTL, ResolvConf: conf, Sockets: n.bound, Log: n.log,
		Allow: n.allow,
		Known: func(p peer.Name) bool { _, ok := d.view.Load().Peers[p]; return ok },
	})
	if err != nil {
		n.close()
	}
	return n, err
}

// close frees the sockets when run has not been called; it does no harm otherwise.
func (n *names) close() { n.bound.Close() }

// dnsSockets is how many UDP sockets an address gets: more than one lets the kernel
// spread the questions, and hides a second server on the port.
func dnsSockets() int {
	if runtime.NumCPU() < 4 {
		return 1
	}
	return 2
}

// dnsBusy says what to do when somebody else has the port.
func dnsBusy(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return api.Errorf(api.CodeConflict, "%w: another name server has the port: choose another --dns-listen-address, or --no-dns", err)
	}
	return err
}

func (n *names) load() error {
	return n.store.View(func(tx *store.Tx) error {
		for key := range tx.Keys(bucketNames) {
			var follow bool
			if _, err := tx.Get(bucketNames, key, &follow); err != nil {
				return err
			}
			if r, ok := parseRecord(key); ok {
				n.records[r] = follow
			}
		}
		return nil
	})
}

// run serves until ctx ends. The sockets of openNames are closed then.
func (n *names) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	n.mu.Lock()
	n.ctx = ctx
	n.adjust()
	n.mu.Unlock()
	err := n.srv.Run(ctx)
	stop()
	n.wg.Wait()
	return err
}

// allow is asked for each question.
func (n *names) allow(a netip.Addr) bool {
	s := n.sources.Load()
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || s.hosts[a] {
		return true
	}
	return slices.ContainsFunc(s.nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// follow serves at the addresses that the host is exposed at, unless it was told
// where to.
func (n *names) follow(exposed []hostnet.Exposure) {
	if n.off || n.static {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted = nil
	for _, e := range exposed {
		n.wanted = append(n.wanted, netip.AddrPortFrom(e.Addr.Addr(), dnsPort))
	}
	n.adjust()
}

// adjust starts and stops servers. mu is held.
func (n *names) adjust() {
	if n.ctx == nil || n.ctx.Err() != nil {
		return
	}
	for a, l := range n.serving {
		select {
		case <-l.done: // it broke; below it begins anew
		default:
			if slices.Contains(n.wanted, a) {
				continue
			}
		}
		l.stop()
		<-l.done
		delete(n.serving, a)
	}
	n.warning = ""
	for _, a := range n.wanted {
		if n.serving[a] == nil {
			if err := n.serve(a); err != nil {
				n.warning = fmt.Sprintf("%v: %v", a, dnsBusy(err))
			}
		}
	}
}

func (n *names) serve(a netip.AddrPort) error {
	sockets, err := nameserver.Listen(n.ctx, a, dnsSockets())
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(n.ctx)
	l := &listener{stop: stop, done: make(chan struct{})}
	n.serving[a] = l
	n.wg.Go(func() {
		defer close(l.done)
		if err := n.srv.Serve(ctx, sockets); err != nil && ctx.Err() == nil {
			n.log.Warn("serving names ended", "addr", a, "err", err)
		}
	})
	return nil
}

// check completes names and says which cannot be given.
func (n *names) check(container string, short []string) (full []string, err error) {
	if len(short) == 0 {
		return nil, nil
	}
	if len(container) > registry.MaxContainer {
		return nil, fmt.Errorf("%s: %w: names need one of at most %d bytes", container, registry.ErrContainer, registry.MaxContainer)
	}
	for _, s := range short {
		name, err := n.srv.DomainOf(s)
		if err != nil {
			return nil, err
		}
		full = append(full, name)
	}
	return full, nil
}

// give makes names of a container's addresses, in addition to those that all its
// addresses have.
func (n *names) give(container string, full []string, addrs []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for r, follow := range n.records {
		if follow && r.container == container && !slices.Contains(full, r.name) {
			full = append(full, r.name)
		}
	}
	return n.add(container, full, addrs, true)
}

// add makes names, and remembers them. mu is held.
func (n *names) add(container string, full []string, addrs []netip.Addr, follow bool) error {
	var added []record
	for _, name := range full {
		for _, addr := range addrs {
			if err := n.srv.Add(container, name, addr); err != nil {
				return err
			}
			r := record{container, name, addr}
			n.records[r] = n.records[r] || follow
			added = append(added, r)
		}
	}
	if len(added) == 0 {
		return nil
	}
	err := n.store.Update(func(tx *store.Tx) error {
		for _, r := range added {
			if err := tx.Put(bucketNames, r.key(), n.records[r]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remembering names: %w", err)
	}
	return nil
}

// take takes names away; an empty name and the zero Addr are all.
func (n *names) take(container, name string, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.srv.Remove(container, name, addr)
	n.drop(func(r record) bool {
		return r.container == container && (name == "" || strings.EqualFold(r.name, name)) && (!addr.IsValid() || r.addr == addr)
	})
}

// drop forgets records. mu is held.
func (n *names) drop(which func(record) bool) {
	var gone []record
	for r := range n.records {
		if which(r) {
			gone = append(gone, r)
			delete(n.records, r)
		}
	}
	if len(gone) == 0 {
		return
	}
	err := n.store.Update(func(tx *store.Tx) error {
		for _, r := range gone {
			if err := tx.Delete(bucketNames, r.key()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.log.Warn("forgetting names", "err", err)
	}
}

// reconcile has the names of what is there, and of nothing else; who may ask follows.
func (n *names) reconcile(live []ipam.Live) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	there := map[string]bool{identExtern: true}
	nets := slices.Clone(n.nets)
	for _, v := range live {
		there[v.Ident] = v.Container || len(v.Addrs) > 0
		for _, p := range v.Addrs {
			if !slices.Contains(nets, p.Masked()) {
				nets = append(nets, p.Masked())
			}
		}
	}
	var errs []error
	for r := range n.records {
		if there[r.container] {
			errs = append(errs, n.srv.Add(r.container, r.name, r.addr))
		} else {
			n.srv.ContainerGone(r.container)
		}
	}
	n.drop(func(r record) bool { return !there[r.container] })
	n.adjust()
	return errors.Join(append(errs, n.admit(nets))...)
}

// admit renews who may ask: the networks, the host itself, and, if it listens at a
// bridge of a container engine, who is on that.
func (n *names) admit(nets []netip.Prefix) error {
	list, err := n.host.Addresses()
	if err != nil {
		return err
	}
	s := &sources{nets: nets, hosts: map[netip.Addr]bool{}}
	for _, a := range list {
		s.hosts[a.Prefix.Addr()] = true
		if n.static && a.Bridge && a.Prefix.Addr() == n.listen {
			s.nets = append(s.nets, a.Prefix.Masked())
		}
	}
	n.sources.Store(s)
	return nil
}

// welcome lets the networks of addresses that were just given ask, at once: reconcile
// comes a moment later.
func (n *names) welcome(given []netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.sources.Load()
	s := &sources{nets: slices.Clone(old.nets), hosts: old.hosts}
	for _, p := range given {
		if !slices.Contains(s.nets, p.Masked()) {
			s.nets = append(s.nets, p.Masked())
		}
	}
	n.sources.Store(s)
}

// addName and removeName serve dns-add and dns-remove.
func (n *names) addName(a *addresses, req api.DNSRequest) error {
	if req.Name == "" {
		return api.Errorf(api.CodeUsage, "no name: want one such as web")
	}
	ident, addrs := identExtern, req.Addrs
	if !req.Container.IsZero() {
		c, err := hostnet.ParseContainer(req.Container.String())
		if err != nil {
			return err
		}
		var att hostnet.Attachment
		if ident, att, err = a.identOf(c); err != nil {
			return err
		}
		if att.Container == "" {
			return api.Errorf(api.CodeNotFound, "%s is not attached: use weave attach first, or give addresses without a container", c)
		}
		if len(addrs) == 0 {
			addrs = addrsOf(att.Addrs)
		}
	}
	if len(addrs) == 0 {
		return api.Errorf(api.CodeUsage, "no addresses: want some, or a container that has some")
	}
	full, err := n.check(ident, []string{req.Name})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.add(ident, full, addrs, false)
}

func (n *names) removeName(a *addresses, req api.DNSRequest) error {
	ident := identExtern
	if !req.Container.IsZero() {
		c, err := hostnet.ParseContainer(req.Container.String())
		if err != nil {
			return err
		}
		if ident, _, err = a.identOf(c); errors.Is(err, hostnet.ErrNoNamespace) {
			ident = c.String()
		} else if err != nil {
			return err
		}
	}
	name := ""
	if req.Name != "" {
		full, err := n.check(ident, []string{req.Name})
		if err != nil {
			return err
		}
		name = full[0]
	}
	addrs := req.Addrs
	if len(addrs) == 0 {
		addrs = []netip.Addr{{}}
	}
	for _, addr := range addrs {
		n.take(ident, name, addr)
	}
	return nil
}

// lookup serves dns-lookup.
func (n *names) lookup(name string) (api.NameAddresses, error) {
	full, err := n.srv.DomainOf(name)
	if err != nil {
		return api.NameAddresses{}, err
	}
	addrs, err := n.srv.Lookup(full)
	if err == nil && len(addrs) == 0 {
		err = api.Errorf(api.CodeNotFound, "%s: no such name: weave status dns lists all", full)
	}
	return api.NameAddresses{Name: full, Addrs: addrs}, err
}

// status is the name server for people; with all names if full. It is nil when nothing
// is served and it is not about the names.
func (n *names) status(v map[peer.Name]string, full bool) *api.DNS {
	if n.off && !full {
		return nil
	}
	st := n.srv.Status()
	n.mu.Lock()
	d := &api.DNS{Domain: st.Domain, Listening: st.Listening, Upstream: st.Upstream, TTL: seconds(st.TTL), Entries: st.Entries, Warning: n.warning}
	n.mu.Unlock()
	if !full {
		return d
	}
	for _, e := range n.srv.Entries() {
		d.Records = append(d.Records, api.DNSRecord{Name: e.Name, Short: e.Short, Address: e.Address, Container: e.Container, Origin: e.Origin, NickName: v[e.Origin]})
	}
	return d
}

// own counts this host's names.
func (n *names) own() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.records)
}
