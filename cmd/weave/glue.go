package main

import (
	"context"

	"weave/internal/daemon"
)

// runDaemon is the daemon: it returns when ctx ends or Stop is asked for and all
// of it is gone. It calls cfg.Ready once, when it answers at the control socket.
func runDaemon(ctx context.Context, cfg LaunchConfig) error {
	c := daemon.Config{
		Version: cfg.Version, Name: cfg.Name, NickName: cfg.NickName,
		Host: cfg.Host, Port: cfg.Port, Peers: cfg.Peers, Resume: cfg.Resume, Trusted: cfg.TrustedSubnets,
		ConnLimit: cfg.ConnLimit, NoDiscovery: !cfg.Discovery,
		MTU: cfg.MTU, Cipher: cfg.Cipher, FastDP: cfg.FastDP, EncryptedPath: cfg.EncryptedPath, MinPath: cfg.MinPath, Bridge: cfg.Bridge,
		Addressing: cfg.Addressing, Naming: cfg.Naming,
		RunDir: cfg.RunDir, StateDir: cfg.StateDir, StatusAddr: cfg.StatusAddr,
		Log: cfg.Log, Ready: cfg.Ready,
	}
	if cfg.Password != "" {
		c.Password = []byte(cfg.Password)
	}
	return daemon.Run(ctx, c)
}

// CleanConfig says what a reset without a daemon has to remove.
type CleanConfig struct {
	Bridge string // the device whose ports and rules go with it
}

// cleanHost removes what a daemon leaves on the host: bridge, links, rules. No
// daemon is running. What is not there is no error.
func cleanHost(_ context.Context, cfg CleanConfig) error { return daemon.Undo(cfg.Bridge) }
