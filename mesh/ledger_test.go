package mesh_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"testing"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh/gossip"
)

func mustKey(t testing.TB) *handshake.StaticKey {
	k, err := handshake.NewStaticKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ledgerData is the highest number for each key.
type ledgerData map[string]int

func (d ledgerData) Encode() [][]byte {
	b, _ := json.Marshal(d)
	return [][]byte{b}
}

func (d ledgerData) Merge(o gossip.Data) gossip.Data {
	out := maps.Clone(d)
	if other, ok := o.(ledgerData); ok {
		for k, v := range other {
			out[k] = max(out[k], v)
		}
	}
	return out
}

// raw is a message as it is.
type raw string

func (r raw) Encode() [][]byte              { return [][]byte{[]byte(r)} }
func (r raw) Merge(gossip.Data) gossip.Data { return r }

// guarded is the part of a ledger that the test reads too.
type guarded struct {
	mu    sync.Mutex
	state ledgerData
	mail  []string
	left  []peer.Name
}

func (l *ledger) Name() string { return l.name }

// Digest is "?" and a hash.
func (l *ledger) Digest() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := fnv.New64a()
	for _, k := range slices.Sorted(maps.Keys(l.state)) {
		fmt.Fprint(h, k, l.state[k])
	}
	return fmt.Appendf(nil, "?%x", h.Sum64())
}

// OnMessage answers a digest of another state with the whole, which is answered
// alike if it lacks something.
func (l *ledger) OnMessage(_ peer.Name, msg []byte) (r gossip.Reaction, err error) {
	if len(msg) > 0 && msg[0] == '?' {
		if string(msg) != string(l.Digest()) {
			r.Reply = l.snapshot()
		}
		return r, nil
	}
	in := ledgerData{}
	if json.Unmarshal(msg, &in) != nil {
		return r, errBad
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	news, behind := ledgerData{}, false
	for k, v := range in {
		if v > l.state[k] {
			l.state[k], news[k] = v, v
		}
		behind = behind || v < l.state[k]
	}
	if len(news) > 0 {
		r.News = news
	}
	if len(in) < len(l.state) && len(news) > 0 && behind {
		r.Reply = maps.Clone(l.state)
	}
	return r, nil
}

func (l *ledger) OnUnicast(from peer.Name, msg []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mail = append(l.mail, from.String()+" "+string(msg))
	return nil
}

func (l *ledger) OnGone(n peer.Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = append(l.left, n)
}

func (l *ledger) set(k string, v int) {
	l.mu.Lock()
	l.state[k] = max(l.state[k], v)
	l.mu.Unlock()
	l.s.Update(ledgerData{k: v})
}

func (l *ledger) get(k string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state[k]
}

func (l *ledger) snapshot() ledgerData {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.state)
}

func (l *ledger) inbox() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mail)
}

func (l *ledger) gone() []peer.Name {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.left)
}
