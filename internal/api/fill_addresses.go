package api

import "strings"

func (i *IPAM) fill()          { i.Schema = Schema }
func (r *Removed) fill()       { r.Schema = Schema }
func (g *Given) fill()         { g.Schema = Schema }
func (n *NameAddresses) fill() { n.Schema, n.Addrs = Schema, orEmpty(n.Addrs) }

func (d *DNS) fill() {
	d.Schema = Schema
	d.complete()
}

// complete does what fill does for a part of another answer, which may be absent.
func (d *DNS) complete() {
	if d != nil {
		d.Listening, d.Upstream = orEmpty(d.Listening), orEmpty(d.Upstream)
	}
}

func checkAddrs(as []Addr) error {
	for _, a := range as {
		if err := a.check(); err != nil {
			return Errorf(CodeUsage, "%w", err)
		}
	}
	return nil
}

// checkName refuses what is no name at all; the name server knows the rest.
func checkName(s string) error {
	const maxLabel = 63
	bad := Errorf(CodeUsage, "%q: %w", clip(s), ErrBadName)
	text := strings.TrimSuffix(s, ".")
	if text == "" || len(text) > maxHost || !isPlain(text) {
		return bad
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > maxLabel {
			return bad
		}
	}
	return nil
}

func (ResetRequest) check() error { return nil }
func (PrimeRequest) check() error { return nil }

func (r ExposeRequest) check() error {
	for _, n := range r.Names {
		if err := checkName(n); err != nil {
			return err
		}
	}
	return checkAddrs(r.Addrs)
}

func (r HideRequest) check() error { return checkAddrs(r.Addrs) }

func (r RmPeerRequest) check() error {
	if r.Peer == "" || !isPlain(strings.ReplaceAll(r.Peer, " ", "")) {
		return Errorf(CodeUsage, "%q: want a peer's name or nickname, as weave status ipam shows it", clip(r.Peer))
	}
	return nil
}

func (r DNSRequest) check() error {
	if r.Container.IsZero() && len(r.Addrs) == 0 && r.Name == "" {
		return Errorf(CodeUsage, "no name: want a container, or addresses and a name")
	}
	for _, a := range r.Addrs {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return Errorf(CodeUsage, "%v cannot have a name: want an IP address", a)
		}
	}
	if r.Name == "" {
		return nil
	}
	return checkName(r.Name)
}
