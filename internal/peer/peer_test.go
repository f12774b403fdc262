package peer_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weave/internal/peer"
)

func name(b ...byte) peer.Name { return peer.NameFromBytes([peer.NameLen]byte(b)) }

// names are texts with the Name they stand for and its full form.
var names = []struct {
	text string
	want peer.Name
	full string
}{
	{"02:aa:bb:cc:dd:ee", name(0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee), "02:aa:bb:cc:dd:ee"},
	{"02:AA:bB:CC:DD:EE", name(0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee), "02:aa:bb:cc:dd:ee"},
	{"ff:ff:ff:ff:ff:ff", name(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "ff:ff:ff:ff:ff:ff"},
	{"2:0:0:0:0:1", name(2, 0, 0, 0, 0, 1), "02:00:00:00:00:01"},
	{"00:00:00:00:00:00", peer.Name{}, "00:00:00:00:00:00"},
	{"::", peer.Name{}, "00:00:00:00:00:00"},
	{"::1", name(0, 0, 0, 0, 0, 1), "00:00:00:00:00:01"},
	{"1::", name(1, 0, 0, 0, 0, 0), "01:00:00:00:00:00"},
	{"1::1", name(1, 0, 0, 0, 0, 1), "01:00:00:00:00:01"},
	{"1:2::e:f", name(1, 2, 0, 0, 0xe, 0xf), "01:02:00:00:0e:0f"},
	{"::2:3:4:5:6", name(0, 2, 3, 4, 5, 6), "00:02:03:04:05:06"},
	{"1:2:3:4:5::", name(1, 2, 3, 4, 5, 0), "01:02:03:04:05:00"},
	{"1:2::4:5:6", name(1, 2, 0, 4, 5, 6), "01:02:00:04:05:06"},
}

func TestParseName(t *testing.T) {
	for _, tt := range names {
		t.Run(tt.text, func(t *testing.T) {
			got, err := peer.ParseName(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("ParseName = %v, want %v", got, tt.want)
			}
			if got.String() != tt.full {
				t.Errorf("String = %q, want %q", got, tt.full)
			}
			if again, err := peer.ParseName(got.String()); err != nil || again != got {
				t.Errorf("ParseName(String) = %v, %v", again, err)
			}
		})
	}
}

// badNames are no names, each for a reason of its own.
var badNames = []string{
	"", ":", ":::", "1", "host1",
	"02:aa:bb:cc:dd",                 // five octets
	"02:aa:bb:cc:dd:ee:ff",           // seven
	"02:aa:bb:cc:dd:",                // an empty one
	":02:aa:bb:cc:dd",                //
	"002:aa:bb:cc:dd:ee",             // three digits
	"02:aa:bb:cc:dd:gg",              // not hex
	"02-aa-bb-cc-dd-ee",              // another notation
	"+2:aa:bb:cc:dd:ee",              // what strconv might take
	"0x2:0:0:0:0:0",                  //
	"1::2::3",                        // two short runs
	"1:::2",                          //
	"1:2:3:4:5:6::", "::1:2:3:4:5:6", // nothing left to stand for ::
	"1:2:3::4:5:6", //
	"100::", "::-1", " ::1", "::1 ", "::1\n", "::1/64",
}

func TestParseNameErrors(t *testing.T) {
	for _, text := range badNames {
		got, err := peer.ParseName(text)
		if !errors.Is(err, peer.ErrBadName) || !got.IsZero() {
			t.Errorf("ParseName(%q) = %v, %v; want ErrBadName", text, got, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, tt := range names {
		f.Add(tt.text)
	}
	for _, text := range badNames {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := peer.ParseName(text)
		if err != nil {
			if !errors.Is(err, peer.ErrBadName) || !n.IsZero() {
				t.Fatalf("ParseName(%q) = %v, %v", text, n, err)
			}
			return
		}
		if again, err := peer.ParseName(n.String()); err != nil || again != n {
			t.Fatalf("%q: ParseName(%q) = %v, %v", text, n, again, err)
		}
	})
}

func TestNameBytes(t *testing.T) {
	want := [peer.NameLen]byte{1, 2, 3, 4, 5, 6}
	n := peer.NameFromBytes(want)
	if got := n.Bytes(); got != want {
		t.Errorf("Bytes = %x, want %x", got, want)
	}
	if diff := cmp.Diff([]byte{9, 1, 2, 3, 4, 5, 6}, n.AppendBytes([]byte{9})); diff != "" {
		t.Errorf("AppendBytes (-want +got):\n%s", diff)
	}
}

func TestNameText(t *testing.T) {
	type doc struct {
		Name, None peer.Name
		ByName     map[peer.Name]int
	}
	one := name(0, 0, 0, 0, 0, 1)
	in := doc{Name: one, ByName: map[peer.Name]int{one: 1}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Name":"00:00:00:00:00:01","None":"","ByName":{"00:00:00:00:00:01":1}}`
	if string(b) != want {
		t.Errorf("JSON %s, want %s", b, want)
	}
	out := doc{None: one} // "" must overwrite
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if out.Name != one || !out.None.IsZero() || out.ByName[one] != 1 {
		t.Errorf("back from JSON: %+v", out)
	}
	kept := one
	if err := kept.UnmarshalText([]byte("host1")); !errors.Is(err, peer.ErrBadName) || kept != one {
		t.Errorf("bad text: %v, %v; want ErrBadName, unchanged", kept, err)
	}
}

func TestNameCompare(t *testing.T) {
	low, high := name(0, 0xff, 0, 0, 0, 0), name(1, 0, 0, 0, 0, 0)
	for _, tt := range []struct {
		a, b peer.Name
		want int
	}{{low, high, -1}, {high, low, 1}, {low, low, 0}, {peer.Name{}, low, -1}} {
		if got := tt.a.Compare(tt.b); got != tt.want {
			t.Errorf("%v Compare %v = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestNewUID(t *testing.T) {
	seen := map[peer.UID]bool{0: true}
	for range 100 {
		u := peer.NewUID()
		if seen[u] {
			t.Fatalf("UID %d is zero or not new", u)
		}
		seen[u] = true
	}
}
