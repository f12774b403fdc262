package daemon

import (
	"maps"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weave/internal/api"
	"weave/internal/forward"
	"weave/mesh"
	"weave/odp"
	"weave/sleeve"
	"weave/tun"
)

// metrics collects everything at the time of a scrape from what the packages count
// anyway. Labels are bounded: reasons and states are constant words, a peer label
// exists for direct connections only.
type metrics struct {
	d         *daemon
	addresses *addressMetrics

	info, connections, terminations, refused    *prometheus.Desc
	rtt, linkUp, linkMTU                        *prometheus.Desc
	frames, bytes, drops, datagrams, keyEpoch   *prometheus.Desc
	switchFrames, switchBytes, switchDrops      *prometheus.Desc
	macs, writeErrors, socketDrops, tunnelDrops *prometheus.Desc
	path, pathChanges, belowMin, kernelPath     *prometheus.Desc
	refusedFrames, kernelReady                  *prometheus.Desc
}

func newMetrics(d *daemon) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weave_"+name, help, labels, nil)
	}
	return &metrics{
		d:             d,
		addresses:     newAddressMetrics(),
		info:          desc("build_info", "Version of the program; the value is 1.", "version"),
		connections:   desc("connections", "Connections and targets by state, path in use and encryption of the data.", "state", "type", "encryption"),
		terminations:  desc("connection_terminations_total", "Control connections that ended."),
		refused:       desc("connections_refused_total", "Inbound attempts that came to nothing, by reason.", "reason"),
		rtt:           desc("connection_rtt_seconds", "Smoothed round trip on the path in use.", "peer", "path"),
		linkUp:        desc("connection_up", "Whether the path is proven.", "peer", "path"),
		linkMTU:       desc("connection_mtu_bytes", "Largest inner IP packet that one datagram of the path carries.", "peer", "path"),
		frames:        desc("frames_total", "Superframes over a path.", "peer", "path", "direction"),
		bytes:         desc("bytes_total", "Bytes of frames over a path.", "peer", "path", "direction"),
		datagrams:     desc("datagrams_total", "Datagrams over a path.", "peer", "path", "direction"),
		keyEpoch:      desc("key_exchanges_total", "Key exchanges done on a link.", "peer", "path"),
		drops:         desc("link_drops_total", "Datagrams and frames dropped on a link, by reason.", "peer", "path", "reason"),
		switchFrames:  desc("switch_frames_total", "Superframes read from and written to the bridge.", "direction"),
		switchBytes:   desc("switch_bytes_total", "Bytes read from and written to the bridge.", "direction"),
		switchDrops:   desc("switch_drops_total", "Frames the switch dropped, by reason.", "reason"),
		macs:          desc("macs", "MAC addresses known."),
		writeErrors:   desc("switch_write_errors_total", "Frames the TAP device did not take."),
		socketDrops:   desc("drops_total", "Datagrams and frames that sleeve dropped, over all links past and present, by reason.", "reason"),
		path:          desc("connection_path", "The path in use of each connection; the value is 1. The reason says why it is not the kernel's.", "peer", "path", "encrypted", "reason"),
		pathChanges:   desc("path_changes_total", "Changes of the path that a connection uses, by the new path and the reason.", "path", "reason"),
		belowMin:      desc("connection_below_min_path", "Whether the path in use is worse than --min-path.", "peer"),
		kernelPath:    desc("kernel_path_events_total", "Packets of strangers dropped, and repairs, of the kernel path.", "event"),
		refusedFrames: desc("min_path_refused_frames_total", "Frames dropped because the connection's path is below --min-path.", "peer", "direction"),
		kernelReady:   desc("kernel_backend", "Whether a backend of a kernel path is in use on this host; the reason says why not.", "path", "backend", "reason"),
		tunnelDrops:   desc("tap_drops_total", "Frames dropped at the TAP device, by reason.", "reason"),
	}
}

