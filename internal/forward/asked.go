package forward

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"weave/internal/ether"
)

// A kernel that asks all neighbours who has an address, and gets no answer, asks again
// a second later, and everything that is to be sent there waits. So the switch keeps
// what was asked a moment ago, for the daemon to ask again when a peer comes within
// reach that could not hear it: see Asked.
const (
	askedTime   = 900 * time.Millisecond // the kernel's own repetition comes after a second
	maxAsked    = 32                     // the oldest makes room
	maxQuestion = 128                    // bytes of a frame
)

// asked are the last questions from the bridge, each once.
type asked struct {
	mu   sync.Mutex
	all  [maxAsked]question
	next int // of all, the oldest
}

type question struct {
	frame [maxQuestion]byte
	size  int
	at    time.Time // when it was asked by the one who wants to know
}

// note keeps a frame if it is a question. One that is there is not younger for being
// asked again by us.
func (a *asked) note(frame []byte, now time.Time) {
	if len(frame) > maxQuestion || !isQuestion(frame) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.all {
		q := &a.all[i]
		if bytes.Equal(q.frame[:q.size], frame) {
			if now.Sub(q.at) >= askedTime {
				q.at = now
			}
			return
		}
	}
	q := &a.all[a.next]
	q.size, q.at = copy(q.frame[:], frame), now
	a.next = (a.next + 1) % maxAsked
}

// fresh returns copies of what was asked less than askedTime ago.
func (a *asked) fresh(now time.Time) (frames [][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.all {
		if q := &a.all[i]; q.size > 0 && now.Sub(q.at) < askedTime {
			frames = append(frames, bytes.Clone(q.frame[:q.size]))
		}
	}
	return frames
}

// Asked returns the frames with which the bridge's hosts asked all neighbours for an
// address in the last moment (ARP requests, neighbour solicitations), at most 32.
func (s *Switch) Asked() [][]byte { return s.asked.fresh(time.Now()) }

// isQuestion reports an ARP request or a neighbour solicitation, and no announcement or
// check of the sender's own address.
func isQuestion(frame []byte) bool {
	const (
		arpLen, arpRequest           = 28, 1
		ipv6Len, icmpv6, solicit     = 40, 58, 135
		arpSender, arpTarget         = 14, 24
		ipv6Next, ipv6Source, srcLen = 6, 8, 16
	)
	if len(frame) < ether.HeaderLen {
		return false
	}
	p := frame[ether.HeaderLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case ether.TypeARP:
		return len(p) >= arpLen && binary.BigEndian.Uint16(p[6:]) == arpRequest &&
			!bytes.Equal(p[arpSender:arpSender+4], p[arpTarget:arpTarget+4])
	case ether.TypeIPv6:
		return len(p) > ipv6Len && p[ipv6Next] == icmpv6 && p[ipv6Len] == solicit &&
			!bytes.Equal(p[ipv6Source:ipv6Source+srcLen], make([]byte, srcLen))
	}
	return false
}
