package daemon

import (
	"context"
	"slices"

	"weave/crypto/session"
	"weave/internal/api"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/odp"
	"weave/sleeve"
)

// Why explains the paths of the connection to a peer.
func (d *daemon) Why(_ context.Context, req api.WhyRequest) (api.Why, error) {
	st := d.router.Status()
	i := slices.IndexFunc(st.Peers, func(p mesh.PeerStatus) bool { return p.Name.String() == req.Peer || p.NickName == req.Peer })
	if name, err := peer.ParseName(req.Peer); i < 0 && err == nil {
		i = slices.IndexFunc(st.Peers, func(p mesh.PeerStatus) bool { return p.Name == name })
	}
	switch {
	case i < 0:
		return api.Why{}, api.Errorf(api.CodeNotFound, "no peer %q: see weave status peers", req.Peer)
	case st.Peers[i].Name == st.Local.Name:
		return api.Why{}, api.Errorf(api.CodeUsage, "%q is this host itself: name another", req.Peer)
	}
	p := st.Peers[i]
	w := api.Why{Peer: p.Name, NickName: p.NickName, MinPath: d.gate.min.String()}
	c := slices.IndexFunc(st.Conns, func(c mesh.ConnStatus) bool {
		return c.Peer == p.Name && (c.State == mesh.StateEstablished || c.State == mesh.StatePending)
	})
	if c < 0 {
		w.Via = d.view.Load().Routes.Unicast[p.Name]
		return w, nil
	}
	conn := st.Conns[c]
	w.State, w.Outbound, w.Address = api.State(conn.State.String()), conn.Outbound, conn.Addr
	w.Path, w.Encrypted, w.Error = conn.Path, conn.Encrypted, conn.Error
	w.Candidates = d.candidates(conn)
	if w.Reason = d.kernel.whyNot(conn); d.gate.min.refuse && d.gate.min.below(conn) {
		w.Refused, w.RefusedFrames = true, d.gate.frames(conn.Peer)
	}
	return w, nil
}

// candidates lists the paths of a connection, best first, and of the kernel paths all
// backends that this build has.
func (d *daemon) candidates(c mesh.ConnStatus) (out []api.Candidate) {
	for _, name := range []string{odp.Name, odp.SealedName, sleeve.Name} {
		i := slices.IndexFunc(c.Links, func(l overlay.Status) bool {
			word, _ := pathWord(l)
			return word == name
		})
		l := overlay.Status{Path: name}
		if i >= 0 {
			l = c.Links[i]
		}
		if name == sleeve.Name {
			out = append(out, candidate(l, c))
			continue
		}
		for _, b := range d.kernel.of(name == odp.SealedName).backends {
			l := l // not what the backend before made of it
			switch {
			case b.reason != "":
				l = overlay.Status{Reason: b.reason}
			case i < 0:
				l.Reason = overlay.ReasonNotOffered
			}
			l.Path, l.Offloads = odp.Name, b.name
			a := candidate(l, c)
			if b.text != "" && (b.reason == odp.ReasonOff || b.reason != "" && a.Meaning == "") { // off has two flags
				a.Meaning = b.text
			}
			out = append(out, a)
		}
	}
	return out
}

func candidate(l overlay.Status, c mesh.ConnStatus) api.Candidate {
	a := api.Candidate{
		Path: l.Path, Verdict: api.VerdictDown, Reason: l.Reason, MTU: l.MTU, RTT: l.RTT, Remote: l.Remote, LastHeard: l.LastHeard,
		Tx: l.Counters.TxDatagrams, Rx: l.Counters.RxDatagrams, Drops: l.Counters.Drops,
	}
	switch {
	case l.Up && l.Path == c.Path:
		a.Verdict = api.VerdictInUse
	case l.Up:
		a.Verdict = api.VerdictStandBy
	case !l.Remote.IsValid():
		a.Verdict = api.VerdictAbsent
	}
	a.Meaning = api.Meaning(l.Reason)
	if l.Path == odp.Name {
		a.Backend = l.Offloads
	}
	if l.Cipher != session.CipherNone && l.Remote.IsValid() {
		a.Cipher = l.Cipher.String()
	}
	return a
}
