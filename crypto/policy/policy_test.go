package policy

import "testing"

func TestDecide(t *testing.T) {
	for l := range 4 {
		for r := range 4 {
			local := Stance{Password: l&1 != 0, Trusts: l&2 != 0}
			remote := Stance{Password: r&1 != 0, Trusts: r&2 != 0}
			want := (l&1 == 0 && r&1 == 0) || (l&2 != 0 && r&2 != 0)
			if got := Decide(local, remote).Clear(); got != want {
				t.Errorf("Decide(%+v, %+v).Clear() = %v, want %v", local, remote, got, want)
			}
		}
	}
	if (Permit{}).Clear() {
		t.Error("the zero Permit grants clear data")
	}
}
