package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/vishvananda/netlink"

	"weave/internal/hostnet/ns"
	"weave/internal/vm"
)

// SkippedEnv names the environment variable with a file that gets a line for each
// test that NeedModule or NeedNoModule skips: the package's directory, the test, the
// feature. The run of the virtual machine answers for them.
const SkippedEnv = "WEAVE_SKIPPED"

// kernelFeatures says how to find out, by using it, what the kernel has.
var kernelFeatures = map[string]func() error{
	"openvswitch": func() error { return family("ovs_datapath") },
	"wireguard": func() error {
		return linkKind(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Wireguard{LinkAttrs: a} })
	},
	"vxlan": func() error {
		return linkKind(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Vxlan{LinkAttrs: a, VxlanId: 1, Port: 4789} })
	},
	"dummy": func() error {
		return linkKind(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Dummy{LinkAttrs: a} })
	},
	"netem":  netem,
	OwnClock: ownClock,
}

// OwnClock is the feature of a kernel whose time of day a test may set, since nobody else
// goes by it.
const OwnClock = "a clock of its own"

func ownClock() error {
	if !vm.Inside() {
		return errors.New("the time of day is everybody's")
	}
	return nil
}

// NeedModule skips the test, naming the feature, where the kernel does not have it:
// openvswitch, wireguard, vxlan, dummy, netem or OwnClock. Such tests run in the virtual
// machine (scripts/vm.sh), which takes the skip for a failure.
func NeedModule(t TB, name string) {
	t.Helper()
	if !has(t, name) {
		skip(t, name, vm.Lacks+" "+name)
	}
}

// HasModule reports what NeedModule asks. It is for tests that run elsewhere for other
// reasons too.
func HasModule(t TB, name string) bool {
	t.Helper()
	return has(t, name)
}

// NeedNoModule skips the test where the kernel has the feature. It is for tests of
// what is done without it.
func NeedNoModule(t TB, name string) {
	t.Helper()
	if has(t, name) {
		skip(t, name, vm.Lacks+"out "+name)
	}
}

func has(t TB, name string) bool {
	t.Helper()
	probe := kernelFeatures[name]
	if probe == nil {
		t.Fatalf("no probe for kernel feature %q", name)
	}
	thread, err := ns.NewNamespace()
	if err != nil {
		t.Skipf("needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): %v", err)
	}
	defer thread.Close()
	err = thread.Do(probe)
	if err != nil {
		t.Logf("%s: %v", name, err)
	}
	return err == nil
}

func skip(t TB, feature, why string) {
	t.Helper()
	if file := os.Getenv(SkippedEnv); file != "" {
		if err := noteSkipped(file, t.Name(), feature); err != nil {
			t.Fatalf("noting that the test is skipped: %v", err)
		}
	}
	t.Skipf("%s", why)
}

func noteSkipped(file, test, feature string) error {
	dir, err := os.Getwd() // go test starts tests in their package's directory
	if err != nil {
		return err
	}
	root := dir
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == "/" {
			return errors.New("not inside a module")
		}
		root = filepath.Dir(root)
	}
	pkg, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s %s\n", pkg, test, feature)
	return errors.Join(err, f.Close())
}

// family looks for a family of generic netlink; asking for it loads its module.
func family(name string) error {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.GetFamily(name)
	return err
}

func linkKind(make func(netlink.LinkAttrs) netlink.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	return netlink.LinkAdd(make(attrs))
}

func netem() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "tc", "qdisc", "add", "dev", "lo", "root", "netem").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
