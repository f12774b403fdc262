package wire

import (
	"fmt"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

// Sizes of what stands before a payload, in bytes.
const (
	maxChannel = 32
	channelFix = 1 // length of the channel's name
	unicastFix = 1 + 2*peer.NameLen
)

// Unicast is a message of a channel from one peer to another.
type Unicast struct {
	Hops    uint8 // that it may still take
	Origin  peer.Name
	Dest    peer.Name
	Channel string
	Payload []byte
}

// Msg returns u as a message; it copies the payload.
func (u Unicast) Msg() (Msg, error) {
	b := make([]byte, 0, unicastFix+channelFix+len(u.Channel)+len(u.Payload))
	b = u.Dest.AppendBytes(u.Origin.AppendBytes(append(b, u.Hops)))
	return channelMsg(TagUnicast, b, u.Channel, u.Payload)
}

// Gossip returns an update of a channel, or an answer; it copies payload.
func Gossip(channel string, payload []byte) (Msg, error) {
	return channelMsg(TagGossip, nil, channel, payload)
}

// Digest returns a channel's digest; it copies payload.
func Digest(channel string, payload []byte) (Msg, error) {
	return channelMsg(TagDigest, nil, channel, payload)
}

func channelMsg(tag Tag, b []byte, channel string, payload []byte) (Msg, error) {
	if channel == "" {
		return Msg{}, fmt.Errorf("%s without a channel: %w", tag, ErrMalformed)
	}
	if len(channel) > maxChannel || len(payload) > gossip.MaxMessage {
		return Msg{}, fmt.Errorf("%s of %d bytes for channel of %d: %w", tag, len(payload), len(channel), ErrTooLong)
	}
	b = append(append(b, byte(len(channel))), channel...)
	return Msg{tag, append(b, payload...)}, nil
}

// ParseUnicast reads the body of a unicast message; the payload aliases b.
func ParseUnicast(b []byte) (Unicast, error) {
	if len(b) < unicastFix {
		return Unicast{}, fmt.Errorf("unicast: %w", ErrMalformed)
	}
	u := Unicast{
		Hops: b[0], Origin: peer.NameFromBytes([peer.NameLen]byte(b[1:])),
		Dest: peer.NameFromBytes([peer.NameLen]byte(b[1+peer.NameLen:])),
	}
	var err error
	u.Channel, u.Payload, err = ParseChannel(b[unicastFix:])
	if err == nil && (u.Origin.IsZero() || u.Dest.IsZero()) {
		err = fmt.Errorf("unicast without names: %w", ErrMalformed)
	}
	return u, err
}

// ParseChannel reads the body of a gossip or digest message; the payload aliases b.
func ParseChannel(b []byte) (channel string, payload []byte, err error) {
	if len(b) == 0 || b[0] == 0 || b[0] > maxChannel || len(b) < channelFix+int(b[0]) {
		return "", nil, fmt.Errorf("channel: %w", ErrMalformed)
	}
	n := channelFix + int(b[0])
	if len(b)-n > gossip.MaxMessage {
		return "", nil, fmt.Errorf("message of %d bytes: %w", len(b)-n, ErrTooLong)
	}
	return string(b[channelFix:n]), b[n:], nil
}
