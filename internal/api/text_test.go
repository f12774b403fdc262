package api

import (
	"encoding/json"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func name(t *testing.T, s string) peer.Name {
	t.Helper()
	n, err := peer.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// example is a report that has something in every field.
func example(t *testing.T) Report {
	h1, h2, h3 := name(t, "02:aa:bb:cc:dd:e1"), name(t, "02:aa:bb:cc:dd:e2"), name(t, "::3")
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	return Report{
		Ready: true, Version: "1.2.3", PID: 4711, StartedAt: at,
		Degraded: []string{"connection to 192.0.2.9 is failed: connection refused"},
		Router: Router{
			Name: h1, NickName: "h1", Protocol: "1", Port: 6783, Encryption: true, PeerDiscovery: true, Targets: 3,
			Connections:    map[State]int{StateEstablished: 2, StatePending: 1, StateFailed: 2, StateRetrying: 1},
			Peers:          PeerCounts{Known: 3, Established: 5, Pending: 1},
			TrustedSubnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
			MTU:            1376, FastDP: "off", FastDPReason: "encryption", EncryptedPath: "cage", MinPath: "kernel,refuse", Bridge: "weave",
			Conflicts: []string{"peer name 00:00:00:00:00:03 is also used by another host, h9"},
		},
		Connections: []Connection{
			{Outbound: true, Address: "192.0.2.7:6783", State: StateEstablished, Peer: h2, NickName: "h2", Path: "sleeve", Encrypted: true, Cipher: "aes-256-gcm", MTU: 1418, RTT: 212 * time.Microsecond,
				Link: &Link{Remote: netip.MustParseAddrPort("192.0.2.7:6783"), Lanes: 2, KeyEpoch: 3, KeyAge: time.Minute, LastHeard: at, Offloads: "gso,gro", TxFrames: 1, TxBytes: 2, RxFrames: 3, RxBytes: 4, Drops: map[string]uint64{"replay": 5}}},
			{Address: "[2001:db8:1:2:3:4:5:6]:54321", State: StateEstablished, Peer: h3, NickName: "h3", Path: "fastdp", MTU: 8950, RTT: 12 * time.Millisecond},
			{Address: "192.0.2.10:40000", State: StateEstablished, Peer: h3, NickName: "h3", Path: "sleeve", Encrypted: true, MTU: 1376, Why: "mtu", Refused: true},
			{Address: "192.0.2.8:40000", State: StatePending, Peer: h3, NickName: "h3"},
			{Outbound: true, Address: "host4", State: StateRetrying, Error: "wrong password"},
			{Outbound: true, Address: "192.0.2.9:6783", State: StateFailed, Error: "connection refused", Retry: at},
			{Outbound: true, Address: "192.0.2.1:6783", State: StateFailed, Error: "cannot connect to itself\x1b[31m", Reason: ReasonSelf},
			{Outbound: true, Address: "host5", State: StateConnecting},
			{Outbound: true, Address: "192.168.1.2:6783", State: StateFailed, Error: "no answer", Reason: "unreachable", Retry: at, Found: true},
			{Address: "203.0.113.4", State: StateFailed, Error: "the other end is not a weave peer", Reason: "not weave", Attempts: 1, Last: at},
			{Address: "203.0.113.5", State: StateFailed, Error: "wrong password", Reason: ReasonPassword, Attempts: 17, Last: at},
		},
		Peers: []Peer{
			{Name: h1, NickName: "h1", Self: true, UID: 1<<63 + 1, Version: 7, Connections: []PeerConnection{
				{Name: h2, NickName: "h2", Address: "192.0.2.7:6783", Outbound: true, Established: true},
				{Name: h3, NickName: "h3", Address: "192.0.2.8:40000"},
			}},
			{Name: h2, NickName: "h2"},
		},
		Targets: []string{"192.0.2.7:6783", "host4", "host5"},
		Attachments: []Attachment{
			{Container: "weave:expose", Interface: "weave", MAC: "02:00:00:00:00:01"},
			{Container: "netns:blue", Interface: "ethwe", MAC: "02:00:00:00:00:02", Addrs: []netip.Prefix{netip.MustParsePrefix("10.55.0.1/24"), netip.MustParsePrefix("fd00:55::1/64")}},
		},
		UnicastRoutes:   []UnicastRoute{{Dest: h1}, {Dest: h2, Via: h2}},
		BroadcastRoutes: []BroadcastRoute{{Source: h1, Via: []peer.Name{h2, h3}}},
		MACs:            []MACEntry{{MAC: "02:00:00:00:00:09", Name: h2, NickName: "h2", LastSeen: at}},
		IPAM: &IPAM{
			Status: "ready", Ready: true, Range: netip.MustParsePrefix("10.32.0.0/12"), RangeNumIPs: 1 << 20, DefaultSubnet: netip.MustParsePrefix("10.32.0.0/12"), Init: "consensus",
			ActiveIPs: 3, Owned: 1 << 19, Free: 1<<19 - 3, Unreachable: 1 << 18, Conflicts: []string{"h4 uses another address range"},
			Seeds: []peer.Name{h1, h2},
			Shares: []Share{{Peer: h1, NickName: "h1", Addresses: 1 << 19, Self: true, Reachable: true},
				{Peer: h2, NickName: "h2", Addresses: 1 << 18, Reachable: true}, {Peer: h3, NickName: "a-host-with-a-long-name", Addresses: 1 << 18}},
			Entries:     []RingEntry{{Start: netip.MustParseAddr("10.32.0.0"), Size: 1 << 19, Peer: h1, NickName: "h1", Known: true, Version: 3}},
			Leases:      []Lease{{Owner: "netns:blue", Address: netip.MustParsePrefix("10.32.0.1/12")}},
			Claims:      []PendingIP{{Owner: "netns:red", Address: netip.MustParsePrefix("10.40.0.1/12"), Reason: "waiting for h3"}},
			Allocations: []PendingIP{{Owner: "netns:red", Address: netip.MustParsePrefix("10.32.0.0/12"), Reason: "range exhausted"}},
			Events:      []string{"took over the addresses of h5"},
		},
		DNS: &DNS{
			Domain: "weave.local.", Listening: []netip.AddrPort{netip.MustParseAddrPort("10.32.0.9:53"), netip.MustParseAddrPort("127.0.0.1:5353")},
			Upstream: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}, TTL: time.Second, Entries: 2,
			Records: []DNSRecord{{Name: "blue.weave.local.", Short: "blue", Address: netip.MustParseAddr("10.32.0.1"), Container: "netns:blue", Origin: h1, NickName: "h1"},
				{Name: "a-long-name.sub.weave.local.", Short: "a-long-name.sub", Address: netip.MustParseAddr("fd00:55::1"), Container: "weave:extern", Origin: h2, NickName: "h2"}},
		},
		Features:    map[string]string{"udp-gso": "yes"},
		Diagnostics: map[string]json.RawMessage{"sleeve": json.RawMessage(`{"sockets":2}`)},
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func text1[T any](t *testing.T, write func(io.Writer, T) error, v T) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	r := example(t)
	status := Status{Version: r.Version, Router: r.Router}
	golden(t, "status.txt", text1(t, WriteStatus, status))
	golden(t, "connections.txt", text1(t, WriteConnections, Connections{Encryption: true, Connections: r.Connections}))
	golden(t, "peers.txt", text1(t, WritePeers, Peers{Peers: r.Peers}))
	golden(t, "targets.txt", text1(t, WriteTargets, Targets{Targets: r.Targets}))
	golden(t, "ipam.txt", text1(t, WriteIPAM, *r.IPAM))
	golden(t, "ipam-undivided.txt", text1(t, WriteIPAM, IPAM{Status: "idle", RangeNumIPs: 1 << 20}))
	golden(t, "dns.txt", text1(t, WriteDNS, *r.DNS))
	golden(t, "rmpeer.txt", text1(t, WriteRemoved, Removed{Peer: "host3", Addresses: 524288}))
	golden(t, "status-services.txt", text1(t, WriteStatus, Status{Version: "1.2.3", Router: r.Router, IPAM: r.IPAM, DNS: r.DNS}))
	golden(t, "ps.txt", text1(t, WriteAttachments, Attachments{Attachments: r.Attachments}))

	lone := Status{Version: "1.2.3", Router: Router{Name: r.Router.Name, NickName: "h1", Protocol: "1", Peers: PeerCounts{Known: 1}, MTU: 1376, FastDP: "vxlan"}}
	golden(t, "status-alone.txt", text1(t, WriteStatus, lone))
	golden(t, "connections-clear.txt", text1(t, WriteConnections, Connections{Connections: r.Connections[1:2]}))
}

// TestSchema fails when a field of the JSON changes its name, its type or its
// place. Additions are reviewed with -update.
func TestSchema(t *testing.T) {
	r := example(t)
	r.fill()
	b, err := json.MarshalIndent(r, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", string(b)+"\n")
	var again Report
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	b2, _ := json.MarshalIndent(again, "", "    ")
	if diff := cmp.Diff(string(b), string(b2)); diff != "" {
		t.Errorf("a client changes the report (-sent +read):\n%s", diff)
	}

	var zero Report
	zero.fill()
	if b, _ = json.MarshalIndent(zero, "", "    "); strings.Contains(string(b), "null") {
		t.Errorf("an empty report has null in it:\n%s", b)
	}
	golden(t, "report-empty.json", string(b)+"\n")

	status := Status{Version: r.Version, PID: r.PID, StartedAt: r.StartedAt, Degraded: r.Degraded, Router: r.Router}
	status.fill()
	b, _ = json.MarshalIndent(status, "", "    ")
	golden(t, "status.json", string(b)+"\n")
}

func TestMillis(t *testing.T) {
	for d, want := range map[time.Duration]string{
		45 * time.Microsecond:   "0.04ms",
		212 * time.Microsecond:  "0.2ms",
		1250 * time.Microsecond: "1.2ms",
		250 * time.Millisecond:  "250ms",
	} {
		if got := millis(d); got != want {
			t.Errorf("millis(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestDegradedBy(t *testing.T) {
	got := DegradedBy(append(example(t).Connections,
		Connection{Outbound: true, Address: "host6", State: StateFailed, Reason: "connection limit", Reached: true}))
	want := []string{
		"connection to 192.0.2.8:40000 is pending",
		"connection to host4 is retrying: wrong password",
		"connection to 192.0.2.9:6783 is failed: connection refused",
		"connection to host5 is connecting",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
