package store

import (
	"os"
	"path/filepath"
	"testing"

	"weave/internal/peer"
)

// host makes a root directory with the given id files.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	idA   = "0123456789abcdef0123456789abcdef\n"
	idB   = "ffeeddccbbaa99887766554433221100\n"
	uuidA = "4C4C4544-0042-3010-8051-B4C04F4E3132\n"
)

func TestIdentify(t *testing.T) {
	both := map[string]string{"etc/machine-id": idA, "sys/class/dmi/id/product_uuid": uuidA}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // "" is random
	}{
		// These names are for all time: a change renames every peer in the field.
		{"both", both, "4e:f1:c3:40:cf:f4"},
		{"upper case is the same", map[string]string{"etc/machine-id": idA, "sys/class/dmi/id/product_uuid": "4c4c4544-0042-3010-8051-b4c04f4e3132"}, "4e:f1:c3:40:cf:f4"},
		{"machine only", map[string]string{"etc/machine-id": idA}, "62:9d:37:1f:30:b0"},
		{"dbus", map[string]string{"etc/machine-id": "", "var/lib/dbus/machine-id": idA}, "62:9d:37:1f:30:b0"},
		{"hypervisor", map[string]string{"etc/machine-id": idA, "sys/class/dmi/id/product_uuid": "00000000-0000-0000-0000-000000000000", "sys/hypervisor/uuid": uuidA}, "4e:f1:c3:40:cf:f4"},
		{"uuid only", map[string]string{"sys/hypervisor/uuid": uuidA}, "b6:53:06:e9:bf:64"},
		{"nothing", nil, ""},
		{"placeholders", map[string]string{"etc/machine-id": "uninitialized\n", "sys/class/dmi/id/product_uuid": "03000200-0400-0500-0006-000700080009\n", "sys/hypervisor/uuid": "ffffffff-ffff-ffff-ffff-ffffffffffff"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			root := host(t, tt.files)
			id, err := s.Identify(peer.Name{}, root)
			if err != nil {
				t.Fatal(err)
			}
			wantSource := SourceDerived
			if tt.want == "" {
				wantSource = SourceRandom
			}
			if tt.want != "" && id.Name.String() != tt.want || id.Source != wantSource || !id.Previous.IsZero() || id.HostChanged {
				t.Errorf("got %+v, want %s from %s", id, tt.want, wantSource)
			}
			if b := id.Name.Bytes(); b[0]&3 != 2 {
				t.Errorf("%s is not a local unicast address", id.Name)
			}
			again, err := s.Identify(peer.Name{}, root)
			if err != nil || again.Name != id.Name || again.Source != SourceStored || again.HostChanged {
				t.Errorf("the second time: %+v, %v", again, err)
			}
		})
	}
}

func TestIdentifyChanges(t *testing.T) {
	s := open(t, t.TempDir())
	rootA := host(t, map[string]string{"etc/machine-id": idA})
	rootB := host(t, map[string]string{"etc/machine-id": idB})
	first, err := s.Identify(peer.Name{}, rootA)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := s.Identify(peer.Name{}, rootB)
	if err != nil || moved.Name != first.Name || !moved.HostChanged {
		t.Errorf("on another host: %+v, %v", moved, err)
	}
	one := mustName(t, "::1")
	renamed, err := s.Identify(one, rootB)
	if err != nil || renamed.Name != one || renamed.Source != SourceFlag || renamed.Previous != first.Name || renamed.HostChanged {
		t.Errorf("with a flag: %+v, %v", renamed, err)
	}
	kept, err := s.Identify(peer.Name{}, rootB)
	if err != nil || kept.Name != one || kept.Source != SourceStored || !kept.Previous.IsZero() {
		t.Errorf("after the flag: %+v, %v", kept, err)
	}
}
