package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// path is one way to join two endpoints.
type path struct {
	name  string // in results and -only
	title string // in tables
	kind  kind
	setup func(context.Context, *bed) (*endpoints, error)
}

// kind says whose a path is; the plot colours by it.
type kind int

const (
	kernelPath kind = iota
	peerPath        // another user-space program
	weavePath
)

// endpoints is what a path that is set up offers to the measurements.
type endpoints struct {
	client, server string     // roles whose namespaces the load runs in
	addr           netip.Addr // of the server
	mtu            int        // of the path: largest IP packet
	daemons        []int      // process IDs of what carries the packets
	sealed         bool       // by a program in user space
}

// The denominators of the ratios.
const (
	refPeer   = "wireguard-go"
	refKernel = "vxlan"
)

func allPaths() []path {
	return []path{
		{"veth", "raw veth (underlay)", kernelPath, setupVeth},
		{refKernel, "kernel vxlan, bridged", kernelPath, setupVxlan},
		{refPeer, "wireguard-go (layer 3)", peerPath, setupWireguard},
		{"weave-fastdp", "weave fastdp (vxlan), clear", weavePath, setupWeave(fastdp)},
		{"weave-clear", "weave sleeve, clear", weavePath, setupWeave("")},
		{"weave-aes", "weave sleeve, AES-256-GCM", weavePath, setupWeave("aes")},
		{"weave-chacha", "weave sleeve, ChaCha20", weavePath, setupWeave("chacha")},
	}
}

func pathNames() []string {
	var names []string
	for _, p := range allPaths() {
		names = append(names, p.name)
	}
	return names
}

// selectPaths picks paths of a comma list by name or by the start of a name, in
// the order of allPaths; "" is all.
func selectPaths(only string) ([]path, error) {
	if only == "" {
		return allPaths(), nil
	}
	var chosen []path
	wanted := strings.Split(only, ",")
	for _, w := range wanted {
		if !slices.ContainsFunc(pathNames(), func(n string) bool { return strings.HasPrefix(n, w) }) {
			return nil, fmt.Errorf("-only %q: the paths are %s", w, strings.Join(pathNames(), ", "))
		}
	}
	for _, p := range allPaths() {
		if slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(p.name, w) }) {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}

// build makes the programs that the paths need and the flags did not name.
func (t *tools) build(ctx context.Context, dir string, paths []path) (err error) {
	if t.self, err = os.Executable(); err != nil {
		return err
	}
	build := func(bin *string, pkg string, needed bool) error {
		if !needed {
			return nil
		}
		if *bin == "" {
			*bin = filepath.Join(dir, filepath.Base(pkg))
			fmt.Fprintln(os.Stderr, "bench: building", pkg)
			_, err := output(ctx, "", "go", "build", "-trimpath", "-buildvcs=false", "-o", *bin, pkg)
			return err
		}
		*bin, err = filepath.Abs(*bin)
		return err
	}
	has := func(k kind) bool { return slices.ContainsFunc(paths, func(p path) bool { return p.kind == k }) }
	if err := build(&t.weave, "weave/cmd/weave", has(weavePath)); err != nil {
		return err
	}
	return build(&t.wireguard, "golang.zx2c4.com/wireguard", has(peerPath))
}

func setupVeth(_ context.Context, b *bed) (*endpoints, error) {
	return &endpoints{client: "h1", server: "h2", addr: underlay[1], mtu: b.mtu}, nil
}

// setupVxlan is the layout of the kernel path, without a daemon: a vxlan device
// as a port of the bridge the container hangs on.
func setupVxlan(ctx context.Context, b *bed) (*endpoints, error) {
	const overhead = 50 // IPv4 20, UDP 8, vxlan 8, inner Ethernet 14
	mtu := b.mtu - overhead
	for i, host := range roles[:2] {
		err := ip(ctx, host, "link add br0 type bridge", "link set br0 up",
			fmt.Sprintf("link add vx0 mtu %d type vxlan id 77 dstport 4789 local %s remote %s", mtu, underlay[i], underlay[1-i]),
			"link set vx0 master br0", "link set vx0 up")
		if err != nil {
			return nil, err
		}
		if err := b.container(ctx, i, "br0", mtu); err != nil {
			return nil, err
		}
	}
	return &endpoints{client: "c1", server: "c2", addr: overlay[1], mtu: mtu}, nil
}

