package store

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// rounds of damage; each opens and rewrites a store.
const rounds = 400

func damage(t *testing.T) {
	good := sample(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	aside := 0
	for round := range rounds {
		bad := bytes.Clone(good)
		switch round % 4 {
		case 0: // cut
			bad = bad[:rnd.IntN(len(bad))]
		case 1: // one byte
			bad[rnd.IntN(len(bad))] ^= byte(1 + rnd.IntN(255))
		case 2: // a sector of noise
			at := rnd.IntN(len(bad)/512) * 512
			for i := range 512 {
				bad[at+i] = byte(rnd.Uint32())
			}
		case 3: // a page in place of another
			n := len(bad) / pageSize
			from, to := rnd.IntN(n)*pageSize, rnd.IntN(n)*pageSize
			copy(bad[to:to+pageSize], good[from:from+pageSize])
		}
		dir := filepath.Join(t.TempDir(), "s")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := exercise(dir, bad); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, brokenName+"*")); len(found) > 0 {
			aside++
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d of %d damaged files were set aside, the others were whole where it matters", aside, rounds)
	if aside < rounds/4 {
		t.Errorf("only %d of %d were noticed", aside, rounds)
	}
}

// FuzzCheck garbles the one meta that counts and the pages below; what passes the
// walk must be safe for the library.
func FuzzCheck(f *testing.F) {
	good := sample(f)
	f.Add(uint32(0), []byte{0})
	f.Add(uint32(pageSize+pageHeaderLen+16), []byte{3})
	f.Add(uint32(2*pageSize+8), []byte{1, 0})
	f.Add(uint32(3*pageSize+10), []byte{0xff, 0xff})
	f.Add(uint32(4*pageSize+12), []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, noise []byte) {
		bad := bytes.Clone(good)
		copy(bad[int(at)%len(bad):], noise)
		if err := checkFile(bytes.NewReader(bad), int64(len(bad))); err != nil {
			return
		}
		if err := exercise(t.TempDir(), bad); err != nil {
			t.Error(err)
		}
	})
}
