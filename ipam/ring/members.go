package ring

import (
	"maps"
	"slices"

	"weave/internal/peer"
)

// MaxMembers bounds what is remembered of peers.
const MaxMembers = 1 << 12

// Member is what a peer says of itself.
type Member struct {
	Name peer.Name
	Boot uint64   // counts the runs of the peer's daemon; kept in its store
	Run  peer.UID // drawn at random for each run
	Seq  uint64   // counts the reports of a run
	Nick string
	Free uint64 // addresses free at the time of the report: a hint for those who look for space
}

// Compare orders reports of one peer by age. Of two runs with one number, which
// only copies of a store can have, the greater Run counts.
func (m Member) Compare(o Member) int {
	switch {
	case m.Boot != o.Boot:
		return cmpOf(m.Boot < o.Boot)
	case m.Run != o.Run:
		return cmpOf(m.Run < o.Run)
	case m.Seq != o.Seq:
		return cmpOf(m.Seq < o.Seq)
	case m.Free != o.Free:
		return cmpOf(m.Free < o.Free)
	case m.Nick != o.Nick:
		return cmpOf(m.Nick < o.Nick)
	}
	return 0
}

// Members is the memory a peer has of all: the latest report of each. It is joined
// like a Ring, by taking the greater of two reports.
type Members map[peer.Name]Member

// Merge joins reports into m and returns those that were new.
func (m Members) Merge(reports []Member) (news []Member) {
	for _, r := range reports {
		old, ok := m[r.Name]
		if r.Name.IsZero() || !ok && len(m) >= MaxMembers || ok && old.Compare(r) >= 0 {
			continue
		}
		m[r.Name] = r
		news = append(news, r)
	}
	return news
}

// Sorted returns all reports by name.
func (m Members) Sorted() []Member {
	out := make([]Member, 0, len(m))
	for _, n := range slices.SortedFunc(maps.Keys(m), peer.Name.Compare) {
		out = append(out, m[n])
	}
	return out
}
