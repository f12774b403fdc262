package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/daemon"
	"weave/internal/peer"
)

// TestMain runs the tests, or, when the test binary is started with a verb of
// weave's, the daemon with settings that no flag of the real one reaches.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "launch" || os.Args[1] == "status") {
		if err := verb(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(api.CodeOf(err).ExitCode())
		}
		return
	}
	os.Exit(m.Run())
}

// quickKeys is the test binary in the role of weave, with keys that live for a
// second. It knows launch and status only.
func quickKeys(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func verb(name string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	cfg := daemon.Config{Version: "test", FastDP: "off", Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), RekeyAfter: time.Second}
	var pw string
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.Bool("foreground", true, "")
	f.StringVar(&cfg.RunDir, "run-dir", os.Getenv("WEAVE_RUN_DIR"), "")
	f.StringVar(&cfg.StateDir, "state-dir", os.Getenv("WEAVE_STATE_DIR"), "")
	f.StringVar(&cfg.NickName, "nickname", "", "")
	f.StringVar(&pw, "password-file", "", "")
	f.Func("name", "", func(s string) (err error) {
		cfg.Name, err = peer.ParseName(s)
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	cfg.Peers = f.Args()
	if name == "status" {
		c := api.NewClient(cfg.RunDir)
		defer c.Close()
		_, err := c.Status(ctx)
		return err
	}
	text, err := os.ReadFile(pw)
	if err != nil {
		return err
	}
	cfg.Password = []byte(strings.TrimSpace(string(text)))
	return daemon.Run(ctx, cfg)
}
