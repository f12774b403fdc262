package ipam

import (
	"testing"
)

// planted are the mistakes that the simulation has to find, with the schedules that
// it may take. The shipped code passes the same schedules.
var planted = []struct {
	bug  bug
	what string
}{
	{bugKeepDonated, "uses what it gave away"},
	{bugNoShrink, "space does not shrink with the ring"},
	{bugTrustStore, "trusts its store at once"},
	{bugSkipSaveLease, "does not save leases"},
	{bugSkipSaveGrant, "does not save grants"},
	{bugQuorumShort, "decides with a vote too few"},
	{bugNoDigest, "does not compare digests"},
	{bugNeverReap, "keeps dead containers' addresses"},
	{bugReapAlive, "reaps a container that came back"},
	{bugNoRetire, "does not take late gifts"},
	{bugNoFence, "a copy goes on"},
	{bugNoSpread, "tells nobody"},
	{bugGrantTwice, "gives used space away"},
}

// TestPlantedBugs: the checks find what is wrong.
func TestPlantedBugs(t *testing.T) {
	const limit = 2000
	for _, p := range planted {
		t.Run(p.what, func(t *testing.T) {
			for seed := uint64(1); seed <= limit; seed++ {
				if s := play(seed, p.bug, false); s.failed != "" {
					t.Logf("seed %d: %.160s", seed, s.failed)
					return
				}
			}
			t.Errorf("not caught in %d schedules", limit)
		})
	}
}

// TestPlantedTakeUnheard: space taken over is used before the others know. Two
// administrators at once bring it out (R01).
func TestPlantedTakeUnheard(t *testing.T) {
	for _, b := range []bug{noBug, bugTakeUnheard} {
		s := stage(t, 3, "10.0.0.0/26", Init{Mode: Seed}, b)
		s.twoReclaim()
		if caught := s.failed != ""; caught != (b != noBug) {
			t.Errorf("bug %d: %q", b, s.failed)
		}
	}
}
