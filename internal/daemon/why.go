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
	w := api.Why{Peer: p.Name, NickName: p.NickName, MinPath: d.cfg.MinPath}
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
	return w, nil
}

// candidates lists the paths of a connection, best first.
func (d *daemon) candidates(c mesh.ConnStatus) (out []api.Candidate) {
	links := slices.Clone(c.Links)
	if !slices.ContainsFunc(links, func(l overlay.Status) bool { return l.Path == odp.Name }) {
		links = append(links, overlay.Status{Path: odp.Name, Reason: whyNot(c, d.fast.off)})
	}
	rank := func(l overlay.Status) int { return slices.Index([]string{odp.Name, sleeve.Name}, l.Path) }
	slices.SortStableFunc(links, func(a, b overlay.Status) int { return rank(a) - rank(b) })
	for _, l := range links {
		out = append(out, candidate(l, c))
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
	if l.Cipher != session.CipherNone {
		a.Cipher = l.Cipher.String()
	}
	return a
}
