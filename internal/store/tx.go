package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
)

// MaxKey is the longest key, in bytes.
const MaxKey = 1024

// crcLen is the checksum in front of each value.
const crcLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encMode and decMode never change; their options are valid by construction.
var (
	encMode, _ = cbor.CoreDetEncOptions().EncMode()
	decMode, _ = cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
)

// Tx is a transaction, valid inside the function it was given to.
type Tx struct{ tx *bbolt.Tx }

// Get decodes the value of key in bucket into v, a pointer; false if there is
// none. Nothing in v aliases the database.
func (t *Tx) Get(bucket, key string, v any) (bool, error) {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return false, nil
	}
	raw := b.Get([]byte(key))
	if raw == nil {
		return false, nil
	}
	return true, decodeValue(bucket, key, raw, v)
}

// Put sets the value of key in bucket, making the bucket as needed. v is what the
// cbor package can encode; give struct fields `cbor:"N,keyasint"` or names.
func (t *Tx) Put(bucket, key string, v any) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("storing %s/%.40q: key has %d bytes, want 1 to %d", bucket, key, len(key), MaxKey)
	}
	b, err := t.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return fmt.Errorf("storing %s/%q: %w", bucket, key, err)
	}
	raw, err := encodeValue(bucket, key, v)
	if err != nil {
		return fmt.Errorf("storing %s/%q: %w", bucket, key, err)
	}
	if err := b.Put([]byte(key), raw); err != nil {
		return fmt.Errorf("storing %s/%q: %w", bucket, key, err)
	}
	return nil
}

// Delete removes key from bucket; it may not be there.
func (t *Tx) Delete(bucket, key string) error {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	if err := b.Delete([]byte(key)); err != nil {
		return fmt.Errorf("deleting %s/%q: %w", bucket, key, err)
	}
	return nil
}

// Clear removes all of bucket.
func (t *Tx) Clear(bucket string) error {
	if err := t.tx.DeleteBucket([]byte(bucket)); err != nil && t.tx.Bucket([]byte(bucket)) != nil {
		return fmt.Errorf("deleting %s: %w", bucket, err)
	}
	return nil
}

// Keys yields the keys of bucket in byte order. The bucket must not be changed
// meanwhile.
func (t *Tx) Keys(bucket string) iter.Seq[string] {
	return func(yield func(string) bool) {
		b := t.tx.Bucket([]byte(bucket))
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, _ := c.First(); k != nil && yield(string(k)); k, _ = c.Next() {
		}
	}
}

func encodeValue(bucket, key string, v any) ([]byte, error) {
	body, err := encMode.Marshal(v)
	if err != nil {
		return nil, err
	}
	raw := binary.BigEndian.AppendUint32(make([]byte, 0, crcLen+len(body)), checksum([]byte(bucket), []byte(key), body))
	return append(raw, body...), nil
}

func decodeValue(bucket, key string, raw []byte, v any) error {
	if !valueIntact([]byte(bucket), []byte(key), raw) {
		return fmt.Errorf("reading %s/%q: %w: checksum", bucket, key, errCorrupt)
	}
	if err := decMode.Unmarshal(raw[crcLen:], v); err != nil {
		return fmt.Errorf("reading %s/%q: %w", bucket, key, err)
	}
	return nil
}

func valueIntact(bucket, key, raw []byte) bool {
	return len(raw) > crcLen && binary.BigEndian.Uint32(raw) == checksum(bucket, key, raw[crcLen:])
}

func checksum(bucket, key, body []byte) uint32 {
	sum := crc32.Update(0, castagnoli, bucket)
	sum = crc32.Update(sum, castagnoli, []byte{0})
	sum = crc32.Update(sum, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, []byte{0})
	return crc32.Update(sum, castagnoli, body)
}

// errCorrupt marks what makes a file unusable, as opposed to unreachable.
var errCorrupt = errors.New("file is damaged or not ours")
