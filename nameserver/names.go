package nameserver

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"weave/internal/peer"
	"weave/nameserver/registry"
)

// Errors of Add besides those of the registry.
var (
	// ErrOutsideDomain says that a name was not registered because it is not in the
	// domain. Containers have host names of all kinds, so this is no failure of theirs.
	ErrOutsideDomain = errors.New("name is not in the DNS domain")
)

// Record is one name as users see it.
type Record struct {
	Name      string     `json:"name"`      // as it was given, with its final dot
	Short     string     `json:"shortName"` // without the domain
	Address   netip.Addr `json:"address"`
	Container string     `json:"container"`
	Origin    peer.Name  `json:"origin"` // the peer that it runs on
}

// Domain is the DNS domain with its final dot.
func (s *Server) Domain() string { return string(s.zone.domain) }

// DomainOf returns the full form of a name: with its final dot, and with the domain if
// it has one label only. The error is ErrOutsideDomain if it is not in the domain, and
// one that is registry.ErrBadName if it is no name at all.
func (s *Server) DomainOf(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if !strings.Contains(name, ".") && !strings.EqualFold(name+".", s.Domain()) {
		name += "." + s.Domain()
	} else {
		name += "."
	}
	if err := registry.CheckName(name); err != nil {
		return "", fmt.Errorf("%q: %w", name, err)
	}
	if !dns.IsSubDomain(s.Domain(), strings.ToLower(name)) || len(name) == len(s.Domain()) {
		return "", fmt.Errorf("%q: %w %s", name, ErrOutsideDomain, s.Domain())
	}
	return name, nil
}

// Add registers a name for a container on this host, with an IPv4 or IPv6 address. A
// name of one label gets the domain. Adding what is there is no error.
func (s *Server) Add(container, name string, addr netip.Addr) error {
	name, err := s.DomainOf(name)
	if err != nil {
		return err
	}
	s.regMu.Lock()
	d, err := s.reg.Add(container, name, addr.Unmap())
	sender := s.sender
	s.regMu.Unlock()
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, addr, err)
	}
	if d != nil && sender != nil {
		sender.Update(d)
	}
	return nil
}

// Remove takes names of this host out and returns how many. An empty container, an
// empty name and the zero Addr match any; the name may be given as to Add.
func (s *Server) Remove(container, name string, addr netip.Addr) (int, error) {
	if name != "" {
		var err error
		if name, err = s.DomainOf(name); err != nil {
			return 0, err
		}
	}
	s.regMu.Lock()
	d, n := s.reg.Remove(container, name, addr.Unmap())
	sender := s.sender
	s.regMu.Unlock()
	if d != nil && sender != nil {
		sender.Update(d)
	}
	return n, nil
}

// ContainerGone takes out all names of a container that ended, at once.
func (s *Server) ContainerGone(container string) int {
	if container == "" {
		return 0
	}
	n, _ := s.Remove(container, "", netip.Addr{})
	return n
}

// Lookup returns the addresses of a name, IPv4 first, each once. The error is that of
// DomainOf.
func (s *Server) Lookup(name string) ([]netip.Addr, error) {
	name, err := s.DomainOf(name)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, e := range s.zone.index.Lookup([]byte(strings.ToLower(name))) {
		if a := e.Addr(); a.IsValid() && (len(out) == 0 || out[len(out)-1] != a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// Entries returns all names of all peers, sorted by name, address, peer and container.
func (s *Server) Entries() []Record {
	out := make([]Record, 0, s.zone.index.Len())
	for e := range s.zone.index.All() {
		out = append(out, s.record(e))
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), a.Address.Compare(b.Address),
			a.Origin.Compare(b.Origin), strings.Compare(a.Container, b.Container), strings.Compare(a.Name, b.Name))
	})
	return out
}

func (s *Server) record(e *registry.Entry) Record {
	r := Record{Name: e.Name(), Short: e.Name(), Address: e.Addr(), Container: e.Container(), Origin: e.Origin()}
	if n := len(e.Name()) - len(s.zone.domain); n > 0 && strings.EqualFold(e.Name()[n:], s.Domain()) {
		r.Short = strings.TrimSuffix(e.Name()[:n], ".")
	}
	return r
}

// Status is the dns block of `weave status`.
type Status struct {
	Domain    string           `json:"domain"`
	Listening []netip.AddrPort `json:"listening"` // UDP and TCP
	Upstream  []netip.AddrPort `json:"upstream"`
	TTL       uint32           `json:"ttl"` // seconds
	Entries   int              `json:"entries"`
	Rejected  uint64           `json:"rejectedMessages"` // of gossip, not of our making
}

// Status sums the server up.
func (s *Server) Status() Status {
	st := Status{Domain: s.Domain(), TTL: s.zone.ttl, Entries: s.zone.index.Len(), Upstream: []netip.AddrPort{}, Listening: []netip.AddrPort{}}
	s.mu.Lock()
	for a := range s.bound {
		st.Listening = append(st.Listening, a)
	}
	s.mu.Unlock()
	slices.SortFunc(st.Listening, netip.AddrPort.Compare)
	if s.up != nil {
		st.Upstream = append(st.Upstream, s.up.Servers()...)
	}
	s.regMu.Lock()
	st.Rejected = s.rejected
	s.regMu.Unlock()
	return st
}
