package registry

import (
	"fmt"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// Message is for one peer, over as many hops as it takes; it may be lost.
type Message struct {
	To   peer.Name
	Body []byte
}

// Output is what a message gives rise to.
type Output struct {
	gossip.Reaction             // for the neighbour and the other neighbours
	Announce        gossip.Data // about the local peer, for all neighbours; or nil
	Messages        []Message
}

// Step takes a message, from a neighbour or by unicast: the whole protocol. After an
// error the Registry is unchanged.
func (r *Registry) Step(msg []byte) (Output, error) {
	if len(msg) == 0 {
		return Output{}, fmt.Errorf("empty: %w", ErrMessage)
	}
	st := step{r: r, news: &Delta{}, reply: &Delta{}}
	kind, body := msg[0], msg[1:]
	switch kind {
	case msgSum:
		if len(body) != sumLen {
			return Output{}, fmt.Errorf("sum: %w", ErrMessage)
		}
		if string(r.Digest()) != string(msg) {
			st.reply.stamps = r.stamps(msgStamps)
		}
	case msgStamps, msgStampsFinal, msgWant:
		stamps, err := parseStamps(body)
		if err != nil {
			return Output{}, err
		}
		st.onStamps(stamps, kind)
	case msgSegments:
		segments, err := parseSegments(body)
		if err != nil {
			return Output{}, err
		}
		for _, s := range segments {
			st.onSegment(s)
		}
	case msgHeld, msgBuried:
		stamps, err := parseStamps(body)
		if err != nil || len(stamps) != 1 {
			return Output{}, fmt.Errorf("life: %w", ErrMessage)
		}
		if stamps[0].origin == r.name {
			st.onOwn(stamps[0].life, 0, kind == msgBuried)
			st.tell(r.own().since(r.name, r.seq)) // the life that is now; it will want the rest
		}
	}
	return st.output(), nil
}

// step gathers the Output of one message.
type step struct {
	r        *Registry
	news     *Delta
	reply    *Delta
	announce *segment
	asked    map[peer.Name]bool // by unicast
	wanted   map[peer.Name]bool // in reply.stamps
	messages []Message
}

func (st *step) output() Output {
	out := Output{Messages: st.messages}
	out.News, out.Reply = st.news.data(), st.reply.data()
	if st.announce != nil {
		out.Announce = newDelta(st.announce)
	}
	return out
}

func (st *step) tell(s *segment) { st.reply = st.reply.Merge(newDelta(s)).(*Delta) }

// ask lets a peer know which life of it this replica holds or buried.
func (st *step) ask(p peer.Name, kind byte, life Life) {
	if st.asked[p] {
		return
	}
	if st.asked == nil {
		st.asked = map[peer.Name]bool{}
	}
	st.asked[p] = true
	st.messages = append(st.messages, Message{p, appendStamp([]byte{kind}, stamp{origin: p, life: life})})
}

// onOwn defends the local peer's word about its names: buried says that somebody took
// that life for gone.
func (st *step) onOwn(life Life, known uint64, buried bool) {
	r := st.r
	c := life.Compare(r.life)
	switch {
	case c < 0, c == 0 && known <= r.seq && !buried, life.Epoch >= maxNumber:
		return
	case life.UID == r.life.UID && known > r.seq: // changes that were never made here
		r.relive(life.Epoch+1, r.life.UID+1)
		st.announce = r.own().since(r.name, 0)
	case life.UID == r.life.UID:
		r.relive(life.Epoch+1, r.life.UID)
		st.announce = r.own().since(r.name, r.seq)
	default: // an earlier life
		r.relive(life.Epoch+1, r.life.UID)
		st.announce = r.own().since(r.name, 0)
	}
}

// dead reports whether a life was buried here; if so its owner is asked.
func (st *step) dead(p peer.Name, life Life) bool {
	grave, ok := st.r.buried[p]
	if !ok || life.Compare(grave) > 0 {
		return false
	}
	st.ask(p, msgBuried, grave)
	return true
}

// onStamps compares a neighbour's knowledge with ours.
func (st *step) onStamps(theirs []stamp, kind byte) {
	behind := false
	seen := make(map[peer.Name]stamp, len(theirs))
	for _, s := range theirs {
		seen[s.origin] = s
		l := st.r.logs[s.origin]
		switch {
		case s.origin == st.r.name:
			st.onOwn(s.life, s.known, false)
		case l == nil:
			behind = !st.dead(s.origin, s.life) || behind
		case s.life.Compare(l.life) > 0, s.life == l.life && s.known > l.known:
			behind = true
		}
	}
	for n, l := range st.r.logs {
		s, ok := seen[n]
		if !ok && kind == msgWant {
			continue
		}
		switch c := l.life.Compare(s.life); {
		case c > 0 && l.life.UID != s.life.UID:
			st.tell(l.since(n, 0))
		case c > 0, c == 0 && l.known > s.known:
			st.tell(l.since(n, s.known))
		}
	}
	if behind && kind == msgStamps {
		st.reply.stamps = st.r.stamps(msgStampsFinal)
	}
}

// onSegment merges a part of one log.
func (st *step) onSegment(s *segment) {
	if s.origin == st.r.name {
		st.onOwn(s.life, s.to, false)
		return
	}
	if st.dead(s.origin, s.life) {
		return
	}
	l := st.r.logs[s.origin]
	if l == nil {
		if len(st.r.logs) >= MaxPeers {
			return
		}
		l = &log{}
		st.r.logs[s.origin] = l
		delete(st.r.buried, s.origin)
	}
	changed := false
	switch c := s.life.Compare(l.life); {
	case c > 0 && s.life.UID == l.life.UID:
		l.life, changed = s.life, true
	case c > 0:
		l.clear(st.r.index)
		*l, changed = log{life: s.life}, true
	case c < 0 && s.life.UID != l.life.UID:
		// The sender is behind, and so may be the peer itself if it started again.
		st.tell(l.since(s.origin, l.known))
		st.ask(s.origin, msgHeld, l.life)
		return
	}
	if l.apply(s, st.r.index) || changed {
		if s.life != l.life { // the same log under an earlier epoch
			c := *s
			c.life = l.life
			s = &c
		}
		st.news = st.news.Merge(newDelta(s)).(*Delta)
	}
	if l.known < s.from && (l.known == 0 || s.whole || s.from == s.to) {
		st.want(s.origin, l)
	}
}

// want asks the sender for what is missing of one log.
func (st *step) want(p peer.Name, l *log) {
	if st.wanted[p] {
		return
	}
	if st.wanted == nil {
		st.wanted = map[peer.Name]bool{}
		st.reply.stamps = []byte{msgWant}
	}
	st.wanted[p] = true
	st.reply.stamps = appendStamp(st.reply.stamps, stamp{p, l.life, l.known})
}
