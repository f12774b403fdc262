package nameserver

import (
	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/nameserver/registry"
)

// ChannelName is the gossip channel of the names.
const ChannelName = "names"

// channel is the registry as the mesh sees it.
type channel struct{ s *Server }

// Open is a gossip.Open: the mesh calls it once and gossips the names from then on.
// Names that were added before are found by the first digests.
func (s *Server) Open(sender gossip.Sender) gossip.Channel {
	s.regMu.Lock()
	defer s.regMu.Unlock()
	s.sender = sender
	return channel{s}
}

func (c channel) Name() string { return ChannelName }

// Digest also sweeps: the names of a peer that the mesh did not know at two digests in a
// row go. It can be unknown without OnGone, if its names came faster than itself.
func (c channel) Digest() []byte {
	s := c.s
	s.regMu.Lock()
	peers := s.reg.Peers()
	s.regMu.Unlock()
	var unknown []peer.Name
	for _, p := range peers {
		if s.known != nil && !s.known(p) {
			unknown = append(unknown, p)
		}
	}
	s.regMu.Lock()
	defer s.regMu.Unlock()
	missing := map[peer.Name]bool{}
	for _, p := range unknown {
		if s.missing[p] {
			s.reg.Gone(p)
		} else {
			missing[p] = true
		}
	}
	s.missing = missing
	return s.reg.Digest()
}

func (c channel) OnMessage(_ peer.Name, msg []byte) (gossip.Reaction, error) {
	out, err := c.step(msg)
	return out.Reaction, err
}

// OnUnicast replies by unicast.
func (c channel) OnUnicast(from peer.Name, msg []byte) error {
	out, err := c.step(msg)
	if err != nil {
		return err
	}
	if out.News != nil {
		c.s.sender.Update(out.News)
	}
	if out.Reply != nil {
		for _, m := range out.Reply.Encode() {
			if c.s.sender.Unicast(from, m) != nil {
				return nil // it went meanwhile; anti-entropy will do
			}
		}
	}
	return nil
}

func (c channel) step(msg []byte) (registry.Output, error) {
	s := c.s
	s.regMu.Lock()
	out, err := s.reg.Step(msg)
	if err != nil {
		s.rejected++
	}
	s.regMu.Unlock()
	if out.Announce != nil {
		s.log.Debug("an earlier life of this peer's names is still known, announcing them again")
		s.sender.Update(out.Announce)
	}
	for _, m := range out.Messages {
		_ = s.sender.Unicast(m.To, m.Body) // no route: it is gone indeed
	}
	return out, err
}

func (c channel) OnGone(p peer.Name) {
	c.s.regMu.Lock()
	defer c.s.regMu.Unlock()
	c.s.reg.Gone(p)
}
