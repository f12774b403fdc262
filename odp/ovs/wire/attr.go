package wire

import (
	"encoding/binary"
	"errors"
	"iter"
)

// ErrMessage reports a message that is cut off or has a field of a wrong length.
var ErrMessage = errors.New("wire: malformed message")

// Lengths in bytes.
const (
	headerLen     = 4 // struct ovs_header
	attrHeaderLen = 4 // struct nlattr
)

// typeMask leaves the type of an attribute: the upper bits are flags.
const typeMask = 0x3fff

var (
	native  = binary.NativeEndian
	network = binary.BigEndian
)

// begin appends the header of an attribute whose payload is appended next; end, given
// what begin returned second, closes it.
func begin(b []byte, typ uint16) ([]byte, int) {
	start := len(b)
	b = native.AppendUint16(b, 0)
	return native.AppendUint16(b, typ), start
}

func end(b []byte, start int) []byte {
	native.PutUint16(b[start:], uint16(len(b)-start))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendBytes(b []byte, typ uint16, v []byte) []byte {
	b, start := begin(b, typ)
	return end(append(b, v...), start)
}

func appendString(b []byte, typ uint16, s string) []byte {
	b, start := begin(b, typ)
	return end(append(append(b, s...), 0), start)
}

func append8(b []byte, typ uint16, v uint8) []byte {
	b, start := begin(b, typ)
	return end(append(b, v), start)
}

func append16(b []byte, typ uint16, order binary.AppendByteOrder, v uint16) []byte {
	b, start := begin(b, typ)
	return end(order.AppendUint16(b, v), start)
}

func append32(b []byte, typ uint16, v ...uint32) []byte {
	b, start := begin(b, typ)
	for _, v := range v {
		b = native.AppendUint32(b, v)
	}
	return end(b, start)
}

func append64(b []byte, typ uint16, order binary.AppendByteOrder, v ...uint64) []byte {
	b, start := begin(b, typ)
	for _, v := range v {
		b = order.AppendUint64(b, v)
	}
	return end(b, start)
}

func appendFlag(b []byte, typ uint16) []byte { return appendBytes(b, typ, nil) }

// attrs yields the attributes of a run, which must fill b. A malformed one is yielded as
// an error, and is the last.
func attrs(b []byte) iter.Seq2[attr, error] {
	return func(yield func(attr, error) bool) {
		for len(b) > 0 {
			if len(b) < attrHeaderLen {
				yield(attr{}, ErrMessage)
				return
			}
			n := int(native.Uint16(b))
			if n < attrHeaderLen || n > len(b) {
				yield(attr{}, ErrMessage)
				return
			}
			if !yield(attr{native.Uint16(b[2:]) & typeMask, b[attrHeaderLen:n]}, nil) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// attr is one attribute.
type attr struct {
	typ  uint16
	data []byte
}

// fields reads attributes into variables: it keeps the first error.
type fields struct{ err error }

// ok reports whether data has n bytes, and notes if it has not.
func (f *fields) ok(data []byte, n int) bool {
	if f.err == nil && len(data) != n {
		f.err = ErrMessage
	}
	return f.err == nil
}

func (f *fields) u8(p *uint8, data []byte) {
	if f.ok(data, 1) {
		*p = data[0]
	}
}

func (f *fields) u16(p *uint16, order binary.ByteOrder, data []byte) {
	if f.ok(data, 2) {
		*p = order.Uint16(data)
	}
}

func (f *fields) u32(p *uint32, data []byte) {
	if f.ok(data, 4) {
		*p = native.Uint32(data)
	}
}

func (f *fields) u64(p *uint64, order binary.ByteOrder, data []byte) {
	if f.ok(data, 8) {
		*p = order.Uint64(data)
	}
}

// u64s reads the first of a struct's 64-bit fields; later kernels may have more.
func (f *fields) u64s(data []byte, p ...*uint64) {
	if f.err == nil && len(data) < 8*len(p) {
		f.err = ErrMessage
	}
	if f.err != nil {
		return
	}
	for i, p := range p {
		*p = native.Uint64(data[8*i:])
	}
}

func (f *fields) u32s(p *[]uint32, data []byte) {
	if f.err == nil && len(data)%4 != 0 {
		f.err = ErrMessage
	}
	if f.err != nil {
		return
	}
	*p = nil
	for ; len(data) > 0; data = data[4:] {
		*p = append(*p, native.Uint32(data))
	}
}

// str reads a string that ends with a zero byte.
func (f *fields) str(p *string, data []byte) {
	if f.err == nil && (len(data) == 0 || data[len(data)-1] != 0) {
		f.err = ErrMessage
	}
	if f.err == nil {
		*p = string(data[:len(data)-1])
	}
}

// header reads struct ovs_header.
func header(b []byte) (datapath int32, rest []byte, err error) {
	if len(b) < headerLen {
		return 0, nil, ErrMessage
	}
	return int32(native.Uint32(b)), b[headerLen:], nil
}

func appendHeader(b []byte, datapath int32) []byte { return native.AppendUint32(b, uint32(datapath)) }

// parse reads a message: its header, and its attributes by read.
func parse(b []byte, datapath *int32, read func(f *fields, typ uint16, data []byte)) error {
	d, rest, err := header(b)
	if err != nil {
		return err
	}
	*datapath = d
	return parseAttrs(rest, read)
}

func parseAttrs(b []byte, read func(f *fields, typ uint16, data []byte)) error {
	var f fields
	for a, err := range attrs(b) {
		if err != nil {
			return err
		}
		if read(&f, a.typ, a.data); f.err != nil {
			return f.err
		}
	}
	return nil
}
