package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The names of what is measured, as they stand in the JSON results. Those of UDP
// start with "udp64_" or "udp1400_".
const (
	tcp1Fwd, tcp1Rev = "tcp1_fwd", "tcp1_rev" // Gbit/s; forward is c1 to c2
	tcp4Fwd, tcp4Rev = "tcp4_fwd", "tcp4_rev"
	cpuPerGB         = "cpu_s_per_gb" // whole machine, both ends and the load itself
	daemonPerGB      = "daemon_cpu_s_per_gb"
	fullPPS          = "full_pps"                       // delivered per second when as much as possible is offered
	fullOffer        = "full_offer_pps"                 // what was offered then
	fullLoss         = "full_loss"                      // percent of that which was lost
	cleanPPS         = "clean_pps"                      // most delivered per second with at most 1 % loss
	idleP50, idleP99 = "ping_idle_p50", "ping_idle_p99" // µs
	loadP50, loadP99 = "ping_load_p50", "ping_load_p99" // µs
	rss, rssPeak     = "rss_mib", "rss_peak_mib"        // bigger daemon: under load; since its start
)

var udpSizes = []int{64, 1400}

// measure does everything that opt asks for on one path.
func measure(ctx context.Context, opt options, b *bed, e *endpoints, rec *recorder) error {
	m := startMeter(e.daemons)
	defer m.close()
	steps := map[string]func() error{
		"tcp":  func() error { return measureTCP(ctx, opt, b, e, m, rec) },
		"udp":  func() error { return measureUDP(ctx, opt, b, e, rec) },
		"ping": func() error { return measurePing(ctx, opt, b, e, rec) },
	}
	rec.put("mtu", float64(e.mtu))
	for _, name := range opt.tests {
		if err := steps[name](); err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
	}
	if len(e.daemons) > 0 {
		rec.put(rss, m.peakRSS())
		rec.put(rssPeak, peakMiB(e.daemons))
	}
	if e.check == nil {
		return nil
	}
	if err := e.check(ctx); err != nil {
		rec.forget()
		return fmt.Errorf("measured something else: %w", err)
	}
	return nil
}

// measureTCP takes the throughput in both directions; of sealed user-space paths also
// with the other congestion controls: a sender that paces itself leaves the
// processors idle now and then, which shifts the ratio between two such paths.
func measureTCP(ctx context.Context, opt options, b *bed, e *endpoints, m *meter, rec *recorder) error {
	for _, t := range []struct {
		metric  string
		streams int
		reverse bool
	}{{tcp1Fwd, 1, false}, {tcp1Rev, 1, true}, {tcp4Fwd, 4, false}, {tcp4Rev, 4, true}} {
		run := transfer{streams: t.streams, reverse: t.reverse, time: opt.time, omit: opt.omit, congestion: opt.tcp[0]}
		began := time.Now()
		gbps, err := run.do(ctx, b, e)
		if err != nil {
			return err
		}
		rec.put(t.metric, gbps)
		if t.metric == tcp1Fwd {
			// Steady state only: a quarter second in from both ends.
			const edge = 250 * time.Millisecond
			u := m.between(began.Add(opt.omit+edge), began.Add(opt.omit+opt.time-edge))
			rec.put(cpuPerGB, u.machine/(gbps/8))
			if len(e.daemons) > 0 {
				rec.put(daemonPerGB, u.daemons/(gbps/8))
			}
		}
	}
	if !e.sealed {
		return nil
	}
	for _, congestion := range opt.tcp[1:] {
		run := transfer{streams: 1, time: opt.time, omit: opt.omit, congestion: congestion}
		gbps, err := run.do(ctx, b, e)
		if err != nil {
			return err
		}
		rec.put(tcp1Under(congestion), gbps)
	}
	return nil
}

// tcp1Under names tcp1Fwd measured with another congestion control.
func tcp1Under(congestion string) string { return tcp1Fwd + "_" + congestion }

// transfer is one run of iperf3 over TCP.
type transfer struct {
	streams    int
	reverse    bool
	time, omit time.Duration
	congestion string // of the sender
}

