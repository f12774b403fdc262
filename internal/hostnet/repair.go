package hostnet

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Repair puts right what a crash, or somebody else, did to the containers' ports:
// half-made pairs are removed, and ports that lost the bridge, or are down, are
// put back. It returns what it did, a phrase each. The bridge must exist.
func (h *Host) Repair(bridge string) (done []string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	br, err := h.bridge(bridge)
	if err != nil {
		return nil, err
	}
	pairs, err := h.pairs()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range pairs {
		a := p.host.Attrs()
		switch {
		case p.ref == "" || p.nsid == noNSID:
			if err := h.nl.LinkDel(p.host); err != nil && !isGone(err) {
				errs = append(errs, fmt.Errorf("removing half-made %s: %w", a.Name, err))
				continue
			}
			done = append(done, "removed half-made "+a.Name)
		case a.MasterIndex == 0 || (a.MasterIndex == br.Index && a.RawFlags&unix.IFF_UP == 0):
			if err := h.enslave(br, p.host, containerPort); err != nil {
				errs = append(errs, fmt.Errorf("putting %s (%s) back on %s: %w", a.Name, p.ref, bridge, err))
				continue
			}
			done = append(done, "put "+p.ref+" back on "+bridge)
		}
	}
	return done, errors.Join(errs...)
}

// Reset removes every veth of weave's, the bridge and weave's nftables tables.
// Containers lose their interface. What is not there is no error. The daemon, whose
// TAP is on the bridge, should be down.
func (h *Host) Reset(bridge string) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	links, err := h.links()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		name := link.Attrs().Name
		veth := link.Type() == "veth" && strings.HasPrefix(name, vethPrefix)
		if !veth && !(link.Type() == "bridge" && name == bridge) {
			continue
		}
		if err := h.nl.LinkDel(link); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("removing %s: %w", name, err))
		}
	}
	return errors.Join(append(errs, h.dropTables())...)
}

// tableName is that of all of weave's nftables tables, of whatever family.
const tableName = "weave"

// dropTables removes weave's nftables tables. A kernel without nftables has none.
func (h *Host) dropTables() error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.fd()))
	if err != nil {
		return nil
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil
	}
	found := false
	for _, t := range tables {
		if t.Name == tableName || t.Name == untrackedTable {
			conn.DelTable(t)
			found = true
		}
	}
	if !found {
		return nil
	}
	if err := conn.Flush(); err != nil && !isGone(err) {
		return fmt.Errorf("removing nftables tables of weave: %w", err)
	}
	return nil
}
