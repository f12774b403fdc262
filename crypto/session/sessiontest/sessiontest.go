// Package sessiontest gives tests the keys of a link without a link.
//
// It runs the real exchange between two ends in memory, so what a test seals and
// opens with is what ships.
package sessiontest

import (
	"testing"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
)

// End is one end of a link: what it sends with and what it receives with.
type End struct {
	Tx *session.TxKeys
	Rx *session.RxKeys
}

// Clear is a permit for clear data, as two ends without password get it.
func Clear() policy.Permit { return policy.Decide(policy.Stance{}, policy.Stance{}) }

// Pair returns the two ends of a new link with keys for the lanes. Receive
// indices are 1 at the initiator and 2 at the responder.
func Pair(t testing.TB, c session.Cipher, lanes ...session.Lane) (initiator, responder End) {
	t.Helper()
	now := time.Unix(0, 0)
	secret := session.SecretFromBytes([session.SecretLen]byte{1})
	newExchange := func(first bool, index uint32) *session.Exchange {
		e, err := session.NewExchange(session.ExchangeConfig{
			Initiator: first,
			Secret:    secret,
			Cipher:    c,
			Permit:    Clear(),
			Lanes:     lanes,
			NewIndex:  func() (uint32, error) { return index, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	a, b := newExchange(true, 1), newExchange(false, 2)
	control := func(e *session.Exchange, msgs [][]byte, end *End) (answers [][]byte) {
		for _, msg := range msgs {
			o, err := e.Control(msg, now)
			if err != nil {
				t.Fatal(err)
			}
			if o.ArmRx != nil {
				end.Rx = o.ArmRx
			}
			if o.UseTx != nil {
				end.Tx = o.UseTx
			}
			answers = append(answers, o.Send...)
		}
		return answers
	}
	toResponder := a.Start(now).Send
	for len(toResponder) > 0 {
		toInitiator := control(b, toResponder, &responder)
		toResponder = control(a, toInitiator, &initiator)
	}
	if initiator.Tx == nil || responder.Tx == nil {
		t.Fatal("exchange did not end with keys")
	}
	return initiator, responder
}
