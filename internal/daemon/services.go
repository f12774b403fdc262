package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"weave/internal/api"
	"weave/internal/hostnet"
	"weave/internal/peer"
	"weave/ipam"
	"weave/mesh"
	"weave/mesh/gossip"
	"weave/nameserver"
	"weave/nameserver/registry"
)

// DefaultRange is what addresses are allocated from unless something else is said.
var DefaultRange = netip.MustParsePrefix("10.32.0.0/12")

// Addressing says how addresses are given out. The zero Addressing gives out none.
type Addressing struct {
	Range         netip.Prefix `json:"range,omitzero"`          // alike on all peers
	RangeGiven    bool         `json:"range_given,omitempty"`   // by the user, who then has to know the host's routes
	DefaultSubnet netip.Prefix `json:"default_subnet,omitzero"` // zero: Range
	Init          string       `json:"init,omitempty"`          // see ParseInit
}

// minRange is the longest prefix of a range or subnet: four addresses.
const minRange = 30

// Check says what the flags behind a have wrong.
func (a Addressing) Check() error {
	if !a.Range.IsValid() {
		switch {
		case a.DefaultSubnet.IsValid():
			return errors.New("--ipalloc-default-subnet needs an --ipalloc-range")
		case a.Init != "":
			return errors.New("--ipalloc-init needs an --ipalloc-range")
		}
		return nil
	}
	if err := checkSubnet(a.Range); err != nil {
		return fmt.Errorf("--ipalloc-range %v: %w", a.Range, err)
	}
	if a.DefaultSubnet.IsValid() {
		if err := checkSubnet(a.DefaultSubnet); err != nil {
			return fmt.Errorf("--ipalloc-default-subnet %v: %w", a.DefaultSubnet, err)
		}
		if !a.DefaultSubnet.Overlaps(a.Range) {
			return fmt.Errorf("--ipalloc-default-subnet %v has nothing in common with --ipalloc-range %v", a.DefaultSubnet, a.Range)
		}
	}
	_, err := ParseInit(a.Init)
	return err
}

func checkSubnet(p netip.Prefix) error {
	switch {
	case !p.Addr().Is4() || p.Bits() == 0:
		return errors.New("want an IPv4 subnet such as 10.32.0.0/12")
	case p != p.Masked():
		return fmt.Errorf("it has host bits set: did you mean %v?", p.Masked())
	case p.Bits() > minRange:
		return fmt.Errorf("it is too small: want a prefix of at most %d bits", minRange)
	}
	return nil
}

// ParseInit reads "consensus", "consensus=N", "seed=NAME,NAME..." or "observer"; ""
// is consensus among the peers that are given to launch.
func ParseInit(text string) (init ipam.Init, err error) {
	mode, arg, has := strings.Cut(text, "=")
	switch {
	case text == "", text == "consensus":
		return init, nil
	case text == "observer":
		return ipam.Init{Mode: ipam.Observer}, nil
	case mode == "consensus" && has:
		if init.Electors, err = strconv.Atoi(arg); err != nil || init.Electors < 1 {
			return init, fmt.Errorf("--ipalloc-init %s: want consensus=N with the number of peers", text)
		}
		return init, nil
	case mode == "seed" && has:
		init.Mode = ipam.Seed
		for word := range strings.SplitSeq(arg, ",") {
			name, err := peer.ParseName(word)
			if err != nil || name.IsZero() {
				return init, fmt.Errorf("--ipalloc-init %s: %q is no peer name: want names such as 02:aa:bb:cc:dd:ee or ::1, alike on all peers", text, word)
			}
			init.Seeds = append(init.Seeds, name)
		}
		return init, nil
	}
	return init, fmt.Errorf("--ipalloc-init %s: want consensus, consensus=N, seed=NAME,NAME,... or observer", text)
}

// Naming says how names are served. The zero Naming serves them in the default
// domain, at the addresses that the host is exposed at.
type Naming struct {
	Off        bool           `json:"off,omitempty"`         // serve none; they are told to the other hosts all the same
	Domain     string         `json:"domain,omitempty"`      // "": the default
	Listen     netip.AddrPort `json:"listen,omitzero"`       // invalid: where the host is exposed
	TTL        *uint32        `json:"ttl,omitempty"`         // seconds; nil: the default
	ResolvConf string         `json:"resolv_conf,omitempty"` // of the upstream servers; "": the host's
}

// dnsPort is where resolvers look for a server.
const dnsPort = 53

