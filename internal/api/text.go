package api

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"weave/internal/peer"
)

// labelWidth right-aligns the labels of the services block.
const labelWidth = 15

// block writes "label: value" lines and remembers the first error.
type block struct {
	b bytes.Buffer
}

func (b *block) line(label, format string, args ...any) {
	fmt.Fprintf(&b.b, "%*s: %s\n", labelWidth, label, oneLine(fmt.Sprintf(format, args...)))
}

func (b *block) flush(w io.Writer) error {
	_, err := w.Write(b.b.Bytes())
	return err
}

// WriteStatus writes the services block: labels right-aligned to a colon, a blank
// line between services.
func WriteStatus(w io.Writer, s Status) error {
	var b block
	r := s.Router
	b.line("Version", "%s", s.Version)
	for _, w := range s.Warnings {
		b.line("Warning", "%s", w)
	}
	b.b.WriteByte('\n')
	b.line("Service", "router")
	b.line("Protocol", "weave %s", r.Protocol)
	b.line("Name", "%s", nameAndNick(r.Name, r.NickName))
	b.line("Encryption", "%s", onOff(r.Encryption))
	b.line("PeerDiscovery", "%s", onOff(r.PeerDiscovery))
	b.line("Targets", "%d", r.Targets)
	b.line("Connections", "%s", countStates(r.Connections))
	b.line("Peers", "%s", countPeers(r.Peers))
	subnets := "none"
	if len(r.TrustedSubnets) > 0 {
		subnets = join(r.TrustedSubnets, ", ")
	}
	b.line("TrustedSubnets", "%s", subnets)
	b.line("MTU", "%d", r.MTU)
	b.line("FastDP", "%s", withReason(r.FastDP, r.FastDPReason))
	if r.Encryption {
		b.line("EncryptedPath", "%s", withReason(cmp.Or(r.EncryptedPath, "sleeve"), r.EncryptedWhy))
	}
	if r.MinPath != "" && r.MinPath != "sleeve" {
		b.line("MinPath", "%s", r.MinPath)
	}
	for _, c := range r.Conflicts {
		b.line("Conflict", "%s", c)
	}
	b.writeServices(s)
	return b.flush(w)
}

// withReason is a kernel path's backend, and in brackets why there is none.
func withReason(backend, reason string) string {
	if reason == "" || reason == "off" {
		return backend
	}
	return backend + " (" + reason + ")"
}

func onOff(on bool) string {
	if on {
		return "enabled"
	}
	return "disabled"
}

