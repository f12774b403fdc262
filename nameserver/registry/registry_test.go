package registry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
	"weave/mesh/gossip"
)

var (
	p1 = peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 1})
	p2 = peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 2})
	p3 = peer.NameFromBytes([6]byte{2, 0, 0, 0, 0, 3})
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mustAdd(t testing.TB, r *Registry, container, name, a string) gossip.Data {
	t.Helper()
	d, err := r.Add(container, name, addr(a))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// give hands messages to r and returns the last Output.
func give(t testing.TB, r *Registry, d gossip.Data) (out Output) {
	t.Helper()
	for _, m := range d.Encode() {
		var err error
		if out, err = r.Step(m); err != nil {
			t.Fatalf("%x: %v", m, err)
		}
		r.checkInvariants(t)
	}
	return out
}

// exchange runs anti-entropy between two until neither has anything to say.
func exchange(t testing.TB, a, b *Registry) {
	t.Helper()
	type letter struct {
		to, from *Registry
		d        gossip.Data
	}
	post := []letter{{b, a, message(a.Digest())}, {a, b, message(b.Digest())}}
	for n := 0; len(post) > 0; n++ {
		if n > 100 {
			t.Fatal("no end of messages")
		}
		l := post[0]
		post = post[1:]
		for _, m := range l.d.Encode() {
			out, err := l.to.Step(m)
			if err != nil {
				t.Fatal(err)
			}
			l.to.checkInvariants(t)
			if out.Reply != nil {
				post = append(post, letter{l.from, l.to, out.Reply})
			}
			if out.Announce != nil {
				post = append(post, letter{l.from, l.to, out.Announce})
			}
			for _, u := range out.Messages {
				if u.To == l.from.name {
					post = append(post, letter{l.from, l.to, message(u.Body)})
				}
			}
		}
	}
}

func TestAddAndRemove(t *testing.T) {
	r := New(p1, 7)
	for _, tt := range []struct {
		name, container, fqdn string
		addr                  netip.Addr
		want                  error
	}{
		{"plain", "c", "a.weave.local.", addr("10.0.0.1"), nil},
		{"IPv6", "c", "a.weave.local.", addr("fd00::1"), nil},
		{"same again", "c", "a.weave.local.", addr("10.0.0.1"), nil},
		{"other case is another entry", "c", "A.weave.local.", addr("10.0.0.1"), nil},
		{"no final dot", "c", "a.weave.local", addr("10.0.0.1"), ErrBadName},
		{"empty label", "c", "a..local.", addr("10.0.0.1"), ErrBadName},
		{"label of 64", "c", strings.Repeat("x", 64) + ".", addr("10.0.0.1"), ErrBadName},
		{"label of 63", "c", strings.Repeat("x", 63) + ".", addr("10.0.0.1"), nil},
		{"long name", "c", strings.Repeat("abcde.", 43), addr("10.0.0.1"), ErrBadName},
		{"needs escape", "c", `a\b.local.`, addr("10.0.0.1"), ErrBadName},
		{"not ASCII", "c", "ä.local.", addr("10.0.0.1"), ErrBadName},
		{"long container", strings.Repeat("c", 129), "a.b.", addr("10.0.0.1"), ErrContainer},
		{"no address", "c", "a.b.", netip.Addr{}, ErrBadAddress},
		{"mapped address", "c", "a.b.", addr("::ffff:10.0.0.1"), ErrBadAddress},
		{"zone", "c", "a.b.", addr("fe80::1%eth0"), ErrBadAddress},
	} {
		if _, err := r.Add(tt.container, tt.fqdn, tt.addr); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := r.index.Len(); got != 4 {
		t.Errorf("%d entries, want 4", got)
	}
	for _, tt := range []struct {
		container, name string
		addr            netip.Addr
		want            int
	}{
		{"d", "", netip.Addr{}, 0},
		{"", "a.weave.local.", addr("10.0.0.1"), 2},
		{"c", "", addr("fd00::1"), 1},
		{"c", "", netip.Addr{}, 1},
		{"", "", netip.Addr{}, 0},
	} {
		d, n := r.Remove(tt.container, tt.name, tt.addr)
		if n != tt.want || (d != nil) != (n > 0) {
			t.Errorf("remove %q %q %v: %d, want %d", tt.container, tt.name, tt.addr, n, tt.want)
		}
	}
	r.checkInvariants(t)
	if len(r.index.parents) != 0 {
		t.Errorf("parents left: %v", r.index.parents)
	}
}

func TestLookup(t *testing.T) {
	r := New(p1, 7)
	mustAdd(t, r, "c1", "Web.weave.local.", "10.0.0.2")
	mustAdd(t, r, "c2", "web.weave.local.", "10.0.0.1")
	mustAdd(t, r, "c2", "web.weave.local.", "fd00::1")
	mustAdd(t, r, "c3", "deep.in.weave.local.", "10.0.0.1")
	got := func(entries []*Entry) string {
		var s []string
		for _, e := range entries {
			s = append(s, e.Name()+"="+e.Addr().String())
		}
		return strings.Join(s, " ")
	}
	for _, tt := range []struct{ name, want string }{
		{"web.weave.local.", "web.weave.local.=10.0.0.1 Web.weave.local.=10.0.0.2 web.weave.local.=fd00::1"},
		{"nope.weave.local.", ""},
		{"in.weave.local.", "in.weave.local.=invalid IP"},
		{"weave.local.", "weave.local.=invalid IP"},
		{"deep.in.weave.local.", "deep.in.weave.local.=10.0.0.1"},
	} {
		if g := got(r.index.Lookup([]byte(tt.name))); g != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, g, tt.want)
		}
	}
	if g, want := got(r.index.ByAddr(addr("10.0.0.1"))), "deep.in.weave.local.=10.0.0.1 web.weave.local.=10.0.0.1"; g != want {
		t.Errorf("by address: %q, want %q", g, want)
	}
	r.Remove("c3", "", netip.Addr{})
	if g := got(r.index.Lookup([]byte("in.weave.local."))); g != "" {
		t.Errorf("parent outlives its child: %q", g)
	}
}

