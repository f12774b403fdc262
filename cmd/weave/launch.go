package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) launchCommand() *cobra.Command {
	var l launchFlags
	cmd := &cobra.Command{
		Use:   "launch [flags] [PEER...]",
		Short: "Start the daemon and connect to peers",
		Long: `Start the daemon in the background, wait until it is ready, and print its peer name.
PEER is HOST or HOST:PORT of any other member; the rest is found from there.

With a password all links are encrypted, and only who knows it can join. The
password is taken from --password-file, else the systemd credential "password",
else WEAVE_PASSWORD_FILE, else WEAVE_PASSWORD, else --password.`,
		Example: `  weave launch --password-file /etc/weave/password host1 host2
  pass show weave | weave launch --password-file - host1
  weave launch --foreground --status-addr= 192.0.2.7
  weave launch --name ::1 --trusted-subnets 10.0.0.0/8 host2:7000`,
		RunE: func(cmd *cobra.Command, peers []string) error {
			l.peers = peers
			return a.launch(cmd, &l)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	l.register(cmd)
	return cmd
}

func (a *app) launch(cmd *cobra.Command, l *launchFlags) error {
	if err := l.fromEnv(cmd, a.lookupEnv); err != nil {
		return usage(cmd, "%w", err)
	}
	cfg, err := l.config(a.flags)
	if err != nil {
		return usage(cmd, "%w", err)
	}
	if cfg.Password, err = a.readPassword(l); err != nil {
		return err
	}
	a.warnWeak(cfg.Password)
	if err := prepareRunDir(cfg.RunDir); err != nil {
		return err
	}
	if pid, running := stillRunning(cmd.Context(), cfg.RunDir); running {
		return alreadyRunning(cfg.RunDir, pid)
	}
	switch {
	case !l.foreground:
		return a.launchBackground(cmd.Context(), cfg)
	case l.passwordGiven || l.passwordInEnv:
		return a.execDaemon(cfg) // returns only on failure
	}
	return a.serve(cmd.Context(), cfg, foreground{a.stdout})
}

func (a *app) warnWeak(password Secret) {
	if password == "" {
		return
	}
	if bits := passwordBits(string(password)); bits < weakBits {
		fmt.Fprintf(a.stderr, "weave: warning: the password is weak (about %.0f bits, want %d): use a longer one, for instance from openssl rand -base64 12\n", bits, weakBits)
	}
}

// dyingTime is how long a daemon that answers nothing may take to be gone.
const dyingTime = 3 * time.Second

// stillRunning is daemonAlive for one who wants the place: the kernel takes a moment
// to undo a daemon that was just killed, which holds its lock until then and does not
// answer any more.
func stillRunning(ctx context.Context, runDir string) (pid int, running bool) {
	pid, running = daemonAlive(runDir)
	if !running {
		return pid, false
	}
	ctx, cancel := context.WithTimeout(ctx, dyingTime)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		c := api.NewClient(runDir)
		defer c.Close()
		_, err := c.Status(ctx)
		answered <- err
	}()
	gone := make(chan error, 1)
	go func() { gone <- waitGone(ctx, runDir) }()
	select {
	case err := <-answered:
		if err == nil {
			return pid, true
		}
	case err := <-gone:
		return pid, err != nil
	}
	return pid, <-gone != nil
}

func alreadyRunning(runDir string, pid int) error {
	who := ""
	if pid > 0 {
		who = fmt.Sprintf(" (pid %d)", pid)
	}
	return api.Errorf(api.CodeConflict, "already running at %s%s: use weave connect to add peers, or weave stop first", runDir, who)
}

func (a *app) launchBackground(ctx context.Context, cfg LaunchConfig) error {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	name, err := a.spawn(ctx, cfg)
	if err != nil {
		return err
	}
	a.warnStart(ctx, cfg.RunDir)
	_, err = fmt.Fprintln(a.stdout, name)
	return err
}

// warnStart tells what the daemon found wrong when it started. That it runs is known
// already, so an error is none of the launch's.
func (a *app) warnStart(ctx context.Context, runDir string) {
	c := api.NewClient(runDir)
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(a.stderr, "weave: warning: %s\n", w)
	}
}
