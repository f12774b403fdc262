package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"weave/internal/api"
	"weave/internal/daemon"
	"weave/internal/peer"
)

// LaunchConfig is all that the daemon is told.
type LaunchConfig struct {
	RunDir         string            `json:"run_dir"`
	StateDir       string            `json:"state_dir"`
	Name           peer.Name         `json:"name"` // zero: stored or derived
	NickName       string            `json:"nickname"`
	Host           netip.Addr        `json:"host,omitzero"` // invalid: all addresses
	Port           uint16            `json:"port"`          // the kernel path uses Port+1
	Peers          []string          `json:"peers"`         // valid for api.ParsePeer
	Resume         bool              `json:"resume"`        // take the targets of the last run
	Discovery      bool              `json:"discovery"`
	TrustedSubnets []netip.Prefix    `json:"trusted_subnets"`
	ConnLimit      int               `json:"conn_limit"`     // 0: none
	MTU            int               `json:"mtu"`            // of the overlay; 0: the default
	Cipher         string            `json:"cipher"`         // one of ciphers
	FastDP         string            `json:"fastdp"`         // one of fastdps
	EncryptedPath  string            `json:"encrypted_path"` // one of encryptedPaths
	MinPath        string            `json:"min_path"`       // one of minPaths
	Bridge         string            `json:"bridge"`
	Addressing     daemon.Addressing `json:"addressing"`
	Naming         daemon.Naming     `json:"naming"`
	StatusAddr     string            `json:"status_addr"` // "": no listener
	LogLevel       slog.Level        `json:"log_level"`
	LogFormat      string            `json:"log_format"` // one of logFormats
	Version        string            `json:"version"`

	// Password is "" for none. It is not part of the JSON form.
	Password Secret `json:"-"`
	// Log and Ready are there when the daemon runs. Ready is to be called once, as
	// soon as the control socket answers.
	Log   *slog.Logger    `json:"-"`
	Ready func(peer.Name) `json:"-"`
}

// Secret is text that does not print itself. string(s) reveals it.
type Secret string

const redacted = "[redacted]"

// String hides the secret from %v and %s.
func (s Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return redacted }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Words that flags take.
var (
	ciphers  = []string{"auto", "aes", "chacha"}
	fastdps  = []string{"auto", "vxlan", "ovs", "off"}
	minPaths = []string{"sleeve", "kernel", "kernel,alert", "kernel,refuse"}

	encryptedPaths = []string{"sleeve", "kernel", "auto"}
	logFormats     = []string{"auto", "text", "json"}
	logLevels      = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn, "error": slog.LevelError}
)

// Limits and defaults of launch.
const (
	defaultPort       = 6783
	defaultConnLimit  = 200
	defaultStatusAddr = "127.0.0.1:6782"
	defaultBridge     = "weave"
	minMTU            = 576 // RFC 791: what every IPv4 host can receive
	maxMTU            = 65535 - 14
	maxNickName       = 255
	maxDevice         = 15 // IFNAMSIZ less the NUL
)

// launchFlags are launch's flags as typed.
type launchFlags struct {
	password, passwordFile       string
	name, nickname, host         string
	port, mtu, connLimit         int
	trusted, peers               []string
	resume, noDiscovery          bool
	cipher, fastdp, minPath      string
	encryptedPath                string
	noFastdp                     bool
	bridge, statusAddr           string
	logLevel, logFormat          string
	foreground                   bool
	ranges, defaultSubnet, init  string
	noDNS                        bool
	dnsDomain, dnsListen         string
	dnsTTL                       uint32
	resolvConf                   string
	rangeGiven                   bool
	passwordGiven, passwordInEnv bool
}