// What was added and removed on one peer does not appear on another when the two
// messages change places, however late the first one comes (smoke test 215).
func TestDelayedGossipDoesNotResurrect(t *testing.T) {
	a, b := New(p1, 7), New(p2, 8)
	mustAdd(t, a, "c0", "other.weave.local.", "10.0.0.9")
	add := mustAdd(t, a, "c", "x.weave.local.", "10.0.0.1")
	del, _ := a.Remove("c", "", netip.Addr{})
	give(t, b, del)
	give(t, b, add)
	if n := len(b.index.Lookup([]byte("x.weave.local."))); n != 0 {
		t.Fatalf("%d entries of a removed container", n)
	}
	exchange(t, a, b)
	give(t, b, add)
	if diff := cmp.Diff(dump(a), dump(b)); diff != "" {
		t.Fatal(diff)
	}
	// So long after that nobody remembers the removal.
	for i := range 4 * keepDels {
		give(t, b, mustAdd(t, a, "churn", "y.weave.local.", testAddr(i+1).String()))
		d, _ := a.Remove("churn", "", netip.Addr{})
		give(t, b, d)
	}
	if l := b.logs[p1]; len(l.dels) > 2*keepDels || l.floor == 0 {
		t.Fatalf("%d removals remembered, floor %d", len(l.dels), l.floor)
	}
	if out := give(t, b, add); out.News != nil || len(b.index.Lookup([]byte("x.weave.local."))) != 0 {
		t.Fatal("an old message brought a name back")
	}
}

// A peer that was away while removals were forgotten is brought up to date.
func TestWholeSegmentReplaces(t *testing.T) {
	a, b := New(p1, 7), New(p2, 8)
	for i := range 100 {
		mustAdd(t, a, fmt.Sprint(i), fmt.Sprintf("n%d.weave.local.", i), testAddr(i+1).String())
	}
	exchange(t, a, b)
	for i := range 50 {
		a.Remove(fmt.Sprint(2*i), "", netip.Addr{})
	}
	for i := range 2 * keepDels {
		mustAdd(t, a, "churn", "y.weave.local.", testAddr(i+1).String())
		a.Remove("churn", "", netip.Addr{})
	}
	mustAdd(t, a, "last", "z.weave.local.", "10.9.9.9")
	if a.own().floor <= b.logs[p1].known {
		t.Fatal("the test does not reach what it is about")
	}
	exchange(t, a, b)
	if diff := cmp.Diff(dump(a), dump(b)); diff != "" {
		t.Fatal(diff)
	}
}

