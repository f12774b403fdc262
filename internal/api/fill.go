package api

// The methods here make answers complete: fill sets the schema and turns absent
// lists into empty ones, so that machines never meet null.

func (s *Status) fill() {
	s.Schema = Schema
	s.Degraded = orEmpty(s.Degraded)
	s.Router.fill()
	s.DNS.complete()
}

func (r *Router) fill() {
	r.TrustedSubnets = orEmpty(r.TrustedSubnets)
	r.Conflicts = orEmpty(r.Conflicts)
	if r.Connections == nil {
		r.Connections = map[State]int{}
	}
}

func (c *Connections) fill() {
	c.Schema = Schema
	c.Connections = orEmpty(c.Connections)
}

func (p *Peers) fill() {
	p.Schema = Schema
	p.Peers = filledPeers(p.Peers)
}

func filledPeers(ps []Peer) []Peer {
	out := append([]Peer{}, ps...)
	for i := range out {
		out[i].Connections = orEmpty(out[i].Connections)
	}
	return out
}

func (t *Targets) fill() {
	t.Schema = Schema
	t.Targets = orEmpty(t.Targets)
}

func (a *Addresses) fill() {
	a.Schema = Schema
	a.Addrs = orEmpty(a.Addrs)
}

func (a *Attachments) fill() {
	a.Schema = Schema
	a.Attachments = filledAttachments(a.Attachments)
}

func filledAttachments(as []Attachment) []Attachment {
	out := append([]Attachment{}, as...)
	for i := range out {
		out[i].Addrs = orEmpty(out[i].Addrs)
	}
	return out
}

func (r *Report) fill() {
	r.Schema = Schema
	r.Degraded = orEmpty(r.Degraded)
	r.Router.fill()
	r.DNS.complete()
	r.Connections = orEmpty(r.Connections)
	r.Peers = filledPeers(r.Peers)
	r.Targets = orEmpty(r.Targets)
	r.Attachments = filledAttachments(r.Attachments)
	r.UnicastRoutes = orEmpty(r.UnicastRoutes)
	r.BroadcastRoutes = orEmpty(r.BroadcastRoutes)
	r.MACs = orEmpty(r.MACs)
	if r.Features == nil {
		r.Features = map[string]string{}
	}
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// done is the answer of commands that only succeed.
type done struct {
	Schema string `json:"schema"`
}

func (d *done) fill() { d.Schema = Schema }

// stopRequest has no fields yet.
type stopRequest struct{}

// checker is a request that knows what is wrong with it.
type checker interface{ check() error }

func (stopRequest) check() error { return nil }

func (r ConnectRequest) check() error {
	if len(r.Peers) == 0 && !r.Replace {
		return Errorf(CodeUsage, "no peers: give at least one, or --replace to have none")
	}
	for _, p := range r.Peers {
		if _, err := ParsePeer(p); err != nil {
			return Errorf(CodeUsage, "%w", err)
		}
	}
	return nil
}

func (r ForgetRequest) check() error {
	if len(r.Peers) == 0 {
		return Errorf(CodeUsage, "no peers: give at least one")
	}
	return nil
}

func (r AttachRequest) check() error {
	for _, n := range r.Names {
		if err := checkName(n); err != nil {
			return err
		}
	}
	return DetachRequest{r.Container, r.Addrs}.check()
}

func (r DetachRequest) check() error {
	if r.Container.IsZero() {
		return Errorf(CodeUsage, "no container: want netns:NAME, netns:/PATH or pid:N")
	}
	return checkAddrs(r.Addrs)
}
