package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"weave/odp"
)

// Names in nftables. The table is shared with weave's other rules.
const (
	tableName = "weave"
	chainName = "fastdp"
	setName4  = "peers4"
	setName6  = "peers6"
)

// filter is the nftables chain that drops vxlan packets of strangers. It is guarded
// by the Backend's mutex.
type filter struct {
	nft  *nftables.Conn
	port uint16
	err  error // why there is none, a ReasonError
	was  bool  // it was in order once
	past uint64
	last uint64
}

func (f *filter) open(netns int, port uint16) {
	f.port = port
	f.nft, f.err = nftables.New(nftables.WithNetNSFd(netns))
	if f.err != nil {
		f.err = &odp.ReasonError{Why: odp.ReasonFilter, Err: f.err}
	}
}

// fresh returns the objects as arguments of requests; the library changes them.
func (f *filter) objects() (t *nftables.Table, c *nftables.Chain, sets [2]*nftables.Set) {
	t = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c = &nftables.Chain{
		Name: chainName, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(-150), // before the host's own rules
	}
	sets[0] = &nftables.Set{Table: t, Name: setName4, KeyType: nftables.TypeIPAddr}
	sets[1] = &nftables.Set{Table: t, Name: setName6, KeyType: nftables.TypeIP6Addr}
	return t, c, sets
}

// ensure makes the chain admit packets from addrs only, in order and each once. It
// reports whether what was there before had been damaged.
func (f *filter) ensure(addrs []netip.Addr) (repaired bool, err error) {
	if f.nft == nil {
		return false, f.err
	}
	intact, same := f.look(addrs)
	if intact && same {
		f.err, f.was = nil, true
		return false, nil
	}
	repaired = f.was && !intact
	f.past, f.last = f.past+f.last, 0
	t, c, sets := f.objects()
	f.nft.AddTable(t)
	f.nft.AddChain(c)
	f.nft.FlushChain(c)
	for i, s := range sets {
		f.nft.AddSet(s, nil)
		f.nft.FlushSet(s)
		if err := f.nft.SetAddElements(s, elements(addrs, i == 1)); err != nil {
			return false, f.fail(err)
		}
	}
	for i, s := range sets {
		f.nft.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: f.rule(s, i == 1), UserData: f.tag(i)})
	}
	if err := f.nft.Flush(); err != nil {
		return false, f.fail(err)
	}
	f.err, f.was = nil, true
	return repaired, nil
}

func (f *filter) fail(err error) error {
	f.err = &odp.ReasonError{Why: odp.ReasonFilter, Err: fmt.Errorf("table inet %s: %w", tableName, err)}
	f.was = false
	return f.err
}

func elements(addrs []netip.Addr, ipv6 bool) (out []nftables.SetElement) {
	for _, a := range addrs {
		if a.Is6() == ipv6 {
			out = append(out, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return out
}

// tagFormat has the port and the number of the set.
const tagFormat = "weave fastdp v1 %d %d"

// tag marks a rule as ours for this port and set.
func (f *filter) tag(i int) []byte {
	text := fmt.Sprintf(tagFormat, f.port, i)
	// Attribute 0, a comment, as nft prints it (libnftnl, udata.h).
	return append([]byte{0, byte(len(text) + 1)}, append([]byte(text), 0)...)
}

// rule drops and counts UDP packets to our port from addresses that are not in s.
func (f *filter) rule(s *nftables.Set, ipv6 bool) []expr.Any {
	proto, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if ipv6 {
		proto, offset, length = unix.NFPROTO_IPV6, 8, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, f.port)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: true},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// look compares the kernel with what ensure would make: the rules and sets are there,
// and they hold these addresses.
func (f *filter) look(addrs []netip.Addr) (intact, same bool) {
	t, c, sets := f.objects()
	rules, err := f.nft.GetRules(t, c)
	if err != nil || len(rules) != len(sets) {
		return false, false
	}
	var dropped uint64
	for i, r := range rules {
		if string(r.UserData) != string(f.tag(i)) {
			return false, false
		}
		for _, e := range r.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				dropped += n.Packets
			}
		}
	}
	f.last = dropped
	same = true
	for i, s := range sets {
		have, err := f.held(s)
		if err != nil {
			return false, false
		}
		want := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is6() != (i == 1) })
		same = same && slices.Equal(have, want)
	}
	return true, same
}

// held lists the addresses in a set, in order.
func (f *filter) held(s *nftables.Set) (out []netip.Addr, err error) {
	list, err := f.nft.GetSetElements(s)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// admitted lists the addresses that an earlier run admitted.
func (f *filter) admitted() (out []netip.Addr) {
	if f.nft == nil {
		return nil
	}
	_, _, sets := f.objects()
	for _, s := range sets {
		have, _ := f.held(s)
		out = append(out, have...)
	}
	return out
}

// dropped is how many packets of strangers were dropped, as of the last look.
func (f *filter) dropped() uint64 { return f.past + f.last }

// guards returns the UDP port that a chain of an earlier run is for; 0: there is none.
func (f *filter) guards() (port uint16) {
	if f.nft == nil {
		return 0
	}
	t, c, _ := f.objects()
	rules, err := f.nft.GetRules(t, c)
	if err != nil {
		return 0
	}
	for _, r := range rules {
		if len(r.UserData) > 2 {
			fmt.Sscanf(string(r.UserData[2:]), tagFormat, &port, new(int))
		}
	}
	return port
}

// remove removes the chain and what belongs to it, and the table if it has nothing
// else.
func (f *filter) remove() error {
	if f.nft == nil {
		return nil
	}
	t, c, sets := f.objects()
	f.was = false
	chains, err := f.nft.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil // a kernel without nftables has none
	}
	ours, others := false, false
	for _, have := range chains {
		if have.Table.Name == tableName {
			ours = ours || have.Name == chainName
			others = others || have.Name != chainName
		}
	}
	switch {
	case !ours:
		return nil
	case others:
		f.nft.FlushChain(c)
		f.nft.DelChain(c)
		for _, s := range sets {
			f.nft.DelSet(s)
		}
	default:
		f.nft.DelTable(t)
	}
	if err := f.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing chain %s: %w", chainName, err)
	}
	return nil
}
