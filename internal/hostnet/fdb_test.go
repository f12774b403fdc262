package hostnet_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"weave/internal/ether"
	"weave/internal/hostnet"
)

// fdbWorld is a bridge with two containers, and the router's port.
type fdbWorld struct {
	*world
	fdb    *hostnet.FDB
	router hostnet.Port
	cont   [2]containerEnd
}

type containerEnd struct {
	hostnet.Attachment
	say  func(t *testing.T, m ether.MAC) // send a frame from m
	port int                             // ifindex of the host end
}

func newFDBWorld(t *testing.T) *fdbWorld {
	t.Helper()
	w := &fdbWorld{world: newBridged(t)}
	w.tap(t, "tap0")
	var err error
	if w.router, err = w.host.AddRouterPort(bridge, "tap0"); err != nil {
		t.Fatal(err)
	}
	w.fdb = w.host.FDB(bridge)
	for i, addr := range []string{"10.55.0.1/24", "10.55.0.2/24"} {
		n, c := w.container(t, "c"+addr[8:9])
		att := w.attach(t, c, addr)
		w.cont[i] = containerEnd{
			Attachment: att,
			say:        func(t *testing.T, m ether.MAC) { t.Helper(); say(t, n, "ethwe", m) },
			port:       link(t, w.Namespace, att.HostIf).Attrs().Index,
		}
	}
	return w
}

func TestFDBReplaceAndDelete(t *testing.T) {
	w := newFDBWorld(t)
	remote := mac(1)
	line := func() string { return w.fdbLine(t, remote) }

	if err := w.fdb.Replace(remote, w.router.Index); err != nil {
		t.Fatal(err)
	}
	if got := line(); !strings.Contains(got, "dev tap0") || !strings.Contains(got, "extern_learn") || strings.Contains(got, "permanent") {
		t.Errorf("entry is %q", got)
	}
	// Again, and to another port, as when a faster path comes up.
	for _, p := range []struct {
		port int
		name string
	}{{w.router.Index, "tap0"}, {w.cont[0].port, w.cont[0].HostIf}, {w.router.Index, "tap0"}} {
		if err := w.fdb.Replace(remote, p.port); err != nil {
			t.Fatal(err)
		}
		if got := line(); !strings.Contains(got, "dev "+p.name+" ") || !strings.Contains(got, "extern_learn") {
			t.Errorf("entry is %q, want it on %s", got, p.name)
		}
	}
	if err := w.fdb.Delete(remote, w.cont[0].port); err != nil || line() == "" {
		t.Errorf("deleting from another port: %v, entry is %q", err, line())
	}
	for range 2 {
		if err := w.fdb.Delete(remote, w.router.Index); err != nil || line() != "" {
			t.Errorf("deleting: %v, entry is %q", err, line())
		}
	}
	if err := w.fdb.Replace(remote, 99999); err == nil {
		t.Error("an absent port was taken")
	}
	if err := w.fdb.Delete(remote, 99999); err != nil {
		t.Errorf("deleting from an absent port: %v", err)
	}
}

func TestFDBFlush(t *testing.T) {
	w := newFDBWorld(t)
	for i := range 50 {
		if err := w.fdb.Replace(mac(byte(i)), w.router.Index); err != nil {
			t.Fatal(err)
		}
	}
	other := mac(200)
	if err := w.fdb.Replace(other, w.cont[0].port); err != nil {
		t.Fatal(err)
	}
	if err := w.fdb.Flush(w.router.Index); err != nil {
		t.Fatal(err)
	}
	if got := w.fdbLine(t, mac(7)); got != "" {
		t.Errorf("entry is %q", got)
	}
	if got := w.fdbLine(t, other); got == "" {
		t.Error("an entry on another port is gone")
	}
	if err := w.fdb.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := w.fdbLine(t, other); got != "" {
		t.Errorf("entry is %q", got)
	}
	if got := w.fdbLine(t, w.cont[0].MAC); got == "" {
		t.Error("a local entry is gone")
	}
	if err := w.host.FDB("nobridge").Flush(); err != nil {
		t.Errorf("flushing without a bridge: %v", err)
	}
}

