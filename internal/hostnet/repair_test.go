package hostnet_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"weave/internal/hostnet"
)

// ping reports whether the container at one end reaches the other's address.
func (w *world) talk(t *testing.T, from, addr string) bool {
	t.Helper()
	name := strings.TrimPrefix(from, "netns:")
	return w.Try("ip", "netns", "exec", name, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", addr).Code == 0
}

func TestRepairAfterBridgeWasDeleted(t *testing.T) {
	w := newBridged(t)
	_, ca := w.container(t, "a")
	_, cb := w.container(t, "b")
	a, b := w.attach(t, ca, "10.55.0.1/24"), w.attach(t, cb, "10.55.0.2/24")
	w.Exec("ip", "link", "del", bridge)
	if _, err := w.host.Repair(bridge); !errors.Is(err, hostnet.ErrNoBridge) {
		t.Fatalf("repair without a bridge: %v", err)
	}
	// Attachments are still known while the bridge is away.
	if list, err := w.host.List(bridge); err != nil || len(list) != 2 {
		t.Errorf("list %+v, %v", list, err)
	}
	if _, err := w.host.EnsureBridge(config); err != nil {
		t.Fatal(err)
	}
	if w.talk(t, a.Container, "10.55.0.2") {
		t.Fatal("they talk without a bridge between them")
	}
	done, err := w.host.Repair(bridge)
	if err != nil || len(done) != 2 {
		t.Fatalf("did %q, %v, want two ports put back", done, err)
	}
	if !w.talk(t, a.Container, "10.55.0.2") {
		t.Error("no answer after the repair")
	}
	w.Exec("ip", "link", "set", b.HostIf, "down")
	if done, err := w.host.Repair(bridge); err != nil || len(done) != 1 || !strings.Contains(done[0], b.Container) {
		t.Errorf("did %q, %v, want %s put back", done, err, b.Container)
	}
	if done, err := w.host.Repair(bridge); err != nil || len(done) != 0 {
		t.Errorf("did %q, %v, want nothing", done, err)
	}
}

func TestRepairRemovesHalfMade(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	_, kept := w.container(t, "kept")
	good := w.attach(t, kept, "10.55.0.9/24")
	// As it is after the first step of Attach, and with the peer not moved yet.
	w.Exec("ip", "link", "add", "vethweplaaaaaaa", "type", "veth", "peer", "name", "ethwe", "netns", n.Name)
	w.Exec("ip", "link", "add", "vethweplbbbbbbb", "type", "veth", "peer", "name", "half")
	w.Exec("ip", "link", "set", "vethweplbbbbbbb", "alias", "weave netns:web")
	w.Exec("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	if list, err := w.host.List(bridge); err != nil || len(list) != 1 {
		t.Errorf("list %+v, %v, want the complete one only", list, err)
	}
	done, err := w.host.Repair(bridge)
	if err != nil || len(done) != 2 {
		t.Errorf("did %q, %v, want two removed", done, err)
	}
	got := links(t, w.Namespace)
	slices.Sort(got)
	if want := []string{"veth0", "veth1", good.HostIf, bridge}; !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
	w.attach(t, c, "10.55.0.1/24")
}

// Attach itself clears away what an attach that died left in the same container.
func TestAttachReplacesHalfMade(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	w.Exec("ip", "link", "add", "vethweplaaaaaaa", "type", "veth", "peer", "name", "ethwe", "netns", n.Name)
	att := w.attach(t, c, "10.55.0.1/24")
	if got := links(t, w.Namespace); len(got) != 2 || !slices.Contains(got, att.HostIf) || att.HostIf == "vethweplaaaaaaa" {
		t.Errorf("links %q, want a pair made anew", got)
	}
}

// The name that a container would get may be taken.
func TestAttachAvoidsTakenName(t *testing.T) {
	w := newBridged(t)
	_, c := w.container(t, "web")
	first := w.attach(t, c, "10.55.0.1/24")
	if _, err := w.host.Detach(t.Context(), bridge, c, nil); err != nil {
		t.Fatal(err)
	}
	w.Exec("ip", "link", "add", first.HostIf, "type", "veth", "peer", "name", "other")
	second := w.attach(t, c, "10.55.0.1/24")
	if second.HostIf == first.HostIf {
		t.Errorf("both are called %s", first.HostIf)
	}
}

func TestReset(t *testing.T) {
	w := newBridged(t)
	n, c := w.container(t, "web")
	w.attach(t, c, "10.55.0.1/24")
	w.Exec("ip", "link", "add", "vethwe-bridge", "type", "veth", "peer", "name", "vethwe-datapath")
	w.Exec("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	w.Exec("ip", "link", "add", "br7", "type", "bridge")
	w.Exec("nft", "add table inet weave; add table ip weave; add table inet mine; add chain inet weave x")
	for i := range 2 {
		if err := w.host.Reset(bridge); err != nil {
			t.Fatalf("reset %d: %v", i+1, err)
		}
		got := links(t, w.Namespace)
		slices.Sort(got)
		if want := []string{"br7", "veth0", "veth1"}; !slices.Equal(got, want) {
			t.Errorf("links %q, want %q", got, want)
		}
		if got := links(t, n); len(got) != 0 {
			t.Errorf("links %q in the container", got)
		}
		if got := w.Exec("nft", "list", "tables"); got != "table inet mine\n" {
			t.Errorf("nftables tables:\n%s", got)
		}
	}
	if list, err := w.host.List(bridge); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v", list, err)
	}
}
