package daemon

import (
	"errors"
	"net/netip"
	"testing"

	"weave/crypto/session"
	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/odp"
)

var somewhere = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}

// Policy comes first: what it forbids is not looked for in the kernel.
func TestDecideKernel(t *testing.T) {
	pw := []byte("secret")
	for _, tt := range []struct {
		name          string
		cfg           Config
		quarantined   bool
		clear, sealed string
	}{
		{"no password", Config{}, false, "", "off"},
		{"password", Config{Password: pw}, false, "encryption", "off"},
		{"password and trust", Config{Password: pw, Trusted: somewhere}, false, "", "off"},
		{"password, kernel", Config{Password: pw, EncryptedPath: "kernel"}, false, "encryption", ""},
		{"password, trust, auto", Config{Password: pw, Trusted: somewhere, EncryptedPath: "auto"}, false, "", ""},
		{"no password, kernel", Config{EncryptedPath: "kernel"}, false, "", "clear"},
		{"off", Config{FastDP: "off"}, false, "off", "off"},
		{"off, auto", Config{Password: pw, FastDP: "off", EncryptedPath: "auto"}, false, "off", "off"},
		{"no port", Config{Port: 65535}, false, "port-in-use", "off"},
		{"quarantine", Config{}, true, "quarantine", "off"},
		{"quarantine, encrypted", Config{Password: pw, EncryptedPath: "auto"}, true, "encryption", "quarantine"},
		{"quarantine, asked by name", Config{FastDP: "vxlan"}, true, "", "off"},
	} {
		if err := tt.cfg.fill(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		c, s := decideKernel(&tt.cfg, &trial{quarantined: tt.quarantined})
		if c.reason != tt.clear || s.reason != tt.sealed {
			t.Errorf("%s: clear %q, sealed %q; want %q, %q", tt.name, c.reason, s.reason, tt.clear, tt.sealed)
		}
	}
}

// What is asked for by name is there, or the launch is refused with the module's name;
// otherwise the next backend is taken.
func TestChooseBackend(t *testing.T) {
	all := kernelBackends
	defer func() { kernelBackends = all }()
	missing := errors.New("the kernel has no such thing")
	backend := func(name, path string, err error) kernelBackend {
		return kernelBackend{name: name, path: path, module: name + "-module", probe: func() error { return err }}
	}
	lacks := func(why string) error { return &odp.ReasonError{Why: why, Err: missing} }
	for _, tt := range []struct {
		name      string
		have      []kernelBackend
		must, use string
		reasons   []string
		err       string
	}{
		{"first", []kernelBackend{backend("a", odp.Name, nil), backend("b", odp.Name, nil)}, "", "a", []string{"", "spare"}, ""},
		{"second", []kernelBackend{backend("a", odp.Name, lacks("no-a")), backend("b", odp.Name, nil)}, "", "b", []string{"no-a", ""}, ""},
		{"by name", []kernelBackend{backend("a", odp.Name, nil), backend("b", odp.Name, nil)}, "b", "b", []string{"off", ""}, ""},
		{"none", []kernelBackend{backend("a", odp.Name, lacks("no-a")), backend("c", odp.SealedName, nil)}, "", "", []string{"no-a"}, ""},
		{"by name, and missing", []kernelBackend{backend("a", odp.Name, lacks("no-a"))}, "a", "", []string{"no-a"}, "the kernel cannot do a: the kernel has no such thing: load module a-module, or ask for auto"},
	} {
		kernelBackends = tt.have
		use, list, err := chooseBackend(odp.Name, tt.must)
		got := ""
		if use != nil {
			got = use.name
		}
		var reasons []string
		for _, c := range list {
			reasons = append(reasons, c.reason)
		}
		text := ""
		if err != nil {
			text = err.Error()
			if api.CodeOf(err) != api.CodeKernelFeature {
				t.Errorf("%s: code %s", tt.name, api.CodeOf(err))
			}
		}
		if got != tt.use || len(reasons) != len(tt.reasons) || text != tt.err {
			t.Errorf("%s: %q, reasons %q, error %q; want %q, %q, %q", tt.name, got, reasons, text, tt.use, tt.reasons, tt.err)
			continue
		}
		for i := range reasons {
			if reasons[i] != tt.reasons[i] {
				t.Errorf("%s: reasons %q, want %q", tt.name, reasons, tt.reasons)
			}
		}
	}
}

func TestMinPathFlag(t *testing.T) {
	pw := []byte("secret")
	for _, tt := range []struct {
		cfg  Config
		want minPath
		ok   bool
	}{
		{Config{}, minPath{}, true},
		{Config{MinPath: "sleeve"}, minPath{}, true},
		{Config{MinPath: "kernel"}, minPath{kernel: true}, true},
		{Config{MinPath: "kernel,alert"}, minPath{kernel: true}, true},
		{Config{MinPath: "kernel,refuse"}, minPath{kernel: true, refuse: true}, true},
		{Config{MinPath: "kernel,refuse", FastDP: "off"}, minPath{}, false},
		{Config{MinPath: "kernel,refuse", Password: pw}, minPath{}, false},
		{Config{MinPath: "kernel,refuse", Password: pw, EncryptedPath: "kernel"}, minPath{kernel: true, refuse: true}, true},
		{Config{MinPath: "kernel", Password: pw}, minPath{kernel: true}, true},
		{Config{MinPath: "refuse"}, minPath{}, false},
		{Config{MinPath: "kernel,never"}, minPath{}, false},
		{Config{EncryptedPath: "kernel", FastDP: "off"}, minPath{}, false},
		{Config{EncryptedPath: "cage"}, minPath{}, false},
	} {
		err := tt.cfg.fill()
		if (err == nil) != tt.ok || err != nil && api.CodeOf(err) != api.CodeUsage {
			t.Errorf("%q with password %v: %v", tt.cfg.MinPath, tt.cfg.Password != nil, err)
		}
		if err == nil {
			if got, _ := parseMinPath(tt.cfg.MinPath); got != tt.want {
				t.Errorf("%q: %+v, want %+v", tt.cfg.MinPath, got, tt.want)
			}
		}
	}
}

// lastHop counts frames in place of sleeve.
type lastHop struct{ sent, relayed int }

func (p *lastHop) Start()                                         {}
func (p *lastHop) Control([]byte)                                 {}
func (p *lastHop) Close()                                         {}
func (p *lastHop) Status() overlay.Status                         { return overlay.Status{} }
func (p *lastHop) Send(int, peer.Route, *ether.Superframe)        { p.sent++ }
func (p *lastHop) Relay(int, peer.Route, ether.Offload, [][]byte) { p.relayed++ }

// Below a minimum that refuses no frame passes, and what a neighbour would relay for us
// does not either.
func TestGate(t *testing.T) {
	kernel, slow := peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1}), peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2})
	hop := &lastHop{}
	links := map[peer.Name][]overlay.Link{kernel: {&odp.Link{}, hop}, slow: {hop}}
	var g gate
	g.setLinks(links)
	g.path(slow, hop).Send(0, peer.Route{}, nil)
	if hop.sent != 1 {
		t.Error("the zero gate does not let frames pass")
	}
	g.min = minPath{kernel: true, refuse: true}
	g.setLinks(links)
	g.path(slow, hop).Send(0, peer.Route{}, nil)
	g.path(slow, hop).Relay(0, peer.Route{}, ether.Offload{}, nil)
	g.far(kernel, hop).Send(0, peer.Route{}, nil)
	if hop.sent != 1 || hop.relayed != 0 || g.frames(slow) != 2 || g.frames(kernel) != 1 {
		t.Errorf("%+v, %d and %d refused", hop, g.frames(slow), g.frames(kernel))
	}
	g.path(kernel, hop).Send(0, peer.Route{}, nil)
	g.far(kernel, hop).Relay(0, peer.Route{}, ether.Offload{}, nil)
	if hop.sent != 2 || hop.relayed != 1 {
		t.Errorf("%+v: broadcasts, and frames of others, do not pass", hop)
	}
	links[slow] = []overlay.Link{&odp.Link{}, hop}
	g.setLinks(links)
	g.path(slow, hop).Send(0, peer.Route{}, nil)
	if hop.sent != 3 || g.shut.Load() != nil {
		t.Errorf("%+v: shut though the kernel is used", hop)
	}
}

