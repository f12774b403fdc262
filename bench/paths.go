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
	"strings"
	"time"
)

// path is one way to join two endpoints.
type path struct {
	name  string // in results and -only
	title string // in tables
	kind  kind
	needs string // of kernelFeatures, besides what every kernel has; "" is nothing
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

	// check, where there is one, tells at the end whether what was measured was
	// this path all along.
	check func(context.Context) error
}

// The denominators of the ratios.
const (
	refPeer   = "wireguard-go"
	refKernel = "vxlan"
	refCage   = "kernel-wg-vxlan"
)

func allPaths() []path {
	return []path{
		{"veth", "raw veth (underlay)", kernelPath, "", setupVeth},
		{refKernel, "kernel vxlan, bridged", kernelPath, "", setupVxlan},
		{"kernel-wg", "kernel WireGuard (layer 3)", kernelPath, wireguardModule, setupKernelWireguard},
		{refCage, "vxlan in kernel WireGuard", kernelPath, wireguardModule, setupKernelCage},
		{refPeer, "wireguard-go (layer 3)", peerPath, "", setupWireguard},
		{"weave-fastdp", "weave fastdp (vxlan), clear", weavePath, "", setupWeave(daemons{path: fastdp, flags: []string{"--fastdp=vxlan"}})},
		{"weave-ovs", "weave fastdp (ovs), clear", weavePath, ovsModule, setupWeave(daemons{path: fastdp, flags: []string{"--fastdp=ovs"}})},
		{"weave-cage", "weave fastdp (cage), ChaCha20", weavePath, wireguardModule, setupWeave(daemons{path: fastdp, password: true, flags: []string{"--encrypted-path=kernel"}})},
		{"weave-clear", "weave sleeve, clear", weavePath, "", setupWeave(daemons{path: sleeve, flags: []string{"--no-fastdp"}})},
		{"weave-aes", "weave sleeve, AES-256-GCM", weavePath, "", setupWeave(daemons{path: sleeve, password: true, flags: []string{"--no-fastdp", "--cipher=aes"}})},
		{"weave-relay", "weave sleeve, AES, relayed", weavePath, "", setupWeave(daemons{path: sleeve, password: true, relayed: true, flags: []string{"--no-fastdp", "--cipher=aes"}})},
		{"weave-chacha", "weave sleeve, ChaCha20", weavePath, "", setupWeave(daemons{path: sleeve, password: true, flags: []string{"--no-fastdp", "--cipher=chacha"}})},
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
	return b.vxlanBridges(ctx, underlay, b.mtu-vxlanOverhead)
}

// vxlanBridges gives each host a bridge with its container and a vxlan device, which
// reaches the other host's by these addresses.
func (b *bed) vxlanBridges(ctx context.Context, addrs [2]netip.Addr, mtu int) (*endpoints, error) {
	for i, host := range roles[:2] {
		err := ip(ctx, host, "link add br0 type bridge", "link set br0 up",
			fmt.Sprintf("link add vx0 mtu %d type vxlan id 77 dstport 4789 local %s remote %s", mtu, addrs[i], addrs[1-i]),
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
	_, err = fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n",
		hex.EncodeToString(own.Bytes()), wireguardPort, hex.EncodeToString(peer.Bytes()),
		netip.AddrPortFrom(underlay[1-i], wireguardPort), overlay[1-i])
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