// setupWireguard runs wireguard-go on both hosts. The load runs on the tun
// devices themselves: no container, no bridge.
func setupWireguard(ctx context.Context, b *bed) (*endpoints, error) {
	const overhead = 80 // what wg-quick leaves: IPv6 40, UDP 8, WireGuard 32
	mtu := b.mtu - overhead
	e := &endpoints{client: "h1", server: "h2", addr: overlay[1], mtu: mtu, sealed: true}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	for i, host := range roles[:2] {
		dev := fmt.Sprintf("%s%d-%d", devPrefix, os.Getpid(), i)
		p, err := b.daemon(host, []string{"LOG_LEVEL=error"}, b.tools.wireguard, "-f", dev)
		if err != nil {
			return nil, err
		}
		e.daemons = append(e.daemons, p.pid())
		b.leftovers = append(b.leftovers, wireguardSocket(dev))
		if err := configureWireguard(ctx, dev, p, keys[i], keys[1-i].PublicKey(), i); err != nil {
			return nil, err
		}
		err = ip(ctx, host, fmt.Sprintf("addr add %s/24 dev %s", overlay[i], dev), fmt.Sprintf("link set %s mtu %d up", dev, mtu))
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// wireguardSocket is where wireguard-go listens. It ends when the file is removed.
func wireguardSocket(dev string) string { return filepath.Join("/var/run/wireguard", dev+".sock") }

// configureWireguard speaks the configuration protocol of
// https://www.wireguard.com/xplatform/ to host i's daemon.
func configureWireguard(ctx context.Context, dev string, p *proc, own *ecdh.PrivateKey, peer *ecdh.PublicKey, i int) error {
	var conn net.Conn
	err := poll(ctx, 5*time.Second, func() (err error) {
		if err := p.failed(); err != nil {
			return fmt.Errorf("%w: %w", errGiveUp, err)
		}
		conn, err = net.Dial("unix", wireguardSocket(dev))
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n",
		hex.EncodeToString(own.Bytes()), hex.EncodeToString(peer.Bytes()),
		netip.AddrPortFrom(underlay[1-i], 51820), overlay[1-i])
	if err != nil {
		return err
	}
	reply := make([]byte, 64)
	n, err := conn.Read(reply)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(reply[:n])); got != "errno=0" {
		return fmt.Errorf("configuring %s: %s", dev, got)
	}
	return nil
}

// Overlay MTUs of weave: what it takes by itself, which is what users get, and
// on a jumbo underlay what its overhead leaves.
const (
	weaveMTU      = 1376
	weaveOverhead = 82 // UDP over IPv4, shard header and tag, inner Ethernet
)

// fastdp in place of a cipher asks for the kernel path.
const fastdp = "fastdp"

// setupWeave runs two daemons with a cipher forced, or without a password ("").
func setupWeave(cipher string) func(context.Context, *bed) (*endpoints, error) {
	return func(ctx context.Context, b *bed) (*endpoints, error) {
		e := &endpoints{client: "c1", server: "c2", addr: overlay[1], mtu: weaveMTU}
		args := []string{b.tools.weave, "launch", "--foreground", "--no-fastdp"}
		if b.mtu > 1500 {
			e.mtu = b.mtu - weaveOverhead
			args = append(args, "--mtu", strconv.Itoa(e.mtu))
		}
		switch cipher {
		case "":
		case fastdp:
			args[3] = "--fastdp=vxlan"
		default:
			password := filepath.Join(b.dir, "password")
			if err := os.WriteFile(password, []byte(rand.Text()+"\n"), 0o600); err != nil {
				return nil, err
			}
			args = append(args, "--cipher", cipher, "--password-file", password)
			e.sealed = true
		}
		for i, host := range roles[:2] {
			p, err := b.daemon(host, weaveEnv(b, host),
				append(args[:len(args):len(args)], "--nickname", host, "--name", "::"+strconv.Itoa(i+1), underlay[1-i].String())...)
			if err != nil {
				return nil, err
			}
			e.daemons = append(e.daemons, p.pid())
			if err := attachWeave(ctx, b, p, i); err != nil {
				return nil, err
			}
		}
		return e, nil
	}
}

// weaveEnv makes a daemon and its commands use directories of their own.
func weaveEnv(b *bed, host string) []string {
	return []string{
		"WEAVE_RUN_DIR=" + filepath.Join(b.dir, host, "run"),
		"WEAVE_STATE_DIR=" + filepath.Join(b.dir, host, "state"),
	}
}

// attachWeave waits for a daemon and puts its host's container on the network.
func attachWeave(ctx context.Context, b *bed, p *proc, i int) error {
	host := roles[i]
	command := append([]string{"env"}, weaveEnv(b, host)...)
	command = append(command, b.tools.weave, "attach", overlay[i].String()+"/24", "netns:"+ns(roles[i+2]))
	return poll(ctx, 15*time.Second, func() error {
		if err := p.failed(); err != nil {
			return fmt.Errorf("%w: %w", errGiveUp, err)
		}
		_, err := output(ctx, "", inNS(host, command...)...)
		return err
	})
}
