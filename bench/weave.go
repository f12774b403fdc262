package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Overlay MTUs of weave: what it takes by itself, which is what users get, and
// on a jumbo underlay what its overhead leaves.
const (
	weaveMTU      = 1376
	weaveOverhead = 82  // UDP over IPv4, shard header and tag, inner Ethernet
	relayOverhead = 12  // the two ends of a way through others
	cageOverhead  = 110 // WireGuard over IPv4, in it vxlan over IPv4, inner Ethernet
)

// The paths of a connection, as status names them.
const (
	fastdp = "fastdp"
	sleeve = "sleeve"
)

// daemons is how a pair of daemons is launched.
type daemons struct {
	path     string   // that their connection must take
	password bool     // the same for both; without one data is in clear
	relayed  bool     // by a third, the only one that both know
	flags    []string // of launch
}

// setupWeave runs two daemons, waits until their connection is on its path, and
// has the measurements end with a look whether it still is.
func setupWeave(d daemons) func(context.Context, *bed) (*endpoints, error) {
	return func(ctx context.Context, b *bed) (*endpoints, error) {
		e := &endpoints{client: "c1", server: "c2", addr: overlay[1], mtu: weaveMTU, sealed: d.password && d.path == sleeve}
		args := append([]string{b.tools.weave, "launch", "--foreground"}, d.flags...)
		if b.mtu > 1500 {
			e.mtu = b.mtu - d.overhead()
			args = append(args, "--mtu", strconv.Itoa(e.mtu))
		}
		if d.password {
			password := filepath.Join(b.dir, "password")
			if err := os.WriteFile(password, []byte(rand.Text()+"\n"), 0o600); err != nil {
				return nil, err
			}
			args = append(args, "--password-file", password)
		}
		targets := [2]string{underlay[1].String(), underlay[0].String()}
		if d.relayed {
			args = append(args, "--no-discovery")
			p, err := b.relay(ctx, args)
			if err != nil {
				return nil, err
			}
			e.daemons = append(e.daemons, p.pid())
			targets = [2]string{relayVia(0) + "2", relayVia(1) + "2"}
		}
		for i, host := range roles[:2] {
			p, err := b.daemon(host, weaveEnv(b, host),
				append(args[:len(args):len(args)], "--nickname", host, "--name", "::"+strconv.Itoa(i+1), targets[i])...)
			if err != nil {
				return nil, err
			}
			e.daemons = append(e.daemons, p.pid())
			if err := attachWeave(ctx, b, p, i); err != nil {
				return nil, err
			}
		}
		e.check = func(ctx context.Context) error { return d.check(ctx, b) }
		return e, poll(ctx, patience, func() error { return e.check(ctx) })
	}
}

// relayVia begins the addresses of the wire from h1 (0) or h2 (1), which is .1, to the
// relay, .2.
func relayVia(i int) string { return fmt.Sprintf("198.18.%d.", i+1) }

// relay makes a host with a wire to h1 and one to h2, and starts a daemon on it.
func (b *bed) relay(ctx context.Context, args []string) (*proc, error) {
	if err := ip(ctx, "", "netns add "+ns(relayRole)); err != nil {
		return nil, err
	}
	for i, host := range roles[:2] {
		far := fmt.Sprintf("under%d", i)
		err := ip(ctx, host,
			fmt.Sprintf("link add relay mtu %d type veth peer name %s netns %s mtu %d", b.mtu, far, ns(relayRole), b.mtu),
			fmt.Sprintf("addr add %s1/24 dev relay", relayVia(i)), "link set relay up")
		if err != nil {
			return nil, err
		}
		if err := ip(ctx, relayRole, fmt.Sprintf("addr add %s2/24 dev %s", relayVia(i), far), "link set lo up", "link set "+far+" up"); err != nil {
			return nil, err
		}
	}
	return b.daemon(relayRole, weaveEnv(b, relayRole), append(args[:len(args):len(args)], "--nickname", relayRole, "--name", "::3")...)
}

// patience is how long daemons may take for something: an emulated machine is slow.
const patience = 40 * time.Second

// overhead is what the path takes off the underlay's MTU.
func (d daemons) overhead() int {
	switch {
	case d.password && d.path == fastdp:
		return cageOverhead
	case d.relayed:
		return weaveOverhead + relayOverhead
	}
	return weaveOverhead
}

// check returns an error unless the connection of both daemons is on its path,
// encrypted or not as it should be. A path that fails is replaced by another in
// good time: without a look the figures could be the other's.
func (d daemons) check(ctx context.Context, b *bed) error {
	for _, host := range roles[:2] {
		out, err := weaveCommand(ctx, b, host, "status", "connections", "--json")
		if err != nil {
			return err
		}
		if err := d.judge(out); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	return nil
}

// judge reads the JSON of status connections.
func (d daemons) judge(status []byte) error {
	var got struct {
		Connections []struct {
			State, Path, Why, Error string
			Encrypted               bool
		}
	}
	if err := json.Unmarshal(status, &got); err != nil {
		return fmt.Errorf("reading status: %w", err)
	}
	if len(got.Connections) == 0 {
		return fmt.Errorf("no connection")
	}
	switch c := got.Connections[0]; {
	case c.State != "established":
		return fmt.Errorf("connection is %s: %s", c.State, c.Error)
	case c.Path != d.path:
		return fmt.Errorf("data goes by %q, not %q: %s", c.Path, d.path, c.Why)
	case c.Encrypted != d.password:
		return fmt.Errorf("data is encrypted: %v, want %v", c.Encrypted, d.password)
	}
	return nil
}

// weaveEnv makes a daemon and its commands use directories of their own.
func weaveEnv(b *bed, host string) []string {
	return []string{
		"WEAVE_RUN_DIR=" + filepath.Join(b.dir, host, "run"),
		"WEAVE_STATE_DIR=" + filepath.Join(b.dir, host, "state"),
	}
}

// weaveCommand runs a command of weave for a host's daemon.
func weaveCommand(ctx context.Context, b *bed, host string, args ...string) ([]byte, error) {
	command := append([]string{"env"}, weaveEnv(b, host)...)
	command = append(command, b.tools.weave)
	return output(ctx, "", inNS(host, append(command, args...)...)...)
}

// attachWeave waits for a daemon and puts its host's container on the network.
func attachWeave(ctx context.Context, b *bed, p *proc, i int) error {
	return poll(ctx, patience, func() error {
		if err := p.failed(); err != nil {
			return fmt.Errorf("%w: %w", errGiveUp, err)
		}
		_, err := weaveCommand(ctx, b, roles[i], "attach", overlay[i].String()+"/24", "netns:"+ns(roles[i+2]))
		return err
	})
}
