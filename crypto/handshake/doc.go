// Package handshake authenticates a control connection and gives both ends the
// keys to go on with.
//
// Its one idea: a [Machine] that is fed exactly the bytes it asks for and says
// what to write back. It owns no socket and no clock; [Run] is the loop around it.
// What is agreed is Noise XX with 25519, ChaChaPoly and BLAKE2s, and XXpsk3 when a
// password is set.
//
// # Flow
//
//	initiator                               responder
//	preamble ----------------------------->  (silent until it has a valid one)
//	         <----------------------------- preamble
//	1: -> e  ----------------------------->
//	         <----------------------------- 2: <- e, ee, s, es + offer
//	3: -> s, se [, psk] + offer ---------->
//	         <----------------------------- ACCEPT, the first record of the Transport
//
// Both preambles are the prologue, and both offers are payloads, so whoever
// changes a version, a flag or an offer on the way breaks the handshake. ACCEPT
// proves to the initiator that the responder has the password. An end that gives
// up after the preambles says why in one REJECT frame. REJECT is neither encrypted
// nor authenticated: it is a hint for the user and nothing is decided by it except
// that this connection is over, which whoever can forge it could do anyway.
//
// # Wire format
//
// A preamble has 16 bytes:
//
//	0-7    magic    "weave" 00 0d 0a
//	8      version  lowest spoken
//	9      version  highest spoken; the highest that both speak is used
//	10-11  flags    u16 LE; bit 0: a password is set; others are sent as 0 and ignored
//	12-15  zero     sent as 0 and ignored
//
// Version 1 is what stands here. A step that keeps a false responder from testing
// passwords offline (a balanced PAKE in front of message 1) takes version 2.
//
// A frame follows each preamble any number of times:
//
//	0-1    length   u16 BE of what follows, 1..1024
//	2      type     1 HANDSHAKE, 2 ACCEPT, 3 REJECT; append only
//	3-     body     a Noise message; a Transport record with the text "accept";
//	                or one byte, the RejectCode
//
// Payloads of messages 2 and 3 are the offers as the caller gave them; message 1
// has none. Nothing may follow.
//
// # Keys
//
//	Binding  the Noise handshake hash h
//	Secret   HKDF-Expand(HKDF-Extract(salt = h, ikm = k1 ‖ k2), "weave handshake v1 data secret", 32)
//
// with HMAC-BLAKE2s and k1, k2 the first keys of the Transport, initiator's first.
//
// # Limits
//
// Before the other end is authenticated a Machine holds less than 4 KiB, whatever
// arrives. How long it may take, and how many there are, is its owner's to limit.
//
// # Errors
//
// Every error of Step is final. What Step returned with it should be written
// before the connection is closed.
//
// # Concurrency
//
// A Machine belongs to one goroutine. A [Transport] may be used by two: one that
// seals and one that opens.
package handshake
