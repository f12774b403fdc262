package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/api"
	"weave/internal/peer"
	"weave/internal/store"
	"weave/ipam"
	"weave/nameserver"
	"weave/nameserver/registry"
)

func TestAddressingCheck(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tt := range []struct {
		a    Addressing
		want string
	}{
		{Addressing{}, ""},
		{Addressing{Range: DefaultRange}, ""},
		{Addressing{Range: p("10.2.0.0/30"), DefaultSubnet: p("10.2.0.0/30"), Init: "observer"}, ""},
		{Addressing{Range: p("10.2.0.0/16"), DefaultSubnet: p("10.0.0.0/8"), Init: "seed=::1"}, ""}, // the rest is for addresses given by hand
		{Addressing{Init: "observer"}, "needs an --ipalloc-range"},
		{Addressing{DefaultSubnet: p("10.2.0.0/16")}, "needs an --ipalloc-range"},
		{Addressing{Range: p("10.2.0.0/31")}, "too small"},
		{Addressing{Range: p("10.2.0.1/16")}, "did you mean 10.2.0.0/16"},
		{Addressing{Range: p("fd00::/64")}, "IPv4"},
		{Addressing{Range: p("0.0.0.0/0")}, "IPv4 subnet"},
		{Addressing{Range: p("10.2.0.0/16"), DefaultSubnet: p("10.3.0.0/16")}, "nothing in common"},
		{Addressing{Range: p("10.2.0.0/16"), DefaultSubnet: p("10.2.0.1/24")}, "did you mean 10.2.0.0/24"},
		{Addressing{Range: p("10.2.0.0/16"), Init: "consensus="}, "consensus=N"},
	} {
		err := tt.a.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.a, err, tt.want)
		}
	}
}

func TestParseInit(t *testing.T) {
	one, _ := peer.ParseName("::1")
	two, _ := peer.ParseName("02:00:00:00:00:02")
	for in, want := range map[string]ipam.Init{
		"":                           {},
		"consensus":                  {},
		"consensus=3":                {Electors: 3},
		"observer":                   {Mode: ipam.Observer},
		"seed=::1":                   {Mode: ipam.Seed, Seeds: []peer.Name{one}},
		"seed=::1,02:00:00:00:00:02": {Mode: ipam.Seed, Seeds: []peer.Name{one, two}},
	} {
		got, err := ParseInit(in)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b peer.Name) bool { return a == b })); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", in, err, diff)
		}
	}
	for _, in := range []string{"seed", "seed=", "seed=::", "seed=::1,", "seed=host1", "consensus=0", "consensus=-1", "consensus=x", "observer=1", "Observer"} {
		if got, err := ParseInit(in); err == nil {
			t.Errorf("%q is %+v", in, got)
		}
	}
}

// Refusals of addresses and names have a code of their own, and keep their words.
func TestAddressCodes(t *testing.T) {
	for err, want := range map[error]api.Code{
		ipam.ErrNoQuorum: api.CodeTimeout, ipam.ErrWaiting: api.CodeTimeout, ipam.ErrNotTaken: api.CodeTimeout,
		ipam.ErrExhausted: api.CodeConflict, ipam.ErrInUse: api.CodeConflict, ipam.ErrAlive: api.CodeConflict, ipam.ErrIdentity: api.CodeConflict,
		ipam.ErrNotFound: api.CodeNotFound, ipam.ErrStopped: api.CodeNotRunning, ipam.ErrSubnet: api.CodeUsage, ipam.ErrBusy: api.CodeFailure,
		nameserver.ErrOutsideDomain: api.CodeUsage, registry.ErrBadName: api.CodeUsage, registry.ErrContainer: api.CodeUsage, registry.ErrFull: api.CodeFailure,
	} {
		got := coded(fmt.Errorf("doing it: %w", err))
		if api.CodeOf(got) != want || got.Error() != "doing it: "+err.Error() || !errors.Is(got, err) {
			t.Errorf("%v: %v %q, want %v", err, api.CodeOf(got), got, want)
		}
	}
}

