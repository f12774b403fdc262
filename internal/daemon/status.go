package daemon

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weave/crypto/session"
	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh"
	"weave/mesh/overlay"
	"weave/sleeve"
)

// protocol is the version of the wire that status shows.
const protocol = "1"

// connections turns the router's view of connections into the stable one.
func (d *daemon) connections(st mesh.Status) []api.Connection {
	out := make([]api.Connection, 0, len(st.Conns)+len(st.Refused))
	for _, c := range st.Conns {
		a := connection(c)
		if c.State == mesh.StateEstablished {
			a.Why = d.kernel.whyNot(c)
			a.Refused = d.gate.min.refuse && d.gate.min.below(c)
		}
		out = append(out, a)
	}
	for _, r := range st.Refused {
		out = append(out, api.Connection{
			Address: r.Addr.String(),
			State:   api.StateFailed,
			Error:   r.Error,
			Reason:  string(r.Reason),

			Attempts: r.Count,
			Last:     r.Last,
		})
	}
	return out
}

func connection(c mesh.ConnStatus) api.Connection {
	a := api.Connection{
		Outbound:  c.Outbound,
		Address:   c.Addr,
		State:     api.State(c.State.String()),
		Peer:      c.Peer,
		NickName:  c.NickName,
		Path:      c.Path,
		Encrypted: c.Encrypted,
		MTU:       c.MTU,
		RTT:       c.RTT,
		Error:     c.Error,
		Reason:    string(c.Reason),
		Retry:     c.Retry,
		Found:     c.Found,
		Reached:   c.Reached,
	}
	if c.Never {
		a.Retry = time.Time{}
		if c.Reason == mesh.ReasonSelf {
			a.Reason = api.ReasonSelf
		}
	}
	if i := slices.IndexFunc(c.Links, func(l overlay.Status) bool { return l.Path == c.Path }); i >= 0 {
		l := c.Links[i]
		a.Link = link(l)
		if l.Cipher != session.CipherNone {
			a.Cipher = l.Cipher.String()
		}
	}
	return a
}

func link(l overlay.Status) *api.Link {
	return &api.Link{
		Remote:    l.Remote,
		Lanes:     l.Lanes,
		KeyEpoch:  l.KeyEpoch,
		KeyAge:    l.KeyAge,
		LastHeard: l.LastHeard,
		Offloads:  l.Offloads,
		TxFrames:  l.Counters.TxFrames,
		TxBytes:   l.Counters.TxBytes,
		RxFrames:  l.Counters.RxFrames,
		RxBytes:   l.Counters.RxBytes,
		Drops:     l.Counters.Drops,
	}
}

func peers(st mesh.Status) []api.Peer {
	out := make([]api.Peer, 0, len(st.Peers))
	for _, p := range st.Peers {
		a := api.Peer{Name: p.Name, NickName: p.NickName, Self: p.Name == st.Local.Name, UID: p.UID, Version: p.Record, Connections: []api.PeerConnection{}}
		for _, c := range p.Conns {
			a.Connections = append(a.Connections, api.PeerConnection{
				Name: c.Peer, NickName: c.NickName, Address: c.Addr, Outbound: c.Outbound, Established: c.Established,
			})
		}
		out = append(out, a)
	}
	return out
}

// status is the services block.
func (d *daemon) status(ctx context.Context) api.Status {
	st := d.router.Status()
	conns := d.connections(st)
	s := api.Status{
		Version:   d.cfg.Version,
		PID:       d.pid,
		StartedAt: d.started,
		Degraded:  api.DegradedBy(conns),
		Check:     api.CheckCode(conns),
		Router: api.Router{
			Name:           st.Local.Name,
			NickName:       st.Local.NickName,
			Protocol:       protocol,
			Port:           st.Port,
			Encryption:     st.Encryption,
			PeerDiscovery:  st.Discovery,
			Targets:        len(st.Targets),
			Connections:    map[api.State]int{},
			Peers:          api.PeerCounts{Known: len(st.Peers)},
			TrustedSubnets: slices.Clone(d.cfg.Trusted),
			MTU:            d.cfg.MTU,
			FastDP:         d.kernel.clear.name("off"),
			FastDPReason:   d.kernel.clear.off.reason,
			EncryptedPath:  d.kernel.sealed.name(sleeve.Name),
			EncryptedWhy:   d.kernel.sealed.off.reason,
			MinPath:        d.gate.min.String(),
			Bridge:         d.cfg.Bridge,
		},
	}
	for _, c := range st.Conflicts {
		s.Router.Conflicts = append(s.Router.Conflicts, c.Text)
	}
	s.Degraded = append(s.Degraded, s.Router.Conflicts...)
	if to := d.store.Broken(); to != "" {
		s.Warnings = append(s.Warnings, "the stored state was damaged, or not of this program, and was set aside as "+to+
			": this host started without it, and learns from the others what it owned")
	}
	for _, c := range st.Conns {
		if d.gate.min.below(c) {
			s.Degraded = append(s.Degraded, d.gate.min.degraded(c, d.kernel.whyNot(c)))
		}
	}
	if s.IPAM, s.DNS = d.services(ctx, false); s.IPAM != nil {
		s.Degraded = append(s.Degraded, s.IPAM.Conflicts...)
	}
	if s.Check == "" && len(s.Degraded) > 0 {
		s.Check = api.CodeDegraded
	}
	if s.Degraded == nil {
		s.Degraded = []string{}
	}
	if s.Router.TrustedSubnets == nil {
		s.Router.TrustedSubnets = []netip.Prefix{}
	}
	for _, c := range conns {
		s.Router.Connections[c.State]++
	}
	for _, p := range st.Peers {
		for _, c := range p.Conns {
			if c.Established {
				s.Router.Peers.Established++
			} else {
				s.Router.Peers.Pending++
			}
		}
	}
	return s
}

func (d *daemon) routes() (unicast []api.UnicastRoute, broadcast []api.BroadcastRoute) {
	v := d.view.Load()
	unicast, broadcast = []api.UnicastRoute{{Dest: v.Local}}, []api.BroadcastRoute{}
	for dest, via := range v.Routes.Unicast {
		unicast = append(unicast, api.UnicastRoute{Dest: dest, Via: via})
	}
	for source, via := range v.Routes.Broadcast {
		broadcast = append(broadcast, api.BroadcastRoute{Source: source, Via: via})
	}
	slices.SortFunc(unicast, func(a, b api.UnicastRoute) int { return a.Dest.Compare(b.Dest) })
	slices.SortFunc(broadcast, func(a, b api.BroadcastRoute) int { return a.Source.Compare(b.Source) })
	return unicast, broadcast
}

func (d *daemon) macs() []api.MACEntry {
	names := d.view.Load().Peers
	out := []api.MACEntry{}
	now := time.Now()
	d.sw.MACs(func(m ether.MAC, owner peer.Name, age time.Duration) {
		out = append(out, api.MACEntry{MAC: m.String(), Name: owner, NickName: names[owner].NickName, LastSeen: now.Add(-age)})
	})
	slices.SortFunc(out, func(a, b api.MACEntry) int { return strings.Compare(a.MAC, b.MAC) })
	return out
}
