package harness

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Metrics is a page of metrics.
type Metrics struct{ Text string }

// sampleLine is a sample in Prometheus's text format.
var sampleLine = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\.)*",?)*\})? [-+0-9.eEInfNa]+$`)

// ScrapeMetrics scrapes a daemon and checks the format of all lines.
func ScrapeMetrics(t testing.TB, m Member) Metrics {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			err = m.node().Do(func() error {
				c, err = net.DialTimeout(network, addr, time.Second)
				return err
			})
			return c, err
		},
	}}
	resp, err := client.Get("http://127.0.0.1:6782/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# HELP ") || strings.HasPrefix(line, "# TYPE ") {
			continue
		}
		series, _, _ := strings.Cut(line, "} ")
		if !sampleLine.MatchString(line) || seen[series] {
			t.Errorf("bad or repeated sample: %s", line)
		}
		seen[series] = true
	}
	return Metrics{Text: string(raw)}
}

// Sum adds the samples of a metric; the name may go on with labels, from the first
// on.
func (m Metrics) Sum(name string) (sum float64) {
	for line := range strings.Lines(m.Text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.Contains(name, "{") && rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		v, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
		sum += v
	}
	return sum
}
