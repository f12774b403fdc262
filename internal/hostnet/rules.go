package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The rules of an exposed host, in tables of our own, ip weave and ip6 weave, so that
// they neither meet nor depend on others':
//
//	chain expose-nat {
//		type nat hook postrouting priority srcnat; policy accept;
//		ip saddr SUBNET ip daddr 224.0.0.0/4 return
//		ip saddr SUBNET ip daddr != SUBNET oifname != "weave" masquerade
//		ip saddr != SUBNET ip daddr SUBNET oifname "weave" masquerade
//	}
//	chain expose-forward {
//		type filter hook forward priority filter; policy accept;
//		iifname "weave" oifname "weave" ip saddr SUBNET ip daddr OTHER drop
//	}
//
// The last keeps subnets apart that the host takes part in: it does not route between
// them. Each rule's comment says what it is; a chain whose comments are those wanted
// is taken to be in order.

const (
	natChain     = "expose-nat"
	forwardChain = "expose-forward"
)

// Exposure is an address of the bridge that the host is exposed at.
type Exposure struct {
	Addr       netip.Prefix
	Masquerade bool // what passes the host to or from the subnet gets an address of the host
}

// SetRules makes the host's rules those that the exposures need, all of them; with none
// the rules go. It returns whether anything had to be changed.
func (h *Host) SetRules(bridge string, exposures []Exposure) (changed bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		did, err := h.setRules(family, wantedRules(family, bridge, exposures))
		changed = changed || did
		switch {
		case noNftables(err):
			return changed, fmt.Errorf("%w (%w)", ErrNoNftables, err)
		case err != nil:
			return changed, hint(fmt.Errorf("setting nftables rules: %w", err))
		}
	}
	return changed, nil
}

// noNftables tells a kernel that lacks nftables, or the part of it for NAT.
func noNftables(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOPROTOOPT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// rule is one rule; the comment identifies it.
type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// subnet is what is exposed of one subnet, by whichever addresses.
type subnet struct {
	prefix     netip.Prefix
	masquerade bool
}

func subnets(family nftables.TableFamily, exposures []Exposure) (out []subnet) {
	for _, e := range exposures {
		p := e.Addr.Masked()
		if p.Addr().Is4() != (family == nftables.TableFamilyIPv4) {
			continue
		}
		i := slices.IndexFunc(out, func(s subnet) bool { return s.prefix == p })
		if i < 0 {
			i, out = len(out), append(out, subnet{prefix: p})
		}
		out[i].masquerade = out[i].masquerade || e.Masquerade
	}
	slices.SortFunc(out, func(a, b subnet) int { return a.prefix.Compare(b.prefix) })
	return out
}

// multicast of both families.
var multicast = map[nftables.TableFamily]netip.Prefix{
	nftables.TableFamilyIPv4: netip.MustParsePrefix("224.0.0.0/4"),
	nftables.TableFamilyIPv6: netip.MustParsePrefix("ff00::/8"),
}

func wantedRules(family nftables.TableFamily, bridge string, exposures []Exposure) (out []rule) {
	nets := subnets(family, exposures)
	masquerade, drop := &expr.Masq{}, &expr.Verdict{Kind: expr.VerdictDrop}
	for _, n := range nets {
		if !n.masquerade {
			continue
		}
		in := func(where int, is expr.CmpOp) []expr.Any { return inPrefix(where, is, n.prefix) }
		out = append(out,
			rule{natChain, fmt.Sprintf("weave: leave multicast from %v alone", n.prefix), slices.Concat(
				in(source, expr.CmpOpEq), inPrefix(destination, expr.CmpOpEq, multicast[family]), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})},
			rule{natChain, fmt.Sprintf("weave: containers of %v to the world", n.prefix), slices.Concat(
				in(source, expr.CmpOpEq), in(destination, expr.CmpOpNeq), device(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge), []expr.Any{masquerade})},
			rule{natChain, fmt.Sprintf("weave: the world to containers of %v", n.prefix), slices.Concat(
				in(source, expr.CmpOpNeq), in(destination, expr.CmpOpEq), device(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge), []expr.Any{masquerade})})
	}
	for _, a := range nets {
		for _, b := range nets {
			if a.prefix.Overlaps(b.prefix) {
				continue
			}
			out = append(out, rule{forwardChain, fmt.Sprintf("weave: %v does not see %v", a.prefix, b.prefix), slices.Concat(
				device(expr.MetaKeyIIFNAME, expr.CmpOpEq, bridge), device(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge),
				inPrefix(source, expr.CmpOpEq, a.prefix), inPrefix(destination, expr.CmpOpEq, b.prefix), []expr.Any{drop})})
		}
	}
	return out
}

// Which address of a packet.
const (
	source = iota
	destination
)

