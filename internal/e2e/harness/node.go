package harness

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/testnet"
)

// Exit statuses, as `weave --help` lists them.
const (
	ExitFailure    = 1
	ExitUsage      = 2
	ExitNotRunning = 3
	ExitDegraded   = 4
	ExitConflict   = 5
	ExitNotFound   = 6
	ExitTimeout    = 7
	ExitAuth       = 8
	ExitPermission = 9
	ExitKernel     = 10
)

// Node is a host with a daemon; containers come and go.
type Node struct {
	*testnet.Host
	Daemon *testnet.Daemon // the last one started; nil at first

	Args      []string // what each daemon of the host is told before the arguments of Start
	Bin       string   // the program of commands
	DaemonBin string   // the program of the daemon, Bin unless a test changes it

	t testing.TB
}

// NodeOn gives a host a daemon to be, whose nickname is the host's label.
func NodeOn(t testing.TB, h *testnet.Host) *Node {
	t.Helper()
	bin := testnet.Binary(t)
	return &Node{Host: h, Args: []string{"--nickname", h.Label}, Bin: bin, DaemonBin: bin, t: t}
}

// NewNodes makes hosts a, b, … on one underlay, all with [Password].
func NewNodes(t testing.TB, n int) (*testnet.Lab, []*Node) {
	t.Helper()
	lab := testnet.New(t)
	return lab, NodesIn(t, lab, "", n)
}

// NodesIn is NewNodes in a lab that there is; the prefix of their labels tells the hosts
// of one test from another's.
func NodesIn(t testing.TB, lab *testnet.Lab, prefix string, n int) []*Node {
	t.Helper()
	pw := PasswordFile(t, Password)
	nodes := make([]*Node, n)
	for i := range nodes {
		nodes[i] = NodeOn(t, lab.Host(prefix+string(rune('a'+i))))
		nodes[i].Args = append(nodes[i].Args, "--password-file", pw)
	}
	return nodes
}

// Start starts the daemon and returns when it answers.
func (n *Node) Start(args ...string) {
	n.t.Helper()
	n.Daemon = n.StartWeave(n.t, n.DaemonBin, slices.Concat(n.Args, args)...)
}

// Begin starts the daemon and does not wait; [Node.Ready] says whether it answers.
func (n *Node) Begin(args ...string) {
	n.t.Helper()
	n.Daemon = n.LaunchWeave(n.t, n.DaemonBin, slices.Concat(n.Args, args)...)
}

// StartAll starts all daemons in the uniform way, each told of all and of itself too, and
// waits until they have joined.
func StartAll(t testing.TB, nodes []*Node, args ...string) {
	t.Helper()
	for _, n := range nodes {
		n.Start(slices.Concat(args, Underlays(nodes...))...)
	}
	Joined(t, nodes...)
}

// Ready reports whether the daemon answers.
func (n *Node) Ready() bool {
	return Ask(n.Host, func(c *api.Client, ctx context.Context) (bool, error) {
		_, err := c.Status(ctx)
		return err == nil, nil
	})
}

// Weave runs a weave command on the host; the daemon need not run.
func (n *Node) Weave(args ...string) testnet.Result { return n.Host.Weave(n.Bin, args...) }

// MustWeave runs a weave command that has to succeed and returns what it printed.
func (n *Node) MustWeave(args ...string) string {
	n.t.Helper()
	r := n.Weave(args...)
	if r.Code != 0 {
		n.t.Fatalf("weave %s on %s: exit %d\n%s%s", strings.Join(args, " "), n.Label, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Refuses runs a weave command that has to fail, with text in its message and nothing
// printed.
func (n *Node) Refuses(code int, text string, args ...string) {
	n.t.Helper()
	r := n.Weave(args...)
	if r.Code != code || !strings.Contains(r.Stderr, text) || r.Stdout != "" {
		n.t.Errorf("weave %s on %s: exit %d, %q %q; want exit %d with %q", strings.Join(args, " "), n.Label, r.Code, r.Stdout, r.Stderr, code, text)
	}
}

// Status is what `weave status --json` says.
func (n *Node) Status() (st api.Status) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.MustWeave("status", "--json")), &st); err != nil {
		n.t.Fatal(err)
	}
	return st
}

// AttachBox attaches a container, with an address of the range unless args say which,
// and returns all it got.
func (n *Node) AttachBox(box *testnet.Namespace, args ...string) []netip.Addr {
	n.t.Helper()
	return ParseAddrs(n.t, n.MustWeave(slices.Concat([]string{"attach"}, args, []string{box.Ref()})...))
}

// NewBox makes a container and attaches it; it returns the first of its addresses.
func (n *Node) NewBox(label string, args ...string) (*testnet.Namespace, netip.Addr) {
	n.t.Helper()
	box := n.Container(label)
	return box, n.AttachBox(box, args...)[0]
}

// Expose puts the host itself on the network and returns the first of its addresses.
func (n *Node) Expose(args ...string) netip.Addr {
	n.t.Helper()
	return ParseAddrs(n.t, n.MustWeave(append([]string{"expose"}, args...)...))[0]
}

// ParseAddrs reads the addresses that a command printed, of which there has to be one.
func ParseAddrs(t testing.TB, text string) (out []netip.Addr) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		t.Fatal("no address printed")
	}
	return out
}

// Ask asks a host's daemon without the cost of a process; the answer is the zero value
// if it does not come.
func Ask[T any](h *testnet.Host, question func(*api.Client, context.Context) (T, error)) T {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := api.NewClient(h.RunDir())
	defer c.Close()
	v, _ := question(c, ctx)
	return v
}
