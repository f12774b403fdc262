package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses. The underlay's come from the block for benchmarks (RFC 2544).
var (
	underlay = [2]netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")}
	overlay  = [2]netip.Addr{netip.MustParseAddr("10.55.0.1"), netip.MustParseAddr("10.55.0.2")}
)

// bed is one path's place: two hosts h1 and h2 joined by an underlay, and two
// containers c1 and c2, joined by nothing yet.
type bed struct {
	tools tools
	dir   string // scratch directory, removed with the bed
	mtu   int    // of the underlay
	procs []*proc

	leftovers []string // files elsewhere that a killed process would leave
}

// nsPrefix starts the name of every namespace a bench makes.
const nsPrefix = "wvbench-"

// The same for the scratch directory, and for wireguard-go's devices, whose
// sockets lie in a directory that all namespaces share.
const (
	tempPrefix = "weave-bench-"
	devPrefix  = "wvb"
)

var roles = []string{"h1", "h2", "c1", "c2"}

// relayRole is a host that only relayed paths have.
const relayRole = "h3"

// ns returns the name of the namespace of a role.
func ns(role string) string { return nsPrefix + strconv.Itoa(os.Getpid()) + "-" + role }

func newBed(ctx context.Context, t tools, parent string, mtu int) (*bed, error) {
	dir, err := os.MkdirTemp(parent, "bed-")
	if err != nil {
		return nil, err
	}
	b := &bed{tools: t, dir: dir, mtu: mtu}
	if err := b.build(ctx); err != nil {
		b.close()
		return nil, fmt.Errorf("making the underlay: %w", err)
	}
	return b, nil
}

func (b *bed) build(ctx context.Context) error {
	for _, role := range roles {
		if err := ip(ctx, "", "netns add "+ns(role)); err != nil {
			return err
		}
		if err := ip(ctx, role, "link set lo up"); err != nil {
			return err
		}
	}
	err := ip(ctx, "h1",
		fmt.Sprintf("link add under mtu %d type veth peer name under netns %s mtu %d", b.mtu, ns("h2"), b.mtu),
		fmt.Sprintf("addr add %s/24 dev under", underlay[0]), "link set under up")
	if err != nil {
		return err
	}
	return ip(ctx, "h2", fmt.Sprintf("addr add %s/24 dev under", underlay[1]), "link set under up")
}

// close ends the bed's processes and removes its namespaces. It works after a
// signal too, hence no context.
func (b *bed) close() {
	for _, p := range b.procs {
		p.cmd.Process.Signal(syscall.SIGTERM) // all at once: stop waits for each
	}
	for _, p := range b.procs {
		p.stop()
	}
	for _, role := range append(roles[:len(roles):len(roles)], relayRole) {
		removeNamespace(ns(role))
	}
	for _, name := range b.leftovers {
		os.Remove(name)
	}
	os.RemoveAll(b.dir)
}

// daemon starts a program in a role's namespace that runs as long as the bed.
func (b *bed) daemon(role string, env []string, args ...string) (*proc, error) {
	p, err := start(append(plainEnv(), env...), inNS(role, args...)...)
	if err == nil {
		b.procs = append(b.procs, p)
	}
	return p, err
}

// plainEnv is the environment without the settings of a weave that the user runs.
func plainEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEAVE_") })
}

// container joins c1 or c2 to a bridge of its host by a veth pair.
func (b *bed) container(ctx context.Context, i int, bridge string, mtu int) error {
	host, guest := roles[i], roles[i+2]
	err := ip(ctx, host,
		fmt.Sprintf("link add port mtu %d type veth peer name eth0 netns %s mtu %d", mtu, ns(guest), mtu),
		"link set port master "+bridge, "link set port up")
	if err != nil {
		return err
	}
	return ip(ctx, guest, fmt.Sprintf("addr add %s/24 dev eth0", overlay[i]), "link set eth0 up")
}

// awaitPath waits until a packet of the path's full MTU comes back.
func (b *bed) awaitPath(ctx context.Context, e *endpoints) error {
	size := strconv.Itoa(e.mtu - 28)
	return poll(ctx, patience, func() error {
		for _, p := range b.procs {
			if err := p.failed(); err != nil {
				return errors.Join(errGiveUp, err)
			}
		}
		_, err := output(ctx, "", inNS(e.client, "ping", "-q", "-n", "-c1", "-W1", "-M", "do", "-s", size, e.addr.String())...)
		if err != nil {
			// A path that is still probing its MTU may have said a smaller one,
			// which the client's kernel would believe for ten minutes.
			ip(ctx, e.client, "route flush cache")
		}
		return err
	})
}

// ip runs commands of ip(8), one each, in a role's namespace ("": the bench's own).
func ip(ctx context.Context, role string, commands ...string) error {
	args := []string{"ip"}
	if role != "" {
		args = append(args, "-n", ns(role))
	}
	for _, c := range commands {
		if _, err := output(ctx, "", append(args, strings.Fields(c)...)...); err != nil {
			return err
		}
	}
	return nil
}

// inNS returns the command line that runs args in a role's namespace. ip(8)
// replaces itself by the program, so the process ID is the program's.
func inNS(role string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", ns(role)}, args...)
}

// removeNamespace ends what still runs in a namespace of ours and deletes it,
// with all its devices.
func removeNamespace(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := os.Stat(filepath.Join("/run/netns", name))
	if err != nil {
		return
	}
	pids, _ := output(ctx, "", "ip", "netns", "pids", name)
	for s := range strings.FieldsSeq(string(pids)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 1 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if id, ok := st.Sys().(*syscall.Stat_t); ok {
		// A daemon leaves its cage behind, for its successor.
		output(ctx, "", "ip", "netns", "del", cagePrefix+strconv.FormatUint(id.Ino, 10))
	}
	if _, err := output(ctx, "", "ip", "netns", "del", name); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// cagePrefix and the inode number of a host's namespace are the name of its cage's.
const cagePrefix = "weave-cage-"

// sweep removes what a bench that was killed has left. Whoever holds the lock is
// the only bench, so it is nobody's.
func sweep() {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), nsPrefix) {
			removeNamespace(e.Name())
		}
	}
	for _, pattern := range []string{filepath.Join(os.TempDir(), tempPrefix+"*"), wireguardSocket(devPrefix + "*")} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			os.RemoveAll(name)
		}
	}
}

// lock waits until no other bench runs on this machine.
func lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "weave-bench.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	try := func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	if try() != nil {
		fmt.Fprintln(os.Stderr, "bench: waiting for another bench on this machine")
		if err := poll(ctx, 24*time.Hour, try); err != nil {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
	return func() { f.Close() }, nil
}
