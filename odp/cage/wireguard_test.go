package cage

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weave/internal/peer"
	"weave/odp"
)

func name(t testing.TB, s string) peer.Name {
	t.Helper()
	n, err := peer.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The addresses are protocol: both ends compute them.
func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"00:00:00:00:00:01", "84.116.197.44"},
		{"02:00:00:00:00:01", "20.116.191.212"},
		{"fe:dc:ba:98:76:54", "70.223.212.116"},
	} {
		if got := addressOf(name(t, tt.name)).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	for i := range 1000 {
		a := addressOf(name(t, "02:00:00:00:"+string("0123456789abcdef"[i/100])+"0:"+string("0123456789"[i/10%10])+string("0123456789"[i%10])))
		if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || !a.Is4() || a.As4()[0] == 0 || a.As4()[0] > 126 {
			t.Fatalf("%v", a)
		}
	}
}

var (
	now    = time.Unix(1e9, 0)
	recent = now.Add(-time.Minute)
	here   = netip.MustParseAddrPort("192.0.2.1:6785")
	roamed = netip.MustParseAddrPort("198.51.100.9:40000")
)

func newTest(t *testing.T) *wireguard {
	w := newWireguard(Config{Local: name(t, "02:00:00:00:00:01"), MTU: 1376, Port: 6785}, nil, place{})
	w.key = wgtypes.Key{9}
	return w
}

func known(t *testing.T, w *wireguard, n string, key byte, at netip.AddrPort, psk byte) netip.Addr {
	t.Helper()
	data := make([]byte, 32)
	data[0] = key
	to, err := w.know(odp.Peer{Name: name(t, n), Addr: at, Data: string(data), PSK: [32]byte{psk}})
	if err != nil {
		t.Fatal(err)
	}
	return to.Addr()
}

// held is a peer as the kernel tells of it.
func held(key byte, at netip.AddrPort, psk byte, handshake time.Time, inside ...netip.Addr) wgtypes.Peer {
	p := wgtypes.Peer{PublicKey: wgtypes.Key{key}, PresharedKey: wgtypes.Key{psk}, LastHandshakeTime: handshake, Endpoint: net.UDPAddrFromAddrPort(at)}
	for _, a := range inside {
		p.AllowedIPs = append(p.AllowedIPs, single(a))
	}
	return p
}

const b = "02:00:00:00:00:02"

