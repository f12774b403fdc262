package main

import (
	"bytes"
	"context"
	"encoding/json"
	"text/template"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) reportCommand() *cobra.Command {
	var format string
	var asJSON bool // as it is anyway: here for scripts that give it to all
	cmd := &cobra.Command{
		Use:   "report [-f TEMPLATE]",
		Short: "Print all that the daemon knows, as JSON or through a template",
		Long: `Print all that the daemon knows, as JSON. With -f, print what a Go template makes of
it; the function "json" prints a part as JSON. Passwords and keys are not in it.`,
		Example: `  weave report
  weave report -f '{{.Router.Name}} {{.Version}}'
  weave report -f '{{json .Connections}}'`,
		Args: argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := parseTemplate(format)
			if asJSON && t != nil {
				return usage(cmd, "--json and --format: give one of them")
			}
			if err != nil {
				return usage(cmd, "%w", err)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				r, err := c.Report(ctx)
				if err != nil || t == nil {
					return a.printReport(r, err)
				}
				var b bytes.Buffer
				if err := t.Execute(&b, r); err != nil {
					return usage(cmd, "%w", err)
				}
				_, err = a.stdout.Write(append(bytes.TrimRight(b.Bytes(), "\n"), '\n'))
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Go template")
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) printReport(r api.Report, err error) error {
	if err != nil {
		return err
	}
	return a.printJSON(r)
}

// parseTemplate reads the argument of -f; nil if there is none.
func parseTemplate(text string) (*template.Template, error) {
	if text == "" {
		return nil, nil
	}
	return template.New("format").Option("missingkey=error").Funcs(template.FuncMap{"json": toJSON}).Parse(text)
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
