package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"weave/internal/api"
	"weave/internal/api/apitest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_CALL_STATUS"); dir != "" { // TestCallerUID runs us again
		_, err := api.NewClient(dir).Status(context.Background())
		fmt.Printf("%s: %v", api.CodeOf(err), err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serve runs both listeners of a server over b and returns the run directory and
// the status listener's address.
func serve(t *testing.T, b *apitest.Backend) (runDir, statusAddr string) {
	t.Helper()
	runDir = t.TempDir()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "weave_connections 1\n") })
	s := api.NewServer(api.ServerConfig{Backend: b, Metrics: metrics, Log: slog.New(slog.DiscardHandler)})
	control, err := api.ListenControl(runDir)
	if err != nil {
		t.Fatal(err)
	}
	status, err := api.ListenStatus("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.RunControl(ctx, control) }()
	go func() { ended <- s.RunStatus(ctx, status) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("server ended with %v", err)
			}
		}
		if _, err := os.Lstat(filepath.Join(runDir, api.SocketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket is left behind: %v", err)
		}
	})
	return runDir, status.Addr().String()
}

func TestRoundTrips(t *testing.T) {
	b := &apitest.Backend{
		StatusAnswer:      api.Status{Version: "1.2.3", Router: api.Router{NickName: "h1", MTU: 1376}},
		ConnectionsAnswer: api.Connections{Encryption: true, Connections: []api.Connection{{Address: "a", State: api.StatePending}}},
		PeersAnswer:       api.Peers{Peers: []api.Peer{{NickName: "h2"}}},
		TargetsAnswer:     api.Targets{Targets: []string{"host2"}},
		PsAnswer:          api.Attachments{Attachments: []api.Attachment{{Container: "netns:a", MAC: "02:00:00:00:00:01"}}},
		ReportAnswer:      api.Report{Ready: true, Version: "1.2.3"},
		IPAMAnswer:        api.IPAM{Status: "ready"},
		RemovedAnswer:     api.Removed{Addresses: 7},
		GivenAnswer:       api.Given{Addresses: 8},
		LookupAnswer:      api.NameAddresses{Name: "blue."},
	}
	dir, _ := serve(t, b)
	c := api.NewClient(dir)
	t.Cleanup(c.Close)
	ctx := t.Context()
	ctr, _ := api.ParseContainer("netns:a")
	pid, _ := api.ParseContainer("pid:7")
	addr := netip.MustParsePrefix("10.55.0.1/24")
	as := []api.Addr{api.AddrOf(addr)}

	status, err := c.Status(ctx)
	if err != nil || status.Schema != "v1" || status.Version != "1.2.3" || status.Router.MTU != 1376 || status.Degraded == nil {
		t.Errorf("Status = %+v, %v", status, err)
	}
	if v, err := c.Connections(ctx); err != nil || !v.Encryption || len(v.Connections) != 1 {
		t.Errorf("Connections = %+v, %v", v, err)
	}
	if v, err := c.Peers(ctx); err != nil || len(v.Peers) != 1 || v.Peers[0].Connections == nil {
		t.Errorf("Peers = %+v, %v", v, err)
	}
	if v, err := c.Targets(ctx); err != nil || !cmp.Equal(v.Targets, []string{"host2"}) {
		t.Errorf("Targets = %+v, %v", v, err)
	}
	if v, err := c.Ps(ctx, api.PsRequest{Containers: []api.Container{ctr, pid}}); err != nil || len(v.Attachments) != 1 {
		t.Errorf("Ps = %+v, %v", v, err)
	}
	if v, err := c.Report(ctx); err != nil || !v.Ready {
		t.Errorf("Report = %+v, %v", v, err)
	}
	if v, err := c.Attach(ctx, api.AttachRequest{Container: ctr, Addrs: as}); err != nil || len(v.Addrs) != 1 || v.Addrs[0] != addr {
		t.Errorf("Attach = %+v, %v", v, err)
	}
	if v, err := c.Detach(ctx, api.DetachRequest{Container: pid}); err != nil || len(v.Addrs) != 0 {
		t.Errorf("Detach = %+v, %v", v, err)
	}
	err = errors.Join(
		c.Connect(ctx, api.ConnectRequest{Peers: []string{"host2:7000"}, Replace: true}),
		c.Forget(ctx, api.ForgetRequest{Peers: []string{"what ever"}}),
		c.Prime(ctx, api.PrimeRequest{Wait: true}),
		c.AddName(ctx, api.DNSRequest{Container: ctr, Name: "blue"}),
		c.RemoveName(ctx, api.DNSRequest{Addrs: []netip.Addr{addr.Addr()}, Name: "blue"}),
	)
	if err != nil {
		t.Error(err)
	}
	if v, err := c.Expose(ctx, api.ExposeRequest{Addrs: as, Names: []string{"h1"}, WithoutMasquerade: true}); err != nil || len(v.Addrs) != 1 {
		t.Errorf("Expose = %+v, %v", v, err)
	}
	if v, err := c.Hide(ctx, api.HideRequest{Addrs: as}); err != nil || len(v.Addrs) != 1 {
		t.Errorf("Hide = %+v, %v", v, err)
	}
	if v, err := c.RmPeer(ctx, api.RmPeerRequest{Peer: "host3"}); err != nil || v.Addresses != 7 || v.Peer != "host3" || v.Schema != "v1" {
		t.Errorf("RmPeer = %+v, %v", v, err)
	}
	if v, err := c.IPAM(ctx); err != nil || v.Status != "ready" || v.Schema != "v1" {
		t.Errorf("IPAM = %+v, %v", v, err)
	}
	if v, err := c.DNS(ctx); err != nil || v.Listening == nil || v.Schema != "v1" {
		t.Errorf("DNS = %+v, %v", v, err)
	}
	if v, err := c.Lookup(ctx, api.LookupRequest{Name: "blue"}); err != nil || v.Name != "blue." || v.Addrs == nil {
		t.Errorf("Lookup = %+v, %v", v, err)
	}
	if v, err := c.Reset(ctx, api.ResetRequest{Force: true}); err != nil || v.Addresses != 8 {
		t.Errorf("Reset = %+v, %v", v, err)
	}
	err = errors.Join(
		c.Stop(ctx),
	)
	if err != nil {
		t.Error(err)
	}
	want := []any{
		"Status", "Connections", "Peers", "Targets",
		api.PsRequest{Containers: []api.Container{ctr, pid}}, "Report",
		api.AttachRequest{Container: ctr, Addrs: as}, api.DetachRequest{Container: pid},
		api.ConnectRequest{Peers: []string{"host2:7000"}, Replace: true}, api.ForgetRequest{Peers: []string{"what ever"}},
		api.PrimeRequest{Wait: true}, apitest.Added{Container: ctr, Name: "blue"},
		apitest.Taken{Addrs: []netip.Addr{addr.Addr()}, Name: "blue"},
		api.ExposeRequest{Addrs: as, Names: []string{"h1"}, WithoutMasquerade: true}, api.HideRequest{Addrs: as},
		api.RmPeerRequest{Peer: "host3"}, "IPAM", "DNS", api.LookupRequest{Name: "blue"},
		api.ResetRequest{Force: true}, "Stop",
	}
	opts := cmp.Comparer(func(a, b api.Container) bool { return a == b })
	if diff := cmp.Diff(want, b.Calls(), opts, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b api.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestErrorsCross(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code api.Code
		text string
	}{
		{api.Errorf(api.CodeNotFound, "no namespace blue: make it"), api.CodeNotFound, "no namespace blue: make it"},
		{fmt.Errorf("attaching: %w", api.Errorf(api.CodeKernelFeature, "no veth")), api.CodeKernelFeature, "attaching: no veth"},
		{errors.New("two\nlines"), api.CodeFailure, "two lines"},
		{syscall.EPERM, api.CodePermission, "operation not permitted"},
		{context.DeadlineExceeded, api.CodeTimeout, "context deadline exceeded"},
		{os.ErrExist, api.CodeConflict, "file already exists"},
	} {
		dir, addr := serve(t, &apitest.Backend{Err: tt.err})
		c := api.NewClient(dir)
		_, err := c.Status(t.Context())
		if api.CodeOf(err) != tt.code || err.Error() != tt.text {
			t.Errorf("%v arrives as %s %q", tt.err, api.CodeOf(err), err)
		}
		c.Close()
		resp, err := http.Get("http://" + addr + "/status")
		if err != nil || resp.StatusCode < 400 {
			t.Errorf("status listener: %v, %v", resp, err)
		} else {
			resp.Body.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestClientWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	if _, err := api.NewClient(dir).Status(t.Context()); api.CodeOf(err) != api.CodeNotRunning {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, api.SocketName)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := api.NewClient(dir).Status(ctx); api.CodeOf(err) != api.CodeTimeout {
		t.Errorf("silent socket: %v", err)
	}
	l.Close()
	if _, err := api.NewClient(dir).Status(t.Context()); api.CodeOf(err) != api.CodeNotRunning {
		t.Errorf("stale socket: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("d", 120))
	if _, err := api.NewClient(long).Status(t.Context()); api.CodeOf(err) != api.CodeUsage {
		t.Errorf("long path: %v", err)
	}
	if _, err := api.ListenControl(long); api.CodeOf(err) != api.CodeUsage {
		t.Errorf("long path: %v", err)
	}
}

func TestTimeout(t *testing.T) {
	b := &apitest.Backend{Block: true}
	dir, _ := serve(t, b)
	c := api.NewClient(dir)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Stop(ctx); api.CodeOf(err) != api.CodeTimeout {
		t.Errorf("got %v", err)
	}
}

func TestListenControl(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, api.SocketName)
	l, err := api.ListenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v", fi.Mode(), err)
	}
	if _, err := api.ListenControl(dir); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("second listener: %v", err)
	}
	l.Close()

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if l, err = api.ListenControl(dir); err != nil {
		t.Fatalf("stale socket is not replaced: %v", err)
	}
	l.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ListenControl(dir); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("a file that is not a socket was deleted")
	}
}

func TestListenStatus(t *testing.T) {
	l, err := api.ListenStatus("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := api.ListenStatus(l.Addr().String()); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("address in use: %v", err)
	}
	if _, err := api.ListenStatus("192.0.2.1:1"); api.CodeOf(err) != api.CodeUsage {
		t.Errorf("foreign address: %v", err)
	}
}

// TestCallerUID has another user connect to a socket whose mode let it through.
func TestCallerUID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	b := &apitest.Backend{}
	dir, _ := serve(t, b)
	for p := dir; p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); p != "/tmp" && err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(p) == "/tmp" {
			break
		}
	}
	sock := filepath.Join(dir, api.SocketName)
	ask := func() string {
		// A copy, since the test binary's directory is closed to others.
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"TEST_CALL_STATUS=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if got := ask(); !strings.HasPrefix(got, "permission: no access") {
		t.Errorf("socket of mode 0600: %s", got)
	}
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := ask(); !strings.HasPrefix(got, "permission: the control socket is for root") {
		t.Errorf("socket of mode 0666: %s", got)
	}
	if len(b.Calls()) != 0 {
		t.Errorf("a stranger reached the backend: %v", b.Calls())
	}
}

