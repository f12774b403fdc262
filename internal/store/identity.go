package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weave/internal/peer"
)

// Source says where a peer's name comes from.
type Source string

const (
	SourceFlag    Source = "flag"    // --name
	SourceStored  Source = "stored"  // an earlier run
	SourceDerived Source = "derived" // machine-id and product or hypervisor UUID
	SourceRandom  Source = "random"  // the host has no id
)

// Identity is who this daemon is.
type Identity struct {
	Name   peer.Name
	Source Source
	// Previous is the stored name when it differs from Name: state that belongs to
	// the old name has to go. Zero otherwise.
	Previous peer.Name
	// HostChanged: the ids of the host are not those of the last run. The disk was
	// probably cloned or restored, and the original may be alive.
	HostChanged bool
}

// Files with the ids of a host, under its root. The first that says something
// counts.
var (
	machineIDFiles = []string{"etc/machine-id", "var/lib/dbus/machine-id"}
	hardwareFiles  = []string{"sys/class/dmi/id/product_uuid", "sys/hypervisor/uuid"}
)

// Labels that keep the two hashes apart from each other and from other programs'
// hashes of the same ids. Changing the first renames every peer.
const (
	nameLabel = "weave peer name 1"
	hostLabel = "weave host 1"
)

// Identify decides on the peer's name and remembers it: wanted unless zero, else
// the stored one, else one derived from the ids under hostRoot ("/" on a host),
// else a random one.
func (s *Store) Identify(wanted peer.Name, hostRoot string) (Identity, error) {
	stored, ok, err := s.PeerName()
	if err != nil {
		return Identity{}, err
	}
	machine, hardware := hostIDs(hostRoot)
	id := Identity{Name: wanted, Source: SourceFlag}
	switch {
	case !wanted.IsZero():
	case ok && !stored.IsZero():
		id = Identity{Name: stored, Source: SourceStored}
	case machine != "" || hardware != "":
		id = Identity{Name: deriveName(machine, hardware), Source: SourceDerived}
	default:
		id = Identity{Name: randomName(), Source: SourceRandom}
	}
	if ok && stored != id.Name {
		id.Previous = stored
	}
	return id, s.remember(&id, machine, hardware)
}

func (s *Store) remember(id *Identity, machine, hardware string) error {
	now := hostHash(machine, hardware)
	var last [sha256.Size]byte
	known, err := s.get(bucketIdentity, keyHostHash, &last)
	if err != nil {
		return err
	}
	id.HostChanged = known && last != now
	err = s.Update(func(tx *Tx) error {
		if err := tx.Put(bucketIdentity, keyPeerName, id.Name.Bytes()); err != nil {
			return err
		}
		return tx.Put(bucketIdentity, keyHostHash, now)
	})
	if err != nil {
		return fmt.Errorf("remembering the peer name: %w", err)
	}
	return nil
}

// hostIDs reads the machine's ids, "" for one that is missing or a placeholder.
func hostIDs(root string) (machine, hardware string) {
	return firstID(root, machineIDFiles), firstID(root, hardwareFiles)
}

func firstID(root string, files []string) string {
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // not there, or not ours to read: the next one will do
		}
		id := strings.ToLower(strings.TrimSpace(string(b)))
		if isID(id) {
			return id
		}
	}
	return ""
}

// isID refuses what many hosts have in common: nothing at all, one digit
// repeated, and the words of images that were never set up.
func isID(s string) bool {
	hex := strings.ReplaceAll(s, "-", "")
	if len(hex) < 16 || strings.Trim(hex, "0123456789abcdef") != "" {
		return false
	}
	return strings.Trim(hex, hex[:1]) != "" && !slices.Contains(sharedIDs, hex)
}

// sharedIDs are serial numbers that firmware vendors forgot to set.
var sharedIDs = []string{"03000200040005000006000700080009"}

func deriveName(machine, hardware string) peer.Name {
	sum := sha256.Sum256([]byte(nameLabel + "\x00" + machine + "\x00" + hardware))
	return localName(sum[:])
}

func randomName() peer.Name {
	var b [peer.NameLen]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return localName(b[:])
}

// localName makes a name of the first six bytes of b, with the bits of a locally
// administered unicast MAC so that it cannot be a real card's.
func localName(b []byte) peer.Name {
	six := [peer.NameLen]byte(b)
	six[0] = six[0]&^1 | 2
	return peer.NameFromBytes(six)
}

// hostHash tells hosts apart without giving their ids away.
func hostHash(machine, hardware string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, []byte(hostLabel))
	mac.Write([]byte(machine + "\x00" + hardware))
	return [sha256.Size]byte(mac.Sum(nil))
}
