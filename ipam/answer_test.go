package ipam

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weave/internal/peer"
)

// A claim that was refused is asked for again as soon as somebody wants it again: the
// address may be free by now.
func TestClaimAfterRefusal(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", Init{Mode: Seed})
	a, b := s.hosts[0], s.hosts[1]
	had := s.mustGet(a, "first")
	p := netip.PrefixFrom(had.addr.Netip(), 26)
	claim := func() error {
		return s.ask(b, &op{kind: opClaim, ident: "second", prefix: p, container: true}).err
	}
	if err := claim(); err == nil || !strings.Contains(err.Error(), "in use by first") {
		t.Fatalf("claiming what is in use: %v", err)
	}
	s.end(had)
	delete(a.containers, had.ident)
	s.ask(a, &op{kind: opFreeAll, ident: had.ident})
	begin := s.now
	if err := claim(); err != nil {
		t.Fatalf("claiming what was freed: %v", err)
	}
	if took := s.now - begin; took > 200*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

// Whoever waits for a peer that has another ring is told that, and what to do.
func TestReasonNamesConflict(t *testing.T) {
	s := newScene(t, 2, "10.0.0.0/26", consensus(2))
	a, b := s.hosts[0], s.hosts[1]
	s.mustGet(a, "first")
	s.stop(b)
	b.disk = map[string][]byte{}
	s.prefix = netip.MustParsePrefix("10.9.0.0/26")
	s.start(b)
	s.runFor(time.Second)
	_, err := s.get(b, "second")
	if err == nil || !strings.Contains(err.Error(), "no quorum: need 2 of 2, know host2; host1 uses another address range") {
		t.Errorf("without a ring: %v", err)
	}
	// What the other has may change, and its name become known: status tells how it is now.
	text := a.core.status().Conflicts[0].Text
	if !strings.HasPrefix(text, "host2 uses another address range") {
		t.Errorf("status: %s", text)
	}
	s.stop(b)
	b.disk = map[string][]byte{}
	s.prefix = netip.MustParsePrefix("10.0.0.0/26")
	s.init = Init{Mode: Seed, Seeds: sortedNames(map[peer.Name]bool{b.name: true, simName(7): true})}
	s.runFor(conflictPause)
	s.start(b)
	s.runFor(10 * time.Second)
	if cs := a.core.status().Conflicts; len(cs) != 1 || !strings.HasPrefix(cs[0].Text, "host2 has another division") {
		t.Errorf("status: %+v", cs)
	}
	if n := len(s.noted(a, NoteConflict)); n != 2 {
		t.Errorf("%d notes: %+v", n, s.noted(a, NoteConflict))
	}
	s.step(a, evGone{b.name})
	if cs := a.core.status().Conflicts; len(cs) != 0 {
		t.Errorf("of a peer that is gone: %+v", cs)
	}
}

// A host gets an old disk, with an address that its container had then and another's
// has now. The container was down, and starts before the others have been heard.
func TestOldDiskStoppedContainer(t *testing.T) {
	for _, reconciled := range []bool{true, false} {
		s := newScene(t, 2, "10.0.0.0/26", Init{Mode: Seed})
		a, b := s.hosts[0], s.hosts[1]
		had := s.mustGet(a, "first")
		then := had.addr
		a.snapshot = maps.Clone(a.disk)
		s.end(had)
		delete(a.containers, had.ident)
		s.ask(a, &op{kind: opFreeAll, ident: had.ident})
		other := &container{host: b, ident: "other"}
		b.containers[other.ident] = other
		if err := s.ask(b, &op{kind: opClaim, ident: other.ident, prefix: netip.PrefixFrom(then.Netip(), 26), container: true}).err; err != nil {
			t.Fatal(err)
		}
		s.begin(other, then)
		s.stop(a)
		a.disk = maps.Clone(a.snapshot)
		s.start(a)
		if reconciled {
			s.reconcile(a, false)
		}
		if again := s.mustGet(a, "first"); again.addr == then || s.failed != "" {
			t.Errorf("reconciled %v: %v again: %s", reconciled, again.addr, s.failed)
		}
	}
}
