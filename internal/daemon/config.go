package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/cpu"

	"weave/crypto/session"
	"weave/internal/api"
	"weave/internal/peer"
	"weave/mesh"
)

// DefaultMTU is the overlay's MTU: it fits every underlay with an MTU of 1458 or
// more, those of the large clouds included.
const DefaultMTU = 1376

// Config is all a daemon needs to know. Zero values mean the default.
type Config struct {
	Version  string
	Name     peer.Name // zero: stored, else derived from the host
	NickName string    // zero: the host name's job is the caller's; may stay empty

	Host     netip.Addr // address to bind; zero: all
	Port     uint16     // control (TCP) and sleeve (UDP); 0: 6783
	Password []byte     // nil: none, data goes in clear. Run clears it
	Peers    []string   // targets
	Resume   bool       // use the stored targets; Peers must be empty
	Trusted  []netip.Prefix

	ConnLimit   int
	NoDiscovery bool

	MTU    int    // of the overlay
	Cipher string // "auto", "aes", "chacha"
	FastDP string // "auto", "vxlan", "ovs", "off": no kernel path at all
	// EncryptedPath says who carries data that must be encrypted: "sleeve" (the
	// default), "kernel", or "auto", which is the kernel where user space has no AES.
	EncryptedPath string
	// MinPath is the worst path that is in order: "sleeve" (the default) or "kernel".
	// Below it status says degraded, and log and metrics tell; traffic goes on, or with
	// "kernel,refuse" does not.
	MinPath string
	Bridge  string // "weave"
	Lanes   int    // 0: by the number of CPUs

	Addressing Addressing
	Naming     Naming

	RekeyAfter time.Duration // age at which a link's keys are replaced; 0: the default. For tests

	RunDir, StateDir string
	StatusAddr       string // empty: no status listener
	HostRoot         string // where /etc and /sys are; empty: /

	Log   *slog.Logger
	Ready func(peer.Name) // called once, when commands will be answered; may be nil
}

// fill sets defaults and checks what the command line cannot.
func (c *Config) fill() error {
	if c.Port == 0 {
		c.Port = mesh.DefaultPort
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < 576 || c.MTU > 65000 {
		return api.Errorf(api.CodeUsage, "overlay MTU %d: want 576 to 65000", c.MTU)
	}
	if c.Bridge == "" {
		c.Bridge = "weave"
	}
	if c.Lanes == 0 {
		c.Lanes = defaultLanes(runtime.NumCPU())
	}
	if c.HostRoot == "" {
		c.HostRoot = "/"
	}
	if c.Resume && len(c.Peers) > 0 {
		return api.Errorf(api.CodeUsage, "--resume and peers: give one of them")
	}
	if _, err := c.ciphers(); err != nil {
		return err
	}
	if err := errors.Join(c.Addressing.Check(), c.Naming.Check()); err != nil {
		return api.Errorf(api.CodeUsage, "%w", err)
	}
	return c.fillPaths()
}

// Words of Config.FastDP that are no backend's name.
const (
	fastAuto = "auto"
	fastOff  = "off"
)

// fillPaths is fill for what concerns kernel paths.
func (c *Config) fillPaths() error {
	for _, v := range []struct {
		flag  string
		to    *string
		words []string // the default first
	}{
		{"fastdp", &c.FastDP, []string{fastAuto, fastOff, "vxlan", "ovs"}},
		{"encrypted-path", &c.EncryptedPath, []string{sealedSleeve, sealedKernel, sealedAuto}},
		{"min-path", &c.MinPath, []string{"sleeve", "kernel", "kernel,alert", "kernel,refuse"}},
	} {
		if *v.to == "" {
			*v.to = v.words[0]
		}
		if !slices.Contains(v.words, *v.to) {
			return api.Errorf(api.CodeUsage, "--%s=%s: want one of %s", v.flag, *v.to, strings.Join(v.words, ", "))
		}
	}
	if c.FastDP == fastOff && c.EncryptedPath == sealedKernel {
		return api.Errorf(api.CodeUsage, "--no-fastdp and --encrypted-path=kernel contradict each other")
	}
	min, err := parseMinPath(c.MinPath)
	if err != nil {
		return err
	}
	return min.possible(c)
}

// asksKernel reports whether a kernel path was asked for by name.
func (c *Config) asksKernel() bool {
	return c.FastDP != fastAuto && c.FastDP != fastOff || c.EncryptedPath == sealedKernel
}

// defaultLanes is one lane until there are cores to spare for a second pair of
// workers.
func defaultLanes(cpus int) int {
	switch {
	case cpus <= 2:
		return 1
	case cpus < 8:
		return 2
	}
	return min(cpus/4, 8)
}

// ciphers are what this host offers for data, preferred first.
func (c *Config) ciphers() ([]session.Cipher, error) {
	switch c.Cipher {
	case "", "auto":
		if fastAES() {
			return []session.Cipher{session.CipherAES, session.CipherChaCha}, nil
		}
		return []session.Cipher{session.CipherChaCha, session.CipherAES}, nil
	case "aes":
		return []session.Cipher{session.CipherAES}, nil
	case "chacha":
		return []session.Cipher{session.CipherChaCha}, nil
	}
	return nil, api.Errorf(api.CodeUsage, "--cipher=%s: want auto, aes or chacha", c.Cipher)
}

// fastAES reports whether the CPU has instructions for both halves of GCM.
func fastAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
}