func countStates(n map[State]int) string {
	total, parts := 0, []string(nil)
	for _, s := range States {
		if n[s] > 0 {
			total += n[s]
			parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}

func countPeers(p PeerCounts) string {
	var parts []string
	if p.Established > 0 {
		parts = append(parts, fmt.Sprintf("%d established", p.Established))
	}
	if p.Pending > 0 {
		parts = append(parts, fmt.Sprintf("%d pending", p.Pending))
	}
	if parts == nil {
		return fmt.Sprint(p.Known)
	}
	return fmt.Sprintf("%d (with %s connections)", p.Known, strings.Join(parts, ", "))
}

// Widths of the columns of connections; longer contents widen the column for all
// lines.
const (
	addressWidth = 21 // 255.255.255.255:65535
	stateWidth   = 11 // established
	sealedWidth  = 11 // unencrypted
	pathWidth    = 6  // sleeve, fastdp
)

// WriteConnections writes one line for each connection:
//
//	-> 192.0.2.7:6783        established sleeve encrypted   02:aa:bb:cc:dd:ee(h2) mtu=1418 rtt=0.2ms cipher=aes-256-gcm
//	-> 192.0.2.9:6783        failed      connection refused, retry: 2026-01-02T15:04:05Z
//
// "encrypted" or "unencrypted" is there when a password is set; why=REASON when it is
// not by the operator's wish that no kernel path is used; "refused" when the connection
// carries nothing because of --min-path.
func WriteConnections(w io.Writer, cs Connections) error {
	width := addressWidth
	for _, c := range cs.Connections {
		width = max(width, len(oneLine(c.Address)))
	}
	var b bytes.Buffer
	for _, c := range cs.Connections {
		arrow := "<-"
		if c.Outbound {
			arrow = "->"
		}
		line := fmt.Sprintf("%s %-*s %-*s %s", arrow, width, oneLine(c.Address), stateWidth, c.State, connectionInfo(c, cs.Encryption))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// connectionInfo is what follows the state: the peer and path, or the error.
func connectionInfo(c Connection, showSealed bool) string {
	if c.Peer.IsZero() || c.State == StateFailed || c.State == StateRetrying {
		return troubleInfo(c)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s ", pathWidth, orDash(c.Path))
	if showSealed {
		fmt.Fprintf(&b, "%-*s ", sealedWidth, sealedWord(c))
	}
	b.WriteString(oneLine(nameAndNick(c.Peer, c.NickName)))
	if c.MTU > 0 {
		fmt.Fprintf(&b, " mtu=%d", c.MTU)
	}
	if c.RTT > 0 {
		fmt.Fprintf(&b, " rtt=%s", millis(c.RTT))
	}
	if c.Cipher != "" {
		fmt.Fprintf(&b, " cipher=%s", c.Cipher)
	}
	if c.Why != "" && !asWished[c.Why] {
		fmt.Fprintf(&b, " why=%s", c.Why)
	}
	if c.Refused {
		b.WriteString(" refused")
	}
	if c.Error != "" {
		fmt.Fprintf(&b, " error=%q", oneLine(c.Error))
	}
	return b.String()
}

// asWished are reasons for not using a kernel path that the operator gave by flags:
// lists leave them out.
var asWished = map[string]bool{"off": true, "encryption": true, "cipher": true}

func sealedWord(c Connection) string {
	switch {
	case c.Encrypted:
		return "encrypted"
	case c.State == StateEstablished:
		return "unencrypted"
	}
	return "-"
}

func troubleInfo(c Connection) string {
	text := oneLine(c.Error)
	if c.Attempts > 1 {
		text += fmt.Sprintf(" (%d times, last %s)", c.Attempts, c.Last.Format(time.RFC3339))
	}
	if c.State != StateFailed || !c.Outbound { // of those who dial us the next attempt is theirs
		return text
	}
	retry := "never"
	if !c.Retry.IsZero() {
		retry = c.Retry.Format(time.RFC3339)
	}
	if text != "" {
		text += ", "
	}
	return text + "retry: " + retry
}

// millis prints d in milliseconds with the digits that matter.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 100:
		return fmt.Sprintf("%.0fms", ms)
	case ms >= 0.1:
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.2fms", ms)
}

// WritePeers writes each peer, and below it, indented, its connections.
func WritePeers(w io.Writer, ps Peers) error {
	var b bytes.Buffer
	for _, p := range ps.Peers {
		fmt.Fprintln(&b, oneLine(nameAndNick(p.Name, p.NickName)))
		for _, c := range p.Connections {
			arrow, state := "<-", StatePending
			if c.Outbound {
				arrow = "->"
			}
			if c.Established {
				state = StateEstablished
			}
			fmt.Fprintf(&b, "   %s %-*s %s %s\n", arrow, addressWidth, oneLine(c.Address), oneLine(nameAndNick(c.Name, c.NickName)), state)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteTargets writes one target a line.
func WriteTargets(w io.Writer, ts Targets) error {
	return writeLines(w, ts.Targets)
}

// WriteAttachments writes one interface a line: container, MAC, addresses.
func WriteAttachments(w io.Writer, as Attachments) error {
	var lines []string
	for _, a := range as.Attachments {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %s %s", a.Container, a.MAC, join(a.Addrs, " ")), " "))
	}
	return writeLines(w, lines)
}

func writeLines(w io.Writer, lines []string) error {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintln(&b, oneLine(l))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func nameAndNick(name peer.Name, nick string) string {
	return fmt.Sprintf("%s(%s)", name, nick)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func join[T fmt.Stringer](list []T, sep string) string {
	var parts []string
	for _, v := range list {
		parts = append(parts, v.String())
	}
	return strings.Join(parts, sep)
}
