// Package dnstest has fake DNS servers for tests: upstream servers that say what a test
// tells them to, on loopback addresses.
//
// Its one idea: all servers of a test listen on one port of different addresses, as real
// ones do, so that a resolv.conf can name them.
package dnstest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// Handler answers a question; nil keeps silent. It is called from several goroutines.
type Handler func(q *dns.Msg, tcp bool) *dns.Msg

// Server is one fake server.
type Server struct {
	Addr    netip.AddrPort
	Queries atomic.Int64 // that came

	udp     *net.UDPConn
	tcp     net.Listener
	mu      sync.Mutex
	handler Handler
	raw     func(q []byte, reply func([]byte))
	wg      sync.WaitGroup
}

// Handle replaces the handler.
func (s *Server) Handle(h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler, s.raw = h, nil
}

// HandleRaw makes f answer UDP: with any number of datagrams, of any bytes.
func (s *Server) HandleRaw(f func(q []byte, reply func([]byte))) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = f
}

// Start runs n servers on 127.0.1.1, 127.0.1.2 and so on until the test ends. The port
// is that of the first one.
func Start(t testing.TB, n int, h Handler) (servers []*Server) {
	t.Helper()
	for range 20 {
		if servers = start(n, h); servers != nil {
			break
		}
	}
	if servers == nil {
		t.Fatal("no port that is free on all addresses")
	}
	t.Cleanup(func() { stopAll(servers) })
	return servers
}

func start(n int, h Handler) (servers []*Server) {
	port := uint16(0)
	for i := range n {
		s, err := listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), port), h)
		if err != nil {
			stopAll(servers)
			return nil
		}
		port = s.Addr.Port()
		servers = append(servers, s)
	}
	return servers
}

// StartAt runs a server at addr until the test ends. It calls in to make the sockets,
// which may do so in another network namespace.
func StartAt(t testing.TB, in func(func() error) error, addr netip.AddrPort, h Handler) *Server {
	t.Helper()
	var s *Server
	if err := in(func() (err error) { s, err = listen(addr, h); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// listen makes a server; port 0 is any that is free.
func listen(addr netip.AddrPort, h Handler) (*Server, error) {
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	s := &Server{handler: h, tcp: l, Addr: netip.MustParseAddrPort(l.Addr().String())}
	if s.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.Addr)); err != nil {
		l.Close()
		return nil, err
	}
	s.wg.Go(s.serveUDP)
	s.wg.Go(s.serveTCP)
	return s, nil
}

func stopAll(servers []*Server) {
	for _, s := range servers {
		s.Stop()
	}
}

// Stop ends the server: its port is closed. It is idempotent.
func (s *Server) Stop() {
	s.udp.Close()
	s.tcp.Close()
	s.wg.Wait()
}

func (s *Server) serveUDP() {
	buf := make([]byte, 65536)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		s.Queries.Add(1)
		q := append([]byte(nil), buf[:n]...)
		s.mu.Lock()
		raw := s.raw
		s.mu.Unlock()
		send := func(b []byte) { s.udp.WriteToUDPAddrPort(b, from) }
		s.wg.Go(func() {
			if raw != nil {
				raw(q, send)
			} else if b := s.answer(q, false); b != nil {
				send(b)
			}
		})
	}
}

func (s *Server) answer(q []byte, tcp bool) []byte {
	m := new(dns.Msg)
	if m.Unpack(q) != nil {
		return nil
	}
	s.mu.Lock()
	h := s.handler
	s.mu.Unlock()
	r := h(m, tcp)
	if r == nil {
		return nil
	}
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			defer c.Close()
			var head [2]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			q := make([]byte, binary.BigEndian.Uint16(head[:]))
			if _, err := io.ReadFull(c, q); err != nil {
				return
			}
			s.Queries.Add(1)
			if b := s.answer(q, true); b != nil {
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
		})
	}
}

// Reply makes a Handler that answers every question with these records, in RR text; the
// text may hold %s for the name asked.
func Reply(records ...string) Handler {
	return func(q *dns.Msg, _ bool) *dns.Msg {
		r := new(dns.Msg)
		r.SetReply(q)
		for _, text := range records {
			r.Answer = append(r.Answer, RR(text, q.Question[0].Name))
		}
		return r
	}
}

// Code makes a Handler that answers with a code only.
func Code(rcode int) Handler {
	return func(q *dns.Msg, _ bool) *dns.Msg {
		r := new(dns.Msg)
		r.SetRcode(q, rcode)
		return r
	}
}

// Silent answers nothing.
func Silent(*dns.Msg, bool) *dns.Msg { return nil }

// RR reads a record; it panics on bad text, which is a test's mistake.
func RR(text, name string) dns.RR {
	if countVerbs(text) > 0 {
		text = fmt.Sprintf(text, name)
	}
	r, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return r
}

func countVerbs(s string) (n int) {
	for i := range len(s) - 1 {
		if s[i] == '%' {
			n++
		}
	}
	return n
}

// ResolvConf writes a file that names the servers and returns its path.
func ResolvConf(t testing.TB, servers ...*Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	WriteResolvConf(t, path, servers...)
	return path
}

// WriteResolvConf replaces the file at path, as DHCP clients do: by rename.
func WriteResolvConf(t testing.TB, path string, servers ...*Server) {
	t.Helper()
	text := "# made by a test\nsearch example.org\noptions ndots:5 timeout:1\n"
	for _, s := range servers {
		text += "nameserver " + s.Addr.Addr().String() + "\n"
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
