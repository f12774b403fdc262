package fastdp_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/api"
	"weave/internal/e2e/harness"
	"weave/internal/testnet"
)

// kind is a kernel path, with what tests of all of them have to know.
type kind struct {
	name    string
	module  string // of the kernel, that not every machine has
	sealed  bool
	args    []string // that ask for it
	port    string   // UDP
	device  string   // the bridge's port
	device6 string   // the same on an IPv6 underlay
	tunnel  string   // the vxlan device
	over    int      // bytes it adds to inner packets, on IPv4
}

var kinds = []kind{
	{name: "vxlan", port: "6784", device: "weavevx", device6: "weavevx6", tunnel: "weavevx", over: 50},
	{name: "ovs", module: "openvswitch", args: []string{"--fastdp=ovs"}, port: "6784", device: "weave-ovs", device6: "weave-ovs", tunnel: "weave-ovsvx", over: 50},
	{
		name: "cage", module: "wireguard", sealed: true, args: []string{"--encrypted-path=kernel"},
		port: "6785", device: "weavecage", device6: "weavecage", tunnel: "weavecage", over: 110,
	},
}

// each runs a test with each kind of kernel path, or with some. Those that need a
// machine within the machine, which is slow, are run there by make test if they are
// among quick, and else by make vm-test-all.
func each(t *testing.T, quick string, test func(*testing.T, kind), only ...string) {
	t.Helper()
	for _, k := range kinds {
		if len(only) > 0 && !strings.Contains(strings.Join(only, " "), k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			switch {
			case k.module == "":
			case strings.Contains(quick, k.name):
				testnet.NeedModule(t, k.module)
			case testing.Short() || !testnet.HasModule(t, k.module):
				t.Skipf("run by make vm-test-all")
			}
			test(t, k)
		})
	}
}

// flags are those of a daemon that uses the path, and more.
func (k kind) flags(t *testing.T, more ...string) []string {
	t.Helper()
	out := append([]string{}, k.args...)
	if k.sealed {
		out = append(out, "--password-file="+harness.PasswordFile(t, harness.Password))
	}
	return append(out, more...)
}

// limit is how long joining may take: a machine within a machine is slow.
func (k kind) limit() time.Duration {
	if k.module == "" {
		return joinLimit
	}
	return slowJoin
}

// joined makes two sites whose containers talk by the kernel.
func (k kind) joined(t *testing.T, more ...string) (*testnet.Lab, *site, *site) {
	t.Helper()
	lab, a, b := newSites(t)
	up(a, b, k.flags(t, more...)...)
	k.settled(t, a, b)
	return lab, a, b
}

// settled waits until two sites use the kernel, and the way is warm.
func (k kind) settled(t *testing.T, a, b *site) {
	t.Helper()
	on(t, "fastdp", k.limit(), a, b)
	harness.Within(t, k.limit(), "pings", func() bool { return a.pings(b, 3, "0.1") == 0 })
	if got := a.why("b"); len(got.Candidates) == 0 || !usesBackend(got, k.name) {
		t.Fatalf("not on %s: %+v", k.name, got)
	}
}

// usesBackend reports whether a connection uses a backend of the kernel path.
func usesBackend(w api.Why, name string) bool {
	return slices.ContainsFunc(w.Candidates, func(c api.Candidate) bool {
		return c.Backend == name && c.Verdict == api.VerdictInUse
	})
}

// pace is the time between packets of a stream that the machine bears.
func (k kind) pace() time.Duration {
	if k.module == "" {
		return 10 * time.Millisecond
	}
	return 50 * time.Millisecond
}

// flow is a thin TCP stream between the containers.
func (s *site) flow(o *site, every time.Duration) *harness.Flow {
	s.t.Helper()
	return harness.FlowBetween(s.t, s.Box, o.Box, o.In4, 4<<10, every)
}