// Check says what the flags behind n have wrong.
func (n Naming) Check() error {
	if n.Domain == "" {
		return nil
	}
	if err := registry.CheckName(strings.TrimSuffix(n.Domain, ".") + "."); err != nil {
		return fmt.Errorf("--dns-domain %q: want a domain such as %s", n.Domain, nameserver.DefaultDomain)
	}
	return nil
}

// addressCode is the part of coded for addresses and names.
func addressCode(err error) (code api.Code, hint string) {
	switch {
	case errors.Is(err, ipam.ErrNoQuorum), errors.Is(err, ipam.ErrWaiting), errors.Is(err, ipam.ErrNotTaken):
		return api.CodeTimeout, ""
	case errors.Is(err, ipam.ErrExhausted), errors.Is(err, ipam.ErrInUse), errors.Is(err, ipam.ErrAlive), errors.Is(err, ipam.ErrIdentity):
		return api.CodeConflict, ""
	case errors.Is(err, ipam.ErrNotFound):
		return api.CodeNotFound, ""
	case errors.Is(err, ipam.ErrStopped):
		return api.CodeNotRunning, ""
	case errors.Is(err, ipam.ErrSubnet), errors.Is(err, nameserver.ErrOutsideDomain), errors.Is(err, registry.ErrBadName),
		errors.Is(err, registry.ErrBadAddress), errors.Is(err, registry.ErrContainer):
		return api.CodeUsage, ""
	}
	return "", ""
}

// checkRange compares the range with the host's routes: the default one must not
// overlap any; who gave another is warned.
func (d *daemon) checkRange(host *hostnet.Host) error {
	a := d.cfg.Addressing
	if !a.Range.IsValid() {
		return nil
	}
	route, err := host.Overlaps(d.cfg.Bridge, a.Range)
	switch {
	case err != nil || route == "":
		return err
	case a.RangeGiven:
		d.log.Warn("the range of addresses overlaps a route of this host: what is there cannot be reached by containers, or by the host once it is exposed", "range", a.Range, "route", route)
		return nil
	}
	return api.Errorf(api.CodeConflict, "the default range of addresses, %v, overlaps the route %s of this host: choose another --ipalloc-range for all hosts, or --ipalloc-range= to give addresses by hand", a.Range, route)
}

// openServices makes the allocator and the name server, as the configuration has them.
// What it returns is for the mesh.
func (d *daemon) openServices(ctx context.Context, name peer.Name, undo *cleanup) (channels []gossip.Open, err error) {
	d.view.Store(&mesh.View{Local: name})
	host := d.hostside.host
	a := &addresses{
		host: host, bridge: d.cfg.Bridge, mtu: d.cfg.MTU, store: d.store,
		log: d.log.With("part", "addresses"), poke: make(chan struct{}, 1),
	}
	d.addrs = a
	if err := a.load(); err != nil {
		return nil, err
	}
	if cfg := d.cfg.Addressing; cfg.Range.IsValid() {
		if a.subnet = cfg.DefaultSubnet; !a.subnet.IsValid() {
			a.subnet = cfg.Range
		}
		init, err := ParseInit(cfg.Init)
		if err != nil {
			return nil, err
		}
		a.alloc, err = ipam.New(ipam.Config{
			Name: name, Nick: d.cfg.NickName, UID: d.uid, Range: cfg.Range, DefaultSubnet: a.subnet, Init: init,
			Store: ipamStore{d.store}, Mesh: d.meshFacts, Log: d.log.With("part", "ipam"),
		})
		if err != nil {
			return nil, err
		}
		channels = append(channels, a.alloc.Open)
	}
	if d.names, err = openNames(ctx, d, name, host); err != nil {
		return nil, err
	}
	undo.add(d.names.close)
	a.names = d.names
	a.names.follow(a.exposed)
	channels = append(channels, d.names.srv.Open)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.restore(ctx); err != nil {
		a.log.Warn("the host is not exposed as it was", "err", err)
	}
	return channels, nil
}

// serveAddresses runs what openServices made.
func (d *daemon) serveAddresses(ctx context.Context, g *errgroup.Group) {
	if d.addrs.alloc != nil {
		g.Go(func() error { return d.addrs.alloc.Run(ctx) })
		g.Go(func() error { return d.count(ctx) })
	}
	g.Go(func() error { return d.names.run(ctx) })
	g.Go(func() error { return d.addrs.keep(ctx) })
}