func prefixes(text ...string) (out []netip.Prefix) {
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// What is taken away is what was named: an address with its length, or all of a subnet.
func TestPick(t *testing.T) {
	a := &addresses{subnet: netip.MustParsePrefix("10.32.0.0/12")}
	have := prefixes("10.32.0.1/12", "10.2.1.1/24", "10.2.1.2/24", "fd00::1/64")
	for _, tt := range []struct {
		args string
		want []netip.Prefix
	}{
		{"", have},
		{"10.2.1.1/24", prefixes("10.2.1.1/24")},
		{"10.2.1.1/16", nil},
		{"net:10.2.1.0/24", prefixes("10.2.1.1/24", "10.2.1.2/24")},
		{"net:default 10.2.1.2/24 net:10.2.1.0/24", prefixes("10.32.0.1/12", "10.2.1.2/24", "10.2.1.1/24")},
		{"net:10.2.0.0/16", nil},
		{"fd00::1/64 10.9.9.9/24", prefixes("fd00::1/64")},
	} {
		var want []api.Addr
		for _, word := range strings.Fields(tt.args) {
			w, err := api.ParseAddr(word)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, w)
		}
		if got := a.pick(have, want); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.args, got, tt.want)
		}
	}
}

// Without an allocator, given addresses are taken as they are, and no others.
func TestObtainWithoutAllocator(t *testing.T) {
	a := &addresses{log: slog.New(slog.DiscardHandler)}
	given := []api.Addr{api.AddrOf(netip.MustParsePrefix("10.2.1.1/24")), api.AddrOf(netip.MustParsePrefix("10.2.1.1/24"))}
	got, release, err := a.obtain(context.Background(), "c", given, ipam.Options{})
	if err != nil || !slices.Equal(got, prefixes("10.2.1.1/24")) {
		t.Errorf("got %v, %v", got, err)
	}
	release()
	for _, want := range [][]api.Addr{nil, {api.DefaultNet}} {
		if _, _, err := a.obtain(context.Background(), "c", want, ipam.Options{}); api.CodeOf(err) != api.CodeUsage {
			t.Errorf("%v: %v", want, err)
		}
	}
}

func TestIPAMStore(t *testing.T) {
	s, err := store.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := ipamStore{s}
	if got, err := st.Load(); len(got) != 0 || err != nil {
		t.Errorf("empty: %v, %v", got, err)
	}
	for _, changes := range [][]ipam.Record{
		{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}},
		{{Key: "a", Value: []byte("3")}, {Key: "b"}, {Key: "gone"}, {Key: "c", Value: []byte{}}},
	} {
		if err := st.Save(changes); err != nil {
			t.Fatal(err)
		}
	}
	got, err := st.Load()
	want := []ipam.Record{{Key: "a", Value: []byte("3")}, {Key: "c", Value: []byte{}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	// A bad change spoils all of them.
	if err := st.Save([]ipam.Record{{Key: "d", Value: []byte("1")}, {Key: "", Value: []byte("1")}}); err == nil {
		t.Error("a record without a key was saved")
	}
	if again, _ := st.Load(); len(again) != 2 {
		t.Errorf("half a transaction: %v", again)
	}
}

func TestRecordKey(t *testing.T) {
	for _, r := range []record{
		{"netns:web", "web.weave.local.", netip.MustParseAddr("10.32.0.1")},
		{identExtern, "db.weave.local.", netip.MustParseAddr("2001:db8::1")},
	} {
		if got, ok := parseRecord(r.key()); !ok || got != r {
			t.Errorf("%+v reads as %+v, %v", r, got, ok)
		}
	}
	for _, key := range []string{"", "a", "a\x00b", "a\x00b\x00c", "a\x00b\x0010.0.0.1\x00d"} {
		if r, ok := parseRecord(key); ok {
			t.Errorf("%q reads as %+v", key, r)
		}
	}
}

// Only containers and the host itself may ask.
func TestAllow(t *testing.T) {
	n := &names{}
	n.sources.Store(&sources{nets: prefixes("10.32.0.0/12", "fd00::/64"), hosts: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}})
	for text, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.33.0.1": true, "::ffff:10.33.0.1": true, "fd00::5": true, "192.0.2.1": true,
		"192.0.2.2": false, "10.1.0.1": false, "fd01::1": false, "fe80::1%eth0": false, "8.8.8.8": false,
	} {
		if got := n.allow(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
