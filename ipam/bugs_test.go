package ipam

import (
	"testing"
)

// TestPlantedBugs: the checks find what is wrong. Each planted bug has to be caught
// by the random schedules that the shipped code passes.
func TestPlantedBugs(t *testing.T) {
	names := map[bug]string{
		bugKeepDonated: "uses what it gave away", bugNoShrink: "space does not shrink", bugTrustStore: "trusts its store",
		bugSkipSaveLease: "does not save leases", bugSkipSaveGrant: "does not save grants", bugNoRetire: "does not take late gifts",
		bugForgetVotes: "does not save votes",
		bugNoDigest:    "does not compare digests", bugNeverReap: "keeps dead containers' addresses",
		bugReapAlive: "reaps who came back", bugKeepAfterHand: "uses what it handed over", bugNoFence: "a copy goes on",
		bugNoSpread: "tells nobody", bugGrantTwice: "gives used space away", bugQuorumShort: "decides with a vote too few",
	}
	limit := uint64(2000)
	for b, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= limit; seed++ {
				if s := play(seed, b, false); s.failed != "" {
					t.Logf("seed %d: %.200s", seed, s.failed)
					return
				}
			}
			t.Errorf("not caught in %d schedules", limit)
		})
	}
}
