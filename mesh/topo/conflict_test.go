package topo

import (
	"errors"
	"testing"
	"time"
)

// Two that run from one state are told of one another, and don't keep the network busy.
func TestClones(t *testing.T) {
	a, b := newPeer(1, lifeOf(5)), newPeer(1, lifeOf(6))
	now, jumps := t0, 0
	for range 600 {
		now = now.Add(time.Second)
		for _, p := range [][2]*Topology{{a, b}, {b, a}} {
			if d := p[1].Tick(now); !d.IsEmpty() {
				jumps++
			}
			res, err := p[1].Step(name(2), whole(p[0].local), now)
			if err != nil {
				t.Fatal(err)
			}
			if res.News != nil {
				jumps++
			}
		}
	}
	for _, p := range []*Topology{a, b} {
		if c := p.Conflicts(now); len(c) != 1 || !c[0].Clone || c[0].Name != name(1) || c[0].NickName != "h1" {
			t.Errorf("conflicts %+v", c)
		}
	}
	if limit := 2 * maxJumps * (600/30 + 1); jumps > limit {
		t.Errorf("%d announcements in 10 min, want at most %d", jumps, limit)
	}
}

// Another host with a name that is in use is not believed by those that are joined
// to the first, however new its record; both learn of it.
func TestImpostor(t *testing.T) {
	edges := [][2]int{{1, 2}, {2, 3}, {3, 4}}
	top := world(t, 1, edges)
	top.cfg.Verify = newPeer(1).cfg.Verify
	fake := newPeer(4, reinstalled)
	for i := range 90 {
		fake.SetConns(conns(3, 100+i), false)
	}
	res := mustStep(t, top, 2, whole(fake.local))
	if top.Record(name(4)).Key != keyOf(4, 0) {
		t.Fatal("the impostor was believed")
	}
	if res.News == nil || res.Reply == nil {
		t.Error("the holders are not told of one another")
	}
	if c := top.Conflicts(t0); len(c) != 1 || c[0].Clone || c[0].Name != name(4) || c[0].NickName != "new h4" {
		t.Errorf("conflicts %+v", c)
	}
	if res := mustStep(t, top, 2, whole(fake.local)); res.News != nil || res.Reply != nil {
		t.Error("passed on again at once")
	}
	if top.Routes().Unicast[name(4)] != name(2) {
		t.Error("route lost")
	}
	// The real one hears of it too.
	four := newPeer(4)
	mustStep(t, four, 3, whole(fake.local))
	if c := four.Conflicts(t0); len(c) != 1 || c[0].NickName != "new h4" || four.local.Version != 1 {
		t.Errorf("conflicts at the real one: %+v", c)
	}
	// Reinstalled: its neighbour is connected to the holder of the new key.
	top = world(t, 1, edges)
	three := newPeer(3, trusting)
	three.SetConns([]Conn{conn(2), connKey(4, keyOf(4, 1))}, false)
	for range 3 {
		three.SetConns([]Conn{conn(2)}, false)
		three.SetConns([]Conn{conn(2), connKey(4, keyOf(4, 1))}, false)
	}
	mustStep(t, top, 2, whole(three.local))
	mustStep(t, top, 2, whole(fake.local))
	if top.Record(name(4)).Key != keyOf(4, 1) {
		t.Error("the reinstalled host is not believed")
	}
}

// A neighbour is believed about itself, and nobody else about it.
func TestNeighbourKey(t *testing.T) {
	top := newPeer(1)
	fake := newPeer(2, reinstalled)
	fake.SetConns(conns(3), false)
	mustStep(t, top, 3, whole(fake.local))
	if top.Record(name(2)) == nil {
		t.Fatal("a free name can't be taken")
	}
	top.SetNeighbour(name(2), Neighbour{keyOf(2, 0), 2})
	if top.Record(name(2)) != nil {
		t.Error("hearsay outlives the proof")
	}
	res := mustStep(t, top, 3, whole(fake.local))
	if top.Record(name(2)) != nil || res.News != nil || res.Tell[name(2)].Len() != 1 {
		t.Errorf("hearsay against proof: %+v", res)
	}
	mustStep(t, top, 2, whole(record(2, 2, 1)))
	if top.Record(name(2)) == nil {
		t.Error("the neighbour isn't believed")
	}
}

// What a member can do that says what it likes.
func TestMalice(t *testing.T) {
	edges := [][2]int{{1, 2}, {2, 3}, {3, 4}, {2, 66}}
	t.Run("version jumps", func(t *testing.T) {
		top := world(t, 1, edges)
		top.cfg.Verify = newPeer(1).cfg.Verify
		for _, i := range []int{1, 2, 3, 4} {
			r := *record(i, 7)
			r.Version = MaxVersion
			_, err := top.Step(name(2), whole(&r), t0)
			if want := i != 1; errors.Is(err, ErrForged) != want {
				t.Errorf("record of %d: %v", i, err)
			}
		}
		if u := top.Routes().Unicast; len(u) != 4 || u[name(4)] != name(2) {
			t.Errorf("routes %v", u)
		}
	})
	t.Run("updates of one author", func(t *testing.T) {
		top := world(t, 1, edges)
		m := newPeer(66, trusting)
		news := 0
		for i := range 10000 {
			m.SetConns(conns(2, 100+i%50), false)
			res, err := top.Step(name(2), whole(m.local), t0.Add(time.Duration(i)*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			if res.News != nil {
				news++
			}
		}
		if limit := updateBurst + 10*updateRate; news > limit {
			t.Errorf("%d forwarded in 10 s, want at most %d", news, limit)
		}
	})
	t.Run("invented peers", func(t *testing.T) {
		top := world(t, 1, edges)
		proto := record(2, 2, 66)
		for i := 100; i < 100+2*MaxPeers; i += 50 {
			var rs []*Record
			for j := range 50 {
				r := *proto
				r.Name = name(i + j)
				rs = append(rs, &r)
			}
			mustStep(t, top, 2, whole(rs...))
		}
		if top.Len() > MaxPeers {
			t.Errorf("%d records", top.Len())
		}
		if top.Collect(); top.Len() != 5 {
			t.Errorf("%d records after collecting, want 5", top.Len())
		}
	})
	t.Run("large records", func(t *testing.T) {
		top := world(t, 1, nil)
		many := make([]int, MaxConns)
		for i := range many {
			many[i] = 10000 + i
		}
		big := record(2, 2, many...)
		for i := range 2000 {
			r := *big
			r.Name = name(100 + i)
			if _, err := top.Step(name(2), whole(&r), t0); err != nil {
				t.Fatal(err)
			}
		}
		if top.bytes > MaxBytes || top.Counters().Limited == 0 {
			t.Errorf("%d bytes kept", top.bytes)
		}
	})
}
