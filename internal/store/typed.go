package store

import (
	"slices"

	"weave/internal/peer"
)

// Buckets and keys of this package. Other packages use buckets of their own.
const (
	bucketMeta     = "meta"
	bucketIdentity = "identity"
	bucketMesh     = "mesh"
	bucketPins     = "pins"

	keySchema    = "schema"
	keyPeerName  = "peer-name"   // 6 bytes
	keyHostHash  = "host"        // 32 bytes, see Identity
	keyStaticKey = "static-key"  // opaque bytes
	keyTargets   = "targets"     // array of text
	keyTrial     = "kernel-path" // KernelTrial
)

// PublicKeySize is the size of a pinned key, in bytes.
const PublicKeySize = 32

// PeerName returns the name this daemon had in its last run; false if none.
func (s *Store) PeerName() (name peer.Name, ok bool, err error) {
	var b [peer.NameLen]byte
	ok, err = s.get(bucketIdentity, keyPeerName, &b)
	return peer.NameFromBytes(b), ok, err
}

// SetPeerName remembers the name.
func (s *Store) SetPeerName(name peer.Name) error {
	return s.put(bucketIdentity, keyPeerName, name.Bytes())
}

// StaticKey returns the private static key as it was given to SetStaticKey; nil
// if there is none. The caller owns the bytes.
func (s *Store) StaticKey() ([]byte, error) {
	var key []byte
	_, err := s.get(bucketIdentity, keyStaticKey, &key)
	return key, err
}

// SetStaticKey remembers the private static key.
func (s *Store) SetStaticKey(key []byte) error {
	return s.put(bucketIdentity, keyStaticKey, key)
}

// Targets returns the targets of the last run, literally as they were given.
func (s *Store) Targets() ([]string, error) {
	var targets []string
	_, err := s.get(bucketMesh, keyTargets, &targets)
	return targets, err
}

// SetTargets replaces the targets.
func (s *Store) SetTargets(targets []string) error {
	return s.put(bucketMesh, keyTargets, slices.Concat([]string{}, targets))
}

// KernelTrial is how runs that used a kernel path ended.
type KernelTrial struct {
	Running bool   `cbor:"1,keyasint"` // a run has begun to use one, and has neither done so for long nor ended in order
	Failed  int    `cbor:"2,keyasint"` // runs in a row that died like that
	Last    int64  `cbor:"3,keyasint"` // Unix seconds when the last of them was noticed
	Subject string `cbor:"4,keyasint"` // program and kernel
}

// KernelTrial returns the zero value if nothing was remembered.
func (s *Store) KernelTrial() (t KernelTrial, err error) {
	_, err = s.get(bucketMeta, keyTrial, &t)
	return t, err
}

// SetKernelTrial remembers t before it returns.
func (s *Store) SetKernelTrial(t KernelTrial) error { return s.put(bucketMeta, keyTrial, t) }

// Pin returns the public key that name was first seen with; false if it never
// was.
func (s *Store) Pin(name peer.Name) (key [PublicKeySize]byte, ok bool, err error) {
	ok, err = s.get(bucketPins, name.String(), &key)
	return key, ok, err
}

// SetPin remembers the public key of name, in place of an older one.
func (s *Store) SetPin(name peer.Name, key [PublicKeySize]byte) error {
	return s.put(bucketPins, name.String(), key)
}

func (s *Store) get(bucket, key string, v any) (ok bool, err error) {
	err = s.View(func(tx *Tx) (err error) {
		ok, err = tx.Get(bucket, key, v)
		return err
	})
	return ok, err
}

func (s *Store) put(bucket, key string, v any) error {
	return s.Update(func(tx *Tx) error { return tx.Put(bucket, key, v) })
}
