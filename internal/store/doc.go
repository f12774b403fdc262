// Package store keeps what a daemon must remember over restarts: its name, its
// static key, its targets, the keys of the peers it has met, and, for other
// packages, any small value under a bucket and a key.
//
// Its one idea: after [Open] nothing in the file can surprise us. Open walks the
// whole file with bounds-checked reads before the database library maps it into
// memory, and each value carries a checksum, so a torn or garbled file is set
// aside as weave.db.broken-<n> instead of crashing the daemon or feeding it lies.
//
// # Files
//
// In the state directory, mode 0700, all files 0600:
//
//	weave.db           the database (bbolt, 4096-byte pages, no free list on disk)
//	weave.lock         locked (flock) while the store is open; holds the owner's pid
//	weave.db.tmp       a database being created; renamed when it is complete
//	weave.db.broken-1  what could not be read, kept for its owner to look at
//
// # Format
//
// Buckets are flat. The bytes of a value:
//
//	0  4  CRC-32C, big endian, of bucket name, 0, key, 0, and all that follows
//	4  n  CBOR (RFC 8949), core deterministic encoding
//
// Bucket "meta", key "schema" holds the version of all this, an unsigned number.
// A store of a newer version is refused and left alone.
//
// # Concurrency
//
// All methods may be called from any goroutine. Writers wait for one another;
// readers wait for nobody. Update returns when the data is on the disk.
//
// # Errors
//
// [ErrLocked] names a live owner, [ErrNewer] a file of a newer version. Reads
// after Open can still meet a failing disk; that is an error, not a fault.
package store
