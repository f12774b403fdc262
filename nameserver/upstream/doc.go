// Package upstream asks the DNS servers of the host's resolv.conf.
//
// Its one idea: whoever wants to slip us a wrong answer has to guess. Every question
// goes out from a socket of its own, connected to its server, with a random number and
// with letters in random case; a reply counts only if its number and the bytes of its
// question are those that were sent, and after a few that are not, the question is asked
// again over TCP.
//
// # Flow of Exchange
//
//	loop     a question that carries our mark, or the very case of one that is under
//	         way, is our own coming back: refused, so that a loop ends after one round
//	cache    bounded; TTLs count down; what does not exist is kept as its SOA says
//	flight   equal questions at one time are one question
//	race     servers in order, the ones that answered before first; the next one joins
//	         when one fails or is silent for 400 ms, and the first answer wins
//	attempt  UDP; TCP if the answer was cut, or its case was not kept, or on forgeries
//
// # Concurrency
//
// A [Forwarder] may be used by any number of goroutines. It has none of its own: what
// Exchange starts is gone when it returns.
package upstream
