// Package policy decides whether the data of a connection may travel in clear.
//
// Its one idea: a [Permit] is a value that only this package can make valid.
// Code that builds a path without encryption has to be handed one, so a clear
// path that the policy did not grant cannot be expressed. The zero Permit grants
// nothing.
package policy

import "errors"

// ErrEncryptedOnly is returned by constructors of clear paths when the Permit
// they were given grants nothing.
var ErrEncryptedOnly = errors.New("policy: connection must be encrypted")

// Permit allows, or does not allow, one connection's data to travel in clear.
type Permit struct{ clear bool }

// Stance is what one end of a connection says about it.
type Stance struct {
	Password bool // this end was given a password
	Trusts   bool // this end's --trusted-subnets hold the other end's address
}

// Decide returns the Permit for a connection between two ends. Data may travel
// in clear when no password is set on either end, or when both ends trust each
// other; everything else is encrypted. Both stances come from the authenticated
// handshake.
func Decide(local, remote Stance) Permit {
	none := !local.Password && !remote.Password
	return Permit{clear: none || (local.Trusts && remote.Trusts)}
}

// Clear reports whether clear data is allowed.
func (p Permit) Clear() bool { return p.clear }
