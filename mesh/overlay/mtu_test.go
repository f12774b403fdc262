package overlay

import (
	"fmt"
	"testing"
)

func TestInnerMTU(t *testing.T) {
	tests := []struct {
		underlay            int
		ipv6                bool
		sleeve, vxlan, cage int
	}{
		{68, false, 0, 18, 0},
		{576, false, 494, 526, 466},
		{1280, false, 1198, 1230, 1170},
		{1426, false, 1344, 1376, 1316},
		{1458, false, 1376, 1408, 1348},
		{1460, false, 1378, 1410, 1350},
		{1486, false, 1404, 1436, 1376},
		{1500, false, 1418, 1450, 1390},
		{8951, false, 8869, 8901, 8841},
		{9000, false, 8918, 8950, 8890},
		{9001, false, 8919, 8951, 8891},
		{65535, false, 65453, 65485, 65425},
		{1280, true, 1178, 1210, 1150},
		{1446, true, 1344, 1376, 1316},
		{1460, true, 1358, 1390, 1330},
		{1478, true, 1376, 1408, 1348},
		{1500, true, 1398, 1430, 1370},
		{1506, true, 1404, 1436, 1376},
		{9001, true, 8899, 8931, 8871},
		{68, true, 0, 0, 0},
	}
	for _, tt := range tests {
		for e, want := range map[Encapsulation]int{EncapSleeve: tt.sleeve, EncapVXLAN: tt.vxlan, EncapCage: tt.cage} {
			t.Run(fmt.Sprintf("%d/ipv6=%v/%v", tt.underlay, tt.ipv6, e), func(t *testing.T) {
				if got := InnerMTU(tt.underlay, tt.ipv6, e); got != want {
					t.Errorf("got %d, want %d", got, want)
				}
			})
		}
	}
}