func (l *launchFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.passwordFile, "password-file", "", "read the password from this file, - for standard input (env WEAVE_PASSWORD_FILE)")
	f.StringVar(&l.password, "password", "", "password of the network; --password-file keeps it out of shell histories (env WEAVE_PASSWORD)")
	f.StringVar(&l.name, "name", "", "peer name such as 02:aa:bb:cc:dd:ee or ::1 (default: stored, or derived from the machine's ids)")
	f.StringVar(&l.nickname, "nickname", "", "name to show (default: the hostname)")
	f.StringVar(&l.host, "host", "", "listen on this address only, and connect from it")
	f.IntVar(&l.port, "port", defaultPort, "TCP and UDP port; the kernel path uses the next one (env WEAVE_PORT)")
	f.StringSliceVar(&l.trusted, "trusted-subnets", nil, "peers there may be talked to in clear, if they agree")
	f.IntVar(&l.connLimit, "conn-limit", defaultConnLimit, "most connections at a time, 0 for no limit")
	f.BoolVar(&l.noDiscovery, "no-discovery", false, "connect to the given peers only, not to those they know")
	f.BoolVar(&l.resume, "resume", false, "connect to the peers of the last run")
	f.IntVar(&l.mtu, "mtu", 0, "MTU of the network, 0 for the default (env WEAVE_MTU)")
	f.StringVar(&l.cipher, "cipher", "auto", oneOf(ciphers))
	f.StringVar(&l.fastdp, "fastdp", "auto", "kernel data path: "+oneOf(fastdps))
	f.BoolVar(&l.noFastdp, "no-fastdp", false, "same as --fastdp=off (env WEAVE_NO_FASTDP)")
	f.StringVar(&l.encryptedPath, "encrypted-path", "sleeve", "who carries data that must be encrypted: sleeve; kernel (WireGuard) where both hosts can; auto: the kernel where the CPUs have no AES")
	f.StringVar(&l.minPath, "min-path", "sleeve", "be degraded (status --check, log, metrics) while a connection uses a worse path: sleeve or kernel; with kernel,refuse it carries nothing until then")
	f.StringVar(&l.bridge, "bridge", defaultBridge, "name of the bridge device")
	f.StringVar(&l.ranges, "ipalloc-range", daemon.DefaultRange.String(), "range of the addresses given out, alike on all hosts; empty to give out none")
	f.StringVar(&l.defaultSubnet, "ipalloc-default-subnet", "", "subnet of addresses that are asked for without one (default: the range)")
	f.StringVar(&l.init, "ipalloc-init", "", "how the range is first divided: consensus, consensus=N, seed=NAME,NAME,... or observer (default: consensus among the given peers)")
	f.BoolVar(&l.noDNS, "no-dns", false, "answer no DNS here; the other hosts learn of the names all the same")
	f.StringVar(&l.dnsDomain, "dns-domain", "weave.local.", "domain of the containers' names, alike on all hosts")
	f.StringVar(&l.dnsListen, "dns-listen-address", "", "ADDRESS or ADDRESS:PORT to serve names at (default: port 53 of the addresses of weave expose)")
	f.Uint32Var(&l.dnsTTL, "dns-ttl", 1, "seconds that others may keep an answer")
	f.StringVar(&l.resolvConf, "resolv-conf", "", "file with the name servers that are asked for all other names (default: /etc/resolv.conf)")
	f.StringVar(&l.statusAddr, "status-addr", defaultStatusAddr, "where to serve status and metrics, empty for nowhere (env WEAVE_STATUS_ADDR)")
	f.StringVar(&l.logLevel, "log-level", "info", "debug, info, warning or error")
	f.StringVar(&l.logFormat, "log-format", "auto", oneOf(logFormats)+"; auto is text on a terminal")
	f.BoolVar(&l.foreground, "foreground", false, "stay in the foreground, for service managers and containers")
	for name, words := range map[string][]string{"cipher": ciphers, "fastdp": fastdps, "encrypted-path": encryptedPaths, "min-path": minPaths, "log-format": logFormats, "log-level": {"debug", "info", "warning", "error"}} {
		cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
}

