package sleeve

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The whole transition table of a heart:
//
//	state     input                                   next      output
//	idle      tick, beat                              idle      nothing
//	idle      begin                                   proving   -
//	proving   tick due                                proving   a request of each size
//	proving   request                                 proving   reply; the peer was heard
//	proving   third reply of the largest, peer heard  up        up
//	proving   third reply of a smaller size           proving   up after two more beats
//	up        tick due                                up        a request of the size in use
//	up        tick due, last request not answered     up        and one of each smaller size
//	up        tick due, three not answered, a
//	          smaller size was                        up        size reduced
//	up        tick due, three not answered, none was  proving   down: timeout
//	up        tick due, raising is due                up        a request of each larger size
//	up        three replies of a larger size          up        size raised at the end of the trial
//	any       stop                                    idle      down, if it was up
const testNeed = 1430

var testSizes = []int{1472, 1432, 1430, 1372, 1252, 548}

// hearts is the test of a table row: it drives a heart and notes what it says.
type hearts struct {
	h   heart
	now time.Time
}

func newHearts() *hearts {
	now := time.Unix(1000, 0)
	return &hearts{newHeart(testNeed, 1500, false, now), now}
}

// sizes of the requests in o.
func asked(o beats) (sizes []int) {
	for _, b := range o.send {
		if b.kind == beatRequest {
			sizes = append(sizes, int(b.size))
		}
	}
	return sizes
}

func (h *hearts) due() beats {
	h.now = h.h.next
	return h.h.tick(h.now)
}

func (h *hearts) request() beats {
	return h.h.receive(beat{kind: beatRequest, size: 1, number: 9, stamp: 77}, 1472, h.now)
}

func (h *hearts) reply(size int) beats {
	return h.h.receive(beat{kind: beatReply, size: uint16(size), stamp: h.now.Sub(h.h.clock)}, 60, h.now)
}

// bring makes the heart up with a size.
func (h *hearts) bring(size int) (o beats) {
	h.h.begin(h.now)
	h.request()
	for range 10 {
		if o = h.due(); o.up {
			break
		}
		if o = h.reply(size); o.up {
			break
		}
	}
	return o
}

