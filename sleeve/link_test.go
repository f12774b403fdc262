package sleeve_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"weave/crypto/session"
	"weave/sleeve"
	"weave/sleeve/sleevetest"
)

func TestLinksComeUp(t *testing.T) {
	for _, c := range []session.Cipher{session.CipherNone, session.CipherChaCha, session.CipherAES} {
		for _, ipv6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/ipv6=%v", c, ipv6), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := sleevetest.NewNet(1)
					m := sleevetest.NewMesh(t, net, 3, sleevetest.Options{Cipher: c, Lanes: 2, IPv6: ipv6})
					m.WaitUp(t)
					st := m.Nodes[0].Links[m.Nodes[1].Name].Status()
					want := 1500 - 28 - sleeve.Overhead
					if ipv6 {
						want -= 20
					}
					if !st.Up || st.MTU != want || st.Cipher != c || st.KeyEpoch != 1 || st.LastHeard.IsZero() {
						t.Errorf("status %+v, want up with an MTU of %d", st, want)
					}
				})
			})
		}
	}
}
