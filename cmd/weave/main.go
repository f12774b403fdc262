// Weave joins containers and hosts into one flat Ethernet network.
//
// One binary is both ends: the command line, which asks, and the daemon, which it
// starts by running itself again ([weave launch]). Each verb has a file; a verb
// parses its arguments, asks the daemon through internal/api, and prints. What a
// verb needs from the world (streams, environment, the two functions in glue.go)
// is in [app], so tests run the shipped code.
//
// # Output
//
// Data goes to stdout, talk to stderr. An error is one line, "weave: what
// happened: what to do", and an exit status of internal/api's codes.
//
// # The password
//
// It never stays in an argument list or an environment: launch hands it to the
// daemon through a pipe, together with all other settings (spawn.go).
package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	code := newApp().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is what the verbs need from the world.
type app struct {
	stdin     io.Reader
	stdout    io.Writer
	stderr    io.Writer
	lookupEnv func(string) (string, bool)
	runDaemon func(context.Context, LaunchConfig) error
	cleanHost func(context.Context, CleanConfig) error
	self      func() (string, error) // the file to run as daemon

	args  []string // as typed
	ran   bool     // a verb was chosen and its arguments were acceptable
	flags globalFlags
}

func newApp() *app {
	return &app{
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		lookupEnv: os.LookupEnv,
		runDaemon: runDaemon,
		cleanHost: cleanHost,
		self:      os.Executable,
	}
}