func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// fromEnv takes the variables for flags that were not given.
func (l *launchFlags) fromEnv(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	given := cmd.Flags().Changed
	for _, v := range []struct {
		name, flag string
		to         *int
	}{{"WEAVE_PORT", "port", &l.port}, {"WEAVE_MTU", "mtu", &l.mtu}} {
		text, ok := lookup(v.name)
		if !ok || text == "" || given(v.flag) {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s=%q: want a number", v.name, text)
		}
		*v.to = n
	}
	if addr, ok := lookup("WEAVE_STATUS_ADDR"); ok && !given("status-addr") {
		l.statusAddr = addr // empty turns it off
	}
	if off, ok := lookup("WEAVE_NO_FASTDP"); ok && off != "" && !given("fastdp") && !given("no-fastdp") {
		l.noFastdp = true
	}
	if l.noFastdp && given("fastdp") && l.fastdp != "off" {
		return fmt.Errorf("--no-fastdp and --fastdp=%s contradict each other", l.fastdp)
	}
	l.passwordGiven, l.rangeGiven = given("password"), given("ipalloc-range")
	_, l.passwordInEnv = lookup("WEAVE_PASSWORD")
	return nil
}

// config checks all flags but the password.
func (l *launchFlags) config(global globalFlags) (LaunchConfig, error) {
	cfg := LaunchConfig{
		RunDir: global.runDir, StateDir: global.stateDir,
		NickName: l.nickname, Peers: l.peers, Resume: l.resume, Discovery: !l.noDiscovery,
		ConnLimit: l.connLimit, MTU: l.mtu, Cipher: l.cipher, FastDP: l.fastdp, EncryptedPath: l.encryptedPath, MinPath: l.minPath, Bridge: l.bridge,
		StatusAddr: l.statusAddr, LogFormat: l.logFormat, Version: version,
	}
	if l.noFastdp {
		cfg.FastDP = "off"
	}
	for _, check := range []func(*LaunchConfig) error{l.words, l.numbers, l.identity, l.addresses, l.addressing, l.naming} {
		if err := check(&cfg); err != nil {
			return LaunchConfig{}, err
		}
	}
	return cfg, nil
}

func (l *launchFlags) words(cfg *LaunchConfig) error {
	for _, w := range []struct {
		flag, got string
		want      []string
	}{{"cipher", cfg.Cipher, ciphers}, {"fastdp", cfg.FastDP, fastdps}, {"encrypted-path", cfg.EncryptedPath, encryptedPaths}, {"min-path", cfg.MinPath, minPaths}, {"log-format", cfg.LogFormat, logFormats}} {
		if !slices.Contains(w.want, w.got) {
			return fmt.Errorf("--%s %q: want %s", w.flag, w.got, oneOf(w.want))
		}
	}
	level, ok := logLevels[l.logLevel]
	if !ok {
		return fmt.Errorf("--log-level %q: want debug, info, warning or error", l.logLevel)
	}
	cfg.LogLevel = level
	return nil
}

func (l *launchFlags) numbers(cfg *LaunchConfig) error {
	switch {
	case l.port < 1 || l.port > 65534:
		return fmt.Errorf("--port %d: want 1 to 65534", l.port)
	case l.mtu != 0 && (l.mtu < minMTU || l.mtu > maxMTU):
		return fmt.Errorf("--mtu %d: want %d to %d, or 0", l.mtu, minMTU, maxMTU)
	case l.connLimit < 0:
		return fmt.Errorf("--conn-limit %d: want 0 or more", l.connLimit)
	}
	cfg.Port = uint16(l.port)
	return nil
}