func TestOwnEntryDefence(t *testing.T) {
	old := New(p1, 99)
	for i := range 5 {
		mustAdd(t, old, "dead", "x.weave.local.", testAddr(i+1).String())
	}
	other := New(p2, 8)
	exchange(t, old, other)
	// The peer starts again; a lower UID would lose to its earlier life.
	again := New(p1, 7)
	mustAdd(t, again, "alive", "x.weave.local.", "10.0.0.77")
	exchange(t, again, other)
	if diff := cmp.Diff(dump(again), dump(other)); diff != "" {
		t.Fatal(diff)
	}
	if got := len(dump(other)); got != 1 {
		t.Fatalf("%d entries, want 1", got)
	}
	// Somebody claims changes that this life never made.
	forged := &segment{origin: p1, life: again.life, from: 0, to: 9, adds: []*Entry{newEntry(p1, 9, "evil.weave.local.", "e", addr("10.6.6.6"))}}
	give(t, other, newDelta(forged))
	exchange(t, again, other)
	if diff := cmp.Diff(dump(again), dump(other)); diff != "" {
		t.Fatal(diff)
	}
}

func TestGoneAndBack(t *testing.T) {
	a, b, c := New(p1, 7), New(p2, 8), New(p3, 9)
	late := mustAdd(t, a, "c", "x.weave.local.", "10.0.0.1")
	exchange(t, a, b)
	exchange(t, b, c)
	b.Gone(p1)
	if b.index.Len() != 0 {
		t.Fatal("names outlive their peer")
	}
	// c has not noticed yet; b must not take the ghost from it, nor from old messages.
	exchange(t, b, c)
	give(t, b, late)
	if b.index.Len() != 0 {
		t.Fatal("a ghost came back")
	}
	exchange(t, a, b) // it was not dead after all
	exchange(t, b, c)
	for _, r := range []*Registry{b, c} {
		if diff := cmp.Diff(dump(a), dump(r)); diff != "" {
			t.Fatal(diff)
		}
	}
	if a.life.UID != 7 || a.life.Epoch != 2 {
		t.Errorf("life %v: the same log should go on under a new epoch", a.life)
	}
}

func TestRenumber(t *testing.T) {
	a, b := New(p1, 7), New(p2, 8)
	mustAdd(t, a, "c", "x.weave.local.", "10.0.0.1")
	exchange(t, a, b)
	a.seq = maxSeq
	a.own().known = maxSeq
	d := mustAdd(t, a, "c", "y.weave.local.", "10.0.0.2")
	give(t, b, d)
	if diff := cmp.Diff(dump(a), dump(b)); diff != "" || a.seq != 2 {
		t.Fatal(a.seq, diff)
	}
}

