package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// What is accepted from a server.
const (
	udpSize     = 1232 // of a reply over UDP; longer ones come cut and then over TCP
	maxForged   = 16   // replies that are not to our question; then TCP
	markOption  = 65313
	markLen     = 8
	maxMarks    = 4 // servers like this one that a question may have passed
	minLetters  = 8 // of a name whose case tells questions apart
	dnsHeader   = 12
	maxReadSize = 65535
)

// asked is one question as it was sent to one server.
type asked struct {
	id       uint16
	question []byte // its section, as bytes
	wire     []byte
	edns     bool
}

// newAsked makes a question with a random number, spelled like name.
func newAsked(name string, k key, edns bool, marks []byte) (*asked, error) {
	var id [2]byte
	rand.Read(id[:]) // never fails
	m := new(dns.Msg)
	m.Id = binary.BigEndian.Uint16(id[:])
	m.RecursionDesired = true
	m.CheckingDisabled = k.cd
	m.Question = []dns.Question{{Name: name, Qtype: k.qtype, Qclass: dns.ClassINET}}
	if edns {
		m.SetEdns0(udpSize, k.do)
		opt := m.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: markOption, Data: marks})
	}
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing the question: %w", err)
	}
	end := dnsHeader
	for wire[end] != 0 {
		end += int(wire[end]) + 1
	}
	return &asked{id: m.Id, question: wire[dnsHeader : end+5], wire: wire, edns: edns}, nil
}

// fit is how a reply matches a question.
type fit uint8

const (
	foreign fit = iota // not to this question: forged, or late, or broken
	loose              // to this question, but in another case
	exact
)

// match judges a reply by its header and question, before it is unpacked.
func (a *asked) match(b []byte) fit {
	if len(b) < dnsHeader+len(a.question) || binary.BigEndian.Uint16(b) != a.id {
		return foreign
	}
	bits := binary.BigEndian.Uint16(b[2:])
	if bits>>15 != 1 || bits>>11&0xf != dns.OpcodeQuery || binary.BigEndian.Uint16(b[4:]) != 1 {
		return foreign
	}
	q := b[dnsHeader : dnsHeader+len(a.question)]
	if bytes.Equal(q, a.question) {
		return exact
	}
	for i := range q {
		if lower(q[i]) != lower(a.question[i]) {
			return foreign
		}
	}
	return loose
}

// parse unpacks a reply that matches.
func (a *asked) parse(b []byte) (*reply, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("unpacking a reply: %w", err)
	}
	return &reply{msg: m, size: len(b)}, nil
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// reply is a server's answer.
type reply struct {
	msg  *dns.Msg
	size int
}

// errSuspect says that UDP cannot be relied on for this question.
var errSuspect = errors.New("replies over UDP do not match the question")

// attempt asks one server until ctx ends.
func (f *Forwarder) attempt(ctx context.Context, server netip.AddrPort, name string, k key, marks []byte) (*reply, error) {
	edns := !f.plain(server)
	r, err := f.attemptWith(ctx, server, name, k, edns, marks)
	if err == nil && edns && (r.msg.Rcode == dns.RcodeFormatError || r.msg.Rcode == dns.RcodeNotImplemented) {
		r, err = f.attemptWith(ctx, server, name, k, false, nil)
		if err == nil && r.msg.Rcode != dns.RcodeFormatError {
			f.setPlain(server)
		}
	}
	return r, err
}

func (f *Forwarder) attemptWith(ctx context.Context, server netip.AddrPort, name string, k key, edns bool, marks []byte) (*reply, error) {
	a, err := newAsked(name, k, edns, marks)
	if err != nil {
		return nil, err
	}
	r, err := f.udp(ctx, server, a)
	if errors.Is(err, errSuspect) || err == nil && r.msg.Truncated {
		if err != nil {
			f.count(&f.counts.suspect)
		}
		return f.tcp(ctx, server, a)
	}
	return r, err
}

// dial makes a socket of its own, on a random port, that hears this server only.
func dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, func(), error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

func (f *Forwarder) udp(ctx context.Context, server netip.AddrPort, a *asked) (*reply, error) {
	conn, done, err := dial(ctx, "udp", server)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	defer done()
	if _, err := conn.Write(a.wire); err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	buf := make([]byte, 4096)
	for range maxForged {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", server, err)
		}
		switch a.match(buf[:n]) {
		case foreign:
			f.count(&f.counts.forged)
			continue
		case loose: // the server does not keep the case: only the number was guessed
			return nil, errSuspect
		}
		if r, err := a.parse(buf[:n]); err == nil {
			return r, nil
		}
		f.count(&f.counts.forged)
	}
	return nil, errSuspect
}

func (f *Forwarder) tcp(ctx context.Context, server netip.AddrPort, a *asked) (*reply, error) {
	conn, done, err := dial(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("asking %s over TCP: %w", server, err)
	}
	defer done()
	out := binary.BigEndian.AppendUint16(nil, uint16(len(a.wire)))
	if _, err := conn.Write(append(out, a.wire...)); err != nil {
		return nil, fmt.Errorf("asking %s over TCP: %w", server, err)
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("waiting for %s over TCP: %w", server, err)
	}
	var b bytes.Buffer // grows with what comes, not with what is announced
	n := int64(binary.BigEndian.Uint16(head[:]))
	if got, err := io.CopyN(&b, conn, n); err != nil {
		return nil, fmt.Errorf("%d of %d bytes of %s over TCP: %w", got, n, server, err)
	}
	if a.match(b.Bytes()) == foreign {
		f.count(&f.counts.forged)
		return nil, fmt.Errorf("%s over TCP: reply to another question", server)
	}
	r, err := a.parse(b.Bytes())
	if err == nil && r.msg.Truncated {
		return nil, fmt.Errorf("%s over TCP: reply is cut", server)
	}
	return r, err
}

// mixCase spells a name with letters in random case.
func mixCase(name string) string {
	b := []byte(name)
	bits := make([]byte, (len(b)+7)/8)
	rand.Read(bits)
	for i, c := range b {
		if c = lower(c); 'a' <= c && c <= 'z' {
			b[i] = c &^ (bits[i/8] >> (i % 8) & 1 << 5)
		}
	}
	return string(b)
}

func letters(name string) (n int) {
	for i := range len(name) {
		if c := lower(name[i]); 'a' <= c && c <= 'z' {
			n++
		}
	}
	return n
}

// marksOf returns the marks that a question carries.
func marksOf(m *dns.Msg) []byte {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if l, ok := o.(*dns.EDNS0_LOCAL); ok && l.Code == markOption && len(l.Data)%markLen == 0 {
				return l.Data
			}
		}
	}
	return nil
}

// marked reports whether marks say that this question was here before, or goes in too
// wide a circle.
func marked(marks []byte, own [markLen]byte) bool {
	if len(marks) >= maxMarks*markLen {
		return true
	}
	for m := range slices.Chunk(marks, markLen) {
		if bytes.Equal(m, own[:]) {
			return true
		}
	}
	return false
}
