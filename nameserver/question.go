package nameserver

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"weave/nameserver/registry"
)

// Sizes of DNS messages in bytes.
const (
	headerLen  = 12
	optLen     = 11   // an OPT record without options
	plainSize  = 512  // of a UDP reply to a question without EDNS0
	maxUDP     = 1232 // of any UDP reply: fits every path without fragments
	maxRequest = 4096 // of a question, over UDP or TCP
	maxTCP     = 65535
	maxWire    = 255 // of a name
)

const (
	bitQR = 1 << 15
	bitAA = 1 << 10
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitCD = 1 << 4
)

// verdict is what the first look at a request says.
type verdict uint8

const (
	take   verdict = iota // a proper question
	ignore                // do not reply at all
	refuse                // reply with a code and nothing more
)

// question is a view of a request with one question. It holds no pointers into it.
type question struct {
	id    uint16
	bits  uint16
	qtype uint16
	end   int // of the question section

	name   [maxWire]byte // in lower case, with dots; the final one included
	len    int           // of name
	labels int
	escape bool // name has bytes that text would have to escape: nothing is called so here

	edns       bool
	do         bool
	badVersion bool // of EDNS
	size       int  // the largest reply over UDP

	rcode  int  // if refused
	reason Drop // if ignored
}

// limit is the largest reply in bytes.
func (q *question) limit(udp bool) int {
	if udp {
		return q.size
	}
	return maxTCP
}

// judge reads a request without unpacking it. A reply to what it refuses is never
// longer than the request.
func (q *question) judge(b []byte) verdict {
	if len(b) < headerLen {
		q.reason = DropShort
		return ignore
	}
	q.id = binary.BigEndian.Uint16(b)
	q.bits = binary.BigEndian.Uint16(b[2:])
	q.end, q.edns, q.do, q.badVersion, q.size = 0, false, false, false, plainSize
	q.rcode = dns.RcodeFormatError
	if q.bits&bitQR != 0 {
		q.reason = DropResponse // answering would make two servers talk for ever
		return ignore
	}
	if q.bits>>11&0xf != dns.OpcodeQuery {
		q.rcode = dns.RcodeNotImplemented
		return refuse
	}
	counts := binary.BigEndian.Uint64(b[4:])
	if counts>>48 != 1 || counts>>16&0xffffffff != 0 || counts&0xffff > 1 {
		return refuse
	}
	off, ok := q.readName(b)
	if !ok || off+4 > len(b) {
		return refuse
	}
	q.qtype = binary.BigEndian.Uint16(b[off:])
	class := binary.BigEndian.Uint16(b[off+2:])
	q.end = off + 4
	if counts&0xffff == 1 && !q.readOPT(b[q.end:]) {
		return refuse
	}
	switch {
	case q.badVersion:
		q.rcode = dns.RcodeBadVers
		return refuse
	case class != dns.ClassINET:
		q.rcode = dns.RcodeRefused
		return refuse
	case q.qtype == dns.TypeANY:
	case q.qtype == dns.TypeNone || q.qtype == dns.TypeOPT:
		return refuse
	case q.qtype >= 128 && q.qtype < 256: // transfers and other meta types, RFC 6895
		q.rcode = dns.RcodeRefused
		return refuse
	}
	return take
}

// readName reads the name behind the header. Nothing comes before it, so a proper
// request has no compression pointer there.
func (q *question) readName(b []byte) (off int, ok bool) {
	off = headerLen
	n := 0
	q.labels, q.escape = 0, false
	for {
		if off >= len(b) {
			return 0, false
		}
		l := int(b[off])
		off++
		if l == 0 {
			break
		}
		if l > registry.MaxLabel || off+l >= len(b) || n+l+2 > maxWire {
			return 0, false
		}
		for _, c := range b[off : off+l] {
			k := folded[c]
			q.escape = q.escape || k == 0
			q.name[n] = k
			n++
		}
		q.name[n] = '.'
		n++
		off += l
		q.labels++
	}
	if n == 0 {
		q.name[0] = '.'
		n = 1
	}
	q.len = n
	return off, true
}

// readOPT reads the additional section, in which a question may have an OPT record and
// nothing else: we share no keys with anybody, so a signature cannot be judged.
func (q *question) readOPT(o []byte) bool {
	if len(o) < optLen || o[0] != 0 || binary.BigEndian.Uint16(o[1:]) != dns.TypeOPT {
		return false
	}
	end := optLen + int(binary.BigEndian.Uint16(o[9:]))
	if end > len(o) {
		return false
	}
	for options := o[optLen:end]; len(options) > 0; {
		if len(options) < 4 || 4+int(binary.BigEndian.Uint16(options[2:])) > len(options) {
			return false
		}
		options = options[4+int(binary.BigEndian.Uint16(options[2:])):]
	}
	q.edns = true
	q.size = min(max(int(binary.BigEndian.Uint16(o[3:])), plainSize), maxUDP)
	q.do = o[7]&0x80 != 0
	q.badVersion = o[6] != 0
	return true
}

// folded maps a byte of a label to lower case, and to 0 if text would need an escape.
var folded = func() (t [256]byte) {
	for c := range t {
		name := []byte{byte(c), '.'}
		if registry.CheckName(name) != nil {
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		t[name[0]] = byte(c)
	}
	return t
}()

// appendHead begins a reply: header with counts to be set, and the question as it came.
func (q *question) appendHead(b, request []byte, bits uint16, rcode int) []byte {
	bits |= bitQR | q.bits&(0xf<<11|bitRD|bitCD) | uint16(rcode&0xf)
	b = binary.BigEndian.AppendUint16(b, q.id)
	b = binary.BigEndian.AppendUint16(b, bits)
	if q.end == 0 {
		return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(b, request[headerLen:q.end]...)
}

// appendOPT ends the reply to a question with EDNS0; head is where the reply begins.
func (q *question) appendOPT(b []byte, head int, rcode int) []byte {
	if !q.edns {
		return b
	}
	b[head+11] = 1
	flags := byte(0)
	if q.do {
		flags = 0x80
	}
	return append(b, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, byte(rcode>>4), 0, flags, 0, 0, 0)
}

// appendRefusal is the whole reply to a request that judge refused.
func (q *question) appendRefusal(b, request []byte) []byte {
	head := len(b)
	b = q.appendHead(b, request, bitRA, q.rcode)
	return q.appendOPT(b, head, q.rcode)
}
