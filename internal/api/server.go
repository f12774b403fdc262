package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// prefix of all routes of this schema.
const prefix = "/" + Schema

// route is one method and path. Paths match exactly, byte by byte: nothing is
// cleaned, decoded or redirected, so there is nothing to be tricked by.
type route struct {
	method string
	query  bool // takes a query string
	serve  http.HandlerFunc
}

type router map[string]route

// controlHandler serves the unix socket.
func (s *Server) controlHandler() http.Handler {
	b := s.cfg.Backend
	routes := router{
		prefix + "/status":      answer(b.Status),
		prefix + "/connections": answer(b.Connections),
		prefix + "/peers":       answer(b.Peers),
		prefix + "/targets":     answer(b.Targets),
		prefix + "/report":      answer(b.Report),
		prefix + "/ps":          s.ps(),
		prefix + "/connect":     command(b.Connect),
		prefix + "/forget":      command(b.Forget),
		prefix + "/attach":      question(b.Attach),
		prefix + "/detach":      question(b.Detach),
		prefix + "/expose":      question(b.Expose),
		prefix + "/hide":        question(b.Hide),
		prefix + "/prime":       command(b.Prime),
		prefix + "/rmpeer":      question(b.RmPeer),
		prefix + "/ipam":        answer(b.IPAM),
		prefix + "/dns":         answer(b.DNS),
		prefix + "/dns/add":     command(b.AddName),
		prefix + "/dns/remove":  command(b.RemoveName),
		prefix + "/dns/lookup":  s.lookup(),
		prefix + "/why":         s.why(),
		prefix + "/reset":       question(b.Reset),
		prefix + "/stop":        command(func(ctx context.Context, _ stopRequest) error { return b.Stop(ctx) }),
	}
	for name, h := range profiles() {
		routes["/debug/pprof/"+name] = route{http.MethodGet, true, h}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !callerOf(r.Context()).allowed() {
			writeError(w, Errorf(CodePermission, "the control socket is for root: run as root"))
			return
		}
		if !isLocalName(hostOnly(r.Host)) && hostOnly(r.Host) != clientHost {
			writeStatus(w, http.StatusMisdirectedRequest, Errorf(CodePermission, "host %q is not served here", clip(r.Host)))
			return
		}
		routes.ServeHTTP(w, r)
	})
}

func profiles() map[string]http.HandlerFunc {
	m := map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	}
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		m[name] = pprof.Handler(name).ServeHTTP
	}
	return m
}

// statusHandler serves the read-only listener bound to addr.
func (s *Server) statusHandler(addr net.Addr) http.Handler {
	b := s.cfg.Backend
	routes := router{
		"/status":             text(b.Status, WriteStatus),
		"/status/connections": text(b.Connections, WriteConnections),
		"/status/peers":       text(b.Peers, WritePeers),
		"/status/targets":     text(b.Targets, WriteTargets),
		"/status/ipam":        text(b.IPAM, WriteIPAM),
		"/status/dns":         text(b.DNS, WriteDNS),
		"/report":             answer(b.Report),
	}
	if s.cfg.Metrics != nil {
		routes["/metrics"] = route{http.MethodGet, true, s.cfg.Metrics.ServeHTTP}
	}
	names := servedNames(addr)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOnly(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && !isLocalName(host) && !names[strings.ToLower(host)] {
			writeStatus(w, http.StatusMisdirectedRequest, Errorf(CodePermission, "host %q is not served here: use the address", clip(r.Host)))
			return
		}
		if r.ContentLength != 0 {
			writeError(w, Errorf(CodeUsage, "this listener is read-only"))
			return
		}
		routes.ServeHTTP(w, r)
	})
}

