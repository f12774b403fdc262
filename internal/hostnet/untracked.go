package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// untrackedTable is a table of our own for the rules of SetUntracked:
//
//	table inet weave-untracked {
//		chain in  { type filter hook prerouting priority raw; udp dport PORT notrack }
//		chain out { type filter hook output priority raw; udp dport PORT notrack }
//	}
const untrackedTable = "weave-untracked"

// conntrackFile is there when the kernel tracks connections.
const conntrackFile = "/proc/sys/net/netfilter/nf_conntrack_count"

// SetUntracked keeps vxlan packets to a UDP port out of the kernel's table of
// connections, both those that come and those that go; port 0 ends that. Each flow in
// the overlay has a source port of its own, and answers come from another one, so that
// the table would fill with entries that never see an answer and that no rule could
// use. Where the kernel tracks nothing, or can leave nothing out, there is nothing to
// do. It returns whether anything had to be changed.
func (h *Host) SetUntracked(port uint16) (changed bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := os.Stat(conntrackFile); err != nil && port != 0 {
		return false, nil
	}
	conn, err := nftables.New(nftables.WithNetNSFd(h.fd()))
	if err != nil {
		return false, err
	}
	t := &nftables.Table{Name: untrackedTable, Family: nftables.TableFamilyINet}
	if port == 0 {
		conn.DelTable(t)
		err := conn.Flush()
		if errors.Is(err, unix.ENOENT) || noNftables(err) {
			return false, nil
		}
		return err == nil, err
	}
	comment := fmt.Sprintf("weave: vxlan to port %d is not tracked", port)
	if untracked(conn, t, comment) {
		return false, nil
	}
	conn.AddTable(t)
	for _, c := range untrackedChains(t) {
		conn.AddChain(c)
		conn.FlushChain(c)
		conn.AddRule(&nftables.Rule{
			Table: t, Chain: c, UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
			Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
				&expr.Notrack{},
			},
		})
	}
	if err := conn.Flush(); err != nil {
		if noNftables(err) || errors.Is(err, unix.ENOENT) { // no notrack expression
			return false, nil
		}
		return false, hint(fmt.Errorf("setting nftables rules: %w", err))
	}
	return true, nil
}

func untrackedChains(t *nftables.Table) []*nftables.Chain {
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRaw}
	}
	return []*nftables.Chain{chain("in", nftables.ChainHookPrerouting), chain("out", nftables.ChainHookOutput)}
}

// untracked reports whether the rules are there.
func untracked(conn *nftables.Conn, t *nftables.Table, comment string) bool {
	for _, c := range untrackedChains(t) {
		rules, err := conn.GetRules(t, c)
		if err != nil || len(rules) != 1 {
			return false
		}
		if text, _ := userdata.GetString(rules[0].UserData, userdata.TypeComment); text != comment {
			return false
		}
	}
	return true
}
