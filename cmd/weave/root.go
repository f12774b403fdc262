package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weave/internal/api"
)

// Defaults of the flags that all verbs have.
const (
	defaultRunDir   = "/run/weave"
	defaultStateDir = "/var/lib/weave"
	defaultTimeout  = 15 * time.Second
)

// exitInterrupted is the exit status after SIGINT or SIGTERM, as shells have it.
const exitInterrupted = 130

type globalFlags struct {
	runDir   string
	stateDir string
	timeout  time.Duration
}

// run does one command and returns its exit status.
func (a *app) run(ctx context.Context, args []string) int {
	a.args = args
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.stderr, "weave: interrupted")
		return exitInterrupted
	}
	if !a.ran {
		err = api.Errorf(api.CodeUsage, "%w", err)
	}
	fmt.Fprintf(a.stderr, "weave: %s\n", strings.Join(strings.Fields(err.Error()), " "))
	return api.CodeOf(err).ExitCode()
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "weave",
		Short: "Join containers and hosts into one flat, encrypted network",
		Long: `Join containers and hosts on many machines into one flat, encrypted Ethernet
network. Run "weave launch" on every host, naming any other host.

Exit status: 0 done, 1 failure, 2 usage, 3 daemon not running, 4 degraded
(status --check), 5 conflict, 6 not found, 7 timed out, 8 wrong password (status
--check), 9 permission, 10 kernel lacks a feature.`,
		Example: `  host1# weave launch --password-file /etc/weave/password
  host2# weave launch --password-file /etc/weave/password host1
  host1# weave attach --name blue netns:blue
  host1# weave status connections`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.noVerb(cmd, args) },
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.accept() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(a.flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.flags.runDir, "run-dir", a.env("WEAVE_RUN_DIR", defaultRunDir), "directory of the control socket, pid and log (env WEAVE_RUN_DIR)")
	f.StringVar(&a.flags.stateDir, "state-dir", a.env("WEAVE_STATE_DIR", defaultStateDir), "directory of what survives a restart (env WEAVE_STATE_DIR)")
	f.DurationVar(&a.flags.timeout, "timeout", defaultTimeout, "give up after this time")
	root.AddCommand(a.launchCommand(), a.daemonCommand(), a.stopCommand(), a.statusCommand(), a.connectCommand(), a.forgetCommand(),
		a.attachCommand(), a.detachCommand(), a.exposeCommand(), a.hideCommand(), a.psCommand(), a.primeCommand(), a.rmpeerCommand(),
		a.dnsAddCommand(), a.dnsRemoveCommand(), a.dnsLookupCommand(), a.dnsArgsCommand(), a.topologyCommand(), a.whyCommand(), a.resetCommand(), a.reportCommand(), a.versionCommand())
	a.describeBuiltins(root)
	return root
}

// describeBuiltins gives cobra's own verbs the examples that ours have.
func (a *app) describeBuiltins(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  weave help launch"
		case "completion":
			c.Example = "  weave completion bash > /etc/bash_completion.d/weave"
			for _, shell := range c.Commands() {
				shell.Example = "  weave completion " + shell.Name()
			}
		}
	}
}

// accept runs before a verb, when its arguments have passed cobra's checks.
func (a *app) accept() (err error) {
	if a.flags.timeout <= 0 {
		return fmt.Errorf("--timeout %s: want more than nothing", a.flags.timeout)
	}
	for _, dir := range []*string{&a.flags.runDir, &a.flags.stateDir} {
		if *dir == "" {
			return errors.New("--run-dir and --state-dir: want a directory")
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	a.ran = true
	return nil
}

// noVerb runs when the first argument is no verb.
func (a *app) noVerb(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		root.SetOut(a.stderr)
		root.Help()
		return api.Errorf(api.CodeUsage, "no command: see weave --help")
	}
	return a.unknownVerb(root, args[0])
}

func (a *app) unknownVerb(root *cobra.Command, verb string) error {
	hint := "see weave --help"
	if near := root.SuggestionsFor(verb); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return api.Errorf(api.CodeUsage, "unknown command %q: %s", verb, hint)
}

// flagError explains a flag that cannot be read. A flag of a mistyped verb is the
// verb's fault.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if !cmd.HasParent() && len(a.args) > 0 && !strings.HasPrefix(a.args[0], "-") {
		return a.unknownVerb(cmd, a.args[0])
	}
	return api.Errorf(api.CodeUsage, "%w: see %s --help", err, cmd.CommandPath())
}

// usage makes an error of arguments that ends with where to read more.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return api.Errorf(api.CodeUsage, "%w: see %s --help", fmt.Errorf(format, args...), cmd.CommandPath())
}

// argCount makes an Args function that accepts from..to arguments; to < 0 is no
// limit. want names them.
func argCount(from, to int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < from || to >= 0 && len(args) > to {
			return usage(cmd, "got %d arguments, want %s", len(args), want)
		}
		return nil
	}
}

func (a *app) env(name, fallback string) string {
	if v, ok := a.lookupEnv(name); ok && v != "" {
		return v
	}
	return fallback
}

// ask calls fn with a client of the daemon, within --timeout.
func (a *app) ask(ctx context.Context, fn func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	c := api.NewClient(a.flags.runDir)
	defer c.Close()
	return fn(ctx, c)
}

// printJSON writes v for machines.
func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(b, '\n'))
	return err
}

func addJSON(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "json", false, "print JSON, schema "+api.Schema)
}
