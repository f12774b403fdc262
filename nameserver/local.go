package nameserver

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"github.com/miekg/dns"

	"weave/nameserver/registry"
)

// zone is the domain that is answered from the index. It is immutable.
type zone struct {
	domain []byte // in lower case, with its final dot
	ttl    uint32
	index  *registry.Index
}

func newZone(domain string, ttl uint32, index *registry.Index) zone {
	domain = strings.ToLower(dns.Fqdn(domain))
	return zone{domain: []byte(domain), ttl: ttl, index: index}
}

// scratch is what a worker needs to build answers without allocating.
type scratch struct {
	q       question
	rng     *rand.Rand
	entries []*registry.Entry
	name    [maxWire + registry.MaxName]byte
}

// holds reports whether the zone answers for the name, and whether it is the domain
// itself.
func (z *zone) holds(q *question) (holds, apex bool) {
	n := q.len - len(z.domain)
	switch {
	case n < 0 || string(q.name[n:q.len]) != string(z.domain):
		return q.labels == 1, false
	case n == 0:
		return true, true
	}
	return q.name[n-1] == '.' || q.labels == 1, false
}

// find returns the entries of a name that the zone holds.
func (z *zone) find(s *scratch, apex bool) []*registry.Entry {
	q := &s.q
	if q.escape {
		return nil
	}
	if q.labels == 1 && !apex {
		if q.len+len(z.domain) > registry.MaxName {
			return nil
		}
		n := copy(s.name[:], q.name[:q.len])
		n += copy(s.name[n:], z.domain)
		return z.index.Lookup(s.name[:n])
	}
	return z.index.Lookup(q.name[:q.len])
}

// answer appends the reply to a question that the zone holds; apex as from holds.
func (z *zone) answer(b, request []byte, s *scratch, udp, apex bool) ([]byte, Result) {
	found := z.find(s, apex)
	if len(found) == 0 && !apex {
		return z.negative(b, request, &s.q, dns.RcodeNameError), NXDomain
	}
	s.gather(found)
	if len(s.entries) == 0 {
		if apex && s.q.qtype == dns.TypeSOA {
			return z.soa(b, request, &s.q), Answered
		}
		return z.negative(b, request, &s.q, dns.RcodeSuccess), NoData
	}
	return z.positive(b, request, s, udp)
}

// gather takes the entries that answer the question, each address once.
func (s *scratch) gather(found []*registry.Entry) {
	s.entries = s.entries[:0]
	for i, e := range found {
		a := e.Addr()
		switch {
		case !a.IsValid() || i > 0 && found[i-1].Addr() == a:
		case s.q.qtype == dns.TypeANY,
			s.q.qtype == dns.TypeA && a.Is4(),
			s.q.qtype == dns.TypeAAAA && a.Is6():
			s.entries = append(s.entries, e)
		}
	}
}

// positive appends as many answers as fit, in random order.
func (z *zone) positive(b, request []byte, s *scratch, udp bool) ([]byte, Result) {
	q, head := &s.q, len(b)
	end := head + q.limit(udp)
	if q.edns {
		end -= optLen
	}
	b = q.appendHead(b, request, bitAA|bitRA, dns.RcodeSuccess)
	result, n := Answered, 0
	for i := range s.entries {
		if j := i + s.rng.IntN(len(s.entries)-i); j != i {
			s.entries[i], s.entries[j] = s.entries[j], s.entries[i]
		}
		next, ok := z.appendAddress(b, s.entries[i], end)
		if !ok {
			b[head+2] |= bitTC >> 8
			result = Truncated
			break
		}
		b = next
		n++
	}
	binary.BigEndian.PutUint16(b[head+6:], uint16(n))
	return q.appendOPT(b, head, 0), result
}

// appendAddress appends an A or AAAA record that is called like the question.
func (z *zone) appendAddress(b []byte, e *registry.Entry, end int) ([]byte, bool) {
	a := e.Addr()
	kind, size := byte(dns.TypeA), 4
	if a.Is6() {
		kind, size = byte(dns.TypeAAAA), 16
	}
	if len(b)+12+size > end {
		return b, false
	}
	b = append(b, 0xc0, headerLen, 0, kind, 0, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, z.ttl)
	b = append(b, 0, byte(size))
	if size == 4 {
		v := a.As4()
		return append(b, v[:]...), true
	}
	v := a.As16()
	return append(b, v[:]...), true
}

// Times of the SOA record in seconds. Nobody transfers the zone; only the last one
// matters: how long an answer that there is nothing may be kept (RFC 2308), the TTL.
const (
	soaSerial  = 1
	soaRefresh = 3600
	soaRetry   = 600
	soaExpire  = 86400
)

// hostmaster is the label of the SOA's mailbox.
const hostmaster = "\x0ahostmaster"

// negative appends a reply without answers. With the domain's name in the question,
// its SOA comes along.
func (z *zone) negative(b, request []byte, q *question, rcode int) []byte {
	head := len(b)
	b = q.appendHead(b, request, bitAA|bitRA, rcode)
	if n := z.appendSOA(b, q); len(n) > len(b) {
		b = n
		b[head+9] = 1
	}
	return q.appendOPT(b, head, rcode)
}

func (z *zone) soa(b, request []byte, q *question) []byte {
	head := len(b)
	b = q.appendHead(b, request, bitAA|bitRA, dns.RcodeSuccess)
	b = z.appendSOA(b, q)
	b[head+7] = 1
	return q.appendOPT(b, head, 0)
}

func (z *zone) appendSOA(b []byte, q *question) []byte {
	at := q.len - len(z.domain) // where the domain begins in the name, and in the question
	if at < 0 || string(q.name[at:q.len]) != string(z.domain) || at > 0 && q.name[at-1] != '.' {
		return b
	}
	domain := uint16(0xc000 | headerLen + at)
	b = binary.BigEndian.AppendUint16(b, domain)
	b = append(b, 0, byte(dns.TypeSOA), 0, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, z.ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(2+len(hostmaster)+2+20))
	b = binary.BigEndian.AppendUint16(b, domain)
	b = append(b, hostmaster...)
	b = binary.BigEndian.AppendUint16(b, domain)
	for _, v := range [...]uint32{soaSerial, soaRefresh, soaRetry, soaExpire, z.ttl} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
