package main

import (
	"context"

	"weave/internal/api"
)

// runDaemon is the daemon: it returns when ctx ends or Stop is asked for and all
// of it is gone. It calls cfg.Ready once, when it answers at the control socket.
func runDaemon(ctx context.Context, cfg LaunchConfig) error {
	return api.Errorf(api.CodeFailure, "this build has no daemon")
}

// CleanConfig says what a reset without a daemon has to remove.
type CleanConfig struct {
	Bridge string // the device whose ports and rules go with it
}

// cleanHost removes what a daemon leaves on the host: bridge, links, rules. No
// daemon is running. What is not there is no error.
func cleanHost(ctx context.Context, cfg CleanConfig) error { return nil }
