package ipam

import (
	"log/slog"
	"net/netip"
	"time"

	"weave/internal/peer"
)

// Times of the allocator. All are of its own clock, which only ever goes forward,
// and not faster than maxStep for each event, whatever the host's clock does.
const (
	requestTime   = 4500 * time.Millisecond // a request that does not wait is answered by then
	deathGrace    = 30 * time.Second        // a container that stopped may come back that long
	isolatedTime  = 3 * time.Second         // a starting peer that reaches nobody goes on after
	settleTime    = time.Second             // links of a starting peer may come up that long
	reconcileMax  = 3 * time.Second         // a good store waits that long to hear what is in use
	syncAgain     = 300 * time.Millisecond  // an unanswered sync, hand or want is sent again
	askTime       = 400 * time.Millisecond  // a peer asked for space may take that long
	askPause      = time.Second             // before all are asked again
	helloTime     = 2 * time.Second         // a peer met before the election may take to say if there is a ring
	proposeTime   = time.Second             // an election that stands still is begun again
	removeSync    = 1500 * time.Millisecond // RmPeer hears others that long
	takenHold     = 3 * time.Second         // space taken over rests that long at most
	confirmTime   = 1500 * time.Millisecond // who leaves waits that long to know what it owns
	handTime      = 3 * time.Second         // an heir may take that long to confirm
	conflictPause = 10 * time.Second        // between notes of what one peer has instead of our ring
	foreignAgain  = 2 * time.Second         // a lost lease is asked for again
	reportPause   = 2 * time.Second         // between reports of free space
	houseTime     = time.Second             // between looks at what changes slowly
	maxStep       = time.Second
)

// Limits that keep memory bounded.
const (
	maxIdent      = 256
	maxOps        = 4096
	maxLeases     = 1 << 20
	claimsAtOnce  = 32
	maxNotes      = 64
	restampBeyond = 64
)

// Mode says how the range is first divided.
type Mode uint8

const (
	// Consensus: a quorum of electors agrees, when the first address is asked for.
	Consensus Mode = iota
	// Seed: the range is divided among the peers of a list that all have alike.
	Seed
	// Observer: this peer waits for others to agree and has no vote.
	Observer
)

// String is the word of --ipalloc-init.
func (m Mode) String() string {
	switch m {
	case Consensus:
		return "consensus"
	case Seed:
		return "seed"
	case Observer:
		return "observer"
	}
	return "unknown"
}

// Init is how the range is first divided; without meaning once it is.
type Init struct {
	Mode     Mode
	Electors int         // Consensus: how many there will be; 0: 1 + Mesh.Targets
	Seeds    []peer.Name // Seed
}

// Peer is another member of the mesh.
type Peer struct {
	Name      peer.Name
	Nick      string
	Reachable bool // there is a route to it now
}

// Mesh is what the mesh knows.
type Mesh struct {
	Peers   []Peer // others only; order does not matter
	Targets int    // addresses this peer tries to connect to, itself not counted
}

// Record is one stored value. A nil Value deletes the key.
type Record struct {
	Key   string
	Value []byte
}

// Store keeps records over restarts.
type Store interface {
	// Load returns all records. The allocator owns them.
	Load() ([]Record, error)
	// Save makes all changes durable, or none.
	Save(changes []Record) error
}

// Config is all that an Allocator needs to know. Fields without "may be" are
// required.
type Config struct {
	Name          peer.Name
	Nick          string
	UID           peer.UID
	Range         netip.Prefix // the addresses given out by default
	DefaultSubnet netip.Prefix // may be zero: Range
	Init          Init
	Store         Store
	// Mesh returns who is there. It must not block; it is called often.
	Mesh func() Mesh
	Log  *slog.Logger
	// OnNote may be nil. It gets what an operator should know, from the loop: it
	// must not block, nor call the Allocator.
	OnNote func(Note)
}

// NoteKind says what happened.
type NoteKind string

// Kinds of notes; append only, they are part of the status interface.
const (
	NoteRing     NoteKind = "ring"      // the range is divided
	NoteConflict NoteKind = "conflict"  // a peer has another range or division
	NoteLost     NoteKind = "lost"      // a range with containers in it is another peer's now
	NoteDouble   NoteKind = "duplicate" // an address is in use here and elsewhere
	NoteRegained NoteKind = "regained"  // a lost address is ours again
	NoteStale    NoteKind = "stale"     // the mesh remembers more than our store
	NoteReady    NoteKind = "ready"     // what we own may be handed out
	NoteIdentity NoteKind = "identity"  // our name is used elsewhere
	NoteRemoved  NoteKind = "removed"   // a peer's space was taken over
	NoteGiven    NoteKind = "given"     // space was given to or got from a peer
	NoteStore    NoteKind = "store"     // stored state was not used
)

// Note is an event for log and status.
type Note struct {
	Kind  NoteKind
	Peer  peer.Name // zero: none in particular
	Nick  string
	Addrs []netip.Prefix
	Text  string // the event and what to do, as a sentence
}
