package session

import "encoding/binary"

const (
	// HeaderLen is the size in bytes of the header in front of the sealed bytes.
	HeaderLen = 16
	// TagLen is the size in bytes of the tag behind them; clear datagrams have none.
	TagLen = 16
)

// TypeData is the type byte of every datagram of this version. The other values
// are reserved; append only.
const TypeData = 0x14

// Offsets in the header; they are protocol.
const (
	offType    = 0
	offLane    = 1
	offFlags   = 2
	offIndex   = 4
	offCounter = 8
)

// Lane is a sequence of datagrams of one sending worker. Each lane has its own
// key, counter and replay window, so workers share nothing.
type Lane uint8

// Numbering of lanes; it is protocol. Bridge traffic of transmit worker q uses
// lane q, 0..15; frames relayed by receive worker l use lane RelayLane0+l.
const (
	RelayLane0  Lane = 32 // first of 16 relay lanes, 32..47
	LaneControl Lane = 63 // heartbeats and probes
	NumLanes         = 64 // lanes are below this
)

// Header is what a datagram says about itself before it is opened. Nothing in it
// may be trusted until Open has succeeded.
type Header struct {
	Lane    Lane
	Flags   uint16
	Index   uint32 // names the receiver's RxKeys
	Counter uint64
}

// ParseHeader reads the header of a datagram. It reports false for one that is
// too short, of another type, or with a lane out of range.
func ParseHeader(b []byte) (Header, bool) {
	if len(b) < HeaderLen || b[offType] != TypeData || b[offLane] >= NumLanes {
		return Header{}, false
	}
	return Header{
		Lane:    Lane(b[offLane]),
		Flags:   binary.LittleEndian.Uint16(b[offFlags:]),
		Index:   binary.LittleEndian.Uint32(b[offIndex:]),
		Counter: binary.LittleEndian.Uint64(b[offCounter:]),
	}, true
}

// appendHeader is the inverse of ParseHeader.
func appendHeader(b []byte, h Header) []byte {
	b = append(b, TypeData, byte(h.Lane))
	b = binary.LittleEndian.AppendUint16(b, h.Flags)
	b = binary.LittleEndian.AppendUint32(b, h.Index)
	return binary.LittleEndian.AppendUint64(b, h.Counter)
}
