// Package crypto is a page about how links are protected. It has no code: that is
// in handshake, which authenticates a control connection and makes its keys, in
// session, which seals the datagrams of a link, and in policy, which alone can say
// that data may travel in clear.
//
// The one idea: who has the password is a member. From the password comes the
// proof of membership, from fresh Diffie-Hellman comes every key, and the two are
// mixed so that neither is enough alone.
//
// # Promises
//
// Against anybody on the way, who sees, drops, repeats, reorders, changes and
// invents whatever he likes, and does not have the password:
//
//   - He reads no data and no control message, and what he changes or invents is
//     not accepted. Each datagram and record is accepted at most once.
//   - He cannot join, nor stand between two members unnoticed.
//   - He cannot bring two ends to a weaker cipher, to clear data, or to an older
//     version: offers, versions and whether there is a password are authenticated.
//     An end with a password sends no data in clear, except to a peer that both
//     ends trust by address (--trusted-subnets), and code cannot build such a path
//     without a policy.Permit.
//   - What he recorded stays closed if the password, a static key, or a whole host
//     is lost later: data keys live at most 180 s, and hosts keep none.
//   - He makes a host remember less than 4 KiB for each connection before he has
//     authenticated, gets no answer to garbage, and moves no peer's endpoint and
//     no replay window, since only authenticated datagrams do.
//   - He hears of a wrong password no more than that it is wrong.
//
// # Not promised
//
//   - One shared password is membership: a member can read what it relays, claim
//     any address, and admit others. It cannot be put out but by a new password.
//     Static keys tell members apart and make a stolen name visible; they do not
//     limit what a member may do.
//   - A relay sees the frames it passes on: they are sealed hop by hop.
//   - A weak password can be guessed offline by who plays a responder to somebody
//     that has it: message 3 of XXpsk3 depends on the password and on nothing else
//     that the false responder does not know. (One that only listens, or plays an
//     initiator, has no such test.) Argon2id makes each guess cost a fifth of a
//     second and 64 MiB; a balanced PAKE (CPace) in front of the handshake, for
//     which version 2 is kept free, will take the test away. Until then a password
//     should have 50 bits or more. A peer whose static key is already known is not
//     exposed, if the caller's Admit refuses other keys.
//   - Without a password anybody can join, and who is on the way at the first
//     meeting can stay there. Data is in clear then, as the policy has it.
//   - Who talks to whom, when, and how much is visible, and so are the preamble
//     with its password flag, and the header of each datagram (lane, flags, index,
//     counter). A responder shows its static key and offer to whoever asks.
//   - Reaching a host can be prevented by who is on the way; REJECT is a hint that
//     he can forge.
//   - Recordings are safe from a quantum computer only as far as the password is
//     strong: X25519 is all there is. A hybrid with ML-KEM would take a version.
//   - Secrets are cleared where Go lets us; expanded cipher keys are left to the
//     garbage collector.
//
// # Key schedule
//
//	password --Argon2id(t=3, m=64 MiB, p=2, fixed salt)--> PSK
//
//	Noise_XX[psk3]_25519_ChaChaPoly_BLAKE2s
//	prologue  both preambles: versions, flags
//	-> e
//	<- e, ee, s, es      + offer of the responder
//	-> s, se [, psk]     + offer of the initiator
//	    |
//	    +--> k1, k2      records of the control connection, a new key every 2^16
//	    +--> h           Binding: names the connection
//	    +--> Secret    = HKDF(salt = h, ikm = k1 ‖ k2, "weave handshake v1 data secret")
//	            |
//	            |   for each epoch n of each link, over the control connection:
//	            |   INIT{n, e_i}, RESP{n, e_r}
//	            v
//	         prk_n     = HKDF-Extract(salt = BLAKE2s(INIT ‖ RESP), ikm = X25519(e_i, e_r) ‖ Secret)
//	            |
//	            +--> K = HKDF-Expand(prk_n, "weave session v1 lane" ‖ cipher ‖ n ‖ direction ‖ lane)
//
// HKDF is that of RFC 5869 with HMAC-BLAKE2s. Every key is of 32 bytes and has one
// use, one direction, and one owner that seals with it.
//
// # Nonces
//
//	records     a counter from 0, not sent; a new key does not start it again
//	datagrams   a counter from 0 for each K, sent in the header; never random, never a clock
//
// The counter lives in the value that holds the key, and that value cannot be
// copied out, saved or restored. A key that has used up its counters (2^34 for
// AES-256-GCM, 2^60 for ChaCha20-Poly1305) seals nothing more. After a restart, a
// lost store or a restored snapshot there is nothing to go on with: both ends mix
// fresh random keys into every epoch, so either alone makes the keys new. A clone
// of a running machine is the exception: it has the same keys and counters, until
// the next epoch.
//
// # Lifetimes
//
//	0 s      INIT and RESP; previous, current and next keys are open side by side
//	120 s    ±12 s: the initiator starts the next epoch
//	180 s    hard stop: nothing is sealed or opened with the keys, whoever holds them
//
// # Primitives
//
// The standard library (AES-GCM, X25519, HKDF, HMAC), golang.org/x/crypto
// (ChaCha20-Poly1305, BLAKE2s, Argon2id) and github.com/flynn/noise. Nothing is
// home-made but the way they are put together, the replay window (RFC 6479), and
// the framing.
package crypto
