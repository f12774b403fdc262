package handshake

import (
	"crypto/hkdf"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/flynn/noise"

	"weave/crypto/session"
)

const (
	// MaxFrame is the largest number of bytes a Machine asks for at once.
	MaxFrame = 1024
	// MaxOffer is the largest offer in bytes.
	MaxOffer = 512

	lengthLen = 2
	headLen   = lengthLen + 1 // length and type

	tagLen      = 16
	minMessage3 = KeyLen + tagLen + tagLen // a shorter one is not for want of a password

	acceptText  = "accept"
	secretLabel = "weave handshake v1 data secret"
)

// frameType is the first byte of a frame. Types are protocol; append only.
type frameType byte

const (
	frameHandshake frameType = 1
	frameAccept    frameType = 2
	frameReject    frameType = 3
)

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

// state says what a Machine waits for.
type state uint8

const (
	statePreamble state = iota // the other end's preamble; leads to message 1 or 2
	stateMessage1              // responder: -> e; leads to message 3
	stateMessage2              // initiator: <- e, ee, s, es; leads to ACCEPT
	stateMessage3              // responder: -> s, se [, psk]; leads to done
	stateAccept                // initiator: ACCEPT; leads to done
	stateDone                  // nothing: there is a Result
	stateFailed                // nothing: there was an error
)

// Config is what a Machine needs to know. Nothing in it is changed.
type Config struct {
	Initiator bool // this end dialed
	Static    *StaticKey
	PSK       *PSK   // nil: no password
	Offer     []byte // for the other end, at most MaxOffer bytes; authenticated
	// Admit is asked about the other end once its static key is proven: by the
	// initiator before it sends message 3, which is where it shows its own key
	// and what depends on the password; by the responder before it accepts. An
	// unknown or unexpected key can be refused there. nil admits all. offer is
	// valid during the call.
	Admit func(remote PublicKey, offer []byte) RejectCode
	Rand  io.Reader // nil: the system's random source
}

// Result is what both ends have after a handshake.
type Result struct {
	Transport      *Transport
	Secret         session.Secret // for data keys; equal on both ends, never sent
	Binding        [32]byte       // names this handshake; equal on both ends, not secret
	RemoteStatic   PublicKey
	RemoteOffer    []byte
	RemotePassword bool  // the other end has a password; the same one, if so
	Version        uint8 // of the protocol
}

// Machine is one end of one handshake.
type Machine struct {
	cfg    Config
	local  preamble
	state  state
	length int // of the frame whose body is awaited; 0: its length is
	noise  *noise.HandshakeState
	out    [headLen + MaxFrame]byte
	result Result
}