// Describe sends nothing: the set of metrics depends on the peers.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads all counters once.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.info, 1, m.d.cfg.Version)
	st := m.d.router.Status()
	m.mesh(st, counter, gauge)
	for _, c := range st.Conns {
		m.links(c, counter, gauge)
		m.paths(c, gauge)
	}
	for ch, n := range known(m.d.paths.all(), usualChanges()) {
		counter(m.pathChanges, n, ch.to, ch.reason)
	}
	for event, n := range m.d.kernel.counters() {
		counter(m.kernelPath, n, event)
	}
	names := m.d.view.Load().Links
	for name, n := range m.d.gate.refused() {
		if names[name] != nil {
			counter(m.refusedFrames, n.in.Load(), name.String(), "in")
			counter(m.refusedFrames, n.out.Load(), name.String(), "out")
		}
	}
	for _, p := range m.d.kernel.all() {
		for _, b := range p.backends {
			ready := 0.0
			if b.reason == "" {
				ready = 1
			}
			gauge(m.kernelReady, ready, b.path, b.name, b.reason)
		}
	}
	sw := m.d.sw.Stats()
	counter(m.switchFrames, sw.FromBridge, "in")
	counter(m.switchFrames, sw.ToBridge, "out")
	counter(m.switchBytes, sw.FromBridgeBytes, "in")
	counter(m.switchBytes, sw.ToBridgeBytes, "out")
	counter(m.writeErrors, sw.WriteErrors)
	for reason, n := range known(sw.Drops, forward.DropReasons()) {
		counter(m.switchDrops, n, reason)
	}
	for reason, n := range known(m.d.overlayDrops(), sleeve.DropReasons()) {
		counter(m.socketDrops, n, reason)
	}
	for reason, n := range known(m.d.tapDrops(), tun.DropReasons()) {
		counter(m.tunnelDrops, n, reason)
	}
	gauge(m.macs, float64(len(m.d.macs())))
	m.addresses.collect(m.d, counter, gauge)
}

// known returns counts with those that have not happened yet, so that their first
// increase can be seen.
func known[K comparable](counts map[K]uint64, keys []K) map[K]uint64 {
	out := make(map[K]uint64, len(keys))
	for _, k := range keys {
		out[k] = 0
	}
	maps.Copy(out, counts)
	return out
}

func (m *metrics) mesh(st mesh.Status, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	type key struct{ state, path, encryption string }
	count := map[key]int{}
	for _, c := range m.d.connections(st) {
		k := key{string(c.State), c.Path, ""}
		if c.Encrypted {
			k.encryption = "yes"
		}
		count[k]++
	}
	for _, s := range api.States { // so that every state is there from the start
		if _, ok := count[key{string(s), "", ""}]; !ok {
			count[key{string(s), "", ""}] = 0
		}
	}
	for k, n := range count {
		gauge(m.connections, float64(n), k.state, k.path, k.encryption)
	}
	counter(m.terminations, st.Counters.Terminated)
	for reason, n := range known(st.Counters.InboundRefused, mesh.RefusalReasons()) {
		counter(m.refused, n, string(reason))
	}
}

func (m *metrics) links(c mesh.ConnStatus, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	if c.State != mesh.StateEstablished && c.State != mesh.StatePending {
		return
	}
	name := c.Peer.String()
	seen := map[string]bool{} // a connection has one of the two kernel paths at most
	for _, l := range c.Links {
		if l.Path == odp.SealedName {
			l.Path = odp.Name
		}
		if seen[l.Path] {
			continue
		}
		seen[l.Path] = true
		up := 0.0
		if l.Up {
			up = 1
		}
		gauge(m.linkUp, up, name, l.Path)
		gauge(m.rtt, l.RTT.Seconds(), name, l.Path)
		gauge(m.linkMTU, float64(l.MTU), name, l.Path)
		counter(m.keyEpoch, uint64(l.KeyEpoch), name, l.Path)
		counter(m.frames, l.Counters.RxFrames, name, l.Path, "in")
		counter(m.frames, l.Counters.TxFrames, name, l.Path, "out")
		counter(m.bytes, l.Counters.RxBytes, name, l.Path, "in")
		counter(m.bytes, l.Counters.TxBytes, name, l.Path, "out")
		counter(m.datagrams, l.Counters.RxDatagrams, name, l.Path, "in")
		counter(m.datagrams, l.Counters.TxDatagrams, name, l.Path, "out")
		for reason, n := range l.Counters.Drops {
			counter(m.drops, n, name, l.Path, reason)
		}
	}
}

// paths tells which path a connection uses.
func (m *metrics) paths(c mesh.ConnStatus, gauge func(*prometheus.Desc, float64, ...string)) {
	if c.State != mesh.StateEstablished {
		return
	}
	encrypted, below := "no", 0.0
	if c.Encrypted {
		encrypted = "yes"
	}
	if m.d.gate.min.below(c) {
		below = 1
	}
	gauge(m.path, 1, c.Peer.String(), c.Path, encrypted, m.d.kernel.whyNot(c))
	gauge(m.belowMin, below, c.Peer.String())
}

func (m *metrics) handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
