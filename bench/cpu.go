package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of /proc; 100 on every architecture that
// Go runs on.
const ticksPerSecond = 100

// reading is the processor time used since boot, in seconds.
type reading struct {
	at      time.Time
	machine float64 // all processors, all but idle and stolen
	daemons float64
	rss     int64 // kB, of the biggest daemon
}

// meter reads processor time and memory again and again while a path is
// measured, so that a window can be chosen afterwards.
type meter struct {
	pids []int
	stop chan struct{}
	done chan struct{}

	mu       sync.Mutex
	readings []reading // guarded by mu; in order of time
}

const meterInterval = 50 * time.Millisecond

func startMeter(pids []int) *meter {
	m := &meter{pids: pids, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		tick := time.NewTicker(meterInterval)
		defer tick.Stop()
		for {
			r := readUsage(m.pids)
			m.mu.Lock()
			m.readings = append(m.readings, r)
			m.mu.Unlock()
			select {
			case <-tick.C:
			case <-m.stop:
				return
			}
		}
	}()
	return m
}

// close ends the reading; the windows stay available.
func (m *meter) close() {
	close(m.stop)
	<-m.done
}

// usage is the processors kept busy, 1.0 is one of them, in a window of time.
type usage struct{ machine, daemons float64 }

// between returns the usage from the first reading after from to the last before
// to; zero when there are not two.
func (m *meter) between(from, to time.Time) usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first, last *reading
	for i := range m.readings {
		r := &m.readings[i]
		if r.at.Before(from) || r.at.After(to) {
			continue
		}
		if first == nil {
			first = r
		}
		last = r
	}
	if first == last {
		return usage{}
	}
	seconds := last.at.Sub(first.at).Seconds()
	return usage{(last.machine - first.machine) / seconds, (last.daemons - first.daemons) / seconds}
}

// peakRSS returns the largest resident set that was seen, in MiB.
func (m *meter) peakRSS() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var peak int64
	for _, r := range m.readings {
		peak = max(peak, r.rss)
	}
	return float64(peak) / 1024
}

func readUsage(pids []int) reading {
	r := reading{at: time.Now()}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		r.machine, _ = parseMachineStat(b)
	}
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			seconds, _ := parseProcStat(b)
			r.daemons += seconds
		}
		r.rss = max(r.rss, statusKB(pid, "VmRSS"))
	}
	return r
}

// parseMachineStat sums the first line of /proc/stat, in seconds: user, nice,
// system, irq and softirq, that is all but idle, iowait and what the hypervisor
// gave to others.
func parseMachineStat(b []byte) (float64, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 8 || f[0] != "cpu" {
		return 0, fmt.Errorf("not a line of /proc/stat: %q", line)
	}
	var ticks uint64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading /proc/stat: %w", err)
		}
		ticks += n
	}
	return float64(ticks) / ticksPerSecond, nil
}

// parseProcStat returns the user and system time of /proc/PID/stat in seconds.
// The program's name, in parentheses, may contain anything.
func parseProcStat(b []byte) (float64, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, fmt.Errorf("not a process's stat: %q", b)
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3, the state
	if len(f) < 13 {
		return 0, fmt.Errorf("not a process's stat: %q", b)
	}
	user, err1 := strconv.ParseUint(f[11], 10, 64)
	system, err2 := strconv.ParseUint(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("not a process's stat: %q", b)
	}
	return float64(user+system) / ticksPerSecond, nil
}

// statusKB returns a size from /proc/PID/status, or 0.
func statusKB(pid int, key string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return parseStatusKB(b, key)
}

func parseStatusKB(b []byte, key string) int64 {
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, key+":")
		if !ok {
			continue
		}
		kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		return kb
	}
	return 0
}

// peakMiB returns the highest resident set of any of the processes since they
// started, which includes what they needed to start.
func peakMiB(pids []int) float64 {
	var peak int64
	for _, pid := range pids {
		peak = max(peak, statusKB(pid, "VmHWM"))
	}
	return float64(peak) / 1024
}

// backgroundLoad returns how many processors others keep busy: a figure from a
// machine that is not quiet should say so.
func backgroundLoad(ctx context.Context, d time.Duration) float64 {
	before := readUsage(nil)
	sleep(ctx, d)
	after := readUsage(nil)
	return (after.machine - before.machine) / after.at.Sub(before.at).Seconds()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