// hostile sends raw bytes and returns the status of the answer, 0 for none.
func hostile(t *testing.T, network, addr, request string) int {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		io.WriteString(c, request)
		if cw, ok := c.(interface{ CloseWrite() error }); ok && !strings.HasPrefix(request, "GET ") {
			cw.CloseWrite() // what is cut short need not wait for the server's timeout
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestHostile sends what attackers send to local APIs; the backend must not
// notice any of it.
func TestHostile(t *testing.T) {
	b := &apitest.Backend{}
	dir, status := serve(t, b)
	sock := filepath.Join(dir, api.SocketName)
	n := 0
	refused := func(network, addr, what, request string) {
		n++
		if got := hostile(t, network, addr, request); got >= 200 && got < 400 {
			t.Errorf("%s: answered %d", what, got)
		}
	}
	post := func(path, headers, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: weave\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
	}
	plain := func(method, path, host, headers string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", method, path, host, headers)
	}
	const isJSON = "Content-Type: application/json\r\n"
	for _, host := range []string{"evil.example", "weave.evil.example", "127.0.0.1.evil.example", "weave:80@evil", "", "192.0.2.1", "evil.example:80"} {
		refused("unix", sock, "host "+host, plain("GET", "/v1/status", host, ""))
	}
	for _, host := range []string{"evil.example", "127.0.0.1.evil.example", "rebind.example:6782", "", "localhost.evil"} {
		for _, path := range []string{"/status", "/report", "/metrics", "/status/peers"} {
			refused("tcp", status, "host "+host, plain("GET", path, host, ""))
		}
	}
	for _, h := range []string{"Origin: http://evil.example", "Origin: null", "Origin: ", "Origin: http://127.0.0.1:6782", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-site"} {
		refused("unix", sock, h, plain("GET", "/v1/status", "weave", h+"\r\n"))
		refused("unix", sock, h, post("/v1/stop", isJSON+h+"\r\n", "{}"))
		refused("tcp", status, h, plain("GET", "/report", "127.0.0.1", h+"\r\n"))
	}
	verbs := []string{"connect", "forget", "attach", "detach", "reset", "stop"}
	for _, verb := range verbs {
		path := "/v1/" + verb
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "POSTX"} {
			refused("unix", sock, method+" "+path, plain(method, path, "weave", ""))
		}
		for _, kind := range []string{"", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: multipart/form-data; boundary=x\r\n",
			"Content-Type: application/jsonp\r\n", "Content-Type: application/json; charset=utf-16\r\n", "Content-Type: ;\r\n"} {
			refused("unix", sock, path+" "+kind, post(path, kind, "{}"))
		}
		for _, body := range []string{"", "null x", "[]", "{", `"x"`, `{"unknown":1}`, `{}{}`, `{} trailing`, strings.Repeat("[", 20000), `{"peers":5}`, "\x00\x01", `{"schema":"v2"}`} {
			refused("unix", sock, path+" body "+body[:min(len(body), 10)], post(path, isJSON, body))
		}
		refused("unix", sock, path+" huge", post(path, isJSON, `{"peers":["`+strings.Repeat("a", api.MaxBody)+`"]}`))
		refused("unix", sock, path+" huge chunks", "POST "+path+" HTTP/1.1\r\nHost: weave\r\n"+isJSON+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", 20)+"0\r\n\r\n")
		refused("unix", sock, path+" query", post(path+"?x=1", isJSON, "{}"))
	}
	for _, path := range []string{"/v1/../v1/status", "//v1/status", "/v1//status", "/v1/./status", "/v1/status/", "/v1/%73tatus", "/v1%2fstatus", "/V1/status", "/v1/status%00", "/v1/status;x", "/", "*", "", "/v2/status", "/v1",
		"/debug/pprof/../../etc/passwd", "/debug/pprof/nope", "/debug/vars", "http://evil.example/v1/status", "/v1/status?x", "/v1/ps?container=../../x", "/v1/ps?x=1", "/v1/ps?container=%zz", "/status", "/metrics"} {
		refused("unix", sock, "path "+path, plain("GET", path, "weave", ""))
	}
	for _, path := range []string{"/v1/status", "/v1/stop", "/v1/report", "/debug/pprof/", "/debug/pprof/heap", "/status/", "/status/../report", "//status", "/status/nope", "/", "/status?x=1", "/%73tatus", "http://evil.example/status"} {
		refused("tcp", status, "path "+path, plain("GET", path, "127.0.0.1", ""))
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"} {
		refused("tcp", status, method, plain(method, "/status", "127.0.0.1", ""))
		refused("tcp", status, method, plain(method, "/report", "127.0.0.1", ""))
	}
	refused("tcp", status, "body", "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello")
	refused("tcp", status, "big header", plain("GET", "/status", "127.0.0.1", "X: "+strings.Repeat("a", 64<<10)+"\r\n"))
	refused("unix", sock, "big header", plain("GET", "/v1/status", "weave", "X: "+strings.Repeat("a", 64<<10)+"\r\n"))
	for _, raw := range []string{"\x16\x03\x01\x02\x00\x01", "GET /v1/status\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /v1/status HTTP/1.1\r\nHost: weave\r\nHost: evil\r\n\r\n",
		"POST /v1/stop HTTP/1.1\r\nHost: weave\r\n" + isJSON + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", "GET / HTTP/1.1\r\n\r\n"} {
		refused("unix", sock, fmt.Sprintf("%.20q", raw), raw)
	}
	// Well-formed requests that make no sense.
	for path, bodies := range map[string][]string{
		"/v1/expose":     {`{"addrs":["net:"]}`, `{"names":["a..b"]}`, `{"addrs":[null]}`},
		"/v1/hide":       {`{"addrs":["10.0.0.0/24"]}`},
		"/v1/rmpeer":     {`{}`, `{"peer":""}`, `{"peer":"a\nb"}`},
		"/v1/dns/add":    {`{}`, `{"addrs":["0.0.0.0"],"name":"a"}`, `{"addrs":["fe80::1%eth0"],"name":"a"}`, `{"container":"netns:a","name":"a b"}`},
		"/v1/dns/remove": {`{}`, `{"name":"."}`},
		"/v1/attach": {`{}`, `{"addrs":["net:default"]}`, `{"container":"netns:a","addrs":["net:10.0.0.1/8"]}`, `{"container":"netns:a","names":[""]}`, `{"container":"netns:a","names":["a b"]}`, `{"container":"netns:a","addrs":["10.0.0.0/24"]}`, `{"container":"netns:a","addrs":[""]}`, `{"container":"../x","addrs":["10.0.0.1/24"]}`,
			`{"container":"","addrs":["10.0.0.1/24"]}`, `{"container":"netns:../../x","addrs":["10.0.0.1/24"]}`, `{"container":{"kind":"netns"},"addrs":["10.0.0.1/24"]}`, `{"container":"c1","addrs":["10.0.0.1/24"]}`, `{"addrs":["10.0.0.1/24"]}`},
		"/v1/detach":  {`{}`, `{"addrs":["10.0.0.1/24"]}`, `{"container":"pid:0"}`},
		"/v1/connect": {`{}`, `{"peers":[]}`, `{"peers":[""]}`, `{"peers":["a b"]}`, `{"peers":["host:99999"]}`, `{"peers":[null]}`},
		"/v1/forget":  {`{}`, `{"peers":[]}`},
	} {
		for _, body := range bodies {
			refused("unix", sock, path+" "+body, post(path, isJSON, body))
		}
	}
	if calls := b.Calls(); len(calls) != 0 {
		t.Errorf("hostile requests reached the backend: %v", calls)
	}
	if n < 200 {
		t.Errorf("only %d hostile requests, want 200", n)
	}
	// And it still works.
	if got := hostile(t, "unix", sock, plain("GET", "/v1/status", "weave", "")); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
	if got := hostile(t, "unix", sock, post("/v1/stop", isJSON, "{}")); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
	if got := hostile(t, "tcp", status, plain("GET", "/status", status, "")); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
}

func TestStatusListener(t *testing.T) {
	b := &apitest.Backend{TargetsAnswer: api.Targets{Targets: []string{"host2"}}}
	_, addr := serve(t, b)
	defer http.DefaultClient.CloseIdleConnections()
	for path, want := range map[string]struct{ kind, body string }{
		"/status":             {"text/plain; charset=utf-8", "Service: router"},
		"/status/connections": {"text/plain; charset=utf-8", ""},
		"/status/peers":       {"text/plain; charset=utf-8", ""},
		"/status/targets":     {"text/plain; charset=utf-8", "host2\n"},
		"/report":             {"application/json", `"schema":"v1"`},
		"/metrics":            {"text/plain; charset=utf-8", "weave_connections 1"},
	} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != want.kind || !bytes.Contains(body, []byte(want.body)) {
			t.Errorf("%s: %s %s %s", path, resp.Status, resp.Header.Get("Content-Type"), body)
		}
		head, err := http.Head("http://" + addr + path)
		if err != nil || head.StatusCode != 200 {
			t.Errorf("HEAD %s: %v %v", path, head, err)
		}
	}
}

func TestProfiles(t *testing.T) {
	dir, _ := serve(t, &apitest.Backend{})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap"} {
		if got := hostile(t, "unix", filepath.Join(dir, api.SocketName), "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); got != 200 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

func TestExitCodes(t *testing.T) {
	want := map[api.Code]int{
		api.CodeFailure: 1, api.CodeUsage: 2, api.CodeNotRunning: 3, api.CodeDegraded: 4, api.CodeConflict: 5,
		api.CodeNotFound: 6, api.CodeTimeout: 7, api.CodeAuth: 8, api.CodePermission: 9, api.CodeKernelFeature: 10, "new": 1,
	}
	for code, exit := range want {
		if got := code.ExitCode(); got != exit {
			t.Errorf("%s exits with %d, want %d", code, got, exit)
		}
	}
}

func TestRequestIsJSON(t *testing.T) {
	ctr, _ := api.ParseContainer("netns:blue")
	b, err := json.Marshal(api.AttachRequest{Container: ctr, Addrs: []api.Addr{api.AddrOf(netip.MustParsePrefix("10.55.0.1/24")), api.DefaultNet}})
	if want := `{"container":"netns:blue","addrs":["10.55.0.1/24","net:default"]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
}
