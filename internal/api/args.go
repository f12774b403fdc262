package api

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Errors of the argument parsers. They say what is wanted and are wrapped with
// the text that was given.
var (
	ErrBadPeer      = errors.New("not a peer: want HOST or HOST:PORT, for instance host2, 192.0.2.7:6783 or [2001:db8::7]:6783")
	ErrBadAddr      = errors.New("not an address: want IP/LENGTH, for instance 10.55.0.1/24")
	ErrBadSubnet    = errors.New("not a subnet to allocate in: want net:CIDR, for instance net:10.2.0.0/16, or net:default")
	ErrBadName      = errors.New("not a DNS name: want for instance blue or blue.weave.local")
	ErrBadContainer = errors.New("not a container: want netns:NAME, netns:/PATH or pid:N")
	ErrNeedsDocker  = errors.New("names of Docker containers are not in this build yet: want netns:NAME, netns:/PATH or pid:N")
)

// Limits of arguments.
const (
	maxHost = 253     // a host name, RFC 1035 section 2.3.4
	maxName = 255     // a file name
	maxPath = 4095    // a path, PATH_MAX without its NUL
	maxPID  = 1 << 22 // PID_MAX_LIMIT of Linux
)

// Endpoint is where a peer may be reached.
type Endpoint struct {
	Host string // name or address, an IPv6 address without brackets
	Port uint16 // 0: the default port
}

// String is the form ParsePeer reads.
func (e Endpoint) String() string {
	if e.Port == 0 {
		return e.Host
	}
	if strings.Contains(e.Host, ":") {
		return "[" + e.Host + "]:" + strconv.Itoa(int(e.Port))
	}
	return e.Host + ":" + strconv.Itoa(int(e.Port))
}

// ParsePeer reads host, host:port, an IPv6 address, or [address]:port. It does
// not resolve names.
func ParsePeer(s string) (Endpoint, error) {
	bad := func() (Endpoint, error) { return Endpoint{}, fmt.Errorf("%q: %w", clip(s), ErrBadPeer) }
	host, port := s, ""
	if rest, ok := strings.CutPrefix(s, "["); ok {
		in, after, closed := strings.Cut(rest, "]")
		if a, err := netip.ParseAddr(in); !closed || err != nil || !a.Is6() {
			return bad()
		}
		host = in
		if after != "" {
			if port, ok = strings.CutPrefix(after, ":"); !ok || port == "" {
				return bad()
			}
		}
	} else if strings.Count(s, ":") == 1 {
		if host, port, _ = strings.Cut(s, ":"); port == "" {
			return bad()
		}
	}
	if !isHost(host) {
		return bad()
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return Endpoint{}, fmt.Errorf("%q is an address of a single link, which needs a device, for instance %s%%eth0: %w", clip(s), a, ErrBadPeer)
	}
	e := Endpoint{Host: host}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '+' {
			return bad()
		}
		e.Port = uint16(n)
	}
	return e, nil
}

// isHost accepts IP addresses and names of letters, digits, '-', '_' and '.'.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return !a.IsUnspecified() && !a.IsMulticast() && isPlain(s)
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxHost {
		return false
	}
	digits := true // a name of digits and dots alone is a mistyped address
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_':
				digits = false
			default:
				return false
			}
		}
	}
	return !digits
}

// isPlain reports whether s is printable ASCII without spaces.
func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// How a Container is named: what stands before the colon.
const (
	KindNetns = "netns" // a name under /run/netns, or an absolute path, follows
	KindPID   = "pid"   // the decimal id of a process in it follows
)

// Container names a network namespace. The zero Container is none. It is a
// comparable value; its text form is what users type.
type Container struct{ kind, value string }

// ParseContainer reads "netns:NAME", "netns:/PATH" or "pid:N". It does not look
// whether there is such a thing.
func ParseContainer(s string) (Container, error) {
	kind, value, ok := strings.Cut(s, ":")
	switch {
	case !ok && s != "" && isPlain(s) && !strings.Contains(s, "/"):
		return Container{}, fmt.Errorf("%q: %w", clip(s), ErrNeedsDocker)
	case ok && kind == KindNetns && isNetns(value):
		if value[0] == '/' {
			value = path.Clean(value)
		}
		return Container{kind, value}, nil
	case ok && kind == KindPID:
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && n > 0 && n <= maxPID && value[0] != '+' {
			return Container{kind, strconv.FormatUint(n, 10)}, nil
		}
	}
	return Container{}, fmt.Errorf("%q: %w", clip(s), ErrBadContainer)
}

func isNetns(v string) bool {
	for _, c := range []byte(v) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	if strings.HasPrefix(v, "/") {
		return len(v) <= maxPath && path.Clean(v) != "/"
	}
	return v != "" && v != "." && v != ".." && len(v) <= maxName && !strings.Contains(v, "/")
}

// Path returns the file of the namespace: in /run/netns, as given, or in /proc.
func (c Container) Path() string {
	switch {
	case c.kind == KindPID:
		return "/proc/" + c.value + "/ns/net"
	case strings.HasPrefix(c.value, "/"):
		return c.value
	case c.value != "":
		return "/run/netns/" + c.value
	}
	return ""
}

// IsZero reports whether c is no container.
func (c Container) IsZero() bool { return c.kind == "" }

// String is the form ParseContainer reads, "" for the zero Container.
func (c Container) String() string {
	if c.IsZero() {
		return ""
	}
	return c.kind + ":" + c.value
}

// MarshalText returns the String form.
func (c Container) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseContainer.
func (c *Container) UnmarshalText(b []byte) (err error) {
	*c, err = ParseContainer(string(b))
	return err
}

// clip bounds what an error repeats of its input.
func clip(s string) string { return clipTo(s, 80) }

func clipTo(s string, n int) string {
	if len(s) > n {
		return s[:n-3] + "..."
	}
	return s
}
