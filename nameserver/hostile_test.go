package nameserver

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Where hostile input is tested, by what may be sent:
//
//	the 17 advisories                       TestAdvisories
//	pointer loops, limits of 63 and 255,    TestHostileQuestions here, which is also the
//	QR=1, 0 and 2 questions, EDNS versions, seed of FuzzQuery and, damaged bit by bit, of
//	class ANY, AXFR, case, unknown types    TestNoPanicOnDamagedQuestions
//	a reply to a refusal is no longer       TestHostileQuestions, FuzzQuery
//	replies over 1232 bytes                 TestTruncation
//	TCP: trickle, silence, nonsense, idle   TestSlowTCP; 1,000 connections: TestManyIdleTCP
//	sources                                 TestSourcesAreChecked
//	forged upstream replies, 1,000,000      upstream: TestSpoofedReplies, TestForeignAddress
//	hostile upstream replies                upstream: TestHostileReplies, FuzzReply
//	loops of forwarders                     upstream: TestLoopEndsAfterOneRound, TestCircleOfForwarders
//	gossip                                  registry: TestDamagedMessages, FuzzStep
//
// The same from outside, with dig and sockets of a container: internal/e2e/names.

// hostileInput is bytes that somebody may send, and what we say to them.
type hostileInput struct {
	name    string
	request func() []byte
	want    string // the code, or "nothing"
}

