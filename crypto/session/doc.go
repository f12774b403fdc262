// Package session seals the datagrams of a link and agrees on their keys.
//
// Its one idea: a key, its counter and its limit live in one value with one
// owner, so a nonce cannot be used twice and a limit cannot be ignored. A
// [Sealer] and an [Opener] exist per lane and epoch, come only from an
// [Exchange], and share nothing with those of another lane. The Exchange is a
// machine without sockets or clock that two ends run over their control
// connection; what it returns says which keys to receive with, which to send
// with, and which to forget.
//
// # Wire format
//
// A datagram is a header of 16 bytes, the sealed bytes, and a tag of 16 bytes:
//
//	0      type     0x14 data; all others are reserved
//	1      lane     0..63, at a fixed offset so that a classic BPF program can steer on it
//	2-3    flags    u16 LE, meaning given by the user of this package
//	4-7    index    u32 LE, names the receiver's keys; chosen by the receiver
//	8-15   counter  u64 LE, per lane and key, from 0, never used twice
//	16-    sealed bytes, then the tag (16 bytes); in clear mode the bytes as they are, no tag
//
// The header is the additional data of the AEAD; the nonce is four zero bytes and
// the counter as in the header (bytes 8-15).
//
// Control messages have a head of 8 bytes; INIT and RESP go on to 76 bytes. A
// message with any other length, version or type is an error, so there are no
// trailing bytes: an extension takes a new version.
//
//	0      version  1
//	1      type     1 INIT, 2 RESP, 3 CONFIRM, 4 REQUEST
//	2      cipher   Cipher; both ends must have chosen the same one
//	3      zero
//	4-7    epoch    u32 LE, from 1
//	8-11   index    u32 LE, receiver index of the end that sends the message
//	12-43  public   fresh X25519 public key; zero in clear mode
//	44-75  nonce    random bytes
//
// # Exchange
//
// The end that dialed the control connection is the initiator; only it starts:
//
//	initiator                          responder
//	INIT{n} ------------------------>  arms its receive keys n
//	arms its receive keys n  <-------  RESP{n}
//	sends with keys n
//	CONFIRM{n} --------------------->  sends with keys n
//	datagram under n (or that) ----->
//
// REQUEST{n} is the responder's wish that the keys n be replaced. A message that
// got lost is sent again, one that comes twice is answered the same way again,
// one that comes too late is ignored.
//
// Up to three generations of receive keys are open at a time (previous, current,
// next), so a change of keys drops nothing that is on its way. Whatever is older
// than RejectAfter is gone on both sides: a link whose exchange does not get
// through falls silent, it does not go on with old keys.
//
// # Key schedule
//
//	h        = BLAKE2s-256(INIT ‖ RESP)
//	prk      = HKDF-Extract(salt = h, ikm = X25519(e_i, e_r) ‖ Secret)
//	K_{d,l}  = HKDF-Expand(prk, info = "weave session v1 lane" ‖ cipher ‖ epoch u32 LE ‖ d ‖ l, 32)
//
// with HMAC-BLAKE2s, d = 0 from the initiator to the responder and 1 back, and l
// the lane. Ephemeral keys and the DH result are gone when prk is made. A lane's key
// is made when the lane is first used; prk is cleared when the keys are given up, so
// that it lives no longer than they do.
//
// # Limits
//
// A key seals at most 2^34 datagrams with AES-256-GCM and 2^60 with
// ChaCha20-Poly1305; then Seal fails. Receivers refuse counters beyond that.
//
// # Concurrency
//
// A Sealer and an Opener each belong to one goroutine at a time, as does an
// Exchange. [TxKeys] and [RxKeys] may be shared and read by all. When the Exchange
// gives keys up, their Sealers and Openers fail from then on, whoever holds them.
package session
