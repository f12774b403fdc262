package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

// versionInfo is `weave version --json`.
type versionInfo struct {
	Schema  string `json:"schema"`
	Version string `json:"version"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  weave version\n  weave version --json",
		Args:    argCount(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(versionInfo{api.Schema, version, runtime.Version(), runtime.GOARCH})
			}
			_, err := fmt.Fprintf(a.stdout, "weave %s\n", version)
			return err
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}