// header makes the twelve bytes before the question.
func header(bits, qd, an, ns, ar uint16) []byte {
	var b []byte
	for _, v := range []uint16{0x1234, bits, qd, an, ns, ar} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

const plainName = "\x01a\x05weave\x05local\x00"

func raw(parts ...string) func() []byte {
	return func() []byte { return []byte(strings.Join(parts, "")) }
}

func one(bits uint16) string { return string(header(bits, 1, 0, 0, 0)) }

var hostile = []hostileInput{
	{"empty", raw(""), "nothing"},
	{"half a header", raw("\x12\x34\x01\x00\x00\x01"), "nothing"},
	{"QR=1: a reply", raw(one(bitQR|bitRD), plainName, "\x00\x01\x00\x01"), "nothing"},
	{"no question", func() []byte { return header(bitRD, 0, 0, 0, 0) }, "FORMERR"},
	{"two questions", raw(string(header(bitRD, 2, 0, 0, 0)), plainName, "\x00\x01\x00\x01", plainName, "\x00\x1c\x00\x01"), "FORMERR"},
	{"65535 questions", raw(string(header(bitRD, 0xffff, 0, 0, 0)), plainName, "\x00\x01\x00\x01"), "FORMERR"},
	{"65535 answers announced", raw(string(header(bitRD, 1, 0xffff, 0, 0)), plainName, "\x00\x01\x00\x01"), "FORMERR"},
	{"65535 additional records announced", raw(string(header(bitRD, 1, 0, 0, 0xffff)), plainName, "\x00\x01\x00\x01"), "FORMERR"},
	{"name points to itself", raw(one(bitRD), "\xc0\x0c\x00\x01\x00\x01"), "FORMERR"},
	{"name points into the header", raw(one(bitRD), "\x01a\xc0\x00\x00\x01\x00\x01"), "FORMERR"},
	{"two pointers in a circle", raw(one(bitRD), "\xc0\x0e\xc0\x0c\x00\x01\x00\x01"), "FORMERR"},
	{"pointer behind the end", raw(one(bitRD), "\xff\xff\x00\x01\x00\x01"), "FORMERR"},
	{"label of 64 bytes", raw(one(bitRD), "\x40", strings.Repeat("x", 64), "\x00\x00\x01\x00\x01"), "FORMERR"},
	{"label of 63 bytes", raw(one(bitRD), "\x3f", strings.Repeat("x", 63), "\x05weave\x05local\x00\x00\x01\x00\x01"), "NXDOMAIN"},
	{"name of 256 bytes", raw(one(bitRD), strings.Repeat("\x07abcdefg", 31), "\x06abcdef\x00\x00\x01\x00\x01"), "FORMERR"},
	{"name of 255 bytes in the domain", raw(one(bitRD), strings.Repeat("\x07abcdefg", 30), "\x01a\x05weave\x05local\x00\x00\x01\x00\x01"), "NXDOMAIN"},
	{"name without end", raw(one(bitRD), "\x05weave"), "FORMERR"},
	{"name without type", raw(one(bitRD), plainName), "FORMERR"},
	{"half a class", raw(one(bitRD), plainName, "\x00\x01\x00"), "FORMERR"},
	{"class ANY", raw(one(bitRD), plainName, "\x00\x01\x00\xff"), "REFUSED"},
	{"class CHAOS", raw(one(bitRD), "\x07version\x04bind\x00\x00\x10\x00\x03"), "REFUSED"},
	{"class 0", raw(one(bitRD), plainName, "\x00\x01\x00\x00"), "REFUSED"},
	{"AXFR", raw(one(bitRD), "\x05weave\x05local\x00\x00\xfc\x00\x01"), "REFUSED"},
	{"IXFR with its SOA", raw(string(header(bitRD, 1, 0, 1, 0)), "\x05weave\x05local\x00\x00\xfb\x00\x01"), "FORMERR"},
	{"IXFR", raw(one(bitRD), "\x05weave\x05local\x00\x00\xfb\x00\x01"), "REFUSED"},
	{"type 0", raw(one(bitRD), plainName, "\x00\x00\x00\x01"), "FORMERR"},
	{"type OPT", raw(one(bitRD), plainName, "\x00\x29\x00\x01"), "FORMERR"},
	{"type TSIG", raw(one(bitRD), plainName, "\x00\xfa\x00\x01"), "REFUSED"},
	{"type MAILB", raw(one(bitRD), plainName, "\x00\xfd\x00\x01"), "REFUSED"},
	{"a type that nobody knows", raw(one(bitRD), plainName, "\xff\x00\x00\x01"), "NOERROR"},
	{"the highest type", raw(one(bitRD), plainName, "\xff\xff\x00\x01"), "NOERROR"},
	{"case mixed", raw(one(bitRD), "\x01A\x05wEaVe\x05LoCaL\x00\x00\x01\x00\x01"), "NOERROR"},
	{"type ANY", raw(one(bitRD), plainName, "\x00\xff\x00\x01"), "NOERROR"},
	{"label of no letters", raw(one(bitRD), "\x04\x00\xff.\\\x05weave\x05local\x00\x00\x01\x00\x01"), "NXDOMAIN"},
	{"name of dots", raw(one(bitRD), "\x03...\x05weave\x05local\x00\x00\x01\x00\x01"), "NXDOMAIN"},
	{"two OPT records", raw(string(header(bitRD, 1, 0, 0, 2)), plainName, "\x00\x01\x00\x01", strings.Repeat("\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00", 2)), "FORMERR"},
	{"UPDATE", raw(one(dns.OpcodeUpdate<<11), plainName, "\x00\x06\x00\x01"), "NOTIMP"},
	{"NOTIFY", raw(one(dns.OpcodeNotify<<11), plainName, "\x00\x06\x00\x01"), "NOTIMP"},
	{"STATUS", raw(one(dns.OpcodeStatus<<11), plainName, "\x00\x01\x00\x01"), "NOTIMP"},
	{"inverse query", raw(one(dns.OpcodeIQuery<<11), plainName, "\x00\x01\x00\x01"), "NOTIMP"},
	{"opcode 15", raw(one(15<<11), plainName, "\x00\x01\x00\x01"), "NOTIMP"},
	{"EDNS version 1", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01", "\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x00"), "BADVERS"},
	{"EDNS version 255", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01", "\x00\x00\x29\x10\x00\x00\xff\x00\x00\x00\x00"), "BADVERS"},
	{"OPT longer than the message", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01", "\x00\x00\x29\x10\x00\x00\x00\x00\x00\xff\xff"), "FORMERR"},
	{"option longer than its OPT", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01", "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x04\x00\x0a\x00\xff"), "FORMERR"},
	{"OPT announced and missing", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01"), "FORMERR"},
	{"EDNS size 0", raw(string(header(bitRD, 1, 0, 0, 1)), plainName, "\x00\x01\x00\x01", "\x00\x00\x29\x00\x00\x00\x00\x00\x00\x00\x00"), "NOERROR"},
	{"4 KiB of rubbish behind the question", raw(one(bitRD), plainName, "\x00\x01\x00\x01", strings.Repeat("\xc0\x0c", 2000)), "NOERROR"},
	{"every flag set", raw(one(0x07ff&^bitQR), plainName, "\x00\x01\x00\x01"), "NOERROR"},
}

// What is refused is refused before it is unpacked, in no more bytes than it had.
func TestHostileQuestions(t *testing.T) {
	s := twinServer(t)
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			for _, udp := range []bool{true, false} {
				request := h.request()
				before := bytes.Clone(request)
				b := s.reply(request, udp)
				if !bytes.Equal(before, request) {
					t.Error("the request was changed")
				}
				got := "nothing"
				if len(b) > 0 {
					m := new(dns.Msg)
					if err := m.Unpack(b); err != nil {
						t.Fatalf("reply does not unpack: %v", err)
					}
					if got = dns.RcodeToString[m.Rcode]; m.Rcode == dns.RcodeBadVers {
						got = "BADVERS"
					}
					if !m.Response || m.Id != 0x1234 {
						t.Errorf("head %+v", m.MsgHdr)
					}
					refused := m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
					if refused && len(b) > len(request) {
						t.Errorf("%d bytes for %d", len(b), len(request))
					}
				}
				if got != h.want {
					t.Errorf("%s, want %s", got, h.want)
				}
			}
		})
	}
}
