package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/mesh/overlay"
	"weave/mesh/wire"
)

// link is one overlay's path of a connection, owned by the loop.
type link struct {
	index int // in the agreement; the overlay's address in control messages
	path  string
	link  overlay.Link
	up    bool
	event overlay.Event // the last
}

// permit decides whether the connection's data may travel in clear.
func (s *socket) permit() policy.Permit {
	return policy.Decide(
		policy.Stance{Password: s.r.cfg.PSK != nil, Trusts: s.trusts},
		policy.Stance{Password: s.hs.RemotePassword, Trusts: s.hello.Trusts})
}

// link prepares and starts a link for each path in common.
func (l *loop) link(c *conn) {
	if c.agree.Cipher == session.CipherNone && !c.permit().Clear() {
		l.drop(c, &Error{Reason: ReasonNoCipher, Text: "the data must be encrypted and the two hosts have no cipher in common"}, true)
		return
	}
	var errs []error
	for i, path := range c.agree.Paths {
		k := &link{index: i, path: path}
		ov := l.overlay(path)
		lk, err := ov.Prepare(l.params(c, k))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			c.absent = append(c.absent, overlay.Status{Path: path, Reason: overlay.ReasonOf(err)})
			level := slog.LevelWarn
			if errors.Is(err, policy.ErrEncryptedOnly) {
				level = slog.LevelInfo // as it should be
			}
			c.log.Log(l.ctx, level, "path can't be used", "path", path, "err", err)
			continue
		}
		k.link = lk
		c.links = append(c.links, k)
	}
	for _, p := range l.r.offer.Paths {
		if !slices.Contains(c.agree.Paths, p.Name) {
			c.absent = append(c.absent, overlay.Status{Path: p.Name, Reason: overlay.ReasonNotOffered})
		}
	}
	if len(c.links) == 0 {
		l.drop(c, &Error{Reason: ReasonNoPath, Text: "no path in common", Err: errors.Join(errs...)}, true)
		return
	}
	for _, k := range c.links {
		k.link.Start()
	}
}

// overlay returns ours of that name; there is one, since Agree saw it in our offer.
func (l *loop) overlay(path string) overlay.Overlay {
	for i, p := range l.r.offer.Paths {
		if p.Name == path {
			return l.r.cfg.Overlays[i]
		}
	}
	return nil
}

func (l *loop) params(c *conn, k *link) overlay.Params {
	var offer overlay.Path
	for _, p := range c.offer.Paths {
		if p.Name == k.path {
			offer = p
		}
	}
	agree, permit := c.agree, c.permit()
	if permit.Clear() { // a pure function of what both ends know, so both do the same
		agree.Cipher = session.CipherNone
	}
	return overlay.Params{
		Local: l.r.cfg.Name, Remote: c.hello.Name,
		ConnUID: c.uid, Initiator: c.outbound,
		LocalAddr:  c.local.Addr(),
		RemoteAddr: netip.AddrPortFrom(c.remote.Addr(), offer.Port),
		Offer:      offer,
		Agreement:  agree, Secret: c.hs.Secret, Permit: permit,
		Send:   func(msg []byte) error { return c.sendOverlay(k.index, msg) },
		Notify: func(e overlay.Event) { l.r.mail.put(func(l *loop) { l.linkEvent(c, k, e) }) },
	}
}

// elsewhere is where to find the peer if its data comes from another address than
// its control connection, which does not survive such a move; zero: it doesn't.
func (c *conn) elsewhere() netip.AddrPort {
	for _, k := range c.links {
		if !k.up || c.hello.Port == 0 {
			continue
		}
		a := k.link.Status().Remote.Addr().Unmap().WithZone("")
		if a.IsValid() && !a.IsLinkLocalUnicast() && a != c.remote.Addr().WithZone("") {
			return netip.AddrPortFrom(a, c.hello.Port)
		}
	}
	return netip.AddrPort{}
}

// sendOverlay queues a message of an overlay. It may be called from any goroutine.
func (c *conn) sendOverlay(index int, msg []byte) error {
	m, err := wire.Overlay(index, msg)
	if err != nil {
		return err
	}
	return c.send(m)
}

// send queues a message; a queue that is full ends the connection. It may be
// called from any goroutine.
func (c *conn) send(m wire.Msg) error {
	err := c.q.push(m)
	if errors.Is(err, errQueueFull) {
		c.q.end(nil)
		c.r.mail.put(func(l *loop) {
			l.drop(c, &Error{Reason: ReasonOverflow, Text: "the peer takes no messages: queue is full"}, true)
		})
	}
	return err
}

// control hands a message to the link that it is for. A link that this end
// couldn't prepare gets none.
func (l *loop) control(c *conn, body []byte) error {
	index, payload, err := wire.ParseOverlay(body)
	if err != nil || index >= len(c.agree.Paths) {
		return wire.ErrMalformed
	}
	for _, k := range c.links {
		if k.index == index {
			k.link.Control(payload)
		}
	}
	return nil
}

// linkEvent follows the state of a link.
func (l *loop) linkEvent(c *conn, k *link, e overlay.Event) {
	if c.gone {
		return
	}
	changed := k.up != e.Up
	k.up, k.event = e.Up, e
	if changed && e.Up {
		c.log.Info("link up", "path", k.path)
	} else if changed || (e.Fatal && !e.Up) {
		facts := []any{"path", k.path, "reason", e.Reason}
		if e.Err != nil {
			facts = append(facts, "err", e.Err)
		}
		c.log.Warn("link down", facts...)
	}
	if e.Fatal && !e.Up {
		l.drop(c, &Error{Reason: ReasonNoPath, Text: k.path + " link: " + e.Reason, Err: e.Err}, true)
		return
	}
	l.viewOld = l.viewOld || changed
	l.reestablish(c)
}

// reestablish moves a connection between pending and established.
func (l *loop) reestablish(c *conn) {
	up := false
	for _, k := range c.links {
		up = up || k.up
	}
	if up == c.established {
		return
	}
	c.established, c.since = up, time.Now()
	l.connChanged(c.since, !up)
	if !up {
		c.log.Warn("connection pending", "reason", l.noPath(c).Text)
		c.silent = l.question(c, c.since)
		return
	}
	l.answered(c)
	c.wasUp = true
	l.maker.Established(c.key)
	c.log.Info("connection established", "encrypted", !c.permit().Clear())
}

// noPath says why a connection has no link that is up.
func (l *loop) noPath(c *conn) *Error {
	e := &Error{Reason: ReasonNoPath, Text: "no path works"}
	for _, k := range c.links {
		if k.event.Reason != "" {
			e.Text += "; " + k.path + ": " + k.event.Reason
		} else if r := k.link.Status().Reason; r != "" {
			e.Text += "; " + k.path + ": " + r
		}
	}
	return e
}
