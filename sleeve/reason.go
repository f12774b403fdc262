package sleeve

import (
	"slices"
	"sync/atomic"
)

// reason says why a datagram or a frame was dropped. Its names are label values of
// metrics.
type reason uint8

// Reasons for drops; the second group is about frames to send.
const (
	notDropped       reason = iota
	dropShort               // datagram without room for header and tag, or of another type
	dropUnknownIndex        // no link has keys of this receiver index
	dropLane                // lane that we have no keys for, or that came to the wrong socket
	dropReplay              // counter seen before, or behind the window
	dropAuth                // not sealed by the peer
	dropExpired             // keys were given up
	dropBadMeta             // authentic, but not a valid shard, frame, ...
	dropBadHeader           // shards whose header contradicts their meta
	dropFragTimeout         // frame of which some FRAGs never came
	dropFragSpace           // too many frames in reassembly
	dropControlQueue        // heartbeats faster than the link takes them

	dropNoKeys     // key exchange not done, or link closed
	dropExhausted  // key has sealed all it may
	dropTooBig     // fits no datagram and must not be cut
	dropBadOffload // headers contradict the offload metadata
	dropSend       // the kernel refused the datagrams
	numReasons
)

var reasonNames = [numReasons]string{"", "short", "unknown_index", "lane", "replay", "auth", "expired",
	"bad_meta", "bad_header", "frag_timeout", "frag_space", "control_queue",
	"no_keys", "exhausted", "too_big", "bad_offload", "send"}

// String is the reason's name in metrics and status.
func (r reason) String() string { return reasonNames[r] }

// DropReasons lists the reasons that Counters.Drops can have.
func DropReasons() []string { return slices.Clone(reasonNames[1:]) }

// drops counts by reason. It has one writer at a time but many readers.
type drops [numReasons]atomic.Uint64

func (d *drops) addTo(m map[string]uint64) {
	for r := range d {
		if n := d[r].Load(); n > 0 {
			m[reason(r).String()] += n
		}
	}
}

// traffic counts one direction of one lane. The owner counts in plain fields and
// publishes once per batch, so that counting costs no locked instruction per packet.
type traffic struct {
	frames, bytes, datagrams uint64 // owner only, not yet published

	pubFrames, pubBytes, pubDatagrams atomic.Uint64
}

func (t *traffic) publish() {
	if t.datagrams == 0 && t.frames == 0 {
		return
	}
	t.pubFrames.Add(t.frames)
	t.pubBytes.Add(t.bytes)
	t.pubDatagrams.Add(t.datagrams)
	t.frames, t.bytes, t.datagrams = 0, 0, 0
}
