package hostnet

import (
	"strings"
	"testing"
)

func TestHostName(t *testing.T) {
	seen := make(map[string]bool)
	for ino := range uint64(1000) {
		for try := range 2 {
			name := hostName(nsID{4, ino}, try)
			if !validIfName(name) || seen[name] {
				t.Fatalf("%q for inode %d is no new interface name", name, ino)
			}
			seen[name] = true
		}
	}
	if name := hostName(nsID{4, 7}, 0); name != hostName(nsID{4, 7}, 0) {
		t.Error("names are not stable")
	}
}

func FuzzParseContainer(f *testing.F) {
	for _, s := range []string{"netns:web", "netns:/a", "pid:1", "", "netns:..", "pid:-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContainer(s)
		if err != nil {
			return
		}
		if c.String() != s || !strings.HasPrefix(c.path, "/") || len(aliasPrefix+s) > 255 {
			t.Errorf("%q became %+v", s, c)
		}
	})
}