func TestHeartTransitions(t *testing.T) {
	tests := []struct {
		name  string
		run   func(h *hearts) beats
		phase phase
		limit int
		asks  []int
		up    bool
		down  string
	}{
		{
			name:  "idle: tick",
			run:   func(h *hearts) beats { return h.h.tick(h.now.Add(time.Hour)) },
			limit: 548,
		},
		{
			name:  "idle: request is not answered, there are no keys",
			run:   func(h *hearts) beats { return h.request() },
			limit: 548,
		},
		{
			name: "proving: all sizes",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				return h.due()
			},
			phase: phaseProving, limit: 548, asks: testSizes,
		},
		{
			name: "proving: two replies are not enough",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				h.request()
				h.due()
				h.reply(1472)
				return h.reply(1472)
			},
			phase: phaseProving, limit: 548,
		},
		{
			name: "proving: replies are not enough when the peer was not heard",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				h.due()
				for range 5 {
					h.reply(1472)
				}
				return beats{}
			},
			phase: phaseProving, limit: 548,
		},
		{
			name:  "proving: third reply of the largest size",
			run:   func(h *hearts) beats { return h.bring(1472) },
			phase: phaseUp, limit: 1472, up: true,
		},
		{
			name:  "proving: a smaller size, later",
			run:   func(h *hearts) beats { return h.bring(1372) },
			phase: phaseUp, limit: 1372, up: true,
		},
		{
			name: "proving: replies of no size that was asked, from the future, or too old",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				h.request()
				h.due()
				for range 5 {
					h.reply(1000)
					h.h.receive(beat{kind: beatReply, size: 1472, stamp: h.now.Sub(h.h.clock) + 1}, 60, h.now)
					h.h.receive(beat{kind: beatReply, size: 1472, stamp: -1}, 60, h.now)
					h.h.receive(beat{kind: beatReply, size: 1472, stamp: h.now.Sub(h.h.clock)}, 60, h.now.Add(time.Minute))
				}
				return beats{}
			},
			phase: phaseProving, limit: 548,
		},
		{
			name: "up: one request of the size in use",
			run: func(h *hearts) beats {
				h.bring(1472)
				return h.due()
			},
			phase: phaseUp, limit: 1472, asks: []int{1472},
		},
		{
			name: "up: after a miss the smaller sizes too",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				return h.due()
			},
			phase: phaseUp, limit: 1472, asks: testSizes,
		},
		{
			name: "up: after a reply only the size in use",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.reply(1472)
				return h.due()
			},
			phase: phaseUp, limit: 1472, asks: []int{1472},
		},
		{
			name: "up: three misses",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.due()
				return h.due()
			},
			phase: phaseProving, limit: 1472, asks: testSizes, down: "timeout",
		},
		{
			name: "up: three misses, but a smaller size passes",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.reply(548)
				h.reply(1372)
				h.due()
				return h.due()
			},
			phase: phaseUp, limit: 1372, asks: []int{1372},
		},
		{
			name: "up: larger sizes are tried after a while",
			run: func(h *hearts) beats {
				h.bring(1372)
				for end := h.now.Add(raiseFirst); h.h.next.Before(end); {
					h.due()
					h.reply(1372)
				}
				return h.due()
			},
			phase: phaseUp, limit: 1372, asks: []int{1472, 1432, 1430, 1372},
		},
		{
			name: "up: a larger size passes again",
			run: func(h *hearts) beats {
				h.bring(1372)
				for end := h.now.Add(raiseFirst + 4*beatInterval); h.h.next.Before(end); {
					for _, s := range asked(h.due()) {
						if s <= 1430 {
							h.reply(s)
						}
					}
				}
				return beats{}
			},
			phase: phaseUp, limit: 1430,
		},
		{
			name: "up: the way out got narrower",
			run: func(h *hearts) beats {
				h.bring(1472)
				return h.h.egress(1400, false, h.now)
			},
			phase: phaseUp, limit: 1372,
		},
		{
			name: "up: stop",
			run: func(h *hearts) beats {
				h.bring(1472)
				return h.h.stop("no keys")
			},
			phase: phaseIdle, limit: 1472, down: "no keys",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHearts()
			o := tt.run(h)
			if h.h.phase != tt.phase || h.h.limit != tt.limit {
				t.Errorf("%v with %d, want %v with %d", h.h.phase, h.h.limit, tt.phase, tt.limit)
			}
			asks := asked(o)
			slices.SortFunc(asks, func(a, b int) int { return b - a })
			if diff := cmp.Diff(tt.asks, asks); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if o.up != tt.up || o.down != tt.down {
				t.Errorf("up %v, down %q, want %v, %q", o.up, o.down, tt.up, tt.down)
			}
		})
	}
}

func TestHeartReply(t *testing.T) {
	h := newHearts()
	h.h.begin(h.now)
	o := h.request()
	want := []beat{{kind: beatReply, size: 1472, number: 9, stamp: 77}}
	if len(o.send) == 0 || o.send[0] != want[0] {
		t.Errorf("answer %+v, want %+v first", o.send, want)
	}
}

func TestHeartRTT(t *testing.T) {
	h := newHearts()
	h.bring(1472)
	h.h.rtt = 0
	for range 50 {
		h.due()
		stamp := h.now.Sub(h.h.clock)
		h.h.receive(beat{kind: beatReply, size: 1472, stamp: stamp}, 60, h.now.Add(40*time.Millisecond))
	}
	if got := h.h.rtt; got < 39*time.Millisecond || got > 40*time.Millisecond {
		t.Errorf("rtt %v, want 40ms", got)
	}
}

func TestProbeSizes(t *testing.T) {
	tests := []struct {
		egress int
		ipv6   bool
		need   int
		want   []int
	}{
		{1500, false, testNeed, testSizes},
		{0, false, testNeed, testSizes},
		{9001, false, testNeed, []int{8973, 8972, 1472, 1432, 1430, 1372, 1252, 548}},
		{65536, false, testNeed, []int{9188, 8972, 1472, 1432, 1430, 1372, 1252, 548}},
		{1500, true, testNeed, []int{1452, 1430, 1412, 1352, 1232}},
		{1280, true, testNeed, []int{1232}},
		{1000, true, testNeed, []int{1232}}, // an IPv6 link must not be smaller
		{300, false, testNeed, []int{548}},
		{1460, false, 8000, []int{1432, 1372, 1252, 548}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d ipv6=%v need=%d", tt.egress, tt.ipv6, tt.need), func(t *testing.T) {
			if diff := cmp.Diff(tt.want, probeSizes(tt.egress, tt.ipv6, tt.need)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
