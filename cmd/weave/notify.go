package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"weave/internal/api"
	"weave/internal/peer"
)

// manager is the service manager, told by sd_notify(3) how we are. Without one
// all methods do nothing.
type manager struct {
	socket   string        // "" for none; a leading @ is the abstract namespace
	interval time.Duration // of its watchdog; 0 for none
}

func newManager(lookup func(string) (string, bool)) manager {
	socket, _ := lookup("NOTIFY_SOCKET")
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return manager{}
	}
	m := manager{socket: socket}
	usec, _ := lookup("WATCHDOG_USEC")
	pid, forOne := lookup("WATCHDOG_PID")
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (!forOne || pid == strconv.Itoa(os.Getpid())) {
		m.interval = time.Duration(n) * time.Microsecond
	}
	return m
}

func (m manager) ready(name peer.Name) {
	m.send(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=%s", os.Getpid(), name))
}

func (m manager) stopping() { m.send("STOPPING=1") }

// watchdog pings at half the interval, each time after the daemon has answered at
// its own socket: a daemon that hangs is to be restarted.
func (m manager) watchdog(ctx context.Context, runDir string) {
	if m.interval == 0 {
		return
	}
	c := api.NewClient(runDir)
	defer c.Close()
	t := time.NewTicker(m.interval / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		once, cancel := context.WithTimeout(ctx, m.interval/4)
		if _, err := c.Status(once); err == nil {
			m.send("WATCHDOG=1")
		}
		cancel()
	}
}

// send is best effort: a manager that does not listen cannot be told.
func (m manager) send(state string) {
	if m.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write([]byte(state))
}
