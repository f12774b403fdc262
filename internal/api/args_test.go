package api

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePeer(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Endpoint
	}{
		{"host2", Endpoint{"host2", 0}},
		{"host2:7000", Endpoint{"host2", 7000}},
		{"a.example.com.", Endpoint{"a.example.com.", 0}},
		{"under_score-1:1", Endpoint{"under_score-1", 1}},
		{"192.0.2.7", Endpoint{"192.0.2.7", 0}},
		{"192.0.2.7:6783", Endpoint{"192.0.2.7", 6783}},
		{"2001:db8::7", Endpoint{"2001:db8::7", 0}},
		{"[2001:db8::7]", Endpoint{"2001:db8::7", 0}},
		{"[2001:db8::7]:65535", Endpoint{"2001:db8::7", 65535}},
		{"fe80::1%eth0", Endpoint{"fe80::1%eth0", 0}},
	} {
		got, err := ParsePeer(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParsePeer(%q) = %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{
		"", " ", "host 2", "host2:", ":6783", "host2:0", "host2:65536", "host2:+5", "host2:http", "host2:-1",
		"[192.0.2.7]:1", "[2001:db8::7", "2001:db8::7]:1", "[2001:db8::7]x", "[2001:db8::7]:", "[]:1",
		"192.0.2", "1.2.3.4.5", "300.1.1.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1", "[fe80::1]:6783",
		"-host", "host-", "a..b", ".a", "a/b", "a@b", "höst", "http://host2", "host2\n", strings.Repeat("a", 64), strings.Repeat("a.", 200),
	} {
		if got, err := ParsePeer(in); !errors.Is(err, ErrBadPeer) {
			t.Errorf("ParsePeer(%q) = %+v, %v, want ErrBadPeer", in, got, err)
		}
	}
}

func TestParseContainer(t *testing.T) {
	for _, tt := range []struct{ in, text, path string }{
		{"netns:blue", "netns:blue", "/run/netns/blue"},
		{"netns:with space", "netns:with space", "/run/netns/with space"},
		{"netns:/proc/1/ns/net", "netns:/proc/1/ns/net", "/proc/1/ns/net"},
		{"netns:/a/../b//c/", "netns:/b/c", "/b/c"},
		{"pid:1", "pid:1", "/proc/1/ns/net"},
		{"pid:0042", "pid:42", "/proc/42/ns/net"},
	} {
		got, err := ParseContainer(tt.in)
		if err != nil || got.String() != tt.text || got.Path() != tt.path {
			t.Errorf("ParseContainer(%q) = %v (%s), %v, want %s (%s)", tt.in, got, got.Path(), err, tt.text, tt.path)
		}
	}
	for in, want := range map[string]error{
		"":                                  ErrBadContainer,
		"netns:":                            ErrBadContainer,
		"netns:.":                           ErrBadContainer,
		"netns:..":                          ErrBadContainer,
		"netns:../x":                        ErrBadContainer,
		"netns:a/b":                         ErrBadContainer,
		"netns:/":                           ErrBadContainer,
		"netns:/..":                         ErrBadContainer,
		"netns:a\x00b":                      ErrBadContainer,
		"netns:a\nb":                        ErrBadContainer,
		"netns:" + strings.Repeat("a", 256): ErrBadContainer,
		"pid:":                              ErrBadContainer,
		"pid:0":                             ErrBadContainer,
		"pid:-1":                            ErrBadContainer,
		"pid:+1":                            ErrBadContainer,
		"pid:self":                          ErrBadContainer,
		"pid:99999999":                      ErrBadContainer,
		"pid:1/../2":                        ErrBadContainer,
		"docker:x":                          ErrBadContainer,
		"/var/run/netns/x":                  ErrBadContainer,
		"c1":                                ErrNeedsDocker,
		"0123456789ab":                      ErrNeedsDocker,
	} {
		if got, err := ParseContainer(in); !errors.Is(err, want) {
			t.Errorf("ParseContainer(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}

func FuzzParsePeer(f *testing.F) {
	for _, s := range []string{"host2", "host2:7000", "192.0.2.7:6783", "[2001:db8::7]:1", "fe80::1%eth0", "a.b.", "::", "[::1]", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParsePeer(s)
		if err != nil {
			if len(err.Error()) > 800 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := ParsePeer(e.String())
		if err != nil || again != e {
			t.Errorf("%q: %+v prints as %q, which reads as %+v, %v", s, e, e.String(), again, err)
		}
	})
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"10.55.0.1/24", "ip:10.55.0.1/32", "fd00::1/64", "net:default", "net:10.2.0.0/16", "net:10.0.0.0/31", "::ffff:1.2.3.4/100", "255.255.255.255/1", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseAddr(s)
		if err != nil {
			return
		}
		again, err := ParseAddr(p.String())
		if err != nil || again != p || p != DefaultNet && !p.Prefix().Masked().Contains(p.Prefix().Addr()) {
			t.Errorf("%q: %v reads as %v, %v", s, p, again, err)
		}
	})
}

func FuzzParseContainer(f *testing.F) {
	for _, s := range []string{"netns:blue", "netns:/proc/1/ns/net", "netns:/..", "pid:7", "pid:007", "c1", ":", "netns:..", "netns:/a/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContainer(s)
		if err != nil {
			return
		}
		var again Container
		if err := again.UnmarshalText([]byte(c.String())); err != nil || again != c {
			t.Errorf("%q: %v reads as %v, %v", s, c, again, err)
		}
		if p := c.Path(); !strings.HasPrefix(p, "/") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/") || strings.ContainsRune(p, 0) {
			t.Errorf("%q: path %q", s, p)
		}
	})
}
