package api

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{
		"10.55.0.1/24":       "10.55.0.1/24",
		"ip:10.55.0.1/24":    "10.55.0.1/24",
		"10.55.0.0/31":       "10.55.0.0/31",
		"10.55.0.1/32":       "10.55.0.1/32",
		"10.55.1.0/16":       "10.55.1.0/16",
		"fd00:55::1/64":      "fd00:55::1/64",
		"FD00:55::ffff/112":  "fd00:55::ffff/112",
		"ip:2001:db8::1/128": "2001:db8::1/128",
		"fd00::ffff:ffff/64": "fd00::ffff:ffff/64",
		"255.255.255.254/31": "255.255.255.254/31",
		"net:default":        "net:default",
		"net:10.2.0.0/16":    "net:10.2.0.0/16",
		"net:10.2.3.4/30":    "net:10.2.3.4/30",
	} {
		got, err := ParseAddr(in)
		if err != nil || got.String() != want || got.IsNet() != (want[:3] == "net") {
			t.Errorf("ParseAddr(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"":                    ErrBadAddr,
		"10.55.0.1":           ErrBadAddr,
		"10.55.0.1/33":        ErrBadAddr,
		"10.55.0.1/0":         ErrBadAddr,
		"10.55.0.1/-1":        ErrBadAddr,
		"10.55.0.1/024":       ErrBadAddr,
		"10.55.0.0/24":        ErrBadAddr,
		"10.55.0.255/24":      ErrBadAddr,
		"0.0.0.0/8":           ErrBadAddr,
		"127.0.0.1/8":         ErrBadAddr,
		"224.0.0.1/4":         ErrBadAddr,
		"::1/128":             ErrBadAddr,
		"fd00::/64":           ErrBadAddr,
		"::ffff:10.0.0.1/120": ErrBadAddr,
		"fe80::1%eth0/64":     ErrBadAddr,
		"ip:ip:10.55.0.1/24":  ErrBadAddr,
		"host2":               ErrBadAddr,
		"net:":                ErrBadSubnet,
		"net:Default":         ErrBadSubnet,
		"net:10.2.0.0":        ErrBadSubnet,
		"net:10.2.0.1/16":     ErrBadSubnet, // host bits
		"net:10.2.0.0/31":     ErrBadSubnet, // two addresses
		"net:10.2.0.0/32":     ErrBadSubnet,
		"net:0.0.0.0/0":       ErrBadSubnet,
		"net:224.0.0.0/4":     ErrBadSubnet,
		"net:127.0.0.0/8":     ErrBadSubnet,
		"net:fd00::/64":       ErrBadSubnet, // given IPv6 addresses only
		"net:ip:10.2.0.0/16":  ErrBadSubnet,
		"net:net:default":     ErrBadSubnet,
	} {
		if got, err := ParseAddr(in); !errors.Is(err, want) {
			t.Errorf("ParseAddr(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestAddrIsText(t *testing.T) {
	want := `["10.55.0.1/24","net:10.2.0.0/16","net:default"]`
	var as []Addr
	if err := json.Unmarshal([]byte(want), &as); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(as); err != nil || string(b) != want || as[2] != DefaultNet {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	if err := (Addr{}).check(); !errors.Is(err, ErrBadAddr) {
		t.Errorf("no address: %v", err)
	}
}

func TestNames(t *testing.T) {
	long := "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-abcdefghij"
	for _, in := range []string{"blue", "blue.weave.local", "blue.weave.local.", "7", "_srv", "a-b.c", long[:63]} {
		if err := checkName(in); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"", ".", "a..b", ".a", "a b", "a\n", "h\u00f6st", long} {
		if err := checkName(in); !errors.Is(err, ErrBadName) || CodeOf(err) != CodeUsage {
			t.Errorf("%q: %v, want ErrBadName", in, err)
		}
	}
}
