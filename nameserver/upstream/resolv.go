package upstream

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxServers  = 6
	maxConfSize = 64 << 10
	recheck     = time.Second // how often the file is looked at, at most
)

// parseConf returns the servers of a resolv.conf, in order, each once. Search lists and
// options are for stub resolvers and do not matter here: timeouts are ours, names are
// asked as they are.
func parseConf(b []byte) (servers []netip.Addr) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsMulticast() {
			continue
		}
		if a.IsUnspecified() { // as the C library does
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		if a = a.Unmap(); !slices.Contains(servers, a) && len(servers) < maxServers {
			servers = append(servers, a)
		}
	}
	return servers
}

// stamp tells versions of a file apart; a file replaced by rename has another inode.
type stamp struct {
	ino   uint64
	size  int64
	mtime unix.Timespec
}

// conf is the file and what was read from it.
type conf struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   stamp
	broken  bool
	servers []netip.Addr
}

// get returns the servers, read again if the file changed; changed says that it did.
// While the file cannot be read the last servers stay.
func (c *conf) get(now time.Time) (servers []netip.Addr, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.checked.IsZero() && now.Sub(c.checked) < recheck && !now.Before(c.checked) {
		return c.servers, false
	}
	c.checked = now
	b, st, err := c.read()
	switch {
	case err != nil:
		if !c.broken {
			c.log.Warn("cannot read the upstream DNS servers", "path", c.path, "err", err)
		}
		c.broken = true
		return c.servers, false
	case b == nil:
		return c.servers, false
	}
	c.broken = false
	c.stamp = st
	next := parseConf(b)
	if slices.Equal(next, c.servers) {
		return c.servers, false
	}
	c.servers = next
	c.log.Info("upstream DNS servers", "path", c.path, "servers", next)
	return next, true
}

// read returns nil bytes if the file is as it was.
func (c *conf) read() ([]byte, stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(c.path, &st); err != nil {
		return nil, stamp{}, &os.PathError{Op: "stat", Path: c.path, Err: err}
	}
	now := stamp{ino: st.Ino, size: st.Size, mtime: st.Mtim}
	if now == c.stamp && !c.broken {
		return nil, now, nil
	}
	f, err := os.Open(c.path)
	if err != nil {
		return nil, now, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfSize))
	if b == nil {
		b = []byte{}
	}
	return b, now, err
}