// servedNames are the host's own names, unless addr is loopback: a page on a
// foreign name that resolves to this address (DNS rebinding) is not to be served.
func servedNames(addr net.Addr) map[string]bool {
	names := map[string]bool{}
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil && ap.Addr().IsLoopback() {
		return names
	}
	if name, err := os.Hostname(); err == nil {
		name = strings.ToLower(name)
		short, _, _ := strings.Cut(name, ".")
		names[name], names[short] = true, true
	}
	return names
}

func isLocalName(host string) bool { return strings.EqualFold(host, "localhost") }

// hostOnly takes the port and the brackets off a Host header.
func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

// ServeHTTP checks what is common to all requests of both servers.
func (rs router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	rt, ok := rs[r.URL.Path]
	switch {
	case fromBrowser(r.Header):
		writeStatus(w, http.StatusForbidden, Errorf(CodePermission, "requests from web pages are refused"))
	case !ok || r.URL.RawPath != "" || r.URL.Opaque != "" || r.URL.User != nil:
		writeStatus(w, http.StatusNotFound, Errorf(CodeNotFound, "no such route"))
	case r.Method != rt.method && !(r.Method == http.MethodHead && rt.method == http.MethodGet):
		h.Set("Allow", rt.method)
		writeStatus(w, http.StatusMethodNotAllowed, Errorf(CodeUsage, "want %s", rt.method))
	case r.URL.RawQuery != "" && !rt.query:
		writeError(w, Errorf(CodeUsage, "takes no query"))
	default:
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), patienceKey{}, r.Context()), requestTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		rt.serve(w, r.WithContext(ctx))
	}
}

// fromBrowser reports whether a browser sent the request on behalf of a page.
// Browsers mark those themselves and pages cannot take the marks off (Fetch
// standard, forbidden request headers).
func fromBrowser(h http.Header) bool {
	if site := h.Get("Sec-Fetch-Site"); site != "" && site != "none" {
		return true
	}
	return len(h["Origin"]) > 0
}

// answerer is an answer that can be made complete before it is sent.
type answerer[T any] interface {
	*T
	fill()
}

// answer serves a question without arguments as JSON.
func answer[T any, P answerer[T]](ask func(context.Context) (T, error)) route {
	return route{http.MethodGet, false, func(w http.ResponseWriter, r *http.Request) {
		v, err := ask(r.Context())
		writeAnswer[T, P](w, v, err)
	}}
}

// question serves a request with a body and an answer.
func question[Q checker, T any, P answerer[T]](ask func(context.Context, Q) (T, error)) route {
	return route{http.MethodPost, false, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := readRequest(r, &q); err != nil {
			writeError(w, err)
			return
		}
		if err := q.check(); err != nil {
			writeError(w, err)
			return
		}
		ctx := r.Context()
		if p, ok := any(q).(patient); ok && p.waits() {
			// As long as the caller stays; the server's limits are for all others.
			ctx = requestContext(ctx)
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Time{})
			rc.SetWriteDeadline(time.Time{})
		}
		v, err := ask(ctx, q)
		writeAnswer[T, P](w, v, err)
	}}
}

// command serves a request with a body and no answer but success.
func command[Q checker](do func(context.Context, Q) error) route {
	return question(func(ctx context.Context, q Q) (done, error) { return done{}, do(ctx, q) })
}

