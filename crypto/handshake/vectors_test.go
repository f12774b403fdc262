package handshake

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/flynn/noise"
)

// noiseVector is one case of testdata/noise_vectors.txt.
type noiseVector map[string]string

func readNoiseVectors(t *testing.T) (vectors []noiseVector) {
	t.Helper()
	f, err := os.Open("testdata/noise_vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			continue
		}
		if key == "handshake" {
			vectors = append(vectors, noiseVector{})
		}
		vectors[len(vectors)-1][key] = value
	}
	return vectors
}

func (v noiseVector) bytes(t *testing.T, key string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[key])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ends makes the two handshakes of a vector with our suite.
func (v noiseVector) ends(t *testing.T) (ends [2]*noise.HandshakeState) {
	t.Helper()
	for i, role := range []string{"init", "resp"} {
		static, err := suite.GenerateKeypair(bytes.NewReader(v.bytes(t, role+"_static")))
		if err != nil {
			t.Fatal(err)
		}
		c := noise.Config{
			CipherSuite:   suite,
			Pattern:       noise.HandshakeXX,
			Initiator:     i == 0,
			StaticKeypair: static,
			Random:        bytes.NewReader(v.bytes(t, "gen_"+role+"_ephemeral")),
			Prologue:      v.bytes(t, "prologue"),
		}
		if strings.Contains(v["handshake"], "psk3") {
			c.PresharedKey, c.PresharedKeyPlacement = v.bytes(t, "preshared_key"), 3
		}
		if ends[i], err = noise.NewHandshakeState(c); err != nil {
			t.Fatal(err)
		}
	}
	return ends
}

func TestNoiseVectors(t *testing.T) {
	vectors := readNoiseVectors(t)
	if len(vectors) != 8 {
		t.Errorf("%d vectors, want 8", len(vectors))
	}
	for i, v := range vectors {
		ends := v.ends(t)
		var send, recv [2]*noise.CipherState // by the end that sends
		for n := range 5 {
			payload := v.bytes(t, "msg_"+string('0'+rune(n))+"_payload")
			want := v.bytes(t, "msg_"+string('0'+rune(n))+"_ciphertext")
			from, to := n%2, 1-n%2
			var got, opened []byte
			var err, openErr error
			if n < 3 {
				var w, r [2]*noise.CipherState
				got, w[0], w[1], err = ends[from].WriteMessage(nil, payload)
				opened, r[0], r[1], openErr = ends[to].ReadMessage(nil, want)
				send, recv = w, r
			} else { // the initiator's state seals message 3, the responder's message 4
				got, err = send[n-3].Encrypt(nil, nil, payload)
				opened, openErr = recv[n-3].Decrypt(nil, nil, want)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("vector %d message %d: %x, %v, want %x", i, n, got, err, want)
			}
			if openErr != nil || !bytes.Equal(opened, payload) {
				t.Errorf("vector %d message %d: opened %x, %v, want %x", i, n, opened, openErr, payload)
			}
		}
	}
}
