// Package api is the daemon's control interface: what the command line, and
// later the Docker and CNI plugins, ask of a running daemon.
//
// Its one idea: a [Backend] is the whole list of what can be asked. [Server]
// offers a Backend over HTTP/JSON on a unix socket, [Client] has the same
// methods on the other side, and the types in between are the stable schema that
// `--json` prints.
//
// # Routes
//
// On the unix socket <run-dir>/weave.sock, mode 0600, callers of uid 0 or of the
// daemon's own uid only:
//
//	GET  /v1/status /v1/connections /v1/peers /v1/targets /v1/report
//	GET  /v1/ps?container=netns:a&container=pid:7
//	GET  /v1/ipam /v1/dns
//	GET  /v1/dns/lookup?name=blue
//	POST /v1/connect /v1/forget /v1/attach /v1/detach /v1/reset /v1/stop
//	POST /v1/expose /v1/hide /v1/prime /v1/rmpeer /v1/dns/add /v1/dns/remove
//	GET  /debug/pprof/...
//
// On the read-only status listener, GET and HEAD only:
//
//	/status /status/connections /status/peers /status/targets   text
//	/status/ipam /status/dns                                    text
//	/report                                                     JSON
//	/metrics                                                    Prometheus
//
// A request body is one JSON object of at most [MaxBody] bytes, type
// application/json, with no unknown field. Requests that a browser could have
// been talked into (an Origin or Sec-Fetch header, a foreign Host) are refused.
//
// # Schema
//
// Every answer is one JSON object whose "schema" is [Schema]. Fields are added to
// a schema, never removed or retyped. Durations are nanoseconds in fields that
// end in _ns, times are RFC 3339, absent times and names are left out.
//
// # Errors
//
// An [Error] has a [Code], which decides the HTTP status and the exit status of
// the command line. A Backend returns one where the user can do something about
// it; any other error becomes "failure".
package api