// do returns what arrived, in Gbit/s.
func (t transfer) do(ctx context.Context, b *bed, e *endpoints) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, t.omit+t.time+15*time.Second)
	defer cancel()
	server, err := startServer(ctx, e)
	if err != nil {
		return 0, err
	}
	defer server.stop()
	args := []string{"iperf3", "-c", e.addr.String(), "-J",
		"-t", seconds(t.time), "-P", strconv.Itoa(t.streams), "-C", t.congestion, "--connect-timeout", "5000"}
	if t.omit > 0 {
		args = append(args, "-O", seconds(t.omit))
	}
	if t.reverse {
		args = append(args, "-R")
	}
	out, err := output(ctx, "", inNS(e.client, args...)...)
	if gbps, parseErr := parseIperf(out, t.congestion); err == nil || parseErr != nil {
		return gbps, parseErr // says more than the exit status
	}
	return 0, err
}

// seconds rounds up: iperf3 takes whole ones.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// startServer starts an iperf3 server for one client and waits until it listens.
func startServer(ctx context.Context, e *endpoints) (*proc, error) {
	p, err := start(nil, inNS(e.server, "iperf3", "-s", "-1", "--forceflush")...)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, 5*time.Second, func() error {
		if err := p.failed(); err != nil {
			return fmt.Errorf("%w: %w", errGiveUp, err)
		}
		if !strings.Contains(p.log.String(), "listening") {
			return fmt.Errorf("iperf3 does not listen")
		}
		return nil
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// parseIperf reads iperf3's JSON: what the receiver counted, in Gbit/s. Its sender
// must have used the given congestion control.
func parseIperf(b []byte, congestion string) (float64, error) {
	var r struct {
		Error string
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Congestion string `json:"sender_tcp_congestion"`
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return 0, fmt.Errorf("reading iperf3's output %.200q: %w", b, err)
	}
	if r.Error != "" {
		return 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	if got := r.End.Congestion; got != "" && got != congestion {
		return 0, fmt.Errorf("iperf3 sent with congestion control %s, not %s", got, congestion)
	}
	if r.End.Received.BitsPerSecond <= 0 {
		return 0, fmt.Errorf("iperf3 reports no traffic")
	}
	return r.End.Received.BitsPerSecond / 1e9, nil
}

// measureUDP offers packets at rising rates, then as fast as one sender can.
func measureUDP(ctx context.Context, opt options, b *bed, e *endpoints, rec *recorder) error {
	for _, size := range udpSizes {
		prefix := fmt.Sprintf("udp%d_", size)
		payload := size
		if size > 1000 {
			// The large size is that of the IP packet, and never more than the
			// path takes whole: fragments would halve the rate of some paths.
			payload = min(size, e.mtu) - 28
		}
		clean := 0.0
		for _, rate := range append(slices.Clone(opt.udpSteps), 0) {
			d := opt.udpTime
			if rate > 0 {
				d /= 2
			}
			f, err := flood(ctx, b, e, payload, rate, d)
			if err != nil {
				return err
			}
			if f.loss() <= 1 {
				clean = max(clean, f.pps())
			}
			if rate > 0 {
				rec.put(fmt.Sprintf("%sat_%dk", prefix, rate/1000), f.pps())
				continue
			}
			rec.put(prefix+fullOffer, float64(f.sent.Sent)/f.sent.Seconds)
			rec.put(prefix+fullPPS, f.pps())
			rec.put(prefix+fullLoss, f.loss())
		}
		rec.put(prefix+cleanPPS, clean)
	}
	return nil
}

// flooded is the outcome of one flood, from both ends.
type flooded struct {
	sent flooderReport
	got  sinkReport
}

// pps is the rate of arrival. It does not count the time in which nothing came,
// so the queues that fill at the start and drain at the end do no harm.
func (f flooded) pps() float64 {
	if f.got.Received < 2 || f.got.Seconds <= 0 {
		return 0
	}
	return float64(f.got.Received-1) / f.got.Seconds
}

// loss is in percent.
func (f flooded) loss() float64 {
	if f.sent.Sent == 0 {
		return 100
	}
	return max(0, 100*(1-float64(f.got.Received)/float64(f.sent.Sent)))
}

// flood runs a sender and a receiver, rate 0 is without limit.
func flood(ctx context.Context, b *bed, e *endpoints, payload, rate int, d time.Duration) (f flooded, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+10*time.Second)
	defer cancel() // the end of the sink, if it has not ended
	finish, err := startSink(ctx, b, e)
	if err != nil {
		return f, fmt.Errorf("receiving packets: %w", err)
	}
	out, err := output(ctx, "", inNS(e.client, b.tools.self, helperFlood,
		e.addr.String(), strconv.Itoa(payload), strconv.Itoa(rate), d.String())...)
	if err == nil {
		err = json.Unmarshal(out, &f.sent)
	}
	if err != nil {
		cancel()
		finish()
		return f, fmt.Errorf("sending packets: %w", err)
	}
	f.got, err = finish()
	return f, err
}

// startSink starts the receiver of a flood and returns when it receives. finish
// lets it drain its queue and returns what it counted.
func startSink(ctx context.Context, b *bed, e *endpoints) (finish func() (sinkReport, error), err error) {
	args := inNS(e.server, b.tools.self, helperSink)
	sink := exec.CommandContext(ctx, args[0], args[1:]...)
	sink.SysProcAttr = procAttr()
	var errs tail
	sink.Stderr = &errs
	stdin, err := sink.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := sink.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := sink.Start(); err != nil {
		return nil, err
	}
	ready := make([]byte, len(sinkReady))
	if _, err := io.ReadFull(stdout, ready); err != nil {
		sink.Process.Kill()
		sink.Wait()
		return nil, fmt.Errorf("%w: %s", err, &errs)
	}
	return func() (r sinkReport, err error) {
		stdin.Close() // tells it to come to an end
		out, readErr := io.ReadAll(stdout)
		if err := sink.Wait(); err != nil {
			return r, fmt.Errorf("receiving packets: %w: %s", err, &errs)
		}
		if readErr != nil {
			return r, readErr
		}
		return r, json.Unmarshal(out, &r)
	}, nil
}

// measurePing takes the round trip times of an idle path, then beside one TCP
// stream in the same direction.
func measurePing(ctx context.Context, opt options, b *bed, e *endpoints, rec *recorder) error {
	idle, err := ping(ctx, b, e, opt.pings)
	if err != nil {
		return err
	}
	rec.put(idleP50, percentile(idle, 50))
	rec.put(idleP99, percentile(idle, 99))

	load := transfer{streams: 1, congestion: opt.tcp[0], time: time.Duration(opt.pings)*pingInterval + 2*time.Second}
	failed := make(chan error, 1)
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	go func() {
		_, err := load.do(loadCtx, b, e)
		failed <- err
	}()
	sleep(ctx, time.Second)
	loaded, err := ping(ctx, b, e, opt.pings)
	if loadErr := <-failed; err == nil && loadErr != nil {
		err = fmt.Errorf("the load: %w", loadErr)
	}
	if err != nil {
		return err
	}
	rec.put(loadP50, percentile(loaded, 50))
	rec.put(loadP99, percentile(loaded, 99))
	return nil
}

// ping returns round trip times in microseconds. Lost packets are left out; it is
// an error when a tenth is lost.
func ping(ctx context.Context, b *bed, e *endpoints, n int) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n)*pingInterval+20*time.Second)
	defer cancel()
	out, err := output(ctx, "", inNS(e.client, b.tools.self, helperPing, e.addr.String(), strconv.Itoa(n))...)
	if err != nil {
		return nil, err
	}
	var r pingReport
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, err
	}
	if len(r.Micros) < n-n/10 {
		return nil, fmt.Errorf("ping lost %d of %d packets", n-len(r.Micros), n)
	}
	return r.Micros, nil
}
