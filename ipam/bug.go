package ipam

// bug is a mistake that a test plants in a core, to see that the checks find it.
// Zero, as always outside tests, is none.
type bug uint8

const (
	noBug            bug = iota
	bugKeepDonated       // the giver goes on using what it gave away
	bugNoShrink          // space does not follow the ring when it shrinks
	bugTrustStore        // a starting peer does not wait to hear what others remember
	bugSkipSaveLease     // an allocation is not saved
	bugSkipSaveGrant     // a grant is sent but not saved
	bugTakeUnheard       // space taken over is used before the others have heard
	bugQuorumShort       // one vote too few decides
	bugNoDigest          // what was lost on the way is never found
	bugNeverReap         // addresses of dead containers are kept for ever
	bugReapAlive         // a container that came back within its grace is reaped all the same
	bugNoRetire          // an heir does not take late gifts
	bugNoFence           // a copy of a peer goes on
	bugNoSpread          // changes are not told to others
	bugGrantTwice        // a grant asked for again is granted again, from used space
)

func (c *core) hits(b bug) bool { return c.bug == b }
