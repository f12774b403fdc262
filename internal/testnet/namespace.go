package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
)

// Namespace is a network namespace with a name under /run/netns.
type Namespace struct {
	Name string // unique on the machine
	NL   *netlink.Handle

	lab    *Lab
	inode  uint64
	thread *ns.Thread
}

// Path is the file that stands for the namespace.
func (n *Namespace) Path() string { return filepath.Join(netnsDir, n.Name) }

// Ref is the namespace as weave's CONTAINER argument.
func (n *Namespace) Ref() string { return "netns:" + n.Name }

// Do runs fn on a thread inside the namespace. Sockets made there stay there. fn
// must not call t.Fatal, Do or Command.
func (n *Namespace) Do(fn func() error) error { return n.thread.Do(fn) }

func (l *Lab) namespace(label string) (*Namespace, error) {
	n := &Namespace{Name: fmt.Sprintf("%s%d-%s", l.prefix, serial.Add(1), label), lab: l}
	var err error
	if n.thread, err = ns.NewNamespace(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, n)
	l.mu.Unlock()
	if err := n.Do(n.setUp); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// setUp runs inside the new namespace.
func (n *Namespace) setUp() (err error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(n.Path(), nil, 0o444); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", n.Path(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("naming the namespace: %w", err)
	}
	n.inode = inodeOf(n.Path())
	// Kernels with br_netfilter send bridged frames through iptables otherwise.
	for _, f := range []string{"iptables", "ip6tables", "arptables"} {
		os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+f, []byte("0"), 0)
	}
	if n.NL, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	lo, err := n.NL.LinkByName("lo")
	if err != nil {
		return err
	}
	return n.NL.LinkSetUp(lo)
}

// Delete removes the namespace before the lab ends, as when a container dies. The
// processes in it are killed.
func (n *Namespace) Delete() {
	n.lab.mu.Lock()
	n.lab.spaces = slices.DeleteFunc(n.lab.spaces, func(o *Namespace) bool { return o == n })
	n.lab.mu.Unlock()
	n.close()
}

// close is idempotent.
func (n *Namespace) close() {
	if n.thread == nil {
		return
	}
	for range 100 { // processes may be forking
		if len(processesIn(n.inode)) == 0 {
			break
		}
		killAll(n.inode)
		time.Sleep(5 * time.Millisecond)
	}
	if n.NL != nil {
		n.NL.Close()
	}
	n.thread.Close()
	n.thread = nil
	unix.Unmount(n.Path(), unix.MNT_DETACH)
	os.Remove(n.Path())
}

// Cmd is a command inside a namespace. Its Start, Run, Output and CombinedOutput
// are those of exec.Cmd; the process dies with the lab.
type Cmd struct {
	*exec.Cmd
	in *Namespace
}

// Command prepares a command; ctx's end kills it.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	// The signal comes when the namespace's thread ends, or the test process.
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	// Also counts from the end of the command until all it wrote was read, which is
	// long on a slow machine.
	c.WaitDelay = 10 * time.Second
	return &Cmd{c, n}
}

// Start starts the command inside the namespace.
func (c *Cmd) Start() error { return c.in.Do(c.Cmd.Start) }

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns all it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Exec runs a command for at most 30 s and returns what it wrote to its standard
// output. The test fails at once if the command does.
func (n *Namespace) Exec(name string, args ...string) string {
	n.lab.t.Helper()
	r := n.Try(name, args...)
	if r.Code != 0 {
		n.lab.t.Fatalf("%s in %s: exit %d\n%s%s", strings.Join(append([]string{name}, args...), " "), n.Name, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Result is what became of a command.
type Result struct {
	Stdout, Stderr string
	Code           int // -1: not started, or killed
}

// Try runs a command for at most 30 s.
func (n *Namespace) Try(name string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return n.Command(ctx, name, args...).result()
}

func (c *Cmd) result() (r Result) {
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	r = Result{Stdout: out.String(), Stderr: errOut.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code = -1
		r.Stderr += err.Error()
	}
	return r
}