// New checks the configuration. Start comes next.
func New(c Config) (*Machine, error) {
	if c.Static == nil || c.Static.get == nil || c.PSK != nil && c.PSK.get == nil {
		return nil, fmt.Errorf("no static key, or an empty one: %w", ErrBadKey)
	}
	if len(c.Offer) > MaxOffer {
		return nil, fmt.Errorf("offer of %d bytes: %w", len(c.Offer), ErrTooLong)
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return &Machine{
		cfg:   c,
		local: preamble{low: versionMin, high: versionMax, password: c.PSK != nil},
	}, nil
}

// Start returns what to write first: nothing for the responder.
func (m *Machine) Start() (out []byte) {
	if !m.cfg.Initiator {
		return nil
	}
	return m.local.append(m.out[:0])
}

// Need is how many bytes the next Step takes, at most MaxFrame; 0 after the end.
func (m *Machine) Need() int {
	switch {
	case m.state == statePreamble:
		return preambleLen
	case m.state >= stateDone:
		return 0
	case m.length == 0:
		return lengthLen
	}
	return m.length
}

// Step takes the next Need() bytes from the other end, which it does not keep.
// out is to be written in any case and is valid until the next Step. With done
// there is a Result. Every err is final.
func (m *Machine) Step(in []byte) (out []byte, done bool, err error) {
	if len(in) == 0 || len(in) != m.Need() {
		return m.fail(nil, errMisuse)
	}
	switch {
	case m.state == statePreamble:
		out, err = m.onPreamble(in)
	case m.length == 0:
		out, err = m.onLength(in)
	default:
		m.length = 0
		out, err = m.onFrame(frameType(in[0]), in[1:])
	}
	if err != nil {
		return m.fail(out, err)
	}
	return out, m.state == stateDone, nil
}

// Result is what came of it; it is the zero Result until Step reported done.
func (m *Machine) Result() Result {
	if m.state != stateDone {
		return Result{}
	}
	return m.result
}

func (m *Machine) fail(out []byte, err error) ([]byte, bool, error) {
	m.state = stateFailed
	m.noise = nil
	m.result = Result{}
	return out, false, err
}

// onPreamble answers a valid preamble, also one that does not fit: the other end
// sees from ours why, and both report the same.
func (m *Machine) onPreamble(in []byte) (out []byte, err error) {
	remote, err := parsePreamble(in)
	if err != nil {
		return nil, err
	}
	if !m.cfg.Initiator {
		out = m.local.append(m.out[:0])
	}
	if m.result.Version, err = m.local.version(remote); err != nil {
		return out, fmt.Errorf("%d-%d here, %d-%d there: %w",
			m.local.low, m.local.high, remote.low, remote.high, err)
	}
	if remote.password != m.local.password {
		return out, &OneSidedError{Remote: remote.password}
	}
	m.result.RemotePassword = remote.password
	if err = m.startNoise(in); err != nil {
		return nil, err
	}
	if !m.cfg.Initiator {
		m.state = stateMessage1
		return out, nil
	}
	m.state = stateMessage2
	// -> e
	out, _, _, err = m.write(nil)
	return out, err
}

// startNoise begins the Noise handshake with both preambles as the prologue.
func (m *Machine) startNoise(remote []byte) error {
	local := m.local.append(make([]byte, 0, 2*preambleLen))
	prologue := append(local, remote...)
	if !m.cfg.Initiator {
		prologue = append(append(make([]byte, 0, 2*preambleLen), remote...), local...)
	}
	c := noise.Config{
		CipherSuite: suite,
		Random:      m.cfg.Rand,
		Pattern:     noise.HandshakeXX,
		Initiator:   m.cfg.Initiator,
		Prologue:    prologue,
		StaticKeypair: noise.DHKey{
			Private: m.cfg.Static.bytes(),
			Public:  m.cfg.Static.public.k[:],
		},
	}
	if m.cfg.PSK != nil {
		c.PresharedKey, c.PresharedKeyPlacement = m.cfg.PSK.bytes(), 3
	}
	var err error
	m.noise, err = noise.NewHandshakeState(c)
	return err
}

func (m *Machine) onLength(in []byte) ([]byte, error) {
	n := int(binary.BigEndian.Uint16(in))
	if n > MaxFrame {
		return m.reject(RejectMessage), fmt.Errorf("frame of %d bytes: %w", n, ErrTooLong)
	}
	if n == 0 {
		return m.reject(RejectMessage), fmt.Errorf("empty frame: %w", ErrMalformed)
	}
	m.length = n
	return nil, nil
}

func (m *Machine) onFrame(t frameType, body []byte) ([]byte, error) {
	if t == frameReject {
		if len(body) != 1 {
			return nil, ErrMalformed
		}
		return nil, &RejectError{Code: RejectCode(body[0]), Remote: true}
	}
	want := frameHandshake
	if m.state == stateAccept {
		want = frameAccept
	}
	if t != want {
		return m.reject(RejectMessage), fmt.Errorf("frame of type %d: %w", t, ErrMalformed)
	}
	switch m.state {
	case stateMessage1:
		return m.onMessage1(body)
	case stateMessage2:
		return m.onMessage2(body)
	case stateMessage3:
		return m.onMessage3(body)
	}
	return m.onAccept(body)
}

// Responder: -> e, then <- e, ee, s, es.
func (m *Machine) onMessage1(body []byte) ([]byte, error) {
	// -> e
	payload, _, _, err := m.noise.ReadMessage(nil, body)
	if err != nil {
		return m.reject(RejectMessage), fmt.Errorf("message 1: %w", authError(err))
	}
	if len(payload) != 0 {
		return m.reject(RejectMessage), fmt.Errorf("message 1 with payload: %w", ErrMalformed)
	}
	m.state = stateMessage3
	// <- e, ee, s, es
	out, _, _, err := m.write(m.cfg.Offer)
	if err != nil {
		return m.reject(RejectMessage), fmt.Errorf("message 2: %w", authError(err))
	}
	return out, nil
}

// Initiator: <- e, ee, s, es, then -> s, se [, psk].
func (m *Machine) onMessage2(body []byte) ([]byte, error) {
	// <- e, ee, s, es
	offer, _, _, err := m.noise.ReadMessage(nil, body)
	if err != nil {
		return m.reject(RejectMessage), fmt.Errorf("message 2: %w", authError(err))
	}
	if out, err := m.admit(offer); err != nil {
		return out, err
	}
	m.state = stateAccept
	// -> s, se [, psk]
	out, send, recv, err := m.write(m.cfg.Offer)
	if err != nil {
		return m.reject(RejectMessage), fmt.Errorf("message 3: %w", authError(err))
	}
	return out, m.split(send, recv, send, recv)
}

// Responder: -> s, se [, psk], then ACCEPT.
func (m *Machine) onMessage3(body []byte) ([]byte, error) {
	if len(body) < minMessage3 {
		return m.reject(RejectMessage), fmt.Errorf("message 3 of %d bytes: %w", len(body), ErrMalformed)
	}
	// -> s, se [, psk]
	offer, recv, send, err := m.noise.ReadMessage(nil, body)
	if err != nil {
		if err = authError(err); err == ErrAuth && m.cfg.PSK != nil {
			return m.reject(RejectPassword), ErrWrongPassword
		}
		return m.reject(RejectMessage), fmt.Errorf("message 3: %w", err)
	}
	if out, err := m.admit(offer); err != nil {
		return out, err
	}
	if err := m.split(send, recv, recv, send); err != nil {
		return nil, err
	}
	out, err := m.result.Transport.Seal(m.head(frameAccept), []byte(acceptText))
	if err != nil {
		return nil, err
	}
	m.finish()
	return m.frame(out), nil
}

// onAccept: the responder has the keys, and so the password.
func (m *Machine) onAccept(body []byte) ([]byte, error) {
	text, err := m.result.Transport.Open(nil, body)
	if err != nil || string(text) != acceptText {
		return nil, fmt.Errorf("accept: %w", ErrAuth)
	}
	m.finish()
	return nil, nil
}

// admit notes who the other end is and asks whether it is wanted.
func (m *Machine) admit(offer []byte) (out []byte, err error) {
	if len(offer) > MaxOffer {
		return m.reject(RejectMessage), fmt.Errorf("offer of %d bytes: %w", len(offer), ErrTooLong)
	}
	copy(m.result.RemoteStatic.k[:], m.noise.PeerStatic())
	m.result.RemoteOffer = offer
	if m.cfg.Admit == nil {
		return nil, nil
	}
	if code := m.cfg.Admit(m.result.RemoteStatic, offer); code != RejectNone {
		return m.reject(code), &RejectError{Code: code}
	}
	return nil, nil
}

// split makes the Transport and what is derived from the handshake. k1 is the
// initiator's sending state, k2 the responder's.
func (m *Machine) split(send, recv, k1, k2 *noise.CipherState) (err error) {
	m.result.Transport = &Transport{send: send, recv: recv}
	m.result.Binding = [32]byte(m.noise.ChannelBinding())
	m.result.Secret, err = exportSecret(k1.UnsafeKey(), k2.UnsafeKey(), m.result.Binding)
	return err
}

func (m *Machine) finish() {
	m.state = stateDone
	m.noise = nil
}

// exportSecret derives what data keys come from, so that they share nothing with
// the Transport's keys, which are replaced on their own schedule.
func exportSecret(k1, k2 [32]byte, binding [32]byte) (session.Secret, error) {
	ikm := append(k1[:], k2[:]...)
	defer clear(ikm)
	prk, err := hkdf.Extract(newBlake2s, ikm, binding[:])
	if err != nil {
		return session.Secret{}, err
	}
	defer clear(prk)
	b, err := hkdf.Expand(newBlake2s, prk, secretLabel, session.SecretLen)
	if err != nil {
		return session.Secret{}, err
	}
	defer clear(b)
	return session.SecretFromBytes([session.SecretLen]byte(b)), nil
}

func newBlake2s() hash.Hash { return suite.Hash() }

// write makes the frame of the next Noise message.
func (m *Machine) write(payload []byte) ([]byte, *noise.CipherState, *noise.CipherState, error) {
	out, cs1, cs2, err := m.noise.WriteMessage(m.head(frameHandshake), payload)
	if err != nil {
		return nil, nil, nil, err
	}
	return m.frame(out), cs1, cs2, nil
}

func (m *Machine) reject(c RejectCode) []byte {
	return m.frame(append(m.head(frameReject), byte(c)))
}

// head begins a frame in the Machine's buffer; frame fills in its length.
func (m *Machine) head(t frameType) []byte { return append(m.out[:0], 0, 0, byte(t)) }

func (m *Machine) frame(b []byte) []byte {
	binary.BigEndian.PutUint16(b, uint16(len(b)-lengthLen))
	return b
}

// authError gives Noise's errors our names.
func authError(err error) error {
	if errors.Is(err, noise.ErrShortMessage) {
		return ErrMalformed
	}
	return ErrAuth
}