// text serves a question without arguments as text.
func text[T any](ask func(context.Context) (T, error), write func(io.Writer, T) error) route {
	return route{http.MethodGet, false, func(w http.ResponseWriter, r *http.Request) {
		v, err := ask(r.Context())
		var b bytes.Buffer
		if err == nil {
			err = write(&b, v)
		}
		if err != nil {
			http.Error(w, oneLine(err.Error()), CodeOf(err).httpStatus())
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(b.Bytes())
	}}
}

func (s *Server) ps() route {
	return route{http.MethodGet, true, func(w http.ResponseWriter, r *http.Request) {
		q, err := psQuery(r.URL.RawQuery)
		if err != nil {
			writeError(w, err)
			return
		}
		v, err := s.cfg.Backend.Ps(r.Context(), q)
		writeAnswer(w, v, err)
	}}
}

func (s *Server) why() route {
	return route{http.MethodGet, true, func(w http.ResponseWriter, r *http.Request) {
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil || len(values) != 1 || len(values["peer"]) != 1 || values.Get("peer") == "" {
			writeError(w, Errorf(CodeUsage, "query: want peer=PEER"))
			return
		}
		v, err := s.cfg.Backend.Why(r.Context(), WhyRequest{Peer: clip(values.Get("peer"))})
		writeAnswer(w, v, err)
	}}
}

func (s *Server) lookup() route {
	return route{http.MethodGet, true, func(w http.ResponseWriter, r *http.Request) {
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil || len(values) != 1 || len(values["name"]) != 1 {
			writeError(w, Errorf(CodeUsage, "query: want name=NAME"))
			return
		}
		q := LookupRequest{Name: values.Get("name")}
		if err := checkName(q.Name); err != nil {
			writeError(w, err)
			return
		}
		v, err := s.cfg.Backend.Lookup(r.Context(), q)
		writeAnswer(w, v, err)
	}}
}

// psQuery reads container=C&container=C...
func psQuery(raw string) (PsRequest, error) {
	var q PsRequest
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, Errorf(CodeUsage, "query: %w", err)
	}
	for key, list := range values {
		if key != "container" {
			return q, Errorf(CodeUsage, "query: unknown %q", clip(key))
		}
		for _, text := range list {
			c, err := ParseContainer(text)
			if err != nil {
				return q, Errorf(CodeUsage, "%w", err)
			}
			q.Containers = append(q.Containers, c)
		}
	}
	return q, nil
}

// patient is a request that may take as long as its caller likes.
type patient interface{ waits() bool }

func (r AttachRequest) waits() bool { return r.Wait }
func (r ExposeRequest) waits() bool { return r.Wait }
func (r PrimeRequest) waits() bool  { return r.Wait }

type patienceKey struct{}

// requestContext is the context that ends when the caller goes, and not before.
func requestContext(ctx context.Context) context.Context {
	if c, ok := ctx.Value(patienceKey{}).(context.Context); ok {
		return c
	}
	return ctx
}

// readRequest decodes and checks a request's body.
func readRequest(r *http.Request, q any) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return &statusError{http.StatusUnsupportedMediaType, Errorf(CodeUsage, "want Content-Type application/json")}
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err = d.Decode(q)
	if err == nil {
		if _, extra := d.Token(); extra != io.EOF {
			err = errors.Join(extra, errors.New("more than one value"))
		}
	}
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return &statusError{http.StatusRequestEntityTooLarge, Errorf(CodeUsage, "request is larger than %d bytes", tooBig.Limit)}
	case err != nil:
		return Errorf(CodeUsage, "request: %s", clipTo(oneLine(err.Error()), 200))
	}
	return nil
}

func writeAnswer[T any, P answerer[T]](w http.ResponseWriter, v T, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	P(&v).fill()
	writeJSON(w, http.StatusOK, v)
}

// statusError is an error with an HTTP status of its own.
type statusError struct {
	status int
	err    *Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// failure is the body of every answer that is not a success.
type failure struct {
	Schema string      `json:"schema"`
	Error  failureBody `json:"error"`
}

type failureBody struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func writeError(w http.ResponseWriter, err error) {
	status := CodeOf(err).httpStatus()
	var se *statusError
	if errors.As(err, &se) {
		status = se.status
	}
	writeStatus(w, status, err)
}

func writeStatus(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, failure{Schema, failureBody{CodeOf(err), oneLine(err.Error())}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // a Backend's raw diagnostics were not JSON
		status, b = http.StatusInternalServerError, []byte(`{"schema":"`+Schema+`","error":{"code":"failure","message":"answer cannot be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// oneLine makes text fit for one line of a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}