// TestChanges says what the kernel is told, in words.
func TestChanges(t *testing.T) {
	inside, other := addressOf(name(t, b)), netip.MustParseAddr("10.1.1.1")
	for _, tt := range []struct {
		name  string
		have  []wgtypes.Peer
		then  func(w *wireguard) // after b is known at here with key 2 and secret 3
		addrs []netip.Addr
		want  []string
	}{
		{"new", nil, nil, []netip.Addr{inside}, []string{"add 2 at 192.0.2.1:6785 secret 3 for " + inside.String()}},
		{"as it is", []wgtypes.Peer{held(2, here, 3, recent, inside)}, nil, []netip.Addr{inside}, nil},
		{"roamed", []wgtypes.Peer{held(2, roamed, 3, recent, inside)}, nil, []netip.Addr{inside}, nil},
		{"roamed, no session", []wgtypes.Peer{held(2, roamed, 3, time.Time{}, inside)}, nil, []netip.Addr{inside},
			[]string{"remove 2", "add 2 at 192.0.2.1:6785 secret 3 for " + inside.String()}},
		{"roamed, no session, told before", []wgtypes.Peer{held(2, roamed, 3, time.Time{}, inside)}, func(w *wireguard) { w.known[inside].changed = false },
			[]netip.Addr{inside}, nil},
		{"said to be elsewhere", []wgtypes.Peer{held(2, here, 3, recent, inside)}, func(w *wireguard) { known(t, w, b, 2, roamed, 3) },
			[]netip.Addr{inside}, []string{"update 2 at 198.51.100.9:40000 secret 3"}},
		{"another secret", []wgtypes.Peer{held(2, roamed, 3, recent, inside)}, func(w *wireguard) { known(t, w, b, 2, here, 4) },
			[]netip.Addr{inside}, []string{"update 2 secret 4"}},
		{"another key", []wgtypes.Peer{held(2, here, 3, recent, inside)}, func(w *wireguard) { known(t, w, b, 5, here, 3) },
			[]netip.Addr{inside}, []string{"remove 2", "add 5 at 192.0.2.1:6785 secret 3 for " + inside.String()}},
		{"not admitted", []wgtypes.Peer{held(2, here, 3, recent, inside), held(7, here, 3, recent, other)}, nil, []netip.Addr{inside}, []string{"remove 7"}},
		{"adopted", []wgtypes.Peer{held(2, here, 3, recent, inside), held(7, here, 3, recent, other)}, nil, []netip.Addr{inside, other}, nil},
		{"more than its address", []wgtypes.Peer{held(2, here, 3, recent, inside, other)}, nil, []netip.Addr{inside, other},
			[]string{"remove 2", "add 2 at 192.0.2.1:6785 secret 3 for " + inside.String()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTest(t)
			known(t, w, b, 2, here, 3)
			if tt.then != nil {
				tt.then(w)
			}
			cfg := w.changes(&wgtypes.Device{PrivateKey: w.key, ListenPort: 6785, Peers: tt.have}, tt.addrs, now)
			if cfg.PrivateKey != nil || cfg.ListenPort != nil || cfg.ReplacePeers {
				t.Errorf("changes the device: %+v", cfg)
			}
			var got []string
			for _, p := range cfg.Peers {
				got = append(got, words(p))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func words(p wgtypes.PeerConfig) string {
	n := func(k wgtypes.Key) string { return string('0' + k[0]) }
	switch {
	case p.Remove:
		return "remove " + n(p.PublicKey)
	case !p.UpdateOnly && (!p.ReplaceAllowedIPs || len(p.AllowedIPs) != 1):
		return "peer with wrong addresses"
	}
	s := "add "
	if p.UpdateOnly {
		s = "update "
	}
	s += n(p.PublicKey)
	if p.Endpoint != nil {
		s += " at " + p.Endpoint.String()
	}
	s += " secret " + n(*p.PresharedKey)
	if len(p.AllowedIPs) == 1 {
		s += " for " + p.AllowedIPs[0].IP.String()
	}
	return s
}

func TestDeviceIsPutRight(t *testing.T) {
	w := newTest(t)
	cfg := w.changes(&wgtypes.Device{PrivateKey: wgtypes.Key{1}, ListenPort: 1}, nil, now)
	if cfg.PrivateKey == nil || *cfg.PrivateKey != w.key || cfg.ListenPort == nil || *cfg.ListenPort != 6785 {
		t.Errorf("got %+v", cfg)
	}
}

func TestRefused(t *testing.T) {
	w := newTest(t)
	public := w.key.PublicKey()
	good := odp.Peer{Name: name(t, b), Addr: here, Data: string(append([]byte{2}, make([]byte, 31)...)), PSK: [32]byte{3}}
	for _, tt := range []struct {
		what   string
		change func(*odp.Peer)
		reason string
	}{
		{"no key", func(p *odp.Peer) { p.Data = "" }, odp.ReasonVersion},
		{"long key", func(p *odp.Peer) { p.Data += "x" }, odp.ReasonVersion},
		{"zero key", func(p *odp.Peer) { p.Data = string(make([]byte, 32)) }, odp.ReasonVersion},
		{"our key", func(p *odp.Peer) { p.Data = string(public[:]) }, odp.ReasonVersion},
		{"no secret", func(p *odp.Peer) { p.PSK = [32]byte{} }, odp.ReasonPolicy},
		{"our name", func(p *odp.Peer) { p.Name = name(t, "02:00:00:00:00:01") }, odp.ReasonDevice},
		{"nothing wrong", func(*odp.Peer) {}, ""},
	} {
		p := good
		tt.change(&p)
		to, err := w.know(p)
		if got := odp.ReasonOf(err); got != tt.reason || to.IsValid() == (err != nil) {
			t.Errorf("%s: got %v, %q (%v), want %q", tt.what, to, got, err, tt.reason)
		}
	}
}

// Two peers with one address inside: the first keeps it.
func TestCollision(t *testing.T) {
	w := newTest(t)
	at := known(t, w, b, 2, here, 3)
	w.known[at].name = name(t, "02:00:00:00:00:07")
	_, err := w.know(odp.Peer{Name: name(t, b), Addr: here, Data: string(append([]byte{4}, make([]byte, 31)...)), PSK: [32]byte{3}})
	if odp.ReasonOf(err) != odp.ReasonDevice || w.known[at].key != (wgtypes.Key{2}) {
		t.Errorf("%v", err)
	}
}
