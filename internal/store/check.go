package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The walk over a bbolt file, format version 2, before bbolt may map it. All
// numbers are in the machine's byte order. A page:
//
//	 0  8  page id
//	 8  2  flags: one of branch 0x01, leaf 0x02, meta 0x04, free list 0x10
//	10  2  count of elements
//	12  4  overflow: how many more pages this one spans
//	16     a meta, or the elements, then the keys and values they point to
//
// A meta, on pages 0 and 1; of the valid ones the higher transaction id counts:
//
//	 0  4  magic ed0cdaed       4  4  version 2
//	 8  4  page size           12  4  flags
//	16  8  root bucket's page  24  8  its sequence number
//	32  8  free list's page, all ones when there is none
//	40  8  high water mark: pages from here on are unused
//	48  8  transaction id      56  8  FNV-64a of the first 56 bytes
//
// An element of a branch: pos u32, key size u32, page id u64. Of a leaf: flags
// u32 (1: a bucket), pos u32, key size u32, value size u32. pos counts from the
// element itself. A bucket's value is its root page u64 and sequence u64; when
// the root is 0 the bucket's only page follows inline.
const (
	pageHeaderLen = 16
	elementLen    = 16
	bucketLen     = 16
	metaLen       = 64
	metaSummed    = 56

	flagBranch = 0x01
	flagLeaf   = 0x02
	flagBucket = 0x01

	boltMagic    = 0xed0cdaed
	boltVersion  = 2
	noFreelist   = ^uint64(0)
	firstFree    = 2       // pages 0 and 1 are the metas
	maxOverflow  = 1 << 16 // 256 MiB in one page; bounds what one read allocates
	maxPageDepth = 32
)

var order = binary.NativeEndian

// checkPath walks the file at path. errCorrupt: it must not be opened.
func checkPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return checkFile(f, fi.Size())
}

// checkFile reads all that can be reached from the meta that bbolt will use and
// verifies each bound, the order of keys, and the checksum of each value.
func checkFile(r io.ReaderAt, size int64) error {
	w := walker{r: r, size: size, seen: make(map[uint64]bool)}
	root, err := w.meta()
	if err != nil {
		return err
	}
	return w.tree(root, span{}, 0, w.bucket)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errCorrupt, fmt.Sprintf(format, args...))
}

type walker struct {
	r    io.ReaderAt
	size int64
	hwm  uint64          // pages below it exist; hwm*pageSize <= size
	seen map[uint64]bool // pages reached; each may be reached once
}

// span bounds the keys of a subtree: min <= key < max; nil is no bound.
type span struct{ min, max []byte }

// meta finds the root page and sets the high water mark.
func (w *walker) meta() (root uint64, err error) {
	if w.size < firstFree*pageSize {
		return 0, corrupt("%d bytes are too few", w.size)
	}
	var best []byte
	for page := range int64(firstFree) {
		m := make([]byte, metaLen)
		if err := w.read(m, page*pageSize+pageHeaderLen); err != nil {
			return 0, err
		}
		if !metaValid(m) {
			continue
		}
		if best == nil || order.Uint64(m[48:]) > order.Uint64(best[48:]) {
			best = m
		}
	}
	if best == nil {
		return 0, corrupt("no valid meta page")
	}
	if n := order.Uint32(best[8:]); n != pageSize {
		return 0, corrupt("page size %d", n)
	}
	if order.Uint64(best[32:]) != noFreelist {
		return 0, corrupt("has a free list, which weave does not write")
	}
	w.hwm = order.Uint64(best[40:])
	if w.hwm < firstFree || w.hwm > uint64(w.size)/pageSize {
		return 0, corrupt("%d pages announced, %d bytes there", w.hwm, w.size)
	}
	return order.Uint64(best[16:]), nil
}

func metaValid(m []byte) bool {
	h := fnv.New64a()
	h.Write(m[:metaSummed])
	return order.Uint32(m) == boltMagic && order.Uint32(m[4:]) == boltVersion && order.Uint64(m[metaSummed:]) == h.Sum64()
}

// read fills b. The file ending early is damage; any other error is the disk's.
func (w *walker) read(b []byte, off int64) error {
	_, err := w.r.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		return corrupt("ends before offset %d", off+int64(len(b)))
	}
	return err
}

