package api

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// writeServices appends the blocks of the services that run.
func (b *block) writeServices(s Status) {
	if i := s.IPAM; i != nil {
		b.b.WriteByte('\n')
		b.line("Service", "ipam")
		b.line("Status", "%s", i.Status)
		b.line("Range", "%s", i.Range)
		b.line("DefaultSubnet", "%s", i.DefaultSubnet)
		for _, c := range i.Conflicts {
			b.line("Conflict", "%s", c)
		}
	}
	if d := s.DNS; d != nil {
		b.b.WriteByte('\n')
		b.line("Service", "dns")
		b.line("Domain", "%s", d.Domain)
		b.line("Listening", "%s", orNone(d.Listening, ", "))
		b.line("Upstream", "%s", orNone(d.Upstream, ", "))
		b.line("TTL", "%d", d.TTL/time.Second)
		b.line("Entries", "%d", d.Entries)
		if d.Warning != "" {
			b.line("Warning", "%s", d.Warning)
		}
	}
}

// orNone joins endpoints; port 53 goes without saying.
func orNone(list []netip.AddrPort, sep string) string {
	if len(list) == 0 {
		return "none"
	}
	var out []fmt.Stringer
	for _, a := range list {
		if a.Port() == 53 {
			out = append(out, a.Addr())
		} else {
			out = append(out, a)
		}
	}
	return join(out, sep)
}

// WriteIPAM writes the share of each peer, this one first; nothing until the range is
// divided:
//
//	02:aa:bb:cc:dd:e1(h1)                   524288 IPs (50.0% of total) (3 active)
//	02:aa:bb:cc:dd:e2(h2)                   524288 IPs (50.0% of total) - unreachable!
func WriteIPAM(w io.Writer, i IPAM) error {
	var b bytes.Buffer
	for _, s := range i.Shares {
		fmt.Fprintf(&b, "%-37s %8d IPs (%04.1f%% of total)", oneLine(nameAndNick(s.Peer, s.NickName)), s.Addresses, percent(s.Addresses, i.RangeNumIPs))
		switch {
		case s.Self:
			fmt.Fprintf(&b, " (%d active)", i.ActiveIPs)
		case !s.Reachable:
			b.WriteString(" - unreachable!")
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// Widths of the columns of names; longer contents widen their line.
const (
	shortWidth = 12
	ipWidth    = 15 // 255.255.255.255
)

// WriteDNS writes one name a line: short name, address, container, the peer it is on.
func WriteDNS(w io.Writer, d DNS) error {
	var b bytes.Buffer
	for _, r := range d.Records {
		fmt.Fprintf(&b, "%-*s %-*s %-*s %s\n", shortWidth, oneLine(r.Short), ipWidth, r.Address, shortWidth, oneLine(r.Container), oneLine(nameAndNick(r.Origin, r.NickName)))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteRemoved writes what rmpeer came to.
func WriteRemoved(w io.Writer, r Removed) error {
	_, err := fmt.Fprintf(w, "%d IPs taken over from %s\n", r.Addresses, oneLine(r.Peer))
	return err
}

// WriteAddrs writes one address a line.
func WriteAddrs(w io.Writer, n NameAddresses) error {
	var lines []string
	for _, a := range n.Addrs {
		lines = append(lines, a.String())
	}
	return writeLines(w, lines)
}