// A connection has one of two kernel paths; why it is not used is why that one is not.
func TestWhyNot(t *testing.T) {
	var (
		clearDown  = overlay.Status{Path: odp.Name, Reason: "no-reply", Remote: netip.MustParseAddrPort("192.0.2.1:6784")}
		sealedDown = overlay.Status{Path: odp.Name, Reason: "mtu", Remote: clearDown.Remote, Cipher: session.CipherChaCha}
		noClear    = overlay.Status{Path: odp.Name, Reason: "encryption"}
		noSealed   = overlay.Status{Path: odp.SealedName, Reason: "clear"}
	)
	both := &kernelPaths{}
	noCage := &kernelPaths{sealed: kernelPath{off: reasonedPath{reason: "off"}}}
	noModule := &kernelPaths{sealed: kernelPath{off: reasonedPath{reason: "no-wireguard"}}}
	for _, tt := range []struct {
		name      string
		k         *kernelPaths
		encrypted bool
		links     []overlay.Status
		want      string
	}{
		{"clear", both, false, []overlay.Status{clearDown, noSealed}, "no-reply"},
		{"encrypted", both, true, []overlay.Status{sealedDown, noClear}, "mtu"},
		{"encrypted, not wanted", noCage, true, []overlay.Status{noClear}, "encryption"},
		{"encrypted, no module", noModule, true, []overlay.Status{noClear}, "no-wireguard"},
		{"clear, no module for the other", noModule, false, []overlay.Status{clearDown}, "no-reply"},
		{"not offered", both, true, []overlay.Status{noClear}, "not-offered"},
	} {
		c := mesh.ConnStatus{State: mesh.StateEstablished, Path: "sleeve", Encrypted: tt.encrypted, Links: tt.links}
		if got := tt.k.whyNot(c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Each backend of a path is told of by itself, whatever comes before it.
func TestCandidates(t *testing.T) {
	backend := func(i int, reason string) choice { return choice{kernelBackend: &kernelBackends[i], reason: reason} }
	up := mesh.ConnStatus{Path: odp.Name, Links: []overlay.Status{{
		Path: odp.Name, Up: true, MTU: 1376, Remote: netip.MustParseAddrPort("192.0.2.1:6784"),
	}}}
	for _, backends := range [][]choice{
		{backend(0, odp.ReasonOff), backend(1, "")},
		{backend(0, ""), backend(1, odp.ReasonSpare)},
	} {
		d := &daemon{kernel: &kernelPaths{clear: kernelPath{backends: backends}}}
		got := d.candidates(up)
		for i, b := range backends {
			want := api.VerdictInUse
			if b.reason != "" {
				want = api.VerdictAbsent
			}
			if got[i].Backend != b.name || got[i].Verdict != want || got[i].Reason != b.reason {
				t.Errorf("%s: %+v, want %s, reason %q", b.name, got[i], want, b.reason)
			}
		}
	}
}
