// Package nameserver gives containers names: it serves the names of all peers over DNS
// and passes other questions on.
//
// Its one idea: an answer is a function of the question's bytes and of an index that is
// read without a lock ([weave/nameserver/registry]). The common questions are answered
// from the bytes they came in; all others are unpacked and take their time elsewhere.
//
// # A question's walk
//
//	socket          workers (UDP, in batches) or connections (TCP)
//	source          Config.Allow, else dropped: this is not an open resolver
//	judge           header and question, before anything is unpacked: replies are dropped,
//	                what nobody should ask here is refused in at most as many bytes
//	local           names of the domain and names of one label: appended from the index
//	handler         the rest: reverse names that are known here, else [weave/nameserver/upstream]
//	size            512, or what EDNS0 allows up to 1232; over that, the first answers and TC
//
// # What is answered
//
//	in the domain, or one label   A, AAAA    the addresses, in random order
//	                              ANY        both
//	                              other      none, NOERROR, with the domain's SOA
//	  nothing there                          NXDOMAIN, never asked upstream; names with
//	                                         names below them exist (RFC 8020)
//	reverse name of an address    PTR        the first name in alphabetical order
//	  known here                  other      none, NOERROR
//	  of no address known, or of a network   asked upstream
//	  not of an address at all               NXDOMAIN
//	all else                                 asked upstream
//
// # Concurrency
//
// A [Server]'s methods may be called from any goroutine. Changes of names take a mutex;
// answers take no lock. [Server.Run] returns when all that it started is gone.
//
// # Errors
//
// Handlers return a response code and an error; one place ([Server.respond]) turns these
// into a reply, a counter and a line in the log.
package nameserver
