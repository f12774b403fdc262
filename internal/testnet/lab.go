// Package testnet builds small networks out of network namespaces and runs whole
// daemons in them, for tests that need a real kernel and for the demo.
//
// A [Lab] has an underlay, which is a bridge in a namespace of its own, and hosts,
// which are namespaces plugged into it; a [Host] has containers, which are plain
// namespaces. Nothing is made in the root namespace, so labs of several test
// processes do not meet and the machine's own network is never touched.
//
//	host a ── eth0 ──── p1 ┐                       ┌ p2 ──── eth0 ── host b
//	  └ container          ├ br0 (namespace "net") ┤           └ container
//	                       └ rules: cut, loss      ┘
//
// Everything is removed when the test ends, also when it fails or panics; what a
// killed test process left is removed by the next [New].
//
// # Concurrency
//
// A Lab and what it hands out belong to the goroutine of the test, except
// [Host.Container], [Namespace.Delete], [Namespace.Do], [Namespace.Command] and the
// methods of [Capture] and [Cmd], which any goroutine may call; a host may be another
// goroutine's than the Lab.
package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// TB is the part of testing.TB that a Lab needs, so that programs that are no
// tests can bring their own. Fatalf and Skipf do not return.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Lab is a network of hosts.
type Lab struct {
	t      TB
	prefix string // of its namespaces' names
	dir    string // run and state directories of the daemons
	mu     sync.Mutex
	spaces []*Namespace // under mu: tests make and delete containers side by side
	hosts  []*Host
	middle *Namespace     // the underlay's switch; made with the first host
	rules  map[[2]int]int // permille lost, by the indexes of two hosts
	hold   bool           // rules change, but are not enforced yet
}

// New makes an empty Lab that is removed when the test ends. It skips the test if
// the process may not make network namespaces.
func New(t TB) *Lab {
	t.Helper()
	sweep()
	prefix := fmt.Sprintf("%s%d-", ownPrefix(), serial.Add(1))
	leakCheck(t, prefix)                      // registered first, so it looks last
	dir, err := os.MkdirTemp("", ownPrefix()) // not t.TempDir: a socket's path has 107 bytes
	if err != nil {
		t.Fatalf("making a lab: %v", err)
	}
	l := &Lab{t: t, prefix: prefix, dir: dir, rules: make(map[[2]int]int)}
	t.Cleanup(l.close)
	probe, err := l.namespace("probe")
	if errors.Is(err, unix.EPERM) {
		t.Skipf("needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run go test -exec sudo")
	}
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	probe.close()
	return l
}

// Namespace makes a namespace that is plugged into nothing, with lo up.
func (l *Lab) Namespace(label string) *Namespace {
	l.t.Helper()
	n, err := l.namespace(label)
	if err != nil {
		l.t.Fatalf("making namespace %s: %v", label, err)
	}
	return n
}

func (l *Lab) close() {
	l.mu.Lock()
	spaces := l.spaces
	l.mu.Unlock()
	for _, n := range spaces {
		n.close()
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("removing the lab's directory: %v", err)
	}
}

// netnsDir is where `ip netns` and weave look for names.
const netnsDir = "/run/netns"

// serial numbers the labs of this process and their namespaces.
var serial atomic.Int64

// ownPrefix starts the names of this process's namespaces.
func ownPrefix() string { return fmt.Sprintf("wv%d-", os.Getpid()) }

// sweep removes what test processes that were killed have left.
func sweep() {
	remove(func(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH })
}

// remove removes the namespaces, with the processes in them, and the directories
// of the labs of those processes that dead says.
func remove(dead func(pid int) bool) {
	owned := func(dir string) (out []string) {
		paths, _ := filepath.Glob(filepath.Join(dir, "wv[0-9]*-*"))
		for _, path := range paths {
			text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "wv"), "-")
			if pid, err := strconv.Atoi(text); err == nil && dead(pid) {
				out = append(out, path)
			}
		}
		return out
	}
	for _, path := range owned(netnsDir) {
		killAll(inodeOf(path))
		unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
	}
	for _, path := range owned(os.TempDir()) {
		os.RemoveAll(path)
	}
}

// leakCheck makes the test fail if, when it has ended and its lab is gone, there are
// more namespaces whose names start with prefix, processes in them, or weave's links
// in the process's own namespace, than now. Other labs of the process, whose tests
// may run at the same time, do not count.
func leakCheck(t TB, prefix string) {
	before := ownThings(prefix)
	t.Cleanup(func() {
		for thing := range ownThings(prefix) {
			if !before[thing] {
				t.Errorf("left behind: %s", thing)
			}
		}
	})
}

// ownThings lists what labs and daemons make.
func ownThings(prefix string) map[string]bool {
	out := make(map[string]bool)
	names, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	for _, path := range names {
		out["namespace "+path] = true
		for _, pid := range processesIn(inodeOf(path)) {
			out[fmt.Sprintf("process %d in %s", pid, path)] = true
		}
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, link := range links {
		if name := link.Name(); name == "weave" || strings.HasPrefix(name, "vethwe") {
			out["link "+name] = true
		}
	}
	return out
}

// inodeOf identifies the namespace at path; 0 if there is none.
func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// processesIn lists the processes in a namespace, without this one.
func processesIn(inode uint64) (pids []int) {
	if inode == 0 {
		return nil
	}
	want := fmt.Sprintf("net:[%d]", inode)
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && got == want {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killAll kills the processes in a namespace. All of them descend from the lab:
// nobody else knows the namespace.
func killAll(inode uint64) {
	for _, pid := range processesIn(inode) {
		unix.Kill(pid, unix.SIGKILL)
	}
}