func (l *launchFlags) identity(cfg *LaunchConfig) (err error) {
	if l.name != "" {
		if cfg.Name, err = peer.ParseName(l.name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
		if cfg.Name.IsZero() {
			return fmt.Errorf("--name %q: all zeros is no name", l.name)
		}
	}
	if cfg.NickName == "" {
		if cfg.NickName, err = os.Hostname(); err != nil {
			return fmt.Errorf("no hostname: %w: give --nickname", err)
		}
	}
	if len(cfg.NickName) > maxNickName || !utf8.ValidString(cfg.NickName) || strings.ContainsFunc(cfg.NickName, unicode.IsControl) {
		return fmt.Errorf("--nickname: want at most %d bytes of text", maxNickName)
	}
	if !isDevice(cfg.Bridge) {
		return fmt.Errorf("--bridge %q: want a device name of at most %d characters", cfg.Bridge, maxDevice)
	}
	return nil
}

// isDevice follows dev_valid_name of the kernel's net/core/dev.c, and wants
// printable ASCII besides.
func isDevice(s string) bool {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' }
	return s != "" && len(s) <= maxDevice && s != "." && s != ".." && !strings.ContainsFunc(s, bad)
}

func (l *launchFlags) addresses(cfg *LaunchConfig) (err error) {
	if l.resume && len(l.peers) > 0 {
		return fmt.Errorf("--resume takes the peers of the last run: give no others")
	}
	for _, p := range l.peers {
		if _, err := api.ParsePeer(p); err != nil {
			return err
		}
	}
	if l.host != "" {
		if cfg.Host, err = netip.ParseAddr(l.host); err != nil {
			return fmt.Errorf("--host %q: want an IP address of this host", l.host)
		}
	}
	for _, text := range l.trusted {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("--trusted-subnets %q: want subnets such as 192.0.2.0/24", text)
		}
		cfg.TrustedSubnets = append(cfg.TrustedSubnets, p.Masked())
	}
	if l.statusAddr != "" {
		if _, port, err := net.SplitHostPort(l.statusAddr); err != nil || !isPort(port) {
			return fmt.Errorf("--status-addr %q: want ADDRESS:PORT, or nothing", l.statusAddr)
		}
	}
	return nil
}

func (l *launchFlags) addressing(cfg *LaunchConfig) (err error) {
	a := daemon.Addressing{RangeGiven: l.rangeGiven && l.ranges != "", Init: l.init}
	for _, v := range []struct {
		flag, text string
		to         *netip.Prefix
	}{{"ipalloc-range", l.ranges, &a.Range}, {"ipalloc-default-subnet", l.defaultSubnet, &a.DefaultSubnet}} {
		if v.text == "" {
			continue
		}
		if *v.to, err = netip.ParsePrefix(v.text); err != nil {
			return fmt.Errorf("--%s %q: want a subnet such as %v", v.flag, v.text, daemon.DefaultRange)
		}
	}
	cfg.Addressing = a
	return a.Check()
}

// dnsPort is where resolvers look for a server.
const dnsPort = 53

func (l *launchFlags) naming(cfg *LaunchConfig) (err error) {
	n := daemon.Naming{Off: l.noDNS, Domain: l.dnsDomain, TTL: &l.dnsTTL}
	if l.dnsListen != "" {
		if addr, err := netip.ParseAddr(l.dnsListen); err == nil {
			n.Listen = netip.AddrPortFrom(addr, dnsPort)
		} else if n.Listen, err = netip.ParseAddrPort(l.dnsListen); err != nil || n.Listen.Port() == 0 {
			return fmt.Errorf("--dns-listen-address %q: want ADDRESS or ADDRESS:PORT", l.dnsListen)
		}
	}
	if l.resolvConf != "" {
		if n.ResolvConf, err = filepath.Abs(l.resolvConf); err != nil {
			return fmt.Errorf("--resolv-conf %q: %w", l.resolvConf, err)
		}
	}
	cfg.Naming = n
	return n.Check()
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// handover is what crosses the pipe to the daemon.
type handover struct {
	Config   LaunchConfig `json:"config"`
	Password string       `json:"password"`
}

func encodeHandover(cfg LaunchConfig) ([]byte, error) {
	return json.Marshal(handover{cfg, string(cfg.Password)})
}

func decodeHandover(b []byte) (LaunchConfig, error) {
	var h handover
	if err := json.Unmarshal(b, &h); err != nil {
		return LaunchConfig{}, fmt.Errorf("reading the configuration: %w", err)
	}
	h.Config.Password = Secret(h.Password)
	return h.Config, nil
}