// inPrefix matches an address against a prefix: load, mask, compare. Offsets are those
// of RFC 791 and RFC 8200.
func inPrefix(where int, is expr.CmpOp, p netip.Prefix) []expr.Any {
	offset, n := uint32(12+4*where), uint32(4)
	if p.Addr().Is6() {
		offset, n = uint32(8+16*where), 16
	}
	mask := make([]byte, n)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: is, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// device matches the name of the interface that a packet came by or goes by.
func device(key expr.MetaKey, is expr.CmpOp, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: is, Register: 1, Data: b}}
}

// chains are ours, in order.
func chains(table *nftables.Table) []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return []*nftables.Chain{
		{Name: natChain, Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept},
		{Name: forwardChain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept},
	}
}

// setRules brings one family in order, in one transaction.
func (h *Host) setRules(family nftables.TableFamily, want []rule) (changed bool, err error) {
	conn, err := nftables.New(nftables.WithNetNSFd(h.fd()))
	if err != nil {
		return false, err
	}
	table := &nftables.Table{Name: tableName, Family: family}
	have, err := ownChains(conn, table)
	if err != nil && (len(want) > 0 || !noNftables(err)) {
		return false, err
	}
	for _, c := range chains(table) {
		rules := slices.DeleteFunc(slices.Clone(want), func(r rule) bool { return r.chain != c.Name })
		there := have[c.Name]
		switch {
		case len(rules) == 0 && there == nil:
			continue
		case len(rules) == 0:
			conn.FlushChain(c)
			conn.DelChain(c)
		default:
			if inOrder(conn, there, rules) {
				continue
			}
			conn.AddTable(table)
			conn.AddChain(c)
			conn.FlushChain(c)
			for _, r := range rules {
				conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
			}
		}
		changed = true
	}
	if !changed {
		return false, nil
	}
	if len(want) == 0 && onlyOurs(conn, table, len(have)) {
		conn.DelTable(table)
	}
	return true, conn.Flush()
}

// onlyOurs reports whether nobody has put anything besides our n chains into table.
func onlyOurs(conn *nftables.Conn, table *nftables.Table, n int) bool {
	all, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return false
	}
	for _, c := range all {
		if c.Table.Name == table.Name {
			n--
		}
	}
	sets, err := conn.GetSets(table)
	return n == 0 && err == nil && len(sets) == 0
}

// ownChains returns our chains that exist. A chain that hooks in elsewhere than it
// should is left out, and the transaction that follows says so.
func ownChains(conn *nftables.Conn, table *nftables.Table) (map[string]*nftables.Chain, error) {
	all, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, err
	}
	out := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == table.Name && (c.Name == natChain || c.Name == forwardChain) {
			out[c.Name] = c
		}
	}
	return out, nil
}

func inOrder(conn *nftables.Conn, chain *nftables.Chain, want []rule) bool {
	if chain == nil {
		return false
	}
	have, err := conn.GetRules(chain.Table, chain)
	if err != nil || len(have) != len(want) {
		return false
	}
	for i, r := range have {
		text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		if text != want[i].comment {
			return false
		}
	}
	return true
}

// ForwardDropped names a chain of the host's firewall that by default drops what
// passes the host, as "ip filter FORWARD"; "" if there is none.
func (h *Host) ForwardDropped() string {
	conn, err := nftables.New(nftables.WithNetNSFd(h.fd()))
	if err != nil {
		return ""
	}
	all, err := conn.ListChains()
	if err != nil {
		return ""
	}
	words := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}
	for _, c := range all {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop && words[c.Table.Family] != "" {
			return words[c.Table.Family] + " " + c.Table.Name + " " + c.Name
		}
	}
	return ""
}

// nfnlgrpNftables is the group of all changes to nftables (linux/netfilter/nfnetlink.h).
const nfnlgrpNftables = 7

// WatchRules calls fn at the start and after changes of the host's nftables rules,
// whoever makes them, until ctx ends, and returns ctx's error or the one that made
// watching impossible. fn runs on the caller's goroutine.
func (h *Host) WatchRules(ctx context.Context, fn func()) error {
	return h.watch(ctx, fn, func(syscall.NetlinkMessage) bool { return true }, unix.NETLINK_NETFILTER, nfnlgrpNftables)
}

// WatchHost is WatchRules for the host's addresses and for containers that come to the
// bridge or go from it. It does not see addresses change inside a container.
func (h *Host) WatchHost(ctx context.Context, fn func()) error {
	matters := func(m syscall.NetlinkMessage) bool {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			return true
		}
		_, name, ok := linkOf(m)
		return ok && len(name) > len(hostPrefix) && name[:len(hostPrefix)] == hostPrefix
	}
	return h.watch(ctx, fn, matters, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
}

func (h *Host) watch(ctx context.Context, fn func(), matters func(syscall.NetlinkMessage) bool, protocol int, groups ...int) error {
	l, err := h.listenTo(protocol, groups...)
	if err != nil {
		return hint(err)
	}
	defer l.close()
	fn()
	return l.run(ctx, func(msgs []syscall.NetlinkMessage) error {
		if slices.ContainsFunc(msgs, matters) {
			fn()
		}
		return nil
	}, func() error { fn(); return nil })
}
