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
//	proving   tick due                                proving   a request of each usual size
//	proving   request                                 proving   reply; the peer was heard
//	proving   reply, the size not proven yet          proving   another request of that size
//	proving   tick due, no sign of the peer for long  proving   a request of each usual size, more rarely
//	proving   third reply of the largest, peer heard  up        up
//	proving   third reply of a smaller size           proving   up after four more beats
//	up        just come up, larger sizes exist        up        search: one step more, and each larger usual size
//	up        tick due                                up        a request of the size in use
//	up        tick due, last request not answered     up        and one of each smaller usual size, at once
//	up        tick due, three not answered, a
//	          smaller size was twice                  up        size reduced; search
//	up        tick due, three not answered, a
//	          smaller size was once                   up        asks on
//	up        tick due, nothing answered for long     proving   down: timeout
//	up        search's round over, something passed   up        size raised; a request of each size between
//	up        search's round over, nothing passed     up        the same again, three times in all; then the search is over
//	up        raising is due                          up        search
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
	h.now = h.h.due()
	return h.h.tick(h.now)
}

func (h *hearts) request() beats {
	return h.h.receive(beat{kind: beatRequest, size: 1, number: 9, stamp: 77}, 1472, h.now)
}

func (h *hearts) reply(size int) beats {
	return h.h.receive(beat{kind: beatReply, size: uint16(size), stamp: h.now.Sub(h.h.clock)}, 60, h.now)
}

// pass lets a search's wait go by n times, and answers the requests of the size in
// use meanwhile.
func (h *hearts) pass(n int) (o beats) {
	for range n {
		for end := h.h.searchEnd; ; {
			o = h.due()
			if h.h.misses > 0 {
				h.h.receive(beat{kind: beatReply, size: uint16(h.h.limit), stamp: h.h.beat.Sub(h.h.clock)}, 60, h.now)
			}
			if !h.now.Before(end) {
				break
			}
		}
	}
	return o
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
			phase: phaseProving, limit: 548, asks: []int{1472},
		},
		{
			name: "proving: the next request follows a reply at once, until the size is proven",
			run: func(h *hearts) (all beats) {
				h.h.begin(h.now)
				h.due()
				for range 5 {
					all.send = append(all.send, h.reply(1472).send...)
				}
				return all
			},
			phase: phaseProving, limit: 548, asks: []int{1472, 1472},
		},
		{
			name: "proving: unheard, requests become rarer",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				for range fastBeats {
					h.due()
				}
				last := h.now
				o := h.due()
				if took := h.now.Sub(last); took != beatInterval {
					panic(took)
				}
				return o
			},
			phase: phaseProving, limit: 548, asks: testSizes,
		},
		{
			name: "proving: heard, they become frequent again",
			run: func(h *hearts) beats {
				h.h.begin(h.now)
				for range fastBeats {
					h.due()
				}
				h.request()
				h.due()
				last := h.now
				o := h.due()
				if took := h.now.Sub(last); took != beatFast {
					panic(took)
				}
				return o
			},
			phase: phaseProving, limit: 548, asks: testSizes,
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
			name: "up: not answered in time: the same and the smaller sizes, at once",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				sent := h.now
				o := h.due()
				if took := h.now.Sub(sent); took != minWait {
					panic(took)
				}
				return o
			},
			phase: phaseUp, limit: 1472, asks: testSizes,
		},
		{
			name: "up: after a reply only the size in use, in time",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				sent := h.now
				h.reply(1472)
				o := h.due()
				if took := h.now.Sub(sent); took != beatInterval {
					panic(took)
				}
				return o
			},
			phase: phaseUp, limit: 1472, asks: []int{1472},
		},
		{
			name: "up: a late reply ends the doubt",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.due()
				h.reply(1472)
				h.reply(548)
				h.reply(548)
				return h.due()
			},
			phase: phaseUp, limit: 1472, asks: []int{1472},
		},
		{
			name: "up: no reply of any size for long",
			run: func(h *hearts) beats {
				h.bring(1472)
				up := h.now
				for {
					if o := h.due(); o.down != "" {
						if took := h.now.Sub(up); took < maxSilence || took > 2*time.Second {
							panic(took)
						}
						return o
					}
				}
			},
			phase: phaseProving, limit: 1472, asks: testSizes, down: "timeout",
		},
		{
			name: "up: doubt, and a smaller size passes once",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.reply(548)
				h.reply(1372)
				h.due()
				return h.due()
			},
			phase: phaseUp, limit: 1472, asks: testSizes,
		},
		{
			name: "up: doubt, and a smaller size passes twice",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.due()
				h.due()
				h.reply(548)
				h.reply(1372)
				h.due()
				h.reply(548)
				h.reply(1372)
				return h.due()
			},
			phase: phaseUp, limit: 1372, asks: []int{1472, 1432, 1430, 1380, 1372},
		},
		{
			name: "up: search after coming up",
			run: func(h *hearts) beats {
				h.bring(1372)
				return h.h.tick(h.now)
			},
			phase: phaseUp, limit: 1372, asks: []int{1472, 1432, 1430, 1380},
		},
		{
			name: "up: a size passes, the search goes on above it",
			run: func(h *hearts) beats {
				h.bring(1372)
				h.h.tick(h.now)
				h.reply(1380)
				h.reply(1430)
				return h.pass(2)
			},
			phase: phaseUp, limit: 1430, asks: []int{1472, 1432},
		},
		{
			name: "up: the search narrows the gap",
			run: func(h *hearts) beats {
				h.bring(548)
				h.h.tick(h.now)
				h.reply(556)
				o := h.pass(3)
				return o
			},
			phase: phaseUp, limit: 556, asks: []int{1165, 1078, 991, 904, 817, 730, 643},
		},
		{
			name: "up: the largest passes, the round is over at once",
			run: func(h *hearts) beats {
				h.bring(548)
				h.h.tick(h.now)
				return h.reply(1472)
			},
			phase: phaseUp, limit: 1472,
		},
		{
			name: "up: a reply from before the search does not count",
			run: func(h *hearts) beats {
				h.bring(1372)
				h.now = h.now.Add(time.Millisecond)
				h.h.tick(h.now)
				h.h.receive(beat{kind: beatReply, size: 1472, stamp: h.now.Sub(h.h.clock) - 1}, 60, h.now)
				return h.pass(1)
			},
			phase: phaseUp, limit: 1372, asks: []int{1472, 1432, 1430, 1380},
		},
		{
			name: "up: nothing larger passes, the search is over",
			run: func(h *hearts) beats {
				h.bring(1372)
				h.h.tick(h.now)
				h.pass(3)
				return h.due()
			},
			phase: phaseUp, limit: 1372, asks: []int{1372},
		},
		{
			name: "up: larger sizes are tried again after a while",
			run: func(h *hearts) beats {
				h.bring(1372)
				h.h.tick(h.now)
				h.pass(3)
				over := h.now
				for h.h.raiseAt.After(h.h.next) {
					h.due()
					h.reply(1372)
				}
				o := h.due()
				if took := h.now.Sub(over); took != raiseFirst {
					panic(took)
				}
				return o
			},
			phase: phaseUp, limit: 1372, asks: []int{1472, 1432, 1430, 1380},
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
			name: "up: the way out got wider",
			run: func(h *hearts) beats {
				h.bring(1472)
				h.h.egress(9000, false, h.now)
				return h.h.tick(h.now)
			},
			phase: phaseUp, limit: 1472, asks: []int{8972, 1480},
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
