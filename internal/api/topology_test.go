package api

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
)

// square is h1-h2-h4 and h1-h3, where h3 says that it is about to be connected to h4,
// and h5, of which only the connection to h4 is left.
func square(t *testing.T) Peers {
	h := map[int]peer.Name{1: name(t, "::1"), 2: name(t, "::2"), 3: name(t, "::3"), 4: name(t, "::4"), 5: name(t, "::5"), 9: name(t, "::9")}
	to := func(i int, up bool) PeerConnection { return PeerConnection{Name: h[i], Established: up} }
	return Peers{Peers: []Peer{
		{Name: h[1], NickName: "h1", Self: true, Connections: []PeerConnection{to(2, true), to(3, true)}},
		{Name: h[5], NickName: `h"5\`, Connections: []PeerConnection{to(4, true)}},
		{Name: h[2], NickName: "h2", Connections: []PeerConnection{to(1, true), to(4, true)}},
		{Name: h[3], NickName: "h3\x1b[2J", Connections: []PeerConnection{to(1, true), to(4, false)}},
		{Name: h[4], NickName: "h4", Connections: []PeerConnection{to(2, true), to(9, true)}},
	}}
}

func TestTopology(t *testing.T) {
	top := TopologyOf(square(t))
	var text, dot bytes.Buffer
	if err := WriteTopology(&text, top); err != nil {
		t.Error(err)
	}
	wantText := `5 peers, 3 links and 2 pending

00:00:00:00:00:01(h1)
├─ 00:00:00:00:00:02(h2)
│  └─ 00:00:00:00:00:04(h4)
└─ 00:00:00:00:00:03(h3 [2J)
no way: 00:00:00:00:00:05(h"5\)

   1 2 3 4 5
1  - # # . .  00:00:00:00:00:01(h1)
2  # - . # .  00:00:00:00:00:02(h2)
3  # . - o .  00:00:00:00:00:03(h3 [2J)
4  . # o - o  00:00:00:00:00:04(h4)
5  . . . o -  00:00:00:00:00:05(h"5\)

# link   o pending   . none
`
	if d := cmp.Diff(wantText, text.String()); d != "" {
		t.Errorf("text (-want +got):\n%s", d)
	}
	if err := WriteTopologyDOT(&dot, top); err != nil {
		t.Error(err)
	}
	wantDOT := `graph weave {
	"00:00:00:00:00:01" [label="h1\n00:00:00:00:00:01" shape=box];
	"00:00:00:00:00:02" [label="h2\n00:00:00:00:00:02" shape=ellipse];
	"00:00:00:00:00:03" [label="h3 [2J\n00:00:00:00:00:03" shape=ellipse];
	"00:00:00:00:00:04" [label="h4\n00:00:00:00:00:04" shape=ellipse];
	"00:00:00:00:00:05" [label="h\"5\\\n00:00:00:00:00:05" shape=ellipse];
	"00:00:00:00:00:01" -- "00:00:00:00:00:02";
	"00:00:00:00:00:01" -- "00:00:00:00:00:03";
	"00:00:00:00:00:02" -- "00:00:00:00:00:04";
	"00:00:00:00:00:03" -- "00:00:00:00:00:04" [style=dashed];
	"00:00:00:00:00:04" -- "00:00:00:00:00:05" [style=dashed];
}
`
	if d := cmp.Diff(wantDOT, dot.String()); d != "" {
		t.Errorf("DOT (-want +got):\n%s", d)
	}
	got, err := json.Marshal(top.Peers[3])
	want := `{"name":"00:00:00:00:00:04","nickname":"h4","hops":2,"via":"00:00:00:00:00:02"}`
	if err != nil || string(got) != want {
		t.Errorf("JSON %s, %v\nwant %s", got, err, want)
	}
	if b, _ := json.Marshal(TopologyOf(Peers{})); string(b) != `{"schema":"v1","peers":[],"links":[]}` {
		t.Errorf("empty: %s", b)
	}
}