// page reads page id with its overflow and marks all of it as reached.
func (w *walker) page(id uint64) ([]byte, error) {
	if id < firstFree || id >= w.hwm {
		return nil, corrupt("page %d of %d", id, w.hwm)
	}
	head := make([]byte, pageHeaderLen)
	if err := w.read(head, int64(id)*pageSize); err != nil {
		return nil, err
	}
	overflow := uint64(order.Uint32(head[12:]))
	if got := order.Uint64(head); got != id {
		return nil, corrupt("page %d says it is page %d", id, got)
	}
	if overflow >= maxOverflow || id+overflow >= w.hwm {
		return nil, corrupt("page %d spans %d more of %d", id, overflow, w.hwm)
	}
	for n := id; n <= id+overflow; n++ {
		if w.seen[n] {
			return nil, corrupt("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	b := make([]byte, (1+overflow)*pageSize)
	return b, w.read(b, int64(id)*pageSize)
}

// leafFunc judges one element of a leaf.
type leafFunc func(flags uint32, key, value []byte) error

// tree walks the pages under id; keys must be in order and within s.
func (w *walker) tree(id uint64, s span, depth int, leaf leafFunc) error {
	if depth > maxPageDepth {
		return corrupt("page %d is too deep", id)
	}
	p, err := w.page(id)
	if err != nil {
		return err
	}
	switch order.Uint16(p[8:]) {
	case flagLeaf:
		return leafPage(p, s, leaf)
	case flagBranch:
		return w.branchPage(p, s, depth, leaf)
	}
	return corrupt("page %d has flags %#x", id, order.Uint16(p[8:]))
}

func (w *walker) branchPage(p []byte, s span, depth int, leaf leafFunc) error {
	n := int(order.Uint16(p[10:]))
	if n == 0 {
		return corrupt("page %d is an empty branch", order.Uint64(p))
	}
	keys := make([][]byte, n)
	for i := range n {
		e, err := element(p, i, n)
		if err != nil {
			return err
		}
		keys[i], _, err = cut(p, e, n, order.Uint32(p[e:]), order.Uint32(p[e+4:]), 0)
		if err != nil {
			return err
		}
	}
	if err := ordered(keys, s); err != nil {
		return err
	}
	for i := range n {
		sub := span{min: keys[i], max: s.max}
		if i+1 < n {
			sub.max = keys[i+1]
		}
		id := order.Uint64(p[pageHeaderLen+i*elementLen+8:])
		if err := w.tree(id, sub, depth+1, leaf); err != nil {
			return err
		}
	}
	return nil
}

func leafPage(p []byte, s span, leaf leafFunc) error {
	n := int(order.Uint16(p[10:]))
	keys := make([][]byte, n)
	for i := range n {
		e, err := element(p, i, n)
		if err != nil {
			return err
		}
		key, value, err := cut(p, e, n, order.Uint32(p[e+4:]), order.Uint32(p[e+8:]), order.Uint32(p[e+12:]))
		if err != nil {
			return err
		}
		keys[i] = key
		if err := leaf(order.Uint32(p[e:]), key, value); err != nil {
			return err
		}
	}
	return ordered(keys, s)
}

// element returns the offset in p of element i of n.
func element(p []byte, i, n int) (int, error) {
	if pageHeaderLen+n*elementLen > len(p) {
		return 0, corrupt("page %d has %d elements", order.Uint64(p), n)
	}
	return pageHeaderLen + i*elementLen, nil
}

// cut returns the key and value that the element at offset e points to; both lie
// behind the n elements.
func cut(p []byte, e, n int, pos, ksize, vsize uint32) (key, value []byte, err error) {
	start := uint64(e) + uint64(pos)
	mid := start + uint64(ksize)
	end := mid + uint64(vsize)
	if start < uint64(pageHeaderLen+n*elementLen) || end > uint64(len(p)) || ksize == 0 {
		return nil, nil, corrupt("page %d points outside itself", order.Uint64(p))
	}
	return p[start:mid:mid], p[mid:end:end], nil
}

func ordered(keys [][]byte, s span) error {
	for i, k := range keys {
		switch {
		case i == 0 && s.min != nil && bytes.Compare(k, s.min) < 0,
			i > 0 && bytes.Compare(k, keys[i-1]) <= 0,
			s.max != nil && bytes.Compare(k, s.max) >= 0:
			return corrupt("keys out of order")
		}
	}
	return nil
}

// bucket is the leafFunc of the root: it holds buckets only.
func (w *walker) bucket(flags uint32, name, value []byte) error {
	if flags != flagBucket || len(value) < bucketLen {
		return corrupt("%.40q is not a bucket", name)
	}
	leaf := func(flags uint32, key, value []byte) error {
		if flags != 0 || !valueIntact(name, key, value) {
			return corrupt("value of %.40q in %.40q", key, name)
		}
		return nil
	}
	root := order.Uint64(value)
	if root != 0 {
		return w.tree(root, span{}, 0, leaf)
	}
	inline := value[bucketLen:]
	if len(inline) < pageHeaderLen || order.Uint16(inline[8:]) != flagLeaf {
		return corrupt("bucket %.40q has no page", name)
	}
	return leafPage(inline, span{}, leaf)
}
