package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weave/nameserver/dnstest"
)

func TestParseConf(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "[192.0.2.1 2001:db8::1]"},
		{"comments, options, search", "# nameserver 192.0.2.9\n; x\noptions ndots:5 timeout:1\nsearch a b\n  nameserver\t192.0.2.1 # x\r\n", "[192.0.2.1]"},
		{"twice", "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver ::ffff:192.0.2.1", "[192.0.2.1]"},
		{"zone", "nameserver fe80::1%eth0", "[fe80::1%eth0]"},
		{"unspecified", "nameserver 0.0.0.0", "[127.0.0.1]"},
		{"nonsense", "nameserver\nnameserver x\nnameserver 1.2.3\nnameserver 224.0.0.1\nnameserverx 192.0.2.1", "[]"},
		{"many", strings.Repeat("nameserver 192.0.2.1\n", 3) + "nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver 192.0.2.5\nnameserver 192.0.2.6\nnameserver 192.0.2.7",
			"[192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6]"},
		{"empty", "", "[]"},
	} {
		if got := fmt.Sprint(parseConf([]byte(tt.text))); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestConfIsReadAgain(t *testing.T) {
	up := dnstest.Start(t, 2, dnstest.Reply("%s 60 IN A 192.0.2.1"))
	path := dnstest.ResolvConf(t, up[0])
	c := &clock{t: time.Unix(1e9, 0)}
	f := New(Config{ResolvConf: path, Port: up[0].Addr.Port(), Now: c.now,
		Own: func(a netip.AddrPort) bool { return a.Addr() == netip.MustParseAddr("127.0.1.9") }})
	check := func(want ...*dnstest.Server) {
		t.Helper()
		var addrs []netip.AddrPort
		for _, s := range want {
			addrs = append(addrs, s.Addr)
		}
		if got := f.Servers(); !slices.Equal(got, addrs) {
			t.Errorf("servers %v, want %v", got, addrs)
		}
	}
	check(up[0])
	if _, err := exchange(t, f, question("a.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	dnstest.WriteResolvConf(t, path, up[1])
	check(up[0]) // not looked at more than once a second
	c.add(recheck)
	check(up[1])
	if _, err := exchange(t, f, question("a.example.", dns.TypeA)); err != nil || up[1].Queries.Load() == 0 {
		t.Errorf("%v: answers of another server were kept", err)
	}
	os.Remove(path)
	c.add(recheck)
	check(up[1]) // while there is no file the last servers stay
	if err := os.WriteFile(path, []byte("nameserver 127.0.1.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.add(recheck)
	check() // our own address is never used
	if _, err := exchange(t, f, question("b.example.", dns.TypeA)); !errors.Is(err, ErrNoServers) {
		t.Errorf("got %v, want ErrNoServers", err)
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\noptions x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := parseConf(b); len(s) > maxServers {
			t.Fatal(s)
		}
	})
}
