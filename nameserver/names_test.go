package nameserver

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/nameserver/registry"
)

func TestDomainOf(t *testing.T) {
	s := newServer(t, nil)
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"a", "a.weave.local.", nil},
		{"a.", "a.weave.local.", nil},
		{"A.Weave.Local", "A.Weave.Local.", nil},
		{"a.b.weave.local.", "a.b.weave.local.", nil},
		{"a.example.org", "", ErrOutsideDomain},
		{"axweave.local", "", ErrOutsideDomain},
		{"weave.local", "", ErrOutsideDomain},
		{"", "", registry.ErrBadName},
		{".", "", registry.ErrBadName},
		{"a..weave.local", "", registry.ErrBadName},
		{"a b.weave.local", "", registry.ErrBadName},
		{strings.Repeat("x", 64) + ".weave.local", "", registry.ErrBadName},
	} {
		got, err := s.DomainOf(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: %q, %v; want %q, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestAddRemoveEntries(t *testing.T) {
	s := newServer(t, nil)
	if err := s.Add("c", "host.example.org", addr("10.0.0.1")); !errors.Is(err, ErrOutsideDomain) {
		t.Errorf("outside the domain: %v", err)
	}
	if err := s.Add("c", "a", addr("0.0.0.0")); !errors.Is(err, registry.ErrBadAddress) {
		t.Errorf("bad address: %v", err)
	}
	s.mustAdd(t, "0123456789abcdef", "web", "10.0.0.1")
	s.mustAdd(t, "0123456789abcdef", "web", "10.0.0.1") // again
	s.mustAdd(t, "0123456789abcdef", "Web.weave.local.", "::ffff:10.0.0.2")
	s.mustAdd(t, "weave:expose", "host", "fd00::1")
	var lines []string
	for _, r := range s.Entries() {
		lines = append(lines, fmt.Sprintf("%s %v %s %v", r.Short, r.Address, r.Container, r.Origin))
	}
	want := []string{
		"host fd00::1 weave:expose 02:00:00:00:00:01",
		"web 10.0.0.1 0123456789abcdef 02:00:00:00:00:01",
		"Web 10.0.0.2 0123456789abcdef 02:00:00:00:00:01",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if got, err := s.Lookup("WEB"); err != nil || fmt.Sprint(got) != "[10.0.0.1 10.0.0.2]" {
		t.Errorf("lookup: %v, %v", got, err)
	}
	if n, err := s.Remove("", "web", addr("10.0.0.2")); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if n := s.ContainerGone("0123456789abcdef"); n != 1 {
		t.Errorf("%d names went with their container", n)
	}
	if n := s.ContainerGone(""); n != 0 || s.Status().Entries != 1 {
		t.Errorf("no container took %d names along", n)
	}
	if n, err := s.Remove("", "", netip.Addr{}); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
}

// lab joins Servers over gossip whose messages a test delivers.
type lab struct {
	servers map[peer.Name]*Server
	chans   map[peer.Name]gossip.Channel
	cut     map[peer.Name]bool
	post    []letter
}

type letter struct {
	from, to peer.Name
	msg      []byte
	unicast  bool
}

type labSender struct {
	l    *lab
	self peer.Name
}

func (s labSender) Update(d gossip.Data) { s.l.send(s.self, peer.Name{}, d) }
func (s labSender) Unicast(to peer.Name, msg []byte) error {
	if s.l.cut[to] || s.l.cut[s.self] {
		return errors.New("no route")
	}
	s.l.post = append(s.l.post, letter{s.self, to, msg, true})
	return nil
}

// send spreads d to all but one.
func (l *lab) send(from, not peer.Name, d gossip.Data) {
	for n := range l.servers {
		if n != from && n != not {
			for _, m := range d.Encode() {
				l.post = append(l.post, letter{from, n, m, false})
			}
		}
	}
}

func (l *lab) deliver(t *testing.T) {
	for n := 0; len(l.post) > 0; n++ {
		if n > 10000 {
			t.Fatal("no end of messages")
		}
		p := l.post[0]
		l.post = l.post[1:]
		if l.cut[p.from] || l.cut[p.to] {
			continue
		}
		if p.unicast {
			if err := l.chans[p.to].OnUnicast(p.from, p.msg); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r, err := l.chans[p.to].OnMessage(p.from, p.msg)
		if err != nil {
			t.Fatal(err)
		}
		if r.News != nil {
			l.send(p.to, p.from, r.News)
		}
		if r.Reply != nil {
			for _, m := range r.Reply.Encode() {
				l.post = append(l.post, letter{p.to, p.from, m, false})
			}
		}
	}
}

func (l *lab) digests(t *testing.T) {
	for n, c := range l.chans {
		if d := c.Digest(); !l.cut[n] {
			l.send(n, peer.Name{}, digest(d))
		}
	}
	l.deliver(t)
}

type digest []byte

func (d digest) Encode() [][]byte              { return [][]byte{d} }
func (d digest) Merge(gossip.Data) gossip.Data { return d }

func newLab(t *testing.T, n int) *lab {
	l := &lab{servers: map[peer.Name]*Server{}, chans: map[peer.Name]gossip.Channel{}, cut: map[peer.Name]bool{}}
	for i := range n {
		name := peer.NameFromBytes([peer.NameLen]byte{2, 0, 0, 0, 0, byte(i + 1)})
		s := newServer(t, func(c *Config) {
			c.Name, c.UID = name, peer.UID(i+10)
			c.Known = func(p peer.Name) bool { return !l.cut[p] }
		})
		l.servers[name] = s
		l.chans[name] = s.Open(labSender{l, name})
	}
	return l
}

func TestNamesAreEverywhere(t *testing.T) {
	l := newLab(t, 3)
	one, two := l.servers[host1], l.servers[host2]
	one.mustAdd(t, "c1", "web", "10.0.0.1")
	two.mustAdd(t, "c2", "web", "10.0.0.2")
	l.deliver(t)
	for n, s := range l.servers {
		if got, _ := s.Lookup("web"); len(got) != 2 {
			t.Errorf("%s: %v", n, got)
		}
		if n2, _ := s.Remove("c1", "", netip.Addr{}); n != host1 && n2 != 0 {
			t.Errorf("%s removed what is not its own", n)
		}
	}
	one.mustAdd(t, "c1", "web", "10.0.0.1")
	l.deliver(t)
	one.ContainerGone("c1")
	l.deliver(t)
	for n, s := range l.servers {
		if got, _ := s.Lookup("web"); len(got) != 1 || got[0] != addr("10.0.0.2") {
			t.Errorf("%s: %v after the container ended", n, got)
		}
	}
	if err := l.chans[host1].(channel).OnUnicast(host2, []byte{4, 0xff}); !errors.Is(err, registry.ErrMessage) || one.Status().Rejected != 1 {
		t.Errorf("bad message: %v, %+v", err, one.Status())
	}
}

// A peer's names go with it and come back with it; of a peer that the mesh never knew
// they are swept out.
func TestPeerGoneAndBack(t *testing.T) {
	l := newLab(t, 3)
	l.servers[host2].mustAdd(t, "c2", "web", "10.0.0.2")
	l.deliver(t)
	host3 := peer.NameFromBytes([peer.NameLen]byte{2, 0, 0, 0, 0, 3})
	l.cut[host2] = true
	l.chans[host1].OnGone(host2)
	count := func(n peer.Name) int {
		got, _ := l.servers[n].Lookup("web")
		return len(got)
	}
	if count(host1) != 0 {
		t.Error("names outlive their peer")
	}
	l.digests(t) // host3 has not noticed
	if count(host1) != 0 {
		t.Error("a ghost came back from a peer that has not noticed")
	}
	l.digests(t)
	l.digests(t)
	if count(host3) != 0 {
		t.Error("names of a peer that the mesh does not know were not swept out")
	}
	l.cut[host2] = false
	l.digests(t)
	l.digests(t)
	for n := range l.servers {
		if count(n) != 1 {
			t.Errorf("%s: the names did not come back", n)
		}
	}
}
