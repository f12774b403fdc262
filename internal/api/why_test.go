package api

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWriteWhy(t *testing.T) {
	peerName := name(t, "02:00:00:00:00:02")
	at := netip.MustParseAddrPort("192.0.2.7:6784")
	for _, tt := range []struct {
		name string
		why  Why
		want string
	}{
		{"not connected", Why{Peer: peerName, NickName: "h2"}, "           Peer: 02:00:00:00:00:02(h2)\n     Connection: none\n"},
		{"relayed", Why{Peer: peerName, NickName: "h2", Via: peerName}, "           Peer: 02:00:00:00:00:02(h2)\n     Connection: none; frames go through 02:00:00:00:00:02\n"},
		{"in use", Why{Peer: peerName, NickName: "h2", State: StateEstablished, Outbound: true, Address: "192.0.2.7:6783", Path: "fastdp", Candidates: []Candidate{
			{Path: "fastdp", Backend: "vxlan", Verdict: VerdictInUse, MTU: 1376, RTT: 100 * time.Microsecond, Remote: at, Tx: 4, Rx: 5},
			{Path: "sleeve", Verdict: VerdictStandBy, MTU: 1418, Cipher: "aes-256-gcm"},
		}}, `           Peer: 02:00:00:00:00:02(h2)
     Connection: -> 192.0.2.7:6783 established, unencrypted
           Path: fastdp

fastdp/vxlan  in-use   mtu=1376 rtt=0.1ms [192.0.2.7:6784] sent=4 heard=5
sleeve        standby  mtu=1418 cipher=aes-256-gcm
`},
		{"down, below the minimum", Why{Peer: peerName, NickName: "h2", State: StateEstablished, Address: "192.0.2.7:1", Path: "sleeve", MinPath: "kernel", Encrypted: true, Candidates: []Candidate{
			{Path: "fastdp", Verdict: VerdictAbsent, Reason: "off", Meaning: "so\nit is"},
		}}, `           Peer: 02:00:00:00:00:02(h2)
     Connection: <- 192.0.2.7:1 established, encrypted
           Path: sleeve
        MinPath: kernel: this connection is below it

fastdp        absent   off: so it is
`},
		{"refused", Why{Peer: peerName, NickName: "h2", State: StateEstablished, Address: "192.0.2.7:1", Path: "sleeve", MinPath: "kernel,refuse", Refused: true, RefusedFrames: 7, Candidates: []Candidate{
			{Path: "fastdp", Backend: "cage", Verdict: VerdictDown, Reason: "no-reply", Cipher: "chacha20-poly1305"},
		}}, `           Peer: 02:00:00:00:00:02(h2)
     Connection: <- 192.0.2.7:1 established, unencrypted
           Path: sleeve
        MinPath: kernel,refuse: this connection is below it, and carries nothing (7 frames dropped)

fastdp/cage   down     no-reply cipher=chacha20-poly1305
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := WriteWhy(&b, tt.why); err != nil || b.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%v", b.String(), tt.want, err)
			}
		})
	}
}
