package names_test

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// dig asks a name server from inside a namespace and returns what it printed, sorted.
func dig(from *testnet.Namespace, server netip.Addr, args ...string) string {
	r := from.Try("dig", append([]string{"@" + server.String(), "+time=1", "+tries=1", "+short"}, args...)...)
	words := strings.Fields(r.Stdout)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// ask asks a name server once, on port 53 unless the network is "udp:PORT" or
// "tcp:PORT", from inside a namespace. It returns nil if no answer comes in time.
func ask(t *testing.T, from *testnet.Namespace, network string, server netip.Addr, name string, qtype uint16, limit time.Duration) (reply *dns.Msg, took time.Duration) {
	t.Helper()
	network, port, _ := strings.Cut(network, ":")
	to := net.JoinHostPort(server.String(), cmp.Or(port, "53"))
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, false)
	start := time.Now()
	var c net.Conn
	if err := from.Do(func() (err error) { c, err = net.DialTimeout(network, to, limit); return err }); err != nil {
		return nil, time.Since(start)
	}
	defer c.Close()
	c.SetDeadline(start.Add(limit))
	conn := &dns.Conn{Conn: c, UDPSize: 1232}
	if err := conn.WriteMsg(q); err != nil {
		return nil, time.Since(start)
	}
	reply, err := conn.ReadMsg()
	if err != nil {
		return nil, time.Since(start)
	}
	return reply, time.Since(start)
}

// answers are the data of a reply's answers, sorted; the code if there are none.
func answers(m *dns.Msg) string {
	if m == nil {
		return "silence"
	}
	if len(m.Answer) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	var out []string
	for _, r := range m.Answer {
		words := strings.Fields(r.String())
		out = append(out, words[len(words)-1])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// lookup is what a host's own index has for a name.
func lookup(n *harness.Node, name string) string {
	var out []string
	got := harness.Ask(n.Host, func(c *api.Client, ctx context.Context) (api.NameAddresses, error) {
		return c.Lookup(ctx, api.LookupRequest{Name: name})
	})
	for _, a := range got.Addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

// knows waits until each host has these addresses of a name, and returns how long the
// last one took.
func knows(t *testing.T, limit time.Duration, name, want string, nodes ...*harness.Node) (last time.Duration) {
	t.Helper()
	for _, n := range nodes {
		last += harness.Within(t, limit, n.Label+": "+name+" is "+want, func() bool { return lookup(n, name) == want })
	}
	return last
}