// watch runs a Watch and returns a look at the last event of a MAC.
func (w *fdbWorld) watch(t *testing.T) (last func(ether.MAC) hostnet.FDBEvent) {
	t.Helper()
	events := make(chan hostnet.FDBEvent, 65536)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.fdb.Watch(ctx, func(ev hostnet.FDBEvent) { events <- ev }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	state := make(map[ether.MAC]hostnet.FDBEvent)
	return func(m ether.MAC) hostnet.FDBEvent {
		for {
			select {
			case ev := <-events:
				state[ev.MAC] = ev
			default:
				return state[m]
			}
		}
	}
}

func TestFDBWatch(t *testing.T) {
	w := newFDBWorld(t)
	early, a, b := mac(9), mac(1), mac(2)
	w.cont[0].say(t, early)
	last := w.watch(t)
	at := func(m ether.MAC, port int) func() bool { return func() bool { return last(m).Port == port } }

	eventually(t, "MACs from before the watch", at(early, w.cont[0].port))
	eventually(t, "the container's MAC", at(w.cont[1].MAC, w.cont[1].port))
	br := link(t, w.Namespace, bridge).Attrs().Index
	eventually(t, "the bridge's own MAC", func() bool { return last(bridgeMAC) == hostnet.FDBEvent{MAC: bridgeMAC, Port: br, Permanent: true} })

	w.cont[0].say(t, a)
	eventually(t, "a appears", at(a, w.cont[0].port))
	w.cont[1].say(t, a)
	eventually(t, "a moves", at(a, w.cont[1].port))
	if err := w.fdb.Replace(a, w.router.Index); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a becomes remote", at(a, 0))
	w.cont[0].say(t, a)
	eventually(t, "a comes home", at(a, w.cont[0].port))
	if got := w.fdbLine(t, a); strings.Contains(got, "extern_learn") {
		t.Errorf("entry is %q", got)
	}
	if err := w.fdb.Delete(a, w.cont[0].port); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a is deleted", at(a, 0))

	// Remote MACs are not local news.
	if err := w.fdb.Replace(b, w.router.Index); err != nil {
		t.Fatal(err)
	}
	w.cont[0].say(t, a)
	eventually(t, "a appears after b was entered", at(a, w.cont[0].port))
	if got := last(b); got != (hostnet.FDBEvent{}) {
		t.Errorf("an event %+v of a remote MAC", got)
	}
	if _, err := w.host.Detach(t.Context(), bridge, ref(t, w.cont[0].Container), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a goes with its port", at(a, 0))
}

// What comes out of the router's port must not make a MAC local.
func TestFDBRouterPortDoesNotLearn(t *testing.T) {
	w := newBridged(t)
	tap := w.tap(t, "tap0")
	router, err := w.host.AddRouterPort(bridge, "tap0")
	if err != nil {
		t.Fatal(err)
	}
	fw := &fdbWorld{world: w, fdb: w.host.FDB(bridge), router: router}
	n, c := w.container(t, "web")
	w.attach(t, c, "10.55.0.1/24")
	last := fw.watch(t)
	frame := append(ether.Broadcast[:6:6], make([]byte, 54)...)
	m := mac(5)
	copy(frame[6:], m[:])
	if _, err := tap.Write(frame); err != nil {
		t.Fatal(err)
	}
	say(t, n, "ethwe", mac(6)) // comes after it
	eventually(t, "the container's MAC", func() bool { return last(mac(6)).Port != 0 })
	if got := last(mac(5)); got.Port != 0 {
		t.Errorf("event %+v", got)
	}
	if got := w.fdbLine(t, mac(5)); got != "" {
		t.Errorf("entry is %q", got)
	}
}

func TestFDBWatchFollowsTheBridge(t *testing.T) {
	w := newFDBWorld(t)
	last := w.watch(t)
	old := w.cont[0].MAC
	eventually(t, "the container's MAC", func() bool { return last(old).Port == w.cont[0].port })
	w.Exec("ip", "link", "del", bridge)
	eventually(t, "gone with the bridge", func() bool { return last(old).Port == 0 })
	if _, err := w.host.EnsureBridge(config); err != nil {
		t.Fatal(err)
	}
	if _, err := w.host.Repair(bridge); err != nil {
		t.Fatal(err)
	}
	eventually(t, "seen on the new bridge", func() bool {
		w.cont[0].say(t, old)
		return last(old).Port == w.cont[0].port
	})
}

// The kernel drops notifications that are not read in time. Watch must notice and
// look again.
func TestFDBWatchCatchesUpAfterLoss(t *testing.T) {
	w := newFDBWorld(t)
	const n = 20000
	macOf := func(i int) ether.MAC { return ether.MAC{2, 0xbb, 0, 0, byte(i >> 8), byte(i)} }
	blocked, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	state := make(map[ether.MAC]int) // owned by Watch until it returns
	first := true
	go func() {
		done <- w.fdb.Watch(ctx, func(ev hostnet.FDBEvent) {
			if first {
				first = false
				close(blocked)
				<-release
			}
			state[ev.MAC] = ev.Port
			if ev.MAC == mac(77) {
				cancel()
			}
		})
	}()
	<-blocked
	if err := w.fill(macOf, n, w.cont[0].port); err != nil {
		t.Fatal(err)
	}
	if err := w.fdb.Delete(macOf(5), w.cont[0].port); err != nil {
		t.Fatal(err)
	}
	close(release)
	eventually(t, "the last MAC", func() bool {
		w.cont[0].say(t, mac(77))
		return ctx.Err() != nil
	})
	<-done
	missing := 0
	for i := range n {
		if i != 5 && state[macOf(i)] != w.cont[0].port {
			missing++
		}
	}
	if missing > 0 || state[macOf(5)] != 0 {
		t.Errorf("%d of %d MACs missing; the deleted one is at port %d", missing, n, state[macOf(5)])
	}
}