// Any order, any loss, any duplication, any merging on the way: after an exchange all
// is equal, and at no time does a replica hold what was never added.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		a, b := New(p1, 7), New(p2, 8)
		var sent []gossip.Data
		for i := range 200 {
			c := fmt.Sprint(rng.IntN(20))
			if rng.IntN(3) == 0 {
				if d, n := a.Remove(c, "", netip.Addr{}); n > 0 {
					sent = append(sent, d)
				}
			} else if d := mustAdd(t, a, c, "n"+fmt.Sprint(rng.IntN(9))+".l.", testAddr(1+i%50).String()); d != nil {
				sent = append(sent, d)
			}
			if len(sent) > 1 && rng.IntN(4) == 0 {
				k := rng.IntN(len(sent))
				sent[k] = sent[k].Merge(sent[rng.IntN(len(sent))])
			}
			for rng.IntN(3) > 0 && len(sent) > 0 {
				k := rng.IntN(len(sent))
				if rng.IntN(10) < 8 {
					give(t, b, sent[k])
				}
				if rng.IntN(3) > 0 {
					sent = slices.Delete(sent, k, k+1)
				}
			}
		}
		rng.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
		exchange(t, a, b)
		for _, d := range sent { // late
			give(t, b, d)
		}
		if diff := cmp.Diff(dump(a), dump(b)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// Everything a replica can say fits messages, and the pieces work in any order in the end.
func TestBigLog(t *testing.T) {
	a, b := New(p1, 7), New(p2, 8)
	for i := range MaxEntries {
		if _, err := a.Add(fmt.Sprintf("%064x", i), fmt.Sprintf("a-rather-long-name-%d.weave.local.", i), testAddr(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Add("c", "one.more.", addr("10.0.0.1")); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	for i := 0; i < MaxEntries; i += 16 {
		a.Remove(fmt.Sprintf("%064x", i), "", netip.Addr{})
	}
	msgs := newDelta(a.own().since(p1, 0)).Encode()
	for _, m := range msgs {
		if len(m) > gossip.MaxMessage {
			t.Errorf("message of %d bytes", len(m))
		}
	}
	slices.Reverse(msgs)
	for _, m := range msgs {
		if _, err := b.Step(m); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, a, b)
	if a.index.Len() != MaxEntries-MaxEntries/16 || b.index.Len() != a.index.Len() || !bytes.Equal(a.Digest(), b.Digest()) {
		t.Errorf("%d and %d entries", a.index.Len(), b.index.Len())
	}
}

func TestWireGolden(t *testing.T) {
	e := func(seq uint64, name, c, a string) *Entry { return newEntry(p1, seq, name, c, addr(a)) }
	for _, tt := range []struct {
		name string
		seg  *segment
		hex  string
	}{
		{"add", &segment{origin: p1, life: Life{1, 7}, from: 4, to: 5, adds: []*Entry{e(5, "a.l.", "c", "10.0.0.1")}},
			"04 020000000001 0000000000000001 0000000000000007 04 01 00 01 01040a000001 04612e6c2e 0163 00"},
		{"remove", &segment{origin: p1, life: Life{1, 7}, from: 300, to: 302, dels: []del{{301, 5}, {302, 300}}},
			"04 020000000001 0000000000000001 0000000000000007 ac02 02 00 00 02 01a802 0102"},
		{"whole", &segment{origin: p1, life: Life{2, 7}, from: 9, to: 9, whole: true, alive: []span{{0, 2}, {5, 9}}},
			"04 020000000001 0000000000000002 0000000000000007 09 00 01 02 0002 0304 00 00"},
		{"IPv6", &segment{origin: p1, life: Life{1, 7}, from: 0, to: 1, adds: []*Entry{e(1, "a.l.", "", "fd00::1")}},
			"04 020000000001 0000000000000001 0000000000000007 00 01 00 01 0110fd000000000000000000000000000001 04612e6c2e 00 00"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := newDelta(tt.seg).Encode(); len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("%s:\n got %x\nwant %x", tt.name, got, want)
		}
		parsed, err := parseSegments(want[1:])
		if err != nil || len(parsed) != 1 {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.seg, parsed[0], cmp.AllowUnexported(segment{}, Entry{}, span{}, del{}, peer.Name{}),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func goldenMessages() [][]byte {
	r := New(p1, 7)
	r.Add("c", "a.weave.local.", netip.MustParseAddr("10.0.0.1"))
	r.Add("c", "b.weave.local.", netip.MustParseAddr("fd00::1"))
	d, _ := r.Remove("", "b.weave.local.", netip.Addr{})
	out := append(d.Encode(), newDelta(r.own().since(p1, 0)).Encode()...)
	st := stamp{p2, Life{1, 8}, 5}
	return append(out, r.Digest(), r.stamps(msgStamps), appendStamp([]byte{msgWant}, st),
		appendStamp([]byte{msgHeld}, stamp{p1, Life{3, 9}, 0}), appendStamp([]byte{msgBuried}, stamp{p1, Life{1, 7}, 0}))
}

// Every prefix and every changed byte of good messages: no panic, invariants hold, and
// what is accepted can be said again.
func TestDamagedMessages(t *testing.T) {
	for _, m := range goldenMessages() {
		for i := range m {
			r := New(p2, 8)
			r.Step(m[:i])
			for bit := range 8 {
				c := bytes.Clone(m)
				c[i] ^= 1 << bit
				r.Step(c)
			}
			r.checkInvariants(t)
		}
	}
}

func FuzzStep(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(m, []byte{})
		f.Add(m, goldenMessages()[0])
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		r := New(p2, 8)
		r.Add("c", "mine.weave.local.", netip.MustParseAddr("10.0.0.9"))
		for _, m := range [][]byte{one, two, one} {
			out, err := r.Step(m)
			if err != nil {
				continue
			}
			r.checkInvariants(t)
			for _, d := range []gossip.Data{out.News, out.Reply, out.Announce} {
				if d == nil {
					continue
				}
				for _, m := range d.Encode() {
					if len(m) > gossip.MaxMessage {
						t.Fatalf("message of %d bytes", len(m))
					}
					if _, err := New(p3, 9).Step(m); err != nil {
						t.Fatalf("says what it would not take: %v: %x", err, m)
					}
				}
			}
		}
		if len(r.index.Lookup([]byte("mine.weave.local."))) == 0 {
			t.Fatal("a message took our own name")
		}
		r.Gone(p1)
		r.checkInvariants(t)
	})
}

// Readers and a writer at once, under the race detector.
func TestReadersWhileWriting(t *testing.T) {
	r := New(p1, 7)
	mustAdd(t, r, "fixed", "fixed.weave.local.", "10.0.0.1")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := r.index.Lookup([]byte("fixed.weave.local.")); len(got) != 1 || got[0].Container() != "fixed" {
					t.Error("lost a name that nobody touched")
					return
				}
				for range r.index.All() {
					break
				}
			}
		})
	}
	for i := range 20000 {
		r.Add("c", fmt.Sprintf("n%d.weave.local.", i%3000), testAddr(i%3000+1))
		r.Remove("", fmt.Sprintf("n%d.weave.local.", (i*7)%3000), netip.Addr{})
	}
	close(stop)
	wg.Wait()
}

// 100,000 names of 50 peers cost at most 200 bytes each beyond their strings.
func TestHeapPerName(t *testing.T) {
	const peers, names = 50, 2000
	const text = len("name000000.weave.local.") + 12
	var messages [][]byte
	for p := range peers {
		r := New(simName(p+1), peer.UID(p+1))
		for i := range names {
			k := p*names + i
			r.Add(fmt.Sprintf("%012x", k), fmt.Sprintf("name%06d.weave.local.", k), testAddr(k+1))
		}
		messages = append(messages, newDelta(r.own().since(r.name, 0)).Encode()...)
	}
	heapInUse := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heapInUse()
	r := New(simName(0), 1)
	for _, m := range messages {
		if _, err := r.Step(m); err != nil {
			t.Fatal(err)
		}
	}
	after := heapInUse()
	if r.index.Len() != peers*names {
		t.Fatalf("%d names", r.index.Len())
	}
	each := float64(after-before)/(peers*names) - float64(text)
	t.Logf("%.0f bytes of heap for each name beyond its %d bytes of text", each, text)
	if each > 200 {
		t.Errorf("%.0f bytes of heap for each name, want at most 200", each)
	}
	runtime.KeepAlive(messages)
	runtime.KeepAlive(r)
}

func TestLookupDoesNotAllocate(t *testing.T) {
	r := New(p1, 7)
	mustAdd(t, r, "c", "Web.weave.local.", "10.0.0.1")
	name, a := []byte("web.weave.local."), addr("10.0.0.1")
	if n := testing.AllocsPerRun(100, func() {
		if len(r.index.Lookup(name)) != 1 || len(r.index.ByAddr(a)) != 1 {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func bench100k(b *testing.B) *Registry {
	r := New(p1, 7)
	for i := range 100000 {
		l := r.own()
		l.apply(&segment{origin: p1, life: r.life, from: r.seq, to: r.seq + 1,
			adds: []*Entry{newEntry(p1, r.seq+1, fmt.Sprintf("name%06d.weave.local.", i), "c", testAddr(i+1))}}, r.index)
		r.seq++
		l.live = l.live[:0] // the limit of one peer is not the subject
	}
	b.ResetTimer()
	b.ReportAllocs()
	return r
}

func BenchmarkLookup(b *testing.B) {
	r := bench100k(b)
	name := []byte("name012345.weave.local.")
	for b.Loop() {
		r.index.Lookup(name)
	}
}

func BenchmarkChange(b *testing.B) {
	r := bench100k(b)
	a := addr("10.200.0.1")
	for b.Loop() {
		r.Add("x", "changing.weave.local.", a)
		r.Remove("x", "", a)
	}
}
